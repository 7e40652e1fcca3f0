"""Gathered rows -> metrics with n and interval: classification over scikit-learn, language modelling over token sums.

The point values come from `evaluate.Metric` modules that are defined here; `evaluate.load` would ask the hub. Importing
evaluate costs seconds, so it happens when the first metric is computed.
"""

from collections.abc import Mapping, Sequence
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


def mean_loss(rows: Sequence[Row]) -> float:
    """Nats per target over all rows together."""
    return sum(row.loss for row in rows) / max(sum(row.targets for row in rows), 1)


def accuracy(rows: Sequence[Row]) -> float:
    return sum(row.prediction == row.label for row in rows) / len(rows)


def name_of(prediction: int, classes: Sequence[str]) -> str:
    """A class by its name; a token that stands for none of them (head lm-token) by its number."""
    return classes[prediction] if prediction < len(classes) else f"token {prediction}"


def commonest(balance: Mapping[str, int]) -> str:
    """The class that most examples have; of equals the first."""
    return max(balance, key=lambda label: balance[label])


def classification_metrics(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """accuracy, macro_f1, mcc, loss as {value, low, high, n}; `confusion_matrix[label][prediction]`; `classes`: of each
    by its name precision, recall, f1, n (rows with that label) and predicted (rows predicted so).

    A prediction outside the classes (possible with the head of the vocabulary) is wrong and fills one more column.
    """
    classes, labels = len(names), [row.label for row in rows]
    predictions = [min(row.prediction, classes) for row in rows]
    size = max(classes, max(predictions) + 1)
    confusion = np.zeros((size, size), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    values = _combined(classes).compute(predictions=predictions, references=labels)
    intervals = {
        "accuracy": share([row.prediction == row.label for row in rows]),
        "macro_f1": of_cells(confusion, lambda c: _macro_f1(c, classes), least=0),
        "mcc": of_cells(confusion, _mcc, least=-1),
    }
    # A class that no row has counts 0 in the macro F1; with rows of it, it could have had anything up to 1.
    absent = classes - len(set(labels))
    macro_f1 = intervals["macro_f1"]
    intervals["macro_f1"] = macro_f1._replace(high=min(macro_f1.high + absent / classes, 1.0))
    metrics: dict[str, Any] = {
        name: interval._replace(value=float(values[name])).entry() for name, interval in intervals.items()
    }
    metrics["loss"] = bootstrap_mean([row.loss for row in rows]).entry()
    metrics["classes"] = dict(zip(names, _by_class(confusion)[:classes], strict=True))
    metrics["confusion_matrix"] = confusion[:classes].tolist()
    return metrics


def perplexities(rows: Sequence[Row], response_rows: Sequence[Row], whole_text_rows: Sequence[Row]) -> dict[str, Any]:
    """loss (nats per trained target), response_perplexity and text_perplexity (all tokens but the first), by token."""

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
    """loss of running text in nats a token, the interval over pieces of text."""
    losses, targets = (np.array([getattr(row, name) for row in rows]) for name in ("loss", "targets"))
    return {"loss": bootstrap_ratio(losses, targets).entry()}


def _by_class(confusion: np.ndarray) -> list[dict[str, float]]:
    """What is undefined, such as the precision of a class that was never predicted, is 0, as in scikit-learn."""
    hits, labels, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)

    def ratio(above: np.ndarray, below: np.ndarray) -> list[float]:
        return np.divide(above, below, out=np.zeros(hits.shape), where=below > 0).tolist()

    columns = (ratio(hits, predicted), ratio(hits, labels), ratio(2 * hits, labels + predicted))
    names = ("precision", "recall", "f1", "n", "predicted")
    rows = zip(*columns, labels.tolist(), predicted.tolist(), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _macro_f1(confusion: np.ndarray, classes: int) -> tuple[float, np.ndarray]:
    """(value, change by one more example in each cell); a class that occurs neither as label nor as prediction counts
    0, as in scikit-learn."""
    hits, both = np.diagonal(confusion), confusion.sum(0) + confusion.sum(1)
    inverse = np.divide(1.0, both, out=np.zeros(len(hits)), where=both > 0)
    inverse[classes:] = 0
    # Of a class F = 2 hits / both: one more in its row or column is -F / both, a hit is in both and adds 2 / both.
    lost = 2 * hits * inverse**2
    slopes = 2 * np.diag(inverse) - lost[:, None] - lost
    return float(2 * hits @ inverse) / classes, slopes / classes


def _mcc(confusion: np.ndarray) -> tuple[float, np.ndarray]:
    """(value, change by one more example in each cell) of Matthews' correlation for any number of classes (Gorodkin
    2004, eq. 8); 0 where it is undefined."""
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


@cache
def _combined(classes: int) -> Any:
    """accuracy, macro_f1 and mcc as one `evaluate` module."""
    import datasets
    import evaluate
    from sklearn import metrics

    features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})

    def module(name: str, compute: Any) -> evaluate.Metric:
        class Module(evaluate.Metric):
            def _info(self) -> evaluate.MetricInfo:
                return evaluate.MetricInfo(description=name, citation="", features=features)

            def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
                return {name: float(compute(references, predictions))}

        return Module(keep_in_memory=True)

    def macro_f1(references: list[int], predictions: list[int]) -> float:
        return metrics.f1_score(references, predictions, labels=range(classes), average="macro", zero_division=0)

    def mcc(references: list[int], predictions: list[int]) -> float:
        one = len({*references, *predictions}) == 1  # of which scikit-learn warns, and which is 0 to it too
        return 0.0 if one else metrics.matthews_corrcoef(references, predictions)

    return evaluate.combine(
        [
            module("accuracy", metrics.accuracy_score),
            module("macro_f1", macro_f1),
            module("mcc", mcc),
        ]
    )
