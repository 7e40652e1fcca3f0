"""Computes metrics with n and interval: of classes with scikit-learn, of language modelling from token sums.

METRICS defines each metric of predicted classes; to add one, add an entry. The values are computed by `evaluate.Metric`
modules made from the entries; `evaluate.load` would ask the hub. Importing evaluate and scikit-learn takes seconds, so
it happens when the first metric is computed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from evidence.intervals import Interval, bootstrap_mean, bootstrap_ratio, of_cells, perplexity, share


class Row(NamedTuple):
    """One evaluated example: loss in nats summed over its `targets`, and for classifiers the probabilities."""

    id: int
    label: int
    loss: float
    targets: int
    prediction: int = -1
    probabilities: tuple[float, ...] = ()


def without_probabilities(rows: Sequence[Row]) -> list[tuple[int | float, ...]]:
    """Returns the rest of each row, for a checkpoint, where it takes little room. Row(*rest) has the same metrics."""
    return [tuple(row[:-1]) for row in rows]


def mean_loss(rows: Sequence[Row]) -> float:
    """Returns the loss in nats per target over all rows."""
    return sum(row.loss for row in rows) / max(sum(row.targets for row in rows), 1)


def accuracy(rows: Sequence[Row]) -> float:
    return sum(row.prediction == row.label for row in rows) / len(rows)


def name_of(prediction: int, classes: Sequence[str]) -> str:
    """Returns the name of a class, or the number of a token that is no class (--head lm-token)."""
    return classes[prediction] if prediction < len(classes) else f"token {prediction}"


def commonest(balance: Mapping[str, int]) -> str:
    """Returns the class with the most examples, the first of several."""
    return max(balance, key=lambda label: balance[label])


def occurring(confusion: np.ndarray, classes: int) -> np.ndarray:
    """Returns the classes that are a label or a prediction of some row: those that a macro F1 is of, as scikit-learn
    has it."""
    return np.flatnonzero((confusion.sum(0) + confusion.sum(1))[:classes])


def macro_f1_slopes(confusion: np.ndarray, among: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the macro F1 of the classes `among`, and how much one more example in each cell changes it."""
    hits, both = np.diagonal(confusion), confusion.sum(0) + confusion.sum(1)
    inverse = np.divide(1.0, both, out=np.zeros(len(hits)), where=both > 0)
    inverse[np.setdiff1d(np.arange(len(hits)), among)] = 0
    # For a class F = 2 hits / both: one more in its row or column adds -F / both, and a hit adds 2 / both besides.
    lost = 2 * hits * inverse**2
    slopes = 2 * np.diag(inverse) - lost[:, None] - lost
    return float(2 * hits @ inverse) / len(among), slopes / len(among)


