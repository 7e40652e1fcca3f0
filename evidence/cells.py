"""Runs -> cells: mean over seeds, interval, cost, and what differs from the column's reference row.

Intervals and tests are over examples of the score averaged over seeds, as the column's kind has them. Each row is
compared with the first measured row of its column, Holm over the rows; rows of the same runs are one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np

from evidence.intervals import detectable_difference, holm
from evidence.kinds import JUDGE, Kind, arrays, common, kind_of
from evidence.runs import Run

LEVEL = 0.05


class Comparison(NamedTuple):
    """A row minus its reference on the same `n` examples, in the kind's unit, or the ratio where that is logarithmic;
    `p` after Holm among so many. `detectable`: the smallest difference (ratio) found in four of five tries, nan where
    that cannot be told."""

    value: float
    low: float
    high: float
    p: float
    n: int
    detectable: float
    among: int = 1

    @property
    def differs(self) -> bool:
        return self.p < LEVEL


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A row of a column. What was not measured is None; `reason` says why there is no value."""

    label: str
    runs: tuple[Run, ...] = ()
    seeds: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()  # the runs' places: rows with the same ones show the same runs
    reason: str = ""
    kind: Kind | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    sd: float | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    comparison: Comparison | None = None
    reference: str = ""  # label of the row that it was compared with
    why_alone: str = ""  # why it was not compared

    @property
    def scored(self) -> bool:
        """Whether it has a score of each test example."""
        return self.n is not None

    @property
    def verdict(self) -> int:
        """1 better than the reference, -1 worse, 0 not told apart."""
        if self.kind is None or not self.mark:
            return 0
        return 1 if (self.mark == "↑ ") == self.kind.higher_is_better else -1

    @property
    def mark(self) -> str:
        """An arrow for a row that differs from its reference: up for higher."""
        if self.kind is None or self.comparison is None or not self.comparison.differs:
            return ""
        return "↑ " if self.comparison.value > (1.0 if self.kind.ratio else 0.0) else "↓ "

    def text(self, kind: Kind) -> str:
        """Mean with its interval, where there is one."""
        assert self.value is not None, "a missing cell has no interval"
        ends = [kind.text(end) for end in (self.low, self.high) if end is not None]
        return kind.text(self.value) + (f" [{', '.join(ends)}]" if len(ends) == 2 else "")


C = TypeVar("C", bound=Cell)


def p_remark(p: float) -> str:
    """With its name: p = 0.123, p < 0.001."""
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def same_examples(a: Sequence[Run], b: Sequence[Run] = ()) -> bool:
    """By id, and by label or length, of all runs."""
    kept = [{name: run.examples.get(name) for name in ("id", "label", "tokens")} for run in (*a, *b)]
    return all(one == kept[0] for one in kept)


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def measured(cell: C, kind: Kind) -> C:
    """The cell with value, interval and spread."""
    if kind.number is not None:
        numbers = [value for run in cell.runs if (value := kind.number(run)) is not None]
        if not numbers:
            return replace(cell, reason="finished, but this was not measured")
        return replace(cell, kind=kind, value=float(np.mean(numbers)), sd=_spread(numbers))
    if not same_examples(cell.runs):
        return replace(cell, reason="its seeds were tested on different examples")
    ids = common(cell.runs, kind)
    if not ids:
        return replace(cell, reason=f"no example has a {kind.name}")
    sums, weights = arrays(cell.runs, kind, ids)
    found = kind.interval(sums.mean(0), weights)
    value, low, high = (None if math.isnan(x) else kind.in_unit(x) for x in found[:3])
    each = [kind.in_unit(float(one.sum() / weights.sum())) for one in sums]
    return replace(cell, kind=kind, value=value, low=low, high=high, n=len(ids), sd=_spread(each))


def compared(cell: C, reference: Cell, comparisons: int) -> C:
    """The cell with its difference from `reference`, p not yet adjusted; paired over the examples that both have."""
    kind = cell.kind
    if kind is None or reference.kind is not kind:
        return cell
    if kind is not JUDGE and not same_examples(cell.runs, reference.runs):
        return replace(cell, why_alone=f"not compared, tested on other examples than {reference.label}")
    ids = common((*cell.runs, *reference.runs), kind)
    if len(ids) < 2:
        return replace(cell, why_alone=f"not compared, fewer than two examples in common with {reference.label}")
    (ours, weights), (theirs, _) = (arrays(one.runs, kind, ids) for one in (cell, reference))
    found, linear = kind.difference(ours, theirs, weights)
    least = detectable_difference(linear, np.zeros(len(linear)), comparisons)
    value, low, high, least = (kind.in_unit(x) for x in (*found[:3], least))
    return replace(cell, comparison=Comparison(value, low, high, found.p, found.n, least), reference=reference.label)


def distinct_runs(cells: Iterable[C]) -> list[C]:
    """The cells with scores, of those that show the same runs the first."""
    found: dict[tuple[str, ...], C] = {}
    for cell in cells:
        if cell.scored:
            found.setdefault(cell.keys, cell)
    return list(found.values())


def in_column(column: str, cells: Sequence[C]) -> list[C]:
    """The cells measured, and each against the first of them.

    Runs that stand in several rows are compared once: their rows share the comparison, and those of the first row's
    runs have none. Rows a, b, c, d of runs x, x, y, y are one comparison, y against x, in c and in d.
    """
    kind = kind_of(column, [run for cell in cells for run in cell.runs])
    cells = [measured(cell, kind) if cell.runs else cell for cell in cells]
    known = distinct_runs(cells)
    done = {cell.keys: compared(cell, known[0], len(known) - 1) for cell in known[1:]}
    tested = [(keys, cell.comparison) for keys, cell in done.items() if cell.comparison is not None]
    for (keys, comparison), p in zip(tested, holm([one.p for _, one in tested]), strict=True):
        done[keys] = replace(done[keys], comparison=comparison._replace(p=p, among=len(tested)))
    shown = [(cell, done.get(cell.keys, cell)) for cell in cells]
    return [replace(c, comparison=d.comparison, reference=d.reference, why_alone=d.why_alone) for c, d in shown]
