"""Runs -> cells: mean over seeds, interval, cost, and what differs from the column's reference row.

Intervals and tests are those of evidence/intervals.py, over examples of the score averaged over seeds: Wilson's of an
accuracy, Bonett and Price's of a difference of two, else 10,000 draws;
each row is compared with the first measured row of its column, Holm over the rows; rows of the same runs are one.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from evidence.intervals import (
    Difference,
    Interval,
    bootstrap_ratio,
    bounded_mean,
    detectable_difference,
    holm,
    linearised,
    paired_bootstrap,
    paired_shares,
    share,
    with_two_more,
)
from report_list import NOTHING, Line
from report_metrics import (
    ACCURACY,
    JUDGE,
    OF_A_RUN,
    PERPLEXITY,
    Metric,
    arrays,
    common,
    costs,
    in_unit,
    metric_of,
    same_examples,
)
from report_runs import Run
from report_settings import DEFAULTS, settings_of

LEVEL = 0.05
VERSIONS = ("published", "corrected")


class Comparison(NamedTuple):
    """A row minus its reference on the same `n` examples, in the metric's unit, or the ratio where that is logarithmic;
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


@dataclass(frozen=True)
class Cell:
    """A row of a column in one version. What was not measured is None; `reason` says why there is no value."""

    label: str
    column: str
    version: str
    report: str
    record: str
    command: str
    settings: Mapping[str, Any]
    seeds: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    keys: tuple[str, ...] = ()  # the runs' places: rows with the same ones show the same runs
    reason: str = ""
    unfinished: str = ""  # seeds that have not been run, where others have
    metric: Metric | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    sd: float | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    comparison: Comparison | None = None
    reference: str = ""  # label of the row that it was compared with
    why_alone: str = ""  # why it was not compared


def _interval(metric: Metric, scores: np.ndarray, weights: np.ndarray) -> Interval:
    """Of the mean of `scores`, or their sum over the sum of `weights`."""
    if metric is ACCURACY:
        return share(scores)
    return bounded_mean(scores, 100) if metric is JUDGE else bootstrap_ratio(scores, weights)


def measured(cell: Cell, metric: Metric | None) -> Cell:
    """The cell with value, interval and spread; `metric` is that of its column."""
    if cell.column in OF_A_RUN or metric is None:
        return _of_a_run(cell)
    if not same_examples(cell.runs, ()):
        return replace(cell, reason="its seeds were tested on different examples")
    ids = common(cell.runs, metric)
    if not ids:
        return replace(cell, reason=f"no example has a {metric.name}")
    sums, weights = arrays(cell.runs, metric, ids)
    found = _interval(metric, sums.mean(0), weights)
    value, low, high = (None if math.isnan(x) else in_unit(metric, x) for x in found[:3])
    each = [in_unit(metric, float(one.sum() / weights.sum())) for one in sums]
    sd = float(np.std(each, ddof=1)) if len(each) > 1 else None
    return replace(cell, metric=metric, value=value, low=low, high=high, n=len(ids), sd=sd)


def _of_a_run(cell: Cell) -> Cell:
    """A number of the run as a whole; without examples and a column of its own, the run's accuracy or perplexity."""

    def of_test(run: Run) -> float | None:
        found = (run.number("test", name, "value") for name in ("accuracy", "response_perplexity", "loss"))
        return next((value for value in found if value is not None), None)

    number = OF_A_RUN[cell.column][1] if cell.column in OF_A_RUN else of_test
    values = [value for run in cell.runs if (value := number(run)) is not None]
    if not values:
        return replace(cell, reason="finished, but this was not measured")
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return replace(cell, value=float(np.mean(values)), sd=sd)


