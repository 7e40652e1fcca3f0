"""How often does the race of scripts/study.py drop what a complete grid would have chosen, and how much does it save?

    python benchmarks/racing.py --grid benchmarks/grids/mail.npz

Grids like the recorded ones are simulated: each arm's losses are scaled and moved along the learning rate, seeds vary
as they were seen to, and validation examples are drawn anew. A race goes wrong when the complete grid's winner and
everything within half a point of accuracy (1% of perplexity) of it have been dropped. Other ways of racing run on the
same grids, and on the recorded one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from _flags import none_named
from evidence.racing import ALPHA, Race, Trial
from studies.runs import validation_scores
from training.flags.cli import at_least, run

POINTS, NATS = 0.005, 0.01  # of accuracy, and of the loss of instructions
ALONE = 0.2  # share of the variance between seeds that a cell does not have in common with others, as neighbours do
LEVEL = 0.95


@dataclass(frozen=True)
class Args:
    grid: tuple[Path, ...] = ()
    """recorded grids: folders of complete studies, like runs/study/mail/400-examples-200-updates, or files of --save"""
    save: Path | None = None
    """file for the losses of the first of these grids, instead of a table"""
    grids: int = 1000
    """simulated grids for each recorded one"""
    alpha: tuple[float, ...] = (ALPHA,)
    """levels of each test of the race"""
    seed: int = 0
    """seed of the simulation"""

    def problems(self) -> list[str]:
        found = at_least(self, 1, "grids") + at_least(self, 0, "seed") + none_named(self, "alpha")
        if not self.grid:
            found.append("--grid: name at least one recorded grid, such as benchmarks/grids/mail.npz")
        wrong = [level for level in self.alpha if not 0 < level < 1]
        return found + [f"--alpha {' '.join(map(str, wrong))}: must be between 0 and 1"] * bool(wrong)


class Grid(NamedTuple):
    """Losses (arms, rates, seeds, n) of validation examples; nan where training diverged."""

    arms: list[str]
    losses: np.ndarray
    classes: bool


class Raced(NamedTuple):
    """The cells (arm, rate) that a race left over, and how many runs it took."""

    left: list[tuple[int, int]]
    runs: int


def save_grid(grid: Grid, path: Path) -> None:
    np.savez_compressed(path, arms=grid.arms, losses=grid.losses.astype(np.float16), classes=grid.classes)


def read_grid(folder: Path) -> Grid:
    """Reads the validation losses of a complete grid, as far as every arm has the rate and every cell the seed. Raises
    ValueError where there is none."""
    if folder.suffix == ".npz":
        saved = np.load(folder)
        return Grid([*saved["arms"]], saved["losses"].astype(float), bool(saved["classes"]))
    found: dict[tuple[str, float, int], np.ndarray | None] = {}
    classes = False
    for path in sorted([*folder.glob("*/lr-*/seed-*/validation.jsonl"), *folder.glob("*/lr-*/seed-*.diverged")]):
        arm, rate, seed = (part.removesuffix(".diverged") for part in path.relative_to(folder).parts[:3])
        key = arm, float(rate.removeprefix("lr-")), int(seed.removeprefix("seed-"))
        if path.suffix == ".diverged":
            found[key] = None
            continue
        found[key], classes = validation_scores(path.parent)
    if all(one is None for one in found.values()):
        raise ValueError(f"--grid {folder}: holds no runs of a study, such as full/lr-0.001/seed-0/validation.jsonl")
    arms = sorted({arm for arm, _, _ in found})
    rates = {arm: sorted({rate for one, rate, _ in found if one == arm}) for arm in arms}
    most = min(map(len, rates.values()))
    cells = [(arm, rate) for arm in arms for rate in rates[arm][:most]]
    seeds = [seed for seed in sorted({key[2] for key in found}) if all((*cell, seed) in found for cell in cells)]
    if len(seeds) < 2:
        raise ValueError(f"--grid {folder}: fewer than two seeds have a run at every rate of every arm")
    nothing = np.full(len(next(one for one in found.values() if one is not None)), np.nan)
    losses = [[nothing if (one := found[*cell, seed]) is None else one for seed in seeds] for cell in cells]
    return Grid(arms, np.array(losses).reshape(len(arms), most, len(seeds), -1), classes)


class Population:
    """What grids like a recorded one are drawn from, in which other arms and rates may win. What moves losses scales
    them, since added to them it would make many negative."""

    def __init__(self, grid: Grid, rng: np.random.Generator) -> None:
        self.grid = grid
        known = np.nan_to_num(grid.losses, nan=float(np.nanmax(grid.losses.mean(3))))
        arms, rates, self.recorded, self.n = known.shape
        by_seed = known.mean(3)
        self.means, unbiased = by_seed.mean(2), np.sqrt(1 - 1 / self.recorded)  # (arms, rates)
        own = by_seed - self.means[..., None]
        self.own = (own - own.mean((0, 1))) / unbiased  # what all cells have in common changes nothing
        shapes = known / by_seed[..., None]  # the losses of the examples over their mean
        self.profile = shapes.mean(2)
        self.rest = (shapes - self.profile[:, :, None]) / unbiased
        self.levels = np.empty_like(self.means)
        heights = np.log(self.means.min(1)).std() + NATS
        for arm in range(arms):
            at, height = np.arange(rates) + rng.uniform(-1, 1), np.exp(rng.normal(0, heights))
            self.levels[arm] = np.interp(at, np.arange(rates), self.means[arm]) * height

    def seeds(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draws seeds, and returns the mean loss of each (arms, rates, seeds)."""
        weights = rng.normal(0, np.sqrt((1 - ALONE) / self.recorded), (self.recorded, count))
        alone = rng.normal(0, np.sqrt(ALONE), (*self.means.shape, count)) * self.own.std(2)[..., None]
        return self.levels[..., None] * np.exp((self.own @ weights + alone) / self.means[..., None])

    def examples(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws examples, by their numbers among those recorded."""
        return rng.integers(0, self.n, n)

    def losses(self, seeds: np.ndarray, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the losses (arms, rates, seeds, n) of the examples `drawn` (n,) with these seeds."""
        # A recorded seed is taken anew for each example: of five seeds, each one of four, two would be the same.
        taken = rng.integers(0, self.recorded, (seeds.shape[2], len(drawn)))
        return seeds[..., None] * np.maximum(self.profile[:, :, None, drawn] + self.rest[:, :, taken, drawn], 0)


def simulated(grid: Grid, rng: np.random.Generator, seeds: int = 5) -> Grid:
    """Draws a grid like the recorded one."""
    population = Population(grid, rng)
    drawn = population.seeds(seeds, rng)
    return grid._replace(losses=population.losses(drawn, population.examples(population.n, rng), rng))


def race_over(grid: Grid, alpha: float = ALPHA) -> Race:
    """Returns the race of scripts/study.py over a grid, whose arms are named by their numbers, before its first run."""
    arms, rates, seeds, _ = grid.losses.shape
    return Race([*map(str, range(arms))], seeds, range(-(rates // 2), rates - rates // 2), alpha)


def raced(grid: Grid, alpha: float = ALPHA) -> Race:
    """Returns that race at its end."""
    race = race_over(grid, alpha)
    for trials in race.rounds():
        race.found |= {trial: scores_in(grid, trial) for trial in trials}
    return race


def scores_in(grid: Grid, trial: Trial) -> np.ndarray | None:
    """Returns the losses of a trial, None where it diverged."""
    scores = grid.losses[int(trial.arm), trial.rate + grid.losses.shape[1] // 2, trial.seed]
    return None if np.isnan(scores).any() else scores


def ours(alpha: float) -> Callable[[Grid], Raced]:
    """The race of scripts/study.py."""

    def race(grid: Grid) -> Raced:
        one = raced(grid, alpha)
        left = [cell for cell in one.going_on() if len(one.seeds_of(cell)) == one.seeds]
        return Raced([(int(arm), rate - one.rates[0]) for arm, rate in left], len(one.found))

    return race


def by_seed(stops: Callable[[np.ndarray], np.ndarray]) -> Callable[[Grid], Raced]:
    """A race in which every cell has a seed more a round, unless `stops` of the losses (cells, seeds so far, n) says
    that it goes no further."""

    def race(grid: Grid) -> Raced:
        arms, rates, seeds, n = grid.losses.shape
        losses = grid.losses.reshape(arms * rates, seeds, n)
        left, runs = np.arange(len(losses)), 0
        for seed in range(seeds):
            runs += len(left)
            if seed < seeds - 1:
                left = left[~stops(losses[left, : seed + 1])]
        return Raced([divmod(int(cell), rates) for cell in left], runs)

    return race


def halving(losses: np.ndarray) -> np.ndarray:
    """Successive halving (Jamieson and Talwalkar 2016): the worse half goes no further."""
    means = losses.mean((1, 2))
    return means > np.median(means)


def worse_by_wilcoxon(steps: np.ndarray) -> np.ndarray:
    """The signed-rank test of each cell's steps (cells, steps) against the best's, at p < 0.1."""
    best = steps[steps.mean(1).argmin()]
    return np.array(
        [(one != best).any() and stats.wilcoxon(one, best, alternative="greater").pvalue < 0.1 for one in steps]
    )


def wilcoxon(losses: np.ndarray) -> np.ndarray:
    """Optuna's WilcoxonPruner at its defaults: p < 0.1 against the best so far, from the second step, a seed a step."""
    return worse_by_wilcoxon(losses.mean(2)) if losses.shape[1] > 1 else np.zeros(len(losses), bool)


def wilcoxon_of_examples(losses: np.ndarray) -> np.ndarray:
    """The same with an example a step, which takes the seeds of a run for all there are."""
    return worse_by_wilcoxon(losses.mean(1))


def friedman(losses: np.ndarray) -> np.ndarray:
    """F-race (Birattari et al. 2002): Friedman's test over seeds, then each cell against the best by Conover's."""
    means = losses.mean(2)
    cells, blocks = means.shape
    if blocks < 2 or cells < 3:
        return np.zeros(cells, bool)
    ranks = np.apply_along_axis(stats.rankdata, 0, means)
    sums = ranks.sum(1)
    squares = (ranks**2).sum()
    spread = squares - blocks * cells * (cells + 1) ** 2 / 4
    between = ((sums - blocks * (cells + 1) / 2) ** 2).sum()
    statistic = (cells - 1) * between / spread
    if stats.chi2.sf(statistic, cells - 1) >= 0.05:
        return np.zeros(cells, bool)
    df = (blocks - 1) * (cells - 1)
    scale = np.sqrt(2 * blocks * (1 - statistic / (blocks * (cells - 1))) * spread / df)
    return (sums - sums.min()) > stats.t.ppf(0.975, df) * scale


def right(losses: np.ndarray) -> np.ndarray:
    """Of two classes the likelier one is right where its loss is below ln 2."""
    return losses < np.log(2)


def is_wrong(grid: Grid, left: list[tuple[int, int]]) -> bool:
    """Whether the winner of the complete grid has been dropped, with everything within the tolerance of it."""
    losses = np.where(np.isnan(grid.losses), np.inf, grid.losses)
    means = losses.mean((2, 3))
    winner = np.unravel_index(means.argmin(), means.shape)
    if not left:
        return True
    if grid.classes:
        accuracies = right(losses).mean((2, 3))
        return max(accuracies[cell] for cell in left) < accuracies[winner] - POINTS
    return min(means[cell] for cell in left) > means[winner] + NATS


def main(args: Args) -> None:
    if args.save is not None:
        save_grid(read_grid(args.grid[0]), args.save)
        return
    ways = {f"this race, each test at {alpha:g}": ours(alpha) for alpha in args.alpha}
    ways |= {
        "complete grid": by_seed(lambda losses: np.zeros(len(losses), bool)),
        "successive halving": by_seed(halving),
    }
    ways |= {"Wilcoxon over seeds (Optuna)": by_seed(wilcoxon), "Wilcoxon over examples": by_seed(wilcoxon_of_examples)}
    ways |= {"F-race": by_seed(friedman)}
    grids = {path: read_grid(path) for path in args.grid}
    print("| grid | way | runs | wrong | at most (95%) | wrong on the recorded grid |\n|:---|:---|---:|---:|---:|:---|")
    for path, grid in grids.items():
        rng = np.random.default_rng(args.seed)
        drawn = [simulated(grid, rng) for _ in range(args.grids)]
        for name, race in ways.items():
            raced = [race(one) for one in drawn]
            runs = sum(one.runs for one in raced) / sum(one.losses[..., 0].size for one in drawn)
            wrong = sum(is_wrong(one, found.left) for one, found in zip(drawn, raced, strict=True))
            most = stats.beta.ppf(LEVEL, wrong + 1, max(len(drawn) - wrong, 1e-9))
            recorded = "yes" if is_wrong(grid, race(grid).left) else "no"
            shares = f"{runs:.1%} | {wrong / len(drawn):.1%} | {most:.1%}"
            print(f"| {path.stem if path.suffix else path.parent.name} | {name} | {shares} | {recorded} |", flush=True)


if __name__ == "__main__":
    run(main, Args, __doc__)
