"""Prints the tables of --dry-run: the memory and the time of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from training.flags.sharding import launched_sharded
from training.forecast.duration import age, seconds_of
from training.forecast.memory import MIB, memory_of
from training.forecast.micro_batch import REMEDY, available, largest_forecast, usual_size
from training.forecast.sharded import card_bytes
from training.forecast.workload import Workload
from training.run.record import Intervals


def _print_rows(rows: Mapping[str, Any]) -> None:
    for name, value in rows.items():
        print(f"  {name:<24}{value if isinstance(value, str) else f'{value:,.1f}':>12}")


def _print_memory(workload: Workload) -> int | None:
    """Prints the peak, its parts and what fits; returns the run's micro-batch, or None if the run does not fit."""
    most = available(workload.accelerator.device)
    fitting = largest_forecast(workload, most)
    asked = workload.update.micro_batch_size
    size = max(fitting, 1) if asked == "auto" else asked or usual_size(workload)
    found = memory_of(workload, size)
    print(f"memory of a run with micro-batches of {size}, on {workload.accelerator.device}, in MiB")
    _print_rows({name: count / MIB for name, count in found.parts.items()})
    _print_rows({"peak": found.peak / MIB, "available": most / MIB})
    _print_rows({"largest micro-batch": str(fitting) if fitting else f"none; {REMEDY}"})
    if launched_sharded() or found.peak > most:
        shared = card_bytes(workload, size)
        print(
            "memory of each card where several share the weights (accelerate_configs/fsdp2.yaml), without gaps, in MiB"
        )
        _print_rows({f"{cards} card{'s' * (cards > 1)}": count / MIB for cards, count in shared.items()})
    return size if found.peak <= most else None


def print_forecast(workload: Workload, due: Intervals, watched: Sequence[Any]) -> None:
    """Prints both tables on the main process; `watched` is evaluated while training, as often as `due` says."""
    if not workload.accelerator.is_main_process:
        return
    so_far, size = age(), _print_memory(workload)
    if size is None:
        print("time of a run: not measured, since it does not fit into memory")
        return
    fitting = replace(workload, update=replace(workload.update, micro_batch_size=size))
    seconds = {name: s for name, s in seconds_of(fitting, due, watched, so_far).items() if s}
    device = fitting.accelerator.device
    print(f"time of a run on {device}, in seconds, from a few updates and evaluations timed just now")
    _print_rows(seconds | {"in all": sum(seconds.values())})