def compared(cell: Cell, reference: Cell, comparisons: int) -> Cell:
    """The cell with its difference from `reference`, p not yet adjusted; paired over the examples that both have."""
    metric = cell.metric
    if metric is None or reference.metric is not metric:
        return cell
    if metric is not JUDGE and not same_examples(cell.runs, reference.runs):
        return replace(cell, why_alone=f"not compared, tested on other examples than {reference.label}")
    ids = common((*cell.runs, *reference.runs), metric)
    if len(ids) < 2:
        return replace(cell, why_alone=f"not compared, fewer than two examples in common with {reference.label}")
    (ours, weights), (theirs, _) = (arrays(one.runs, metric, ids) for one in (cell, reference))
    difference = ours.mean(0) - theirs.mean(0)
    if metric is ACCURACY:
        found, linear = paired_shares(ours, theirs), with_two_more(difference)
    else:
        # Whether a draw's sum is above 0 does not depend on what it is divided by, so p holds for the ratio too.
        value, low, high, n = bootstrap_ratio(difference, weights)
        found = Difference(value, low, high, paired_bootstrap(ours, theirs).p, n)
        linear = linearised(difference, weights)
    least = detectable_difference(linear, np.zeros(len(linear)), comparisons)
    value, low, high, least = (in_unit(metric, x) for x in (*found[:3], least))
    return replace(cell, comparison=Comparison(value, low, high, found.p, found.n, least), reference=reference.label)


def distinct_runs(cells: Iterable[Cell]) -> list[Cell]:
    """The measured cells, of those that show the same runs the first."""
    found: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        if cell.metric is not None:
            found.setdefault(cell.keys, cell)
    return list(found.values())


def with_comparisons(cells: Sequence[Cell]) -> list[Cell]:
    """Each measured cell of one column and version against the first of them.

    Runs that stand in several rows are compared once: their rows share the comparison, and those of the first row's
    runs have none. Rows a, b, c, d of runs x, x, y, y are one comparison, y against x, in c and in d.
    """
    known = distinct_runs(cells)
    done = {cell.keys: compared(cell, known[0], len(known) - 1) for cell in known[1:]}
    tested = [(keys, cell.comparison) for keys, cell in done.items() if cell.comparison is not None]
    for (keys, comparison), p in zip(tested, holm([one.p for _, one in tested]), strict=True):
        done[keys] = replace(done[keys], comparison=comparison._replace(p=p, among=len(tested)))
    shown = [(cell, done.get(cell.keys, cell)) for cell in cells]
    return [replace(c, comparison=d.comparison, reference=d.reference, why_alone=d.why_alone) for c, d in shown]


def cell_of(lines: Sequence[Line], find: Callable[[str], Run | None]) -> Cell:
    """The lines of one label, column and version, a seed each, with the runs of those that have finished."""
    first, asked = lines[0], [line for line in lines if line.status == "run"]
    found = [(line, run) for line in asked if (run := find(line.key)) is not None]
    settings = written = settings_of(first.command)
    runs = tuple(run for _, run in found)
    if runs:
        settings = DEFAULTS | runs[0].results["args"]
        if written["lr"] is None:  # a default, or chosen by the run itself: not what the table sets
            settings["lr"] = None
        settings |= {"tested": len(runs[0].examples["id"])} if "id" in runs[0].examples else {}
    reason = "" if runs else "not run" if asked else first.status
    report, record = (text if text not in NOTHING else "" for text in (first.report, first.record))
    seeds = tuple(line.seed for line, _ in found)
    left = [line.seed for line in asked if line.seed not in seeds]
    return Cell(
        *(first.label, first.column, first.version, report, record, first.command),
        settings=settings,
        seeds=seeds,
        runs=runs,
        keys=tuple(line.key for line, _ in found),
        reason=reason,
        unfinished=f"not yet run, seed {' '.join(left)}" if runs and left else "",
        cost=costs(runs),
    )


def cells_of(lines: Sequence[Line], find: Callable[[str], Run | None]) -> list[Cell]:
    """The cells of one column and version, in order, measured and compared."""
    by_label: dict[str, list[Line]] = {}
    for line in lines:
        by_label.setdefault(line.label, []).append(line)
    cells = [cell_of(same, find) for same in by_label.values()]
    kinds = [metric_of(run) for cell in cells for run in cell.runs]
    # A column has one metric: the judge's score only where every run has one.
    metric = PERPLEXITY if {JUDGE, PERPLEXITY} == set(kinds) else kinds[0] if len(set(kinds)) == 1 else None
    return with_comparisons([measured(cell, metric) if cell.runs else cell for cell in cells])
