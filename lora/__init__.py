"""Adapters for frozen layers: each takes an `nn.Linear`, or a convolution, and gives a module to put in its place.

adapter.py has the contract, variants/ one file for each variant, peft_format.py the files that PEFT reads and writes.
Nothing in here knows GPT-2.
"""
