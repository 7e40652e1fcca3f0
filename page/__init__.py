"""The web page to try models on.

models.py asks the models, html.py and layout.py say how it looks, server.py serves it.
"""
