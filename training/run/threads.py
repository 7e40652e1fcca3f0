"""Chooses the number of a CPU's threads, where the user has not."""

import os
from itertools import zip_longest

import psutil
import torch

from training.run.cores import usable_cores

ASKED, LAUNCHER_ASKED = "OMP_NUM_THREADS", "--num_cpu_threads_per_process"


def set_by_launcher(name: str) -> bool:
    """Returns whether `accelerate launch` has set an environment variable by itself; the environment that it was
    started with tells."""
    if not os.environ.get(name) or "ACCELERATE_MIXED_PRECISION" not in os.environ:  # which the launcher sets too
        return False
    try:
        parent = psutil.Process().parent()
        return parent is not None and not parent.environ().get(name)
    except (psutil.Error, OSError):
        return False


def asked_for() -> bool:
    """Returns whether the user has set OMP_NUM_THREADS. `accelerate launch` sets it to 1, for a GPU's sake, unless a
    configuration says that there is none."""
    return bool(os.environ.get(ASKED)) and not set_by_launcher(ASKED)


def asked_of_launcher() -> int | None:
    """Returns the threads of a process that the flags of `accelerate launch` name. With several processes it does not
    pass them on."""
    try:
        parent = psutil.Process().parent() if "ACCELERATE_MIXED_PRECISION" in os.environ else None
        words = parent.cmdline() if parent else []
    except (psutil.Error, OSError):
        return None
    for word, behind in zip_longest(words, words[1:], fillvalue=""):
        name, sign, value = word.partition("=")
        number = value if sign else behind
        if f"--{name.removeprefix('--').replace('-', '_')}" == LAUNCHER_ASKED and number.isdecimal():
            return max(1, int(number))
    return None


def choose_threads() -> None:
    """Uses the threads that the user asks for, else as many as there are cores for each process."""
    if threads := asked_of_launcher():
        torch.set_num_threads(threads)
        return
    if asked_for():
        return
    usable = usable_cores()
    cores = min(usable, psutil.cpu_count(logical=False) or usable)
    torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
