"""How long many runs take on 1 to 512 workers, simulated with the durations of recorded runs.

    python benchmarks/scaling.py

A table of `reproduce/` is one list: whoever is free takes the next run. Where runs decide which others are made, they
come in rounds, and all of a round end before the next. Prints, as Markdown, the hours until all are done, the speed-up
over one worker, the share of the workers' time that is idle, and the critical path, which more workers do not shorten.

A second table has the races of scripts/study.py, on grids simulated as racing.py does: each run takes a minute, up to a
tenth more or less. Either a worker waits for the end of a round, or it begins early what will probably be wanted.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import racing
from _flags import each_at_least
from _results import ROOT
from evidence.racing import Trial
from evidence.runs import read_packed
from studies.making import Clock, Maker, Making
from studies.phases import run_race
from training.flags.cli import at_least, run
from workers.job import Done, Job

RECORDED = ROOT / "reproduce" / "results" / "nano.jsonl.gz"
GRID = ROOT / "benchmarks" / "grids" / "mail.npz"


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


@dataclass
class Replayed:
    """What a race asks of the recipe of a study. The runs are those of a grid, and exist once they have been made."""

    grid: racing.Grid
    made: dict[Path, Trial] = field(default_factory=dict)
    updates: int = 1

    def place(self, trial: Trial) -> Path:
        return Path(trial.arm, str(trial.rate), str(trial.seed))

    def is_trained(self, trial: Trial) -> bool:
        return self.place(trial) in self.made

    def scores(self, trial: Trial) -> np.ndarray | None:
        return racing.scores_in(self.grid, trial)

    def job(self, trial: Trial, score: str) -> Job:
        return Job(self.place(trial), (score,))

    def named(self, cell: Any) -> str:
        return str(cell)

    def flags(self, trial: Trial) -> list[str]:
        return []

    def command(self, words: Sequence[str]) -> str:
        return ""

    def drop_weights(self, trials: Iterable[Trial]) -> None:
        pass


class Replaying(Maker):
    """Makes runs on a clock of its own; `early` says whether some are begun early."""

    def __init__(self, count: int, early: bool, minutes: Iterator[float]) -> None:
        self.count, self.is_early, self.minutes = count, early, minutes
        self.now, self.started = 0.0, 0
        super().__init__(self, Clock(None, count), lambda _: None)  # type: ignore[arg-type]

    def run(self, jobs: Iterable[Job | None]) -> Iterator[Done]:
        coming, running = iter(jobs), list[tuple[float, Job]]()
        while True:
            while len(running) < self.count and (job := next(coming, None)):
                heapq.heappush(running, (self.now + next(self.minutes), job))
                self.started += 1
            if not running:
                return
            self.now, job = heapq.heappop(running)
            yield Done(job, 0, 0.0)

    def tell(self, making: Making, done: Done) -> None:
        making.recipe.made[done.job.folder] = making.trial  # type: ignore[attr-defined]

    def _likely(self) -> Making | None:
        return super()._likely() if self.is_early else None


def raced(grid: racing.Grid, workers: int, early: bool, seed: int) -> tuple[float, int, int]:
    """Returns the minutes that a race takes, the runs that it asks for, and how many were begun in vain."""
    rng, race = np.random.default_rng(seed), racing.race_over(grid)
    recipe, maker = Replayed(grid), Replaying(workers, early, iter(lambda: rng.uniform(0.9, 1.1), None))
    run_race(maker, recipe, race, race.rounds())  # type: ignore[arg-type]
    return maker.now, len(race.found), maker.started - len(race.found)


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
    print("\n| workers | at the end of a round | minutes | runs | in vain | idle, % |\n|---|---|---|---|---|---|")
    grid = racing.read_grid(GRID)
    grids = [racing.simulated(grid, rng) for _ in range(args.draws)]
    for workers in args.workers:
        for name, early in (("waits", False), ("begins early", True)):
            minutes, asked, in_vain = np.mean([raced(one, workers, early, i) for i, one in enumerate(grids)], 0)
            idle = 100 * (1 - asked / minutes / workers)
            print(f"| {workers} | {name} | {minutes:.0f} | {asked:.0f} | {in_vain:.1f} | {abs(idle):.0f} |")


if __name__ == "__main__":
    run(main, Args, __doc__)
