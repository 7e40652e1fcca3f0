"""Measures what training loses while another program keeps some cores busy: ours, and transformers with PEFT.

    python benchmarks/busy.py
    python benchmarks/busy.py --task ift --method full --rounds 1

Every measurement is a process of its own: step_time.py and peft_time.py, with all threads and with one, each alone on
the machine and beside loops that do nothing else. Run it on a machine that is otherwise idle.
"""

import multiprocessing
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from _results import measured
from training.flags.cli import at_least, run

SIDES = {"ours": ("step_time.py", {}), "ours, one thread": ("step_time.py", {"OMP_NUM_THREADS": "1"})}
SIDES |= {"transformers and PEFT": ("peft_time.py", {})}
SIDES |= {"transformers and PEFT, one thread": ("peft_time.py", {"OMP_NUM_THREADS": "1"})}


@dataclass(frozen=True)
class Args:
    task: Literal["cls", "ift"] = "cls"
    """as in step_time.py"""
    method: Literal["lora", "full"] = "lora"
    """as in step_time.py"""
    model: str = "gpt2-nano"
    """a size of GPT-2"""
    steps: int = 8
    """steps that are timed"""
    cores: int = 1
    """cores that are kept busy"""
    rounds: int = 3
    """measurements of each, in turn; the table has their medians"""

    def problems(self) -> list[str]:
        return at_least(self, 1, "steps", "cores", "rounds")


def spin() -> None:
    while True:
        pass


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """Keeps so many cores busy inside."""
    loops = [multiprocessing.Process(target=spin, daemon=True) for _ in range(cores)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def tokens_per_second(args: Args, side: str) -> float:
    script, env = SIDES[side]
    words = [f"benchmarks/{script}", "--task", args.task, "--method", args.method, "--model", args.model]
    return float(measured([*words, "--steps", str(args.steps), "--device", "cpu"], **env)["tokens_per_second"])


def main(args: Args) -> None:
    found = defaultdict(list)
    for _ in range(args.rounds):
        for side in SIDES:
            for cores in (0, args.cores):
                with busy(cores):
                    found[side, cores].append(tokens_per_second(args, side))
    speed = {key: statistics.median(values) for key, values in found.items()}
    print(f"| tokens/s, {args.model}, {args.task}, {args.method} | idle | {args.cores} cores busy | share of idle |")
    print("|---|---|---|---|")
    for side in SIDES:
        idle, beside = speed[side, 0], speed[side, args.cores]
        print(f"| {side} | {idle:,.0f} | {beside:,.0f} | {beside / idle:.0%} |")


if __name__ == "__main__":
    run(main, Args, __doc__)
