"""The code that the scripts share, in rooms.

Each room imports only those before it: storage, flags, data, step, model, evaluation, run, forecast. A training
script imports all that it uses of them from loop.py.
"""
