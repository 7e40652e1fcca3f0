"""What a run will need, before it needs it: memory and time, measured on tensors without numbers.

A script describes its run in one `Workload`; --dry-run prints its forecast, --micro-batch-size auto is resolved by it.
"""

from training.forecast.micro_batch import resolve_micro_batch
from training.forecast.tables import print_forecast
from training.forecast.workload import Workload, workload_of

__all__ = ["Workload", "print_forecast", "resolve_micro_batch", "workload_of"]
