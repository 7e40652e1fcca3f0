"""GPT-2 from scratch: the model, its tokenizers, its weights in Hugging Face's format, and generation.

model.py comes first. sources.py and config.py need no torch, so that a wrong --model is refused at once.
Nothing in here knows adapters, data sets or training.
"""
