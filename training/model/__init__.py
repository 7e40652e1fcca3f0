"""The model that trains.

methods.py builds the base and puts a method into it, start.py begins at an earlier adapter, saved.py keeps the best
weights and reads them back, merging.py merges adapters, frozen_activations.py computes frozen blocks once.
"""
