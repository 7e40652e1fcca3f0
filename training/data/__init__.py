"""From a user's file to token ids.

sources.py finds the rows and the base, on the disk or the hub; batches.py, pairs.py and corpus.py encode them, plan an
epoch and pack batches; examples.py holds all that a fine-tuning run reads.
"""
