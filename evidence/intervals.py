"""Intervals over the examples of one run. Needs numpy and scipy only.

The unit is the example; crossed.py has intervals over seeds too. What has bounds has an interval that knows of them, so
that all right of 40 is not an interval of no width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 10_000
LEVEL = 0.95
Z = 1.959963984540054  # (1 + LEVEL) / 2 quantile of the normal distribution
CHUNK = 4_000_000  # random numbers held at a time
FEW = 30  # examples, below which percentiles of a bootstrap are too narrow: of two examples they cover half the time


class Interval(NamedTuple):
    """`low` and `high` are nan where the examples tell nothing of the spread, as one example by itself does."""

    value: float
    low: float
    high: float
    n: int

    def entry(self) -> dict[str, float]:
        """As results.json has it: what is not known is absent."""
        return {name: number for name, number in self._asdict().items() if number == number}


def shown(entry: Mapping[str, float], pattern: str = ".4f") -> str:
    """`entry` as Interval.entry gives it, for people: "0.9250 [0.8014, 0.9742]", or the value alone."""
    value = format(entry["value"], pattern)
    if "low" not in entry:
        return f"{value} [no interval, n = {entry['n']}]"
    return f"{value} [{format(entry['low'], pattern)}, {format(entry['high'], pattern)}]"


def share(scores: Sequence[float] | np.ndarray) -> Interval:
    """Mean of scores between 0 and 1, one an example: a share of right answers or wins, ties half; averages over seeds.

    Wilson (1927): the true shares that a score test does not reject; its width is above 0 for 0 of n and n of n too.
    Scores in between vary less than 0 and 1 with the same mean, so that for them it is too wide, never too narrow.
    """
    scores = _scores(scores)
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError("a share is of scores between 0 and 1")
    return Interval(float(scores.mean()), *wilson(float(scores.mean()), len(scores)), len(scores))


def bounded_mean(scores: Sequence[float] | np.ndarray, most: float) -> Interval:
    """Mean of scores from 0 to `most`, which the interval does not leave either.

    Where all are equal no draw differs, and the interval is that of a share if `most` is finite.
    """
    scores = _scores(scores)
    if np.ptp(scores) > 0 or most == math.inf:
        value, low, high, n = bootstrap_mean(scores)
        return Interval(value, max(low, 0.0), min(high, most), n)
    value, low, high, n = share(scores / most)
    return Interval(value * most, low * most, high * most, n)


def of_cells(counts: np.ndarray, score: Callable[[np.ndarray], tuple[float, np.ndarray]], least: float) -> Interval:
    """Of a score between `least` and 1 of a confusion matrix [label][prediction], (n, n).

    `score` gives its value and the change by one more example in each cell, (n, n); it does not depend on how often all
    examples are repeated. Wilson's interval for as many examples as would vary a share like the score varies (effective
    examples: Kish 1965, section 8.2; in Wilson's: Korn and Graubard 1998), by the delta method. So that all right, or
    one prediction for all, varies too, an example right and one wrong are added, spread over the labels as they are.
    """
    total = float(counts.sum())
    if total == 0:
        raise ValueError("an interval needs at least one example")
    labels, others = counts.sum(1) / total, 1 - np.eye(len(counts))
    more = counts + np.diag(labels) + labels[:, None] * others / max(len(counts) - 1, 1)
    more *= total / more.sum()
    smoothed, slopes = score(more)
    variance, value = float((more * slopes**2).sum()), score(counts)[0]
    part, smoothed_part = (value - least) / (1 - least), (smoothed - least) / (1 - least)
    if variance < 1e-15:  # Matthews' correlation where all examples have one label: it is 0 by definition
        return Interval(value, math.nan, math.nan, int(total))
    low, high = wilson(part, smoothed_part * (1 - smoothed_part) * (1 - least) ** 2 / variance)
    return Interval(value, least + (1 - least) * low, least + (1 - least) * high, int(total))


def wilson(value: float, n: float, z: float = Z) -> tuple[float, float]:
    """Wilson's interval of a share of n examples; it ends at 0 and 1 exactly, where rounding would leave 1e-17."""
    centre = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(value * (1 - value) / n + z**2 / (4 * n * n)) / (1 + z**2 / n)
    return (0.0 if value <= 0 else centre - half), (1.0 if value >= 1 else centre + half)


def bootstrap(
    columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0, draws: int = DRAWS
) -> Interval:
    """Percentile interval of a statistic of column sums.

    `columns` (n, k): k numbers an example; `statistic` maps their sums (..., k) to (...,), for example sums[..., 0] /
    sums[..., 1] for a ratio. Raises ValueError for n = 0.
    """
    columns = _scores(columns)
    n = len(columns)
    if n == 1:
        return Interval(float(statistic(columns.sum(0))), math.nan, math.nan, n)
    rng = np.random.default_rng(seed)
    sums = []
    for size in _chunks(draws, n):
        drawn = rng.integers(0, n, (size, n))
        sums.append(np.stack([column[drawn].sum(1) for column in columns.T], axis=1))
    low, high = np.nanquantile(statistic(np.concatenate(sums)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(columns.sum(0))), float(low), float(high), n)


def bootstrap_mean(scores: Sequence[float] | np.ndarray, seed: int = 0) -> Interval:
    """Mean of one score an example."""
    return bootstrap_ratio(np.asarray(scores, np.float64), np.ones(len(scores)), seed)


def linearised(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """(n,): scores whose mean varies as the ratio of the sums does, in first order (Cochran 1977, section 2.11)."""
    ratio = numerators.sum() / denominators.sum()
    return (numerators - ratio * denominators) / denominators.mean()


def bootstrap_ratio(numerators: np.ndarray, denominators: np.ndarray, seed: int = 0) -> Interval:
    """Sum of numerators over sum of denominators: a mean over tokens when examples are drawn.

    Of fewer than FEW examples the interval is Student's.
    """
    numerators, denominators = _scores(numerators), _scores(denominators)
    n = len(numerators)
    if 1 < n < FEW:
        from scipy import special  # here, because a run needs it at its end alone; scipy.stats takes longer still

        value = float(numerators.sum() / denominators.sum())
        spread = float(linearised(numerators, denominators).std(ddof=1))
        half = float(special.stdtrit(n - 1, (1 + LEVEL) / 2)) * spread / math.sqrt(n)
        return Interval(value, value - half, value + half, n)
    return bootstrap(np.stack([numerators, denominators], 1), lambda sums: sums[..., 0] / sums[..., 1], seed)


def perplexity(loss: float) -> float:
    """e^loss, from nats a token; beyond 700 it is e^700, near the largest float, for results.json holds no infinity."""
    return float(np.exp(min(loss, 700.0)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given, that hold the family-wise error (Holm 1979)."""
    if len(p_values) == 0:
        return []
    raw = _scores(p_values)
    order, adjusted = np.argsort(raw), np.empty(len(raw))
    steps = np.arange(len(raw), 0, -1) * raw[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def _scores(scores: Sequence[float] | np.ndarray) -> np.ndarray:
    """Raises ValueError for no scores, and for one that is not a number: it would pass for a significant difference."""
    array = np.asarray(scores, dtype=np.float64)
    if array.size == 0:
        raise ValueError("an interval or a test needs at least one example")
    if not np.isfinite(array).all():
        raise ValueError("a score is not a finite number; leave such examples out and report how many they are")
    return array


def _chunks(draws: int, n: int) -> list[int]:
    size = max(1, min(draws, CHUNK // n))
    return [size] * (draws // size) + ([draws % size] if draws % size else [])
