"""A kind of column is one entry here: what it reads of a run, its interval and test, its unit, words and picture.

Those of SCORES have a number for every test example, and what the runs of a column have tells which it is. Those of
NAMED are told by the column's name; most have one number a run.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evidence.crossed import Mean, crossed_mean
from evidence.document import listing
from evidence.intervals import perplexity
from evidence.runs import Run, counting_judge

Scores = dict[Any, tuple[float, float]]  # (sum, weight) of an example, by id


@dataclass(frozen=True)
class Kind:
    """`scores` are of one run, and None where it has none of this kind. A value is shown `factor` times
    as large as it is stored."""

    name: str = ""  # of a score, in a sentence
    unit: str = ""
    scores: Callable[[Run], Scores | None] | None = None
    number: Callable[[Run], float | None] | None = None  # of the run as a whole
    most: float = math.inf  # scores lie between 0 and so much
    ratio: bool = False  # the exponential of a mean, compared as a ratio
    higher_is_better: bool = True
    factor: float = 1.0
    digits: int = 3
    examples: str = "test examples"
    partial: bool = False  # examples may lack a score; rows are compared on those that both have
    compares: bool = True  # rows are compared by it, so that what else moves between them matters
    about: Callable[[Sequence[Run]], str] = lambda runs: ""  # a sentence on the number
    baseline: Callable[[Run], float | None] = lambda run: None  # the score of always answering the commonest class

    def in_unit(self, value: float) -> float:
        return perplexity(value) if self.ratio else value

    def mean(self, sums: np.ndarray, weights: np.ndarray) -> Mean:
        """Of sums (seeds, n) over the weights (n,)."""
        ratio = sums.mean(0).sum() / weights.sum()
        return crossed_mean(ratio + (sums - ratio * weights) / weights.mean())

    def ends(self, mean: Mean, n: int) -> tuple[float, float]:
        """Returns the interval of a mean over n examples, within the bounds of the score."""
        if self.most == math.inf:
            return mean.ends()
        if self.most == 1.0 or mean.variance == 0:
            low, high = mean._replace(value=mean.value / self.most).share_ends(n)
            return low * self.most, high * self.most
        low, high = mean.ends()
        return max(low, 0.0), min(high, self.most)

    def difference(self, ours: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> Mean:
        """Of two arms' sums (seeds, n) over the same seeds and examples.

        Two examples more, one that each side wins, give shares a width where few examples differ, or none (Bonett and
        Price 2012), and other scores with bounds where all differ by the same.
        """
        mean = self.mean(ours - theirs, weights)
        if self.most == math.inf or (self.most != 1.0 and mean.variance != 0):
            return mean
        more = np.concatenate([ours - theirs, np.tile([self.most, -self.most], (len(ours), 1))], 1)
        return crossed_mean(more)._replace(value=mean.value)

    @property
    def heading(self) -> str:
        """Returns the unit, and where a lower value is the better one it says so."""
        return self.unit if self.higher_is_better or not self.compares else f"{self.unit} (lower is better)"

    def text(self, value: float) -> str:
        """Writes the value with the digits of this kind; a large number gets fewer."""
        scaled = value * self.factor
        digits = 0 if abs(scaled) >= 10_000 else min(self.digits, 1) if abs(scaled) >= 100 else self.digits
        return f"{scaled:,.{digits}f}".replace("-", "−")

    def size(self, value: float) -> str:
        """Writes how large a difference is, without its sign."""
        points = " points" if self.factor != 1 else ""
        return f"a factor of {value:.3f}" if self.ratio else f"{value * self.factor:.{self.digits}f}{points}"

    def change(self, value: float) -> str:
        """Writes a difference with its sign."""
        return f"×{value:.3f}" if self.ratio else f"{value * self.factor:+.{self.digits}f}".replace("-", "−")


def _right(run: Run) -> Scores | None:
    if "prediction" not in run.examples:
        return None
    rows = zip(*(run.examples[name] for name in ("id", "label", "prediction")), strict=True)
    return {i: (float(label == prediction), 1.0) for i, label, prediction in rows}


def _judged(run: Run) -> Scores | None:
    return {i: (run.scores[str(i)], 1.0) for i in run.examples["id"] if str(i) in run.scores} if run.scores else None


def _losses(run: Run) -> Scores | None:
    if "tokens" not in run.examples:
        return None
    rows = zip(*(run.examples[name] for name in ("id", "loss", "tokens")), strict=True)
    return {i: (loss, float(tokens)) for i, loss, tokens in rows if tokens}


def _lost(run: Run) -> Scores | None:
    """Each piece of the general text is an example. Its id has the text's hash and its number of tokens, so that other
    texts, and those in other pieces, have none in common."""
    if not run.general:
        return None
    rows = zip(*(run.general[name] for name in ("tokens", "before", "after")), strict=True)
    text = run.results.get("forgetting", {}).get("sha256", "")
    return {(text, i, tokens): (after - before, float(tokens)) for i, (tokens, before, after) in enumerate(rows)}


def _commonest(run: Run) -> float | None:
    labels = run.examples["label"]
    return max(Counter(labels).values()) / len(labels)


def answers_one_class(run: Run) -> bool:
    """Whether a classifier gave every test example the same class."""
    return len(set(run.examples.get("prediction", ()))) == 1 < len(set(run.examples.get("label", ())))


def macro_f1(run: Run) -> float | None:
    """Returns the mean over the classes of the test examples of 2 hits / (labels + predictions), where these classes
    are so unequal that accuracy says little of the rare ones: the commonest has a tenth more than its equal share."""
    labels, predictions = run.examples.get("label", ()), run.examples.get("prediction", ())
    wanted, given = Counter(labels), Counter(predictions)
    if not given or max(wanted.values()) <= 1.1 * len(labels) / len(wanted):
        return None
    hits = Counter(label for label, prediction in zip(labels, predictions, strict=True) if label == prediction)
    return float(np.mean([2 * hits[name] / (wanted[name] + given[name]) for name in wanted]))


def _judges(runs: Sequence[Run]) -> str:
    judges = sorted({one["judge"]["model"] for run in runs if (one := counting_judge(run.results))})
    mixed = "; scores of different judges do not compare" if len(judges) > 1 else ""
    return f"Judge: {listing(judges)}{mixed}. The report's judge was another, so only differences compare."


def _at(*path: str, over: float = 1.0) -> Callable[[Run], float | None]:
    """The kind reads this number of results.json."""

    def number(run: Run) -> float | None:
        value = run.number(*path)
        return None if value is None else value / over

    return number


def _tested(run: Run) -> float | None:
    found = (run.number("test", name, "value") for name in ("accuracy", "response_perplexity", "loss"))
    return next((value for value in found if value is not None), None)


ACCURACY = Kind(
    name="accuracy", unit="accuracy, %", factor=100.0, digits=1,
    scores=_right, most=1.0, baseline=_commonest,
)  # fmt: skip
JUDGE = Kind(
    name="judge's score", unit="judge's score, 0 to 100", digits=1, partial=True,
    scores=_judged, most=100.0, about=_judges,
)  # fmt: skip
PERPLEXITY = Kind(
    name="perplexity of the response", unit="perplexity of the response", digits=2, ratio=True, higher_is_better=False,
    scores=_losses,
)  # fmt: skip
SCORES = (ACCURACY, JUDGE, PERPLEXITY)  # the first that all runs of a column have is the column's
FORGETTING = Kind(
    name="forgetting", unit="forgetting, nats", higher_is_better=False, scores=_lost, examples="pieces of general text"
)
UNKNOWN = Kind(number=_tested)  # of runs that kept no examples
NAMED = {
    "forgetting": FORGETTING,
    "parameters": Kind(unit="trained parameters", number=_at("parameters", "trainable"), digits=0, compares=False),
    "memory": Kind(unit="peak memory, GiB", number=_at("peak_memory_mib", over=1024), digits=2, compares=False),
    "minutes": Kind(
        unit="minutes of training",
        number=_at("seconds", "train", over=60),
        digits=2,
        compares=False,
        about=lambda runs: "Not made in turns on a quiet machine: these times are no comparison.",
    ),
    "peak-lr": Kind(
        unit="peak learning rate",
        digits=6,
        number=lambda run: max((point["lr"] for point in run.curve if "lr" in point), default=None),
        compares=False,
    ),
    "val-loss": Kind(
        unit="lowest validation loss, nats",
        higher_is_better=False,
        number=lambda run: min((point["val_loss"] for point in run.curve if "val_loss" in point), default=None),
    ),
}


def kind_of(column: str, runs: Sequence[Run]) -> Kind:
    """A column has one kind, so that the judge's score counts only where every run has one."""
    if column in NAMED:
        return NAMED[column]
    every = (kind for kind in SCORES if kind.scores and all(kind.scores(run) is not None for run in runs))
    return next(every, UNKNOWN)


