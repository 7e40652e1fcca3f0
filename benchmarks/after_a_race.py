"""How often do a study's intervals hold, when a race has chosen arms and rates with the same seeds?

    python benchmarks/after_a_race.py --grid benchmarks/grids/mail.npz

Test examples choose nothing, but the seeds do: the winner is the arm whose seeds were lucky on validation, and their
luck is in the test too. Grids are simulated as racing.py does, with test examples of their own. The truth is what many
other seeds and all examples give for the arms at the rates that were chosen. Prints, as Markdown, by the seeds that an
arm has in common with the winner: the share of intervals of its difference from the winner that hold the truth, by how
much the differences are off in the mean, how many are told apart, and how many of these truly have the other sign.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from _flags import each_at_least
from evidence.crossed import family
from evidence.intervals import LEVEL
from evidence.kinds import ACCURACY
from racing import Population, raced, read_grid, right
from studies.outcome import chosen, winner_of
from training.flags.cli import at_least, run

OTHERS = 400  # seeds that the truth is a mean of, with each of the examples that others are drawn from


@dataclass(frozen=True)
class Args:
    grid: Path = Path("benchmarks/grids/mail.npz")
    """recorded grid of two classes: a folder of a complete study, or a file of racing.py --save"""
    grids: int = 1000
    """simulated grids for each number of test examples"""
    examples: tuple[int, ...] = (150, 500, 2000)
    """numbers of test examples"""
    seed: int = 0
    """seed of the simulation"""

    def problems(self) -> list[str]:
        return at_least(self, 1, "grids") + at_least(self, 0, "seed") + each_at_least(self, 2, "examples")


class Said(NamedTuple):
    """What is said of the winner's accuracy, or of an arm's difference from it, in shares of 1; `detectable` is nan
    where that cannot be told."""

    seeds: int
    truth: float
    value: float
    holds: bool
    differs: bool = False
    detectable: float = np.nan


def study(population: Population, n: int, rng: np.random.Generator) -> tuple[Said, list[Said]]:
    """Returns what is said of the winner and of each other arm."""
    seeds = population.seeds(5, rng)
    validation = population.losses(seeds, population.examples(population.n, rng), rng)
    race = raced(population.grid._replace(losses=validation))
    test = right(population.losses(seeds, population.examples(n, rng), rng)).astype(float)
    truth = right(population.losses(population.seeds(OTHERS, rng), np.arange(population.n), rng)).mean((2, 3))
    runs = {arm: found for arm in race.arms if (found := chosen(race, arm))}
    winner, ones = winner_of(race, [*runs]), np.ones(n)

    def of(arm: str) -> tuple[np.ndarray, float]:
        """Returns whether the runs of an arm are right (seeds, n), and how often they truly are."""
        cell = int(arm), runs[arm][0].rate - race.rates[0]
        return test[cell][[trial.seed for trial in runs[arm]]], float(truth[cell])

    best, level = of(winner)
    low, high = ACCURACY.ends(ACCURACY.mean(best, ones), n)
    others = [(min(len(scores), len(best)), scores, own) for scores, own in (of(arm) for arm in runs if arm != winner)]
    others = [other for other in others if other[0] > 1]  # the seeds in common
    alone = [ACCURACY.difference(scores[:k], best[:k], ones) for k, scores, _ in others]
    said = list[Said]()
    for (k, _, own), by_itself, (mean, p) in zip(others, alone, family(alone), strict=True):
        a, b = mean.ends()
        least = mean.detectable(len(alone)) if by_itself.claims else np.nan
        said.append(Said(k, own - level, mean.value, a <= own - level <= b, p < 1 - LEVEL, least))
    return Said(len(best), level, float(best.mean()), low <= level <= high), said


def rows(said: list[Said]) -> Iterator[tuple[str, list[Said]]]:
    for seeds in sorted({one.seeds for one in said}):
        yield str(seeds), [one for one in said if one.seeds == seeds]
    yield "all", said


def main(args: Args) -> None:
    grid = read_grid(args.grid)
    print("| n | seeds | differences | hold, % | off by, points | told apart, % | of these the other sign, % |")
    print("|---|---|---|---|---|---|---|")
    more = list[str]()
    for n in args.examples:
        rng = np.random.default_rng([args.seed, n])
        found = [study(Population(grid, rng), n, rng) for _ in range(args.grids)]
        every = [one for _, said in found for one in said]
        for seeds, said in rows(every):
            holds, off = np.mean([one.holds for one in said]), np.mean([one.value - one.truth for one in said])
            apart = [one for one in said if one.differs]
            wrong = f"{np.mean([one.value * one.truth < 0 for one in apart]):.1%}" if apart else ""
            told = f"{holds:.1%} | {100 * off:+.2f} | {len(apart) / len(said):.1%} | {wrong}"
            print(f"| {n:,} | {seeds} | {len(said):,} | {told} |".replace("%", ""), flush=True)
        large = [one.differs for one in every if abs(one.truth) >= one.detectable]
        winners = [one for one, _ in found]
        held, off = np.mean([one.holds for one in winners]), 100 * np.mean([one.value - one.truth for one in winners])
        share = f"{np.mean(large):.1%} of {len(large):,}" if large else "none of 0"
        more.append(
            f"{n:,}: {held:.1%} of the winners' own intervals hold, which are off by {off:+.2f} points in the mean;"
        )
        more.append(f"  of differences that four of five studies should find, {share} were told apart")
    print("", *more, sep="\n")


if __name__ == "__main__":
    run(main, Args, __doc__)
