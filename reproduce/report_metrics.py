"""What a table shows of a run: one score an example, what the run says of itself as a whole, and what it cost."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from evidence.intervals import mean_forgetting, perplexity
from report_runs import Run


class Metric(NamedTuple):
    """A score an example: a sum over its `weight`s; perplexity is the exponential of the mean."""

    name: str
    higher_is_better: bool = True
    logarithmic: bool = False  # compared as a ratio


ACCURACY, JUDGE = Metric("accuracy"), Metric("judge's score")
PERPLEXITY = Metric("perplexity of the response", higher_is_better=False, logarithmic=True)


def _minutes(run: Run) -> float | None:
    seconds = run.number("seconds", "train")
    return None if seconds is None else seconds / 60


def _gib(run: Run) -> float | None:
    mib = run.number("peak_memory_mib")
    return None if mib is None else mib / 1024


def _peak_rate(run: Run) -> float | None:
    return max((point["lr"] for point in run.curve if "lr" in point), default=None)


def _lowest_loss(run: Run) -> float | None:
    return min((point["val_loss"] for point in run.curve if "val_loss" in point), default=None)


# Columns that show what results.json says of the run as a whole: name in the list -> (title, number of a run).
OF_A_RUN: dict[str, tuple[str, Callable[[Run], float | None]]] = {
    "parameters": ("trained parameters", lambda run: run.number("parameters", "trainable")),
    "memory": ("peak memory, GiB", _gib),
    "minutes": ("minutes of training", _minutes),
    "peak-lr": ("peak learning rate", _peak_rate),
    "val-loss": ("lowest validation loss", _lowest_loss),
}  # fmt: skip


OF_RESULTS: dict[str, tuple[str, ...]] = {
    "trained": ("parameters", "trainable"),
    "share": ("parameters", "share"),
    "peak_mib": ("peak_memory_mib",),
    "seconds": ("seconds", "train"),
    "tokens_per_second": ("tokens_per_second",),
}
FORGETTING = ("forgetting", "forgetting_low", "forgetting_high")
COSTS = (*OF_RESULTS, *FORGETTING)


def forgetting(runs: Sequence[Run]) -> dict[str, float]:
    """Averaged over runs, by the names of FORGETTING; empty where a run has not measured it, or on another text."""
    try:
        found = mean_forgetting([run.general for run in runs])
    except ValueError:
        return {}
    return {} if found is None else dict(zip(FORGETTING, found[:3], strict=True))


def costs(runs: Sequence[Run]) -> dict[str, float]:
    """Means over runs, of those of COSTS that every run has."""
    found: dict[str, float] = {}
    for name, path in OF_RESULTS.items():
        values = [value for run in runs if (value := run.number(*path)) is not None]
        found |= {name: float(np.mean(values))} if len(values) == len(runs) > 0 else {}
    return found | forgetting(runs)


def metric_of(run: Run) -> Metric | None:
    if "prediction" in run.examples:
        return ACCURACY
    if run.scores:
        return JUDGE
    return PERPLEXITY if "tokens" in run.examples else None


def scores(run: Run, metric: Metric) -> dict[Any, tuple[float, float]]:
    """(sum, weight) of every example that has a score, by id."""
    columns, ids = run.examples, run.examples["id"]
    if metric is ACCURACY:
        right = zip(ids, columns["label"], columns["prediction"], strict=True)
        return {i: (float(label == prediction), 1.0) for i, label, prediction in right}
    if metric is JUDGE:
        return {i: (run.scores[str(i)], 1.0) for i in ids if str(i) in run.scores}
    return {i: (x, float(n)) for i, x, n in zip(ids, columns["loss"], columns["tokens"], strict=True) if n}


def arrays(runs: Sequence[Run], metric: Metric, ids: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Sums (seeds, n) and weights (n,) of the examples `ids`."""
    found = [scores(run, metric) for run in runs]
    sums = np.array([[one[i][0] for i in ids] for one in found])
    return sums, np.array([found[0][i][1] for i in ids])


def common(runs: Sequence[Run], metric: Metric) -> list[Any]:
    """Ids of the examples that all runs have a score of, in order."""
    shared = set.intersection(*(set(scores(run, metric)) for run in runs))
    return sorted(shared)


def same_examples(a: Sequence[Run], b: Sequence[Run]) -> bool:
    """By id, and by label or length, of all runs."""
    kept = []
    for run in (*a, *b):
        kept.append({name: run.examples.get(name) for name in ("id", "label", "tokens")})
    return all(one == kept[0] for one in kept)


def in_unit(metric: Metric, value: float) -> float:
    return perplexity(value) if metric.logarithmic else value
