"""The cells of the tables: what the report says, what ran, and what came out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evidence import cells as evidence
from evidence.cells import in_column
from evidence.kinds import costs
from evidence.runs import Run
from reproduce.tables import Plan, flags_of, size_in

VERSIONS = ("published", "corrected")
SPELLED = {"published": "as published", "corrected": "corrected"}

RUNS = Path("runs/reproduce")
Find = Callable[[str], Run | None]  # a finished run by its place


@dataclass(frozen=True, kw_only=True)
class Cell(evidence.Cell):
    """`report` and `record` are as printed. `settings` are those of the run; `written` those in the table file."""

    column: str
    version: str
    report: str = ""
    record: str = ""
    command: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)
    unfinished: str = ""  # seeds that have not been run, where others have


Column = Mapping[str, Sequence[Cell]]  # cells by version


def number(text: str) -> float | None:
    """Reads a value of the report, such as 92.4, 92.4% or 7,898,384; of several (36.35/38.10), the first."""
    found = re.match(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?", text)
    return float(found[0].replace(",", "")) if found else None


def given(cells: Sequence[Cell]) -> list[float]:
    """Returns all values that the report and the authors' records have in the column."""
    return [value for cell in cells for text in (cell.report, cell.record) if (value := number(text)) is not None]


def cell_of(plan: Plan, seeds: Sequence[str], find: Find) -> Cell:
    """Builds a cell from the runs of those seeds that have finished."""
    asked = [] if plan.why else seeds
    found = {seed: run for seed in asked if (run := find(plan.place(seed))) is not None}
    runs, left = tuple(found.values()), [seed for seed in asked if seed not in found]
    settings, written = dict(plan.flags), flags_of(plan.row.command)
    if runs:
        settings |= runs[0].results["args"]
        if written.get("lr") is None:  # a default, or chosen by the run itself: not what the table sets
            settings["lr"] = None
        settings |= {"tested": len(runs[0].examples["id"])} if "id" in runs[0].examples else {}
    return Cell(
        label=plan.row.label,
        column=plan.row.column,
        version=plan.row.version,
        report=plan.row.report,
        record=plan.row.record,
        command="" if plan.why else plan.run_command(seeds[0], RUNS),
        settings=settings,
        written=written,
        seeds=tuple(found),
        runs=runs,
        keys=tuple(map(plan.place, found)),
        reason="" if runs else "not run" if asked else plan.status,
        unfinished=f"not yet run, seed {' '.join(left)}" if runs and left else "",
        cost=costs(runs),
    )


def columns_of(plans: Sequence[Plan], cell: Callable[[Plan], Cell]) -> dict[str, dict[str, list[Cell]]]:
    """Measures and compares the cells; returns them by column and version, in the order of the rows."""
    found: dict[str, dict[str, list[Cell]]] = {}
    for name in dict.fromkeys(plan.row.column for plan in plans):
        here = [cell(plan) for plan in plans if plan.row.column == name]
        by_version = {version: [c for c in here if c.version == version] for version in VERSIONS}
        found[name] = {version: in_column(name, cells) for version, cells in by_version.items() if cells}
    return found


def by_size(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Joins columns whose names differ only in a number of examples ("spam 125"). The number goes before the label, and
    every row keeps the comparison of its own column."""
    found: dict[str, dict[str, list[Cell]]] = {}
    for name, column in columns.items():
        family, size = size_in(name)
        for version, cells in column.items():
            if size is not None:
                cells = [
                    replace(c, label=f"{size}, {c.label}", reference=c.reference and f"{c.reference} of the same size")
                    for c in cells
                ]
            found.setdefault(family, {}).setdefault(version, []).extend(cells)
    return dict(found)
