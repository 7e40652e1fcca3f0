"""From a user's file to token ids.

sources.py finds rows and base, on the disk or the hub; batches.py, pairs.py and corpus.py make tokens of them, plan an
epoch and pack batches; examples.py holds all that a run of fine-tuning reads.
"""
