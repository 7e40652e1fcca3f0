"""The evaluation of a model on examples.

inference.py computes predictions and answers, metrics.py defines the metrics of text and classes, forgetting.py and
preference.py measure what was lost and what was learnt; applied.py and prediction.py apply a finished run to new rows.
"""
