"""A race of arms and learning rates: what is already worse on validation gets no more seeds.

A cell is an arm at a rate. Rates go from coarse to fine. With the first seed each arm tries three, a factor of four
apart, and further ones until the best lies inside. A second seed of the best ones shows how much seeds vary, and from
then on a cell is stopped when it is worse than the best of all, by a test over seeds and examples (crossed.py). Every
other cell gets one seed more a round, and the rates beside it are tried, a factor of two away. docs/racing.md says how
often that goes wrong, and what it saves.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evidence.crossed import crossed_mean

COARSE, FINE = 2, 1  # steps between rates, each a factor of two
CLOSE = 3  # cells that are thought to go on, where a worker is free: with more, many runs are made in vain
ALPHA = 0.045  # of each test; docs/racing.md has what other levels save, and how often they go wrong
Cell = tuple[str, int]


class Trial(NamedTuple):
    """A run of an arm at the learning rate 2^rate times the arm's middle one."""

    arm: str
    rate: int
    seed: int


class Stop(NamedTuple):
    """A cell has been stopped: its mean loss over `seeds` is higher than that of `leader` by `worse`."""

    cell: Cell
    leader: Cell
    seeds: int
    worse: float
    p: float


@dataclass
class Race:
    """`found` has the trials that were asked for: the scores (n,) of validation examples, whose mean is the loss, or
    None where training diverged. `rates` are those that may be tried."""

    arms: Sequence[str]
    seeds: int
    rates: range = range(-6, 7)
    alpha: float = ALPHA
    found: dict[Trial, np.ndarray | None] = field(default_factory=dict)
    stopped: dict[Cell, Stop] = field(default_factory=dict)

    def rounds(self) -> Iterator[list[Trial]]:
        """Yields the trials of each round; `found` must have them before the next one is asked for."""
        yield from self._new([Trial(arm, rate, 0) for arm in self.arms for rate in (-COARSE, 0, COARSE)])
        while beyond := [Trial(arm, rate, 0) for arm in self.arms for rate in self.beyond(arm)]:
            yield from self._new(beyond)
        if self.seeds > 1:
            yield from self._new([Trial(arm, self.best(arm), 1) for arm in self.arms])
            self._test()
        for seeds in range(min(2, self.seeds), self.seeds + 1):
            while wanted := self._wanted(seeds):
                yield wanted
                self._test()

    def likely(self) -> list[Trial]:
        """Returns what will be asked for later, as far as the trials found tell: the further rates and the second seed
        of each arm, which its own first seed decides; then the rates beside the best cell, and a seed more of it and of
        the next best, should they go on (benchmarks/scaling.py has how often they do not)."""
        begun = [arm for arm in self.arms if all(Trial(arm, rate, 0) in self.found for rate in (-COARSE, 0, COARSE))]
        wanted = list[Trial]()
        for arm in (arm for arm in begun if len(self.seeds_of((arm, self.best(arm)))) == 1):
            wanted += [Trial(arm, rate, 0) for rate in self.beyond(arm)] or [Trial(arm, self.best(arm), 1)]
        if any(trial.seed for trial in self.found):
            close = sorted((cell for cell in self.going_on() if cell[0] in begun), key=self.loss)[:CLOSE]
            wanted += [Trial(*cell, 0) for best in close[:1] for cell in self._beside(best)]
            wanted += [Trial(*cell, len(self.seeds_of(cell))) for cell in close]
        return [trial for trial in wanted if trial.seed < self.seeds and trial not in self.found]

    def _new(self, trials: Sequence[Trial]) -> Iterator[list[Trial]]:
        """Yields those that may be tried and are not known yet."""
        if wanted := [trial for trial in trials if trial.rate in self.rates and trial not in self.found]:
            yield wanted

    def seeds_of(self, cell: Cell) -> list[int]:
        return [seed for seed in range(self.seeds) if Trial(*cell, seed) in self.found]

    def tried(self, arm: str) -> list[int]:
        return sorted({trial.rate for trial in self.found if trial.arm == arm})

    def loss(self, cell: Cell, seeds: Sequence[int] = ()) -> float:
        """Returns the mean loss over `seeds`, or over all that have run; infinite for one that has diverged."""
        found = [self.found.get(Trial(*cell, seed)) for seed in seeds or self.seeds_of(cell)]
        means = [math.inf if one is None else float(one.mean()) for one in found]
        return sum(means) / len(means)

    def best(self, arm: str) -> int:
        """Returns the rate with the lowest loss among those with the most seeds, of those that have not diverged."""
        rates = self.tried(arm)
        rates = [rate for rate in rates if self.loss((arm, rate)) < math.inf] or rates
        seeds = {rate: len(self.seeds_of((arm, rate))) for rate in rates}
        rates = [rate for rate, count in seeds.items() if count == max(seeds.values())]
        return min(rates, key=lambda rate: (self.loss((arm, rate)), rate))

    def going_on(self) -> list[Cell]:
        """Returns the cells that have been tried and not stopped."""
        tried = [(arm, rate) for arm in self.arms for rate in self.tried(arm)]
        return [cell for cell in tried if cell not in self.stopped]

    def inside(self, arm: str) -> bool:
        """Whether a lower and a higher rate than the best one have been tried."""
        tried = self.tried(arm)
        return tried[0] < self.best(arm) < tried[-1]

    def beyond(self, arm: str, step: int = COARSE) -> list[int]:
        """Returns the rates that are to be tried until the best lies inside."""
        tried, best = self.tried(arm), self.best(arm)
        further = [best - step] * (best == tried[0]) + [best + step] * (best == tried[-1])
        return [rate for rate in further if rate in self.rates]

    def _beside(self, cell: Cell) -> list[Cell]:
        """Returns the cells beside this one that have not been tried and may be."""
        beside = [(cell[0], cell[1] + step) for step in (-FINE, FINE)]
        return [one for one in beside if one[1] in self.rates and not self.seeds_of(one)]

    def _wanted(self, seeds: int) -> list[Trial]:
        """Returns the next trials until the cells that go on have so many seeds, and those beside them were tried.

        One seed stops nothing: then only the rates beside the best ones are tried.
        """
        cells = self.going_on() if self.seeds > 1 else [(arm, self.best(arm)) for arm in self.arms]
        known = {cell: len(self.seeds_of(cell)) for cell in cells}
        more = [Trial(*cell, count) for cell, count in known.items() if count < seeds]
        return more or [Trial(*one, 0) for one in dict.fromkeys(one for cell in cells for one in self._beside(cell))]

    def _gain(self, arm: str) -> float:
        """Returns by how much a finer rate may lower an arm's loss: to the vertex of a parabola through three rates,
        and without a bound where one of them has diverged."""
        best = self.best(arm)
        if any(self.found.get(Trial(arm, best + step, 0), 0) is None for step in (-COARSE, COARSE)):
            return math.inf
        low, here, high = (self.loss((arm, rate), [0]) for rate in (best - COARSE, best, best + COARSE))
        bend = low - 2 * here + high
        return (low - high) ** 2 / (8 * bend) if math.isfinite(bend) and bend > 0 else 0.0

    def _test(self) -> None:
        """Stops the cells that are worse than the best of all, by more than finer rates may gain if there are any.
        Where that one diverges later, the cells that it has stopped go on.

        The variance between seeds counts as no smaller than that of all cells together, in the layout of cells and
        seeds: one or two seeds of a cell say too little.
        """
        for cell in [cell for cell in self.going_on() if self.loss(cell) == math.inf]:
            self.stopped = {other: stop for other, stop in self.stopped.items() if stop.leader != cell}
            self.stopped[cell] = Stop(cell, cell, len(self.seeds_of(cell)), math.inf, 0.0)
        known = self.going_on()
        most = max((len(self.seeds_of(cell)) for cell in known), default=0)
        full = [cell for cell in known if len(self.seeds_of(cell)) == most]
        if most < 2 or len(full) < 2:
            return
        means = np.array([self.scores(cell, range(most)).mean(1) for cell in full])  # (cells, seeds)
        rest = means - means.mean(1, keepdims=True) - means.mean(0) + means.mean()
        df = (len(full) - 1) * (most - 1)
        usual = 2 * float((rest**2).sum()) / df  # the variance of a difference of two cells with one seed
        leader = min(full, key=self.loss)
        for cell in [cell for cell in known if cell != leader]:
            seeds = self.seeds_of(cell)
            mean = crossed_mean(self.scores(cell, seeds) - self.scores(leader, seeds))
            gain = self._gain(cell[0]) if self._beside((cell[0], self.best(cell[0]))) else 0.0
            of_seeds = max(mean.of_seeds, usual / len(seeds))
            p = mean._replace(value=mean.value - gain, of_seeds=of_seeds, seed_df=df).p() / 2
            if mean.value > gain and p < self.alpha:
                self.stopped[cell] = Stop(cell, leader, len(seeds), mean.value, p)

    def scores(self, cell: Cell, seeds: Iterable[int]) -> np.ndarray:
        """Returns the scores (seeds, n) of a cell that has not diverged."""
        return np.array([self.found[Trial(*cell, seed)] for seed in seeds])
