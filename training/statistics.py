"""Intervals, paired tests and detectable differences. Needs numpy and scipy only.

The unit is the example: draws are over examples of the score averaged over seeds (DESIGN of the evidence: README).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS = 10_000
LEVEL = 0.95
CHUNK = 4_000_000  # random numbers held at a time


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
    n, value = len(scores), float(scores.mean())
    z2 = float(stats.norm.ppf((1 + LEVEL) / 2)) ** 2
    centre = (value + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (value * (1 - value) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # 0 and 1 exactly where no, or every, example counts: there rounding leaves 1e-17.
    low, high = (0.0 if value == 0 else centre - half), (1.0 if value == 1 else centre + half)
    return Interval(value, low, high, n)


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
    scores = _scores(scores)
    return bootstrap(scores[:, None], lambda sums: sums[..., 0] / len(scores), seed)


def bootstrap_ratio(numerators: np.ndarray, denominators: np.ndarray, seed: int = 0) -> Interval:
    """Sum of numerators over sum of denominators: a mean over tokens when examples are drawn."""
    return bootstrap(np.stack([numerators, denominators], 1), lambda sums: sums[..., 0] / sums[..., 1], seed)


def mean_forgetting(runs: Sequence[Mapping[str, Sequence[float]]]) -> Interval | None:
    """Loss on general text after minus before, nats a token, averaged over runs; its interval is over pieces of text.

    Of each run what results.json calls `pieces`: `tokens` of every piece and its summed loss `before` and `after`. None
    where a run has not measured it. Raises ValueError when the texts are not the same.
    """
    if not runs or not all(runs):
        return None
    if any(run["tokens"] != runs[0]["tokens"] for run in runs):
        raise ValueError("the runs measured forgetting on different texts")
    each = [np.subtract(run["after"], run["before"]) for run in runs]
    return bootstrap_ratio(np.mean(each, axis=0), np.array(runs[0]["tokens"]))


def perplexity(loss: float) -> float:
    """e^loss, from nats a token; beyond 700 it is e^700, near the largest float, for results.json holds no infinity."""
    return float(np.exp(min(loss, 700.0)))


def bootstrap_cells(
    confusion: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0, draws: int = DRAWS
) -> Interval:
    """Interval of a statistic of a confusion matrix (n, n): redrawing examples is redrawing cells."""
    total = int(confusion.sum())
    if total == 0:
        raise ValueError("an interval needs at least one example")
    rng, filled = np.random.default_rng(seed), np.flatnonzero(confusion)
    found = []
    for size in _chunks(draws, confusion.size):
        drawn = np.zeros((size, confusion.size), np.int64)
        drawn[:, filled] = rng.multinomial(total, confusion.flat[filled] / total, size=size)
        found.append(statistic(drawn.reshape(size, *confusion.shape)))
    low, high = np.quantile(np.concatenate(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(confusion)), float(low), float(high), total)


class Difference(NamedTuple):
    """a - b on the same examples; `p` is two-sided."""

    value: float
    low: float
    high: float
    p: float
    n: int


def paired_bootstrap(a: np.ndarray, b: np.ndarray, seed: int = 0, draws: int = DRAWS) -> Difference:
    """Difference of two means over the same examples.

    a, b (seeds, n) or (n,): scores are averaged over seeds first. Raises ValueError when n differs.
    """
    a, b = (np.atleast_2d(_scores(x)).mean(0) for x in (a, b))
    if a.shape != b.shape:
        raise ValueError(f"a paired test needs the same examples on both sides, got {len(a)} and {len(b)}")
    difference, n = a - b, len(a)
    rng = np.random.default_rng(seed)
    means = np.concatenate([difference[rng.integers(0, n, (size, n))].mean(1) for size in _chunks(draws, n)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # The smaller tail, doubled, with the observed sample counted as one draw so that p is never 0.
    tail = min((means <= 0).sum(), (means >= 0).sum())
    return Difference(float(difference.mean()), float(low), float(high), min(1.0, 2 * (tail + 1) / (draws + 1)), n)


def mcnemar(a_correct: np.ndarray, b_correct: np.ndarray) -> float:
    """Exact two-sided p that two classifiers are right equally often (McNemar 1947); 1 when they never disagree."""
    a_correct, b_correct = np.asarray(a_correct, bool), np.asarray(b_correct, bool)
    if a_correct.shape != b_correct.shape:
        raise ValueError("a paired test needs the same examples on both sides")
    only_a, only_b = int((a_correct & ~b_correct).sum()), int((b_correct & ~a_correct).sum())
    return 1.0 if only_a + only_b == 0 else float(stats.binomtest(only_a, only_a + only_b).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given, that hold the family-wise error (Holm 1979)."""
    if len(p_values) == 0:
        return []
    raw = _scores(p_values)
    order = np.argsort(raw)
    adjusted = np.empty(len(order))
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(order) - rank) * raw[i])
        adjusted[i] = min(running, 1.0)
    return adjusted.tolist()


def detectable_difference(
    scores_a: np.ndarray, scores_b: np.ndarray, comparisons: int = 1, power: float = 0.8
) -> float:
    """Smallest true difference of means that a paired test on these examples finds with `power`.

    Normal approximation with the measured sd of the differences, level 5% divided by `comparisons`. Seeds as in
    `paired_bootstrap`.
    """
    a, b = (np.atleast_2d(_scores(x)).mean(0) for x in (scores_a, scores_b))
    if len(a) < 2:
        raise ValueError("a detectable difference needs at least two examples")
    z = stats.norm.ppf(1 - (1 - LEVEL) / 2 / comparisons) + stats.norm.ppf(power)
    return float(z * np.std(a - b, ddof=1) / np.sqrt(len(a)))


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
