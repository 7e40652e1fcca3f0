"""Forecasts the memory of a run, on tensors without numbers, and its time, from work that is timed.

A script describes its run in one `Workload`; --dry-run prints its forecast, and --micro-batch-size auto uses it.
"""

from training.forecast.micro_batch import resolve_micro_batch
from training.forecast.tables import print_forecast
from training.forecast.workload import Workload, workload_of

__all__ = ["Workload", "print_forecast", "resolve_micro_batch", "workload_of"]