def mcc_slopes(confusion: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns Matthews' correlation for any number of classes (Gorodkin 2004, eq. 8), 0 where it is undefined, and how
    much one more example in each cell changes it."""
    labels, predictions, total = confusion.sum(1), confusion.sum(0), confusion.sum()
    covariance = np.trace(confusion) * total - labels @ predictions
    of_labels, of_predictions = total**2 - labels @ labels, total**2 - predictions @ predictions
    if of_labels <= 0 or of_predictions <= 0:
        return 0.0, np.zeros(confusion.shape)
    spread = np.sqrt(of_labels) * np.sqrt(of_predictions)
    value = covariance / spread
    slopes = (total * np.eye(len(labels)) + np.trace(confusion) - predictions[:, None] - labels) / spread
    slopes -= value * ((total - labels) / of_labels)[:, None] + value * (total - predictions) / of_predictions
    return float(value), slopes


@dataclass(frozen=True)
class Metric:
    """A metric of predicted classes.

    `value` takes labels, predictions, the number of classes and weights of the examples (None: all alike), `interval`
    the confusion matrix [label][prediction] and the number of classes; without one, `interval_of(value)` is used.
    """

    name: str  # in results.json
    words: str
    value: Callable[[Any, Any, int, Any], float]
    interval: Callable[[np.ndarray, int], Interval] | None = None
    shown: bool = True  # whether it is printed at the end of a run


def interval_of(value: Callable[[Any, Any, int, Any], float], least: float = 0.0) -> Callable[..., Interval]:
    """Makes the interval of any metric from `least` to 1, from the slopes of its value: K * K calls for K classes."""

    def interval(confusion: np.ndarray, classes: int) -> Interval:
        labels, predictions = np.indices(confusion.shape).reshape(2, -1)

        def score(counts: np.ndarray) -> tuple[float, np.ndarray]:
            weights, step = counts.ravel().astype(np.float64), 1e-6 * counts.sum()
            found = value(labels, predictions, classes, weights)
            more = weights + step * np.eye(len(weights))
            slopes = [(value(labels, predictions, classes, one) - found) / step for one in more]
            return found, np.reshape(slopes, counts.shape)

        return of_cells(confusion, score, least)

    return interval


def _accuracy(labels: Any, predictions: Any, classes: int, weights: Any = None) -> float:
    from sklearn.metrics import accuracy_score

    return accuracy_score(labels, predictions, sample_weight=weights)


def _accuracy_interval(confusion: np.ndarray, classes: int) -> Interval:
    hits = int(np.trace(confusion))
    return share(np.repeat([1.0, 0.0], [hits, confusion.sum() - hits]))


def _macro_f1(labels: Any, predictions: Any, classes: int, weights: Any = None) -> float:
    from sklearn.metrics import f1_score

    names = sorted({*labels, *predictions}.intersection(range(classes)))
    return f1_score(labels, predictions, sample_weight=weights, labels=names, average="macro", zero_division=0)


def _macro_f1_interval(confusion: np.ndarray, classes: int) -> Interval:
    among = occurring(confusion, classes)
    found = of_cells(confusion, lambda counts: macro_f1_slopes(counts, among), least=0)
    # A class that is only predicted counts 0 in the macro F1; with rows, it could have had anything up to 1.
    absent = int((confusion[among].sum(1) == 0).sum())
    return found._replace(high=min(found.high + absent / len(among), 1.0))


def _mcc(labels: Any, predictions: Any, classes: int, weights: Any = None) -> float:
    from sklearn.metrics import matthews_corrcoef

    one = len({*labels, *predictions}) == 1  # scikit-learn returns 0 too, with a warning
    return 0.0 if one else matthews_corrcoef(labels, predictions, sample_weight=weights)


METRICS = (
    Metric("accuracy", "share of right predictions", _accuracy, _accuracy_interval),
    Metric("macro_f1", "F1 averaged over the classes that occur", _macro_f1, _macro_f1_interval),
    Metric("mcc", "Matthews' correlation", _mcc, lambda confusion, classes: of_cells(confusion, mcc_slopes, least=-1)),
)


@cache
def _modules(chosen: tuple[Metric, ...], classes: int) -> Any:
    """Returns the metrics as one `evaluate` module."""
    import datasets
    import evaluate

    features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})

    def module(metric: Metric) -> evaluate.Metric:
        class Module(evaluate.Metric):
            def _build_data_dir(self) -> str:
                return str(self._data_dir_root)  # not made: nothing is kept there, and HF_HOME may be read-only

            def _info(self) -> evaluate.MetricInfo:
                return evaluate.MetricInfo(description=metric.words, citation="", features=features)

            def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
                return {metric.name: float(metric.value(references, predictions, classes, None))}

        return Module(keep_in_memory=True)

    return evaluate.combine([module(metric) for metric in chosen])


def _by_class(confusion: np.ndarray) -> list[dict[str, float]]:
    """Returns the scores of each class; undefined ones, such as precision without predictions, are 0."""
    hits, labels, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)

    def ratio(above: np.ndarray, below: np.ndarray) -> list[float]:
        return np.divide(above, below, out=np.zeros(hits.shape), where=below > 0).tolist()

    columns = (ratio(hits, predicted), ratio(hits, labels), ratio(2 * hits, labels + predicted))
    names = ("precision", "recall", "f1", "n", "predicted")
    rows = zip(*columns, labels.tolist(), predicted.tolist(), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def shown_metrics() -> tuple[str, ...]:
    """Returns the names of the metrics that are printed at the end of a run."""
    return tuple(metric.name for metric in METRICS if metric.shown)


def classification_metrics(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """Returns METRICS and loss as {value, low, high, n}, `confusion_matrix[label][prediction]`, and `classes`: for each
    name precision, recall, f1, n (rows with that label) and predicted (rows predicted so).

    A prediction outside the classes (possible with --head lm-token) is wrong and counts in one more column.
    """
    classes, labels = len(names), [row.label for row in rows]
    predictions = [min(row.prediction, classes) for row in rows]
    size = max(classes, max(predictions) + 1)
    confusion = np.zeros((size, size), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    values = _modules(METRICS, classes).compute(predictions=predictions, references=labels)
    metrics: dict[str, Any] = {}
    for metric in METRICS:
        interval = (metric.interval or interval_of(metric.value))(confusion, classes)
        metrics[metric.name] = interval._replace(value=float(values[metric.name])).entry()
    metrics["loss"] = bootstrap_mean([row.loss for row in rows]).entry()
    metrics["classes"] = dict(zip(names, _by_class(confusion)[:classes], strict=True))
    metrics["confusion_matrix"] = confusion[:classes].tolist()
    return metrics


def perplexities(rows: Sequence[Row], response_rows: Sequence[Row], whole_text_rows: Sequence[Row]) -> dict[str, Any]:
    """Returns loss (nats per trained target), response_perplexity and text_perplexity (of all tokens but the first)."""

    def by_token(chosen: Sequence[Row]) -> Interval:
        return bootstrap_ratio(np.array([r.loss for r in chosen]), np.array([r.targets for r in chosen]))

    def entry(interval: Interval) -> dict[str, float]:
        value, low, high, n = interval
        return Interval(perplexity(value), perplexity(low), perplexity(high), n).entry()

    return {
        "loss": by_token(rows).entry(),
        "response_perplexity": entry(by_token(response_rows)),
        "text_perplexity": entry(by_token(whole_text_rows)),
    }


def text_loss(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the loss of running text in nats per token, with an interval over its pieces."""
    losses, targets = (np.array([getattr(row, name) for row in rows]) for name in ("loss", "targets"))
    return {"loss": bootstrap_ratio(losses, targets).entry()}
