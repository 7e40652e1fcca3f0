"""The model that trains.

methods.py builds the base and applies a method to it, start.py starts from an earlier adapter, saved.py keeps the best
weights and reads them back, merging.py merges adapters, frozen_activations.py is the frozen-activation cache.
"""
