"""Means over seeds and examples, both drawn at random, and differences of two of them.

A score is a mean, an effect of the seed (its initialisation, order, training rows), an effect of the example, and a
rest. What other seeds and examples would make of the mean is estimated from the mean squares of the two-way layout
without replication (Searle, Casella and McCulloch 1992, chapter 4). docs/evidence.md has a simulation of how often the
intervals hold.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from evidence.intervals import LEVEL, Z, holm, wilson

FEWEST_DF = 3  # of the seeds' variance, below which a difference claims nothing
ROUNDING = 1e-24  # of the mean square, below which a variance is none


class Mean(NamedTuple):
    """`of_seeds` and `of_examples` are the parts of the variance of the mean `value` that come from the draw of each;
    the rest is in the first. `seed_df` and `example_df` are their degrees of freedom. Of a single seed nothing is known
    of others: `of_seeds` is 0 and `seed_df` 0."""

    value: float
    of_seeds: float
    of_examples: float
    seed_df: float
    example_df: float

    @property
    def of_one_seed(self) -> float:
        """The variance between seeds, of which the mean has one more than `seed_df`."""
        return self.of_seeds * (self.seed_df + 1)

    @property
    def variance(self) -> float:
        return self.of_seeds + self.of_examples

    @property
    def df(self) -> float:
        """Each part counts with its share of the variance; Satterthwaite's squares claim too much of few seeds."""
        if not self.variance > 0:
            return math.inf
        of_seeds = self.of_seeds / self.seed_df if self.seed_df else 0.0
        return self.variance / (of_seeds + self.of_examples / self.example_df)

    @property
    def claims(self) -> bool:
        """Whether the seeds' variance is known well enough to say that the mean is not 0."""
        return self.seed_df >= FEWEST_DF

    def quantile(self, level: float = (1 + LEVEL) / 2) -> float:
        return float(special.stdtrit(self.df, level))

    def ends(self) -> tuple[float, float]:
        """Returns Student's interval."""
        half = self.quantile() * math.sqrt(self.variance)
        return self.value - half, self.value + half

    def share_ends(self, n: int) -> tuple[float, float]:
        """Returns the interval of a share: Wilson's (1927) of as many examples as would vary a share like this mean
        varies, with Student's quantile, and no narrower than Wilson's of the `n` examples."""
        held = [wilson(self.value, n, Z)]
        if self.seed_df and 0 < self.value < 1 and self.variance > 0:
            held.append(wilson(self.value, self.value * (1 - self.value) / self.variance, self.quantile()))
        lows, highs = zip(*held, strict=True)
        return min(lows), max(highs)

    def p(self) -> float:
        """Returns the two-sided p of a true mean of 0; 1 where nothing is claimed."""
        if not self.claims or not self.variance > 0:
            return 1.0
        return float(2 * special.stdtr(self.df, -abs(self.value) / math.sqrt(self.variance)))

    def detectable(self, comparisons: int = 1, power: float = 0.8) -> float:
        """Returns the smallest true mean that is found with `power` at 5% divided by `comparisons`, nan if unknown."""
        if not self.claims or not self.variance > 0:
            return math.nan
        quantiles = self.quantile(1 - (1 - LEVEL) / 2 / comparisons) + self.quantile(power)
        return quantiles * math.sqrt(self.variance)


def crossed_mean(scores: np.ndarray) -> Mean:
    """Returns the mean of `scores` (seeds, n). Of one example nothing is known of others, and its variance is nan.

    The seeds' mean square counts as no smaller than that of the rest, and the examples' part as no smaller than 0. What
    rounding leaves of a variance is 0, since its logarithm would say much to `pooled`.
    """
    seeds, n = scores.shape
    by_seed, by_example = scores.mean(1), scores.mean(0)
    mean = float(scores.mean())
    if n < 2:
        return Mean(mean, 0.0, math.nan, 0, 0)
    if seeds < 2:
        return Mean(mean, 0.0, float(by_example.var(ddof=1)) / n, 0, n - 1)
    least = ROUNDING * float((scores**2).mean())
    rest = float(((scores - by_seed[:, None] - by_example + mean) ** 2).sum() / ((seeds - 1) * (n - 1)))
    of_seeds = max(n * float(by_seed.var(ddof=1)), rest) / (seeds * n)
    of_examples = max(seeds * float(by_example.var(ddof=1)) - rest, 0.0) / (seeds * n)
    of_seeds, of_examples = (part if part > least else 0.0 for part in (of_seeds, of_examples))
    return Mean(mean, of_seeds, of_examples, seeds - 1, n - 1)


def pooled(differences: Sequence[Mean]) -> list[Mean]:
    """Returns the differences of one family, in which those whose seeds vary less than is usual there count as usual.

    So three seeds that say little of their own spread can rest on that of the others, while one that varies more keeps
    its own: arms whose seeds vary unequally would not be covered by a common variance. What is usual is the geometric
    mean, without the bias that logarithms of few degrees of freedom have, and weighted by how well each is known (the
    inverse of such a logarithm's variance). Differences from one reference have its seeds in common, so that together
    they count as two.
    """
    known = [one for one in differences if one.of_seeds > 0]
    if len(known) < 2:
        return list(differences)
    halves = np.array([one.seed_df / 2 for one in known])
    logs = np.log([one.of_one_seed for one in known]) - special.digamma(halves) + np.log(halves)
    usual = math.exp(float(np.average(logs, weights=1 / special.polygamma(1, halves))))
    return [
        one._replace(of_seeds=usual / (one.seed_df + 1), seed_df=2 * one.seed_df)
        if 0 < one.of_one_seed <= usual
        else one
        for one in differences
    ]


def family(differences: Sequence[Mean]) -> list[tuple[Mean, float]]:
    """Returns the differences that are tested together, `pooled`, each with its p as Holm adjusts it."""
    means = pooled(differences)
    return list(zip(means, holm([mean.p() for mean in means]), strict=True))
