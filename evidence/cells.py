"""Runs become cells: each has its mean over seeds, its interval, and its difference from the column's reference row.

Intervals and tests are over seeds and examples, both of which could have been others (evidence/crossed.py). The first
measured row of a column is the reference, p is adjusted by Holm over what is claimed together, and rows that show the
same runs count as one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np

from evidence.crossed import Mean, pooled
from evidence.intervals import holm
from evidence.kinds import Kind, answers_one_class, arrays, common, kind_of
from evidence.runs import Run

LEVEL = 0.05


class Comparison(NamedTuple):
    """This is a row minus its reference on the same `n` examples, or their ratio where the kind is one. `p` is adjusted
    among so many. `detectable` is the smallest difference (ratio) that four of five tries would find, nan where that
    cannot be told: where a row can claim only because its seeds count as those of others do, other tries might not. A
    row `claims` nothing where its seeds are too few to say how much they vary."""

    value: float
    low: float
    high: float
    p: float
    n: int
    detectable: float
    among: int
    claims: bool

    @property
    def differs(self) -> bool:
        return self.p < LEVEL


@dataclass(frozen=True, kw_only=True)
class Cell:
    """This is a row of a column. What was not measured is None; `reason` says why there is no value."""

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
    each: tuple[float, ...] = ()  # the value of each seed
    cost: Mapping[str, float] = field(default_factory=dict)
    comparison: Comparison | None = None
    reference: str = ""  # label of the row that it was compared with
    why_alone: str = ""  # why it was not compared

    @property
    def scored(self) -> bool:
        """It has a score of each test example."""
        return self.n is not None

    @property
    def sd(self) -> float | None:
        return float(np.std(self.each, ddof=1)) if len(self.each) > 1 else None

    @property
    def verdict(self) -> int:
        """It is 1 for better than the reference, -1 for worse, and 0 where the two are not told apart."""
        if self.kind is None or self.comparison is None or not self.comparison.differs:
            return 0
        higher = self.comparison.value > (1.0 if self.kind.ratio else 0.0)
        return 1 if higher == self.kind.higher_is_better else -1

    @property
    def of_one_class(self) -> int:
        """So many of its runs gave every test example the same class."""
        return sum(map(answers_one_class, self.runs))

    def text(self, kind: Kind) -> str:
        """The mean is followed by its interval, where there is one."""
        assert self.value is not None, "a missing cell has no interval"
        ends = [kind.text(end) for end in (self.low, self.high) if end is not None]
        return kind.text(self.value) + (f" [{', '.join(ends)}]" if len(ends) == 2 else "")


C = TypeVar("C", bound=Cell)


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def same_examples(a: Sequence[Run], b: Sequence[Run] = ()) -> bool:
    """Examples are the same if their ids and their labels or lengths are."""
    kept = [{name: run.examples.get(name) for name in ("id", "label", "tokens")} for run in (*a, *b)]
    return all(one == kept[0] for one in kept)


def measured(cell: C, kind: Kind) -> C:
    """The cell gets its value, its interval and the value of each seed."""
    if kind.number is not None:
        numbers = [value for run in cell.runs if (value := kind.number(run)) is not None]
        if not numbers:
            return replace(cell, reason="finished, but this was not measured")
        return replace(cell, kind=kind, value=float(np.mean(numbers)), each=tuple(numbers))
    if not same_examples(cell.runs):
        return replace(cell, reason="its seeds were tested on different examples")
    ids = common(cell.runs, kind)
    if not ids:
        return replace(cell, reason=f"no example has a {kind.name}")
    sums, weights = arrays(cell.runs, kind, ids)
    each = tuple(kind.in_unit(float(one.sum() / weights.sum())) for one in sums)
    mean = kind.mean(sums, weights)
    value, low, high = (None if math.isnan(x) else kind.in_unit(x) for x in (mean.value, *kind.ends(mean, len(ids))))
    return replace(cell, kind=kind, value=value, low=low, high=high, n=len(ids), each=each)


def difference(cell: C, reference: Cell) -> tuple[Mean, int] | str:
    """Returns the mean difference over the seeds and the examples that both rows have, and the number of these, or why
    there is none."""
    kind, seeds = cell.kind, [seed for seed in cell.seeds if seed in reference.seeds]
    assert kind is not None, "a row without a value is not compared"
    if len(seeds) < 2:
        return f"not compared, fewer than two seeds in common with {reference.label}"
    runs = [[one.runs[one.seeds.index(seed)] for seed in seeds] for one in (cell, reference)]
    if not kind.partial and not same_examples(*runs):
        return f"not compared, tested on other examples than {reference.label}"
    ids = common([*runs[0], *runs[1]], kind)
    if len(ids) < 2:
        return f"not compared, fewer than two examples in common with {reference.label}"
    (ours, weights), (theirs, _) = (arrays(of, kind, ids) for of in runs)
    return kind.difference(ours, theirs, weights), len(ids)


def compared_together(groups: Sequence[tuple[Sequence[C], Cell]]) -> list[list[C]]:
    """Each group's cells get their difference from its reference; all groups are one family.

    p is adjusted over the family. How much seeds vary is pooled within a group alone: between tasks, and between sizes
    of a training set, it is another.
    """
    found = [[difference(cell, reference) for cell in cells] for cells, reference in groups]
    alone = [[one[0] for one in group if not isinstance(one, str)] for group in found]
    tested = [mean for group in alone for mean in pooled(group)]
    tests = iter(zip(sum(alone, []), tested, holm([mean.p() for mean in tested]), strict=True))

    def told(cell: C, reference: Cell, one: tuple[Mean, int] | str) -> C:
        if isinstance(one, str):
            return replace(cell, why_alone=one)
        (by_itself, mean, p), kind = next(tests), cell.kind
        assert kind is not None, "a row that was compared has a kind"
        found = mean.detectable(len(tested)) if by_itself.claims else math.nan
        value, low, high, least = map(kind.in_unit, (mean.value, *mean.ends(), found))
        comparison = Comparison(value, low, high, p, one[1], least, len(tested), mean.claims)
        return replace(cell, comparison=comparison, reference=reference.label)

    return [
        [told(cell, reference, one) for cell, one in zip(cells, group, strict=True)]
        for (cells, reference), group in zip(groups, found, strict=True)
    ]


def compared(cells: Sequence[C], reference: Cell) -> list[C]:
    """Each of the cells gets its difference from `reference`; they are one family."""
    return compared_together([(cells, reference)])[0]


def distinct_runs(cells: Iterable[C]) -> list[C]:
    """Of the cells with scores that show the same runs the first one is kept."""
    found: dict[tuple[str, ...], C] = {}
    for cell in cells:
        if cell.scored:
            found.setdefault(cell.keys, cell)
    return list(found.values())


def in_columns(columns: Mapping[str, Sequence[C]]) -> dict[str, list[C]]:
    """All cells are measured, and each is compared with the first of its column; the columns are one family.

    Runs that stand in several rows are compared once: their rows share the comparison, and rows with the first row's
    runs have none. Rows a, b, c, d of runs x, x, y, y are one comparison, y against x, in c and in d.
    """
    found = dict[str, list[C]]()
    for column, cells in columns.items():
        kind = kind_of(column, [run for cell in cells for run in cell.runs])
        found[column] = [measured(cell, kind) if cell.runs else cell for cell in cells]
    once = {column: known for column, cells in found.items() if (known := distinct_runs(cells))}
    tested = compared_together([(known[1:], known[0]) for known in once.values()])
    for column, group in zip(once, tested, strict=True):
        done = {cell.keys: cell for cell in group}
        shown = [(cell, done.get(cell.keys, cell)) for cell in found[column]]
        found[column] = [
            replace(c, comparison=d.comparison, reference=d.reference, why_alone=d.why_alone) for c, d in shown
        ]
    return found
