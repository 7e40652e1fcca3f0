"""What the scripts share, in rooms.

Each room imports those before it alone: storage, flags, data, step, model, evaluation, run, forecast. loop.py gives a
training script all that it uses of them in one import.
"""
