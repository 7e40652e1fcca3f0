"""Chooses the number of a CPU's threads, where the user has not."""

import os

import psutil
import torch

from training.run.cores import usable_cores

ASKED = "OMP_NUM_THREADS"


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
    """Uses as many threads as there are cores for each process."""
    if asked_for():
        return
    usable = usable_cores()
    cores = min(usable, psutil.cpu_count(logical=False) or usable)
    torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