def common(runs: Sequence[Run], kind: Kind) -> list[Any]:
    """These are the ids of the examples that all runs have a score of, in order."""
    assert kind.scores is not None, "a number of a run has no examples"
    return sorted(set.intersection(*(set(kind.scores(run) or ()) for run in runs)))


def arrays(runs: Sequence[Run], kind: Kind, ids: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The examples `ids` have these sums (seeds, n) and weights (n,)."""
    assert kind.scores is not None, "a number of a run has no examples"
    found = [kind.scores(run) or {} for run in runs]
    return np.array([[one[i][0] for i in ids] for one in found]), np.array([found[0][i][1] for i in ids])


# What a run cost: name -> its number.
COSTS: Mapping[str, Callable[[Run], float | None]] = {
    "trained": _at("parameters", "trainable"),
    "share": _at("parameters", "share"),
    "peak_mib": _at("peak_memory_mib"),
    "seconds": _at("seconds", "train"),
    "tokens_per_second": _at("tokens_per_second"),
}


def costs(runs: Sequence[Run]) -> dict[str, float]:
    """A cost is the mean over runs, if every run has it."""
    found: dict[str, float] = {}
    for name, number in COSTS.items():
        values = [value for run in runs if (value := number(run)) is not None]
        found |= {name: float(np.mean(values))} if len(values) == len(runs) > 0 else {}
    return found
