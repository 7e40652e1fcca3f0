"""Runs rows in children of one process that has imported what is heavy, so that no row spends its time on starting.

    printf 'FOLDER\\tscripts/finetune_cls.py --dataset spamassassin --output-dir FOLDER\\n' | python reproduce/warm.py

A line of the input is a run: its folder and its command. The output of a run goes to FOLDER.log. The first failure, or
Ctrl-C, stops all others; every run then goes on with --resume. Imports nothing of the project.
"""

import argparse
import importlib
import os
import runpy
import shlex
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple, NoReturn

HEAVY: tuple[str, ...] = (
    "torch",
    "accelerate",
    "transformers",
    "datasets",
    "evaluate",
    "sklearn.metrics",
    "scipy.stats",
)
HEAVY += ("tiktoken", "safetensors.torch", "torch.utils.tensorboard", "torch._dynamo", "matplotlib.pyplot", "tyro")
SHOWN = 2000  # characters of the log of a failed run


class Run(NamedTuple):
    folder: Path
    command: str

    @property
    def log(self) -> Path:
        return self.folder.with_name(self.folder.name + ".log")


def read_runs(lines: list[str]) -> list[Run]:
    """Raises ValueError for a line that is not a folder, a tab and a command."""
    runs = []
    for line in lines:
        folder, tab, command = line.rstrip("\n").partition("\t")
        if not (folder and tab and command):
            raise ValueError(f"not a folder, a tab and a command: {line!r}")
        runs.append(Run(Path(folder), command))
    return runs


def become(run: Run) -> NoReturn:
    """What the child does: the command, as `python` would run it, with its output in the log."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setpgid(0, 0)  # so that Ctrl-C in a terminal reaches it once, through its parent
    run.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 0
    sys.argv = shlex.split(run.command)
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
    """Asks every child to stop, as Ctrl-C would, and waits until it has."""
    for child in children:
        os.kill(child, signal.SIGINT)
    while children:
        children.pop(os.wait()[0], None)


def run_all(runs: list[Run], jobs: int) -> int:
    """At most `jobs` at a time, in the order given. 0, or 1 after the first failure."""
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
                tail = run.log.read_text(errors="replace")[-SHOWN:] if run.log.exists() else ""
                print(f"{tail}\nfailed: python {run.command} (log: {run.log})", file=sys.stderr, flush=True)
                return 1
            done += 1
            seconds = time.monotonic() - started[child]
            print(f"{time.strftime('%T')} {done} of {len(runs)}, {seconds:.0f} s: {run.folder}", flush=True)
    finally:
        stop(children)
    return 0


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a core each")
    parser.add_argument("--imports", nargs="*", default=HEAVY, help="what the process imports before the first run")
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: must be at least 1")
    try:
        runs = read_runs(sys.stdin.readlines())
    except ValueError as error:
        parser.error(str(error))
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: threads do not survive a fork
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    for name in args.imports:
        importlib.import_module(name)
    try:
        return run_all(runs, args.jobs)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr, flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())
