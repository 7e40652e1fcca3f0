"""Forks runs from one process that has imported the heavy libraries, so that none of them has to.

A process that calls `run_all` sets OMP_NUM_THREADS before it imports anything, because threads do not survive a fork.
"""

import importlib
import os
import runpy
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

HEAVY = ["torch", "accelerate", "transformers", "datasets", "evaluate", "sklearn.metrics", "scipy.stats", "tiktoken"]
HEAVY += ["safetensors.torch", "torch.utils.tensorboard", "torch._dynamo", "matplotlib.pyplot", "tyro"]


class Run(NamedTuple):
    folder: Path
    command: str  # python scripts/finetune_cls.py ...

    @property
    def log(self) -> Path:
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def words(self) -> list[str]:
        return [*shlex.split(self.command)[1:], "--resume"]

    def tell_failure(self) -> None:
        """Prints the end of the log, and the command as the last line."""
        tail = self.log.read_text(errors="replace").splitlines()[-20:] if self.log.exists() else []
        print("\n".join([*tail, f"failed: {self.command} (log: {self.log})"]), file=sys.stderr, flush=True)


def become(run: Run) -> NoReturn:
    """Runs the command in a forked child as `python` would, with its output in the log."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setpgid(0, 0)  # so that Ctrl-C in a terminal reaches it only once, through its parent
    run.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 0
    sys.argv = run.words
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # the parent's own code must not go on in a child
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def stop(children: dict[int, Run]) -> None:
    """Asks every child to stop, as Ctrl-C would, and waits until all have."""
    for child in children:
        os.kill(child, signal.SIGINT)
    while children:
        children.pop(os.wait()[0], None)


def run_all(runs: Sequence[Run], jobs: int, imports: Sequence[str] = HEAVY) -> int:
    """Makes the runs in order, at most `jobs` at a time. Returns 0, or 1 after a failure, which stops the others."""
    for name in imports:
        importlib.import_module(name)
    waiting, done = list(reversed(runs)), 0
    children: dict[int, Run] = {}
    started: dict[int, float] = {}
    try:
        while waiting or children:
            while waiting and len(children) < jobs:
                run = waiting.pop()
                child = os.fork()
                if child == 0:
                    become(run)
                children[child], started[child] = run, time.monotonic()
            child, status = os.wait()
            run = children.pop(child)
            if status != 0:
                run.tell_failure()
                return 1
            done += 1
            seconds = time.monotonic() - started[child]
            print(f"{time.strftime('%T')} {done} of {len(runs)}, {seconds:.0f} s: {run.folder}", flush=True)
    finally:
        stop(children)
    return 0
