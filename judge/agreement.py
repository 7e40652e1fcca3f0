"""How well two numbers on the same items agree, and how much of a judge's spread is its own noise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from evidence.intervals import LEVEL

Metric = dict[str, float | int]
LEAST = 4  # items: the interval's width has n - 3 in it


def rank_correlation(a: np.ndarray, b: np.ndarray) -> Metric | None:
    """Spearman's correlation over the items (n,) where both are finite, with Bonett and Wright's (2000) interval.

    tanh(artanh r +- z sqrt((1 + r^2 / 2) / (n - 3))). None for fewer than four items, or where one does not vary;
    without low and high where all ranks are the same, since the formula then gives an interval of no width.
    """
    both = np.isfinite(a) & np.isfinite(b)
    a, b, n = a[both], b[both], int(both.sum())
    if n < LEAST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    r = float(stats.spearmanr(a, b).statistic)
    if math.isclose(abs(r), 1):
        return {"value": r, "n": n}
    centre = math.atanh(r)
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * math.sqrt((1 + r * r / 2) / (n - 3))
    return {"value": r, "low": math.tanh(centre - half), "high": math.tanh(centre + half), "n": n}


def agreement(measures: Mapping[str, np.ndarray], scores: np.ndarray) -> dict[str, Metric]:
    """Rank correlation of each measure with a judge's scores (n,), nan for an item without one. A measure without a
    correlation is absent."""
    found = {name: rank_correlation(values, scores) for name, values in measures.items()}
    return {name: value for name, value in found.items() if value is not None}


def variance_components(scores: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """Variance of items and of the judge, from the repeated scores of each item: one-way random effects.

    With a items, k_i scores each and N in all: judge = within-item mean square, items = (between - within) / k0, k0 =
    (N - sum k_i^2 / N) / (a - 1), at least 0 (Searle, Casella and McCulloch 1992, section 3.6). `reliability`: the
    items' share in the variance of a mean over the usual number of repeats. None without two items and a repeat.
    """
    groups = [np.asarray(item, dtype=np.float64) for item in scores if len(item)]
    sizes = np.array([len(group) for group in groups])
    a, n = len(groups), int(sizes.sum())
    if a < 2 or n <= a:
        return None
    means = np.array([group.mean() for group in groups])
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups)) / (n - a)
    grand = float((sizes * means).sum()) / n
    between = float((sizes * (means - grand) ** 2).sum()) / (a - 1)
    k0 = (n - float((sizes**2).sum()) / n) / (a - 1)
    items = max(0.0, (between - within) / k0)
    total = items + within / k0
    return {"items": items, "judge": within, "reliability": items / total if total else None, "n": a, "scores": n}
