"""How long many runs take on 1 to 512 workers, simulated with the durations of recorded runs.

    python benchmarks/scaling.py

A table of `reproduce/` is one list: whoever is free takes the next run. Where runs decide which others are made, they
come in rounds, and all of a round end before the next. Prints, as Markdown, the hours until all are done, the speed-up
over one worker, the share of the workers' time that is idle, and the critical path, which more workers do not shorten.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from _flags import each_at_least
from _results import ROOT
from evidence.runs import read_packed
from training.flags.cli import at_least, run

RECORDED = ROOT / "reproduce" / "results" / "nano.jsonl.gz"


@dataclass(frozen=True)
class Args:
    workers: tuple[int, ...] = (1, 2, 8, 64, 512)
    """numbers of workers"""
    runs: int = 960
    """runs of a list, drawn from the recorded ones"""
    rounds: tuple[int, ...] = (12, 48, 192)
    """runs of a round"""
    draws: int = 200
    """lists that are drawn; the means are shown"""

    def problems(self) -> list[str]:
        return each_at_least(self, 1, "workers", "rounds") + at_least(self, 1, "runs", "draws")


class Finish(NamedTuple):
    """When the last run ends, and the sum of the longest run of each round."""

    end: float
    critical: float


def duration(results: dict[str, dict[str, float]]) -> float:
    """Returns the seconds of training and of the evaluations during it; nothing else of a run is recorded."""
    return results["seconds"]["train"] + results["seconds"].get("eval", 0.0)


def finish(rounds: Sequence[Sequence[float]], workers: int) -> Finish:
    """Gives each run to the worker that is free first, in order, and waits for all at the end of a round."""
    end = 0.0
    for durations in rounds:
        free = [end] * workers
        for seconds in durations:
            heapq.heapreplace(free, free[0] + seconds)
        end = max(free)
    return Finish(end, sum(max(durations) for durations in rounds))


def in_rounds(durations: Sequence[float], size: int) -> list[Sequence[float]]:
    return [durations[i : i + size] for i in range(0, len(durations), size)]


def main(args: Args) -> None:
    runs = [found for found in read_packed(RECORDED).values() if found.script.startswith("finetune")]
    recorded = [duration(found.results) for found in runs]
    shortest, median, longest = np.quantile(recorded, [0, 0.5, 1])
    print(f"{len(recorded)} recorded runs of {shortest:.0f} to {longest:.0f} s, median {median:.0f} s\n")
    print("| workers | schedule | hours | speed-up | idle, % | critical path, hours |\n|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    lists = [rng.choice(recorded, args.runs).tolist() for _ in range(args.draws)]
    schedules = {"one list": [[durations] for durations in lists]}
    schedules["one list, longest first"] = [[sorted(durations, reverse=True)] for durations in lists]
    for size in args.rounds:
        schedules[f"rounds of {size}"] = [in_rounds(durations, size) for durations in lists]
    for workers in args.workers:
        for name, drawn in schedules.items():
            found = [finish(rounds, workers) for rounds in drawn]
            ends, work = np.array([each.end for each in found]), np.array([sum(durations) for durations in lists])
            critical = np.mean([each.critical for each in found]) / 3600
            speed_up, idle = (work / ends).mean(), 100 * (1 - work / ends / workers).mean()
            numbers = f"{ends.mean() / 3600:.2f} | {speed_up:.1f} | {abs(idle):.0f} | {critical:.2f}"
            print(f"| {workers} | {name} | {numbers} |")


if __name__ == "__main__":
    run(main, Args, __doc__)
