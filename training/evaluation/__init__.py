"""What a model makes of examples.

inference.py computes predictions and answers, metrics.py defines every metric, forgetting.py and preference.py measure
what was lost and what was learnt; applied.py and prediction.py apply a finished run to new rows.
"""
