"""Chooses the number of a CPU's threads, where the user has not."""

import math
import os
from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")  # of a container: version 2, then version 1
ASKED = "OMP_NUM_THREADS"


def quota(root: Path = CGROUP) -> float:
    """Returns how many CPUs' time a container may use; infinity without a limit."""
    try:
        if (root / "cpu.max").exists():
            most, period = (root / "cpu.max").read_text().split()
        else:
            most, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(most) / int(period) if int(most) > 0 else math.inf
    except (OSError, ValueError):  # no such files, or "max"
        return math.inf


def asked_for() -> bool:
    """Returns whether the user has set OMP_NUM_THREADS. `accelerate launch` sets it to 1 by itself, for a GPU's sake,
    unless a configuration says that there is none; the environment that it was started with tells."""
    if not os.environ.get(ASKED) or "ACCELERATE_MIXED_PRECISION" not in os.environ:  # which the launcher sets too
        return bool(os.environ.get(ASKED))
    try:
        parent = psutil.Process().parent()
        return parent is None or bool(parent.environ().get(ASKED))
    except (psutil.Error, OSError):
        return True


def choose_threads() -> None:
    """Uses as many threads as there are cores for each process, but no more than a container's quota lets run at a
    time, since it would stop them in turn."""
    if asked_for():
        return
    process = psutil.Process()
    usable = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1
    cores = min(usable, psutil.cpu_count(logical=False) or usable, quota())
    torch.set_num_threads(max(1, math.ceil(cores) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
