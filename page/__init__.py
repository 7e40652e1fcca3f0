"""The web page to try models on: what it asks of them, how it looks, how it is served."""
