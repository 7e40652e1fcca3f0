"""The cells of the tables: what the report says, what ran, and what came out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evidence import cells as evidence
from evidence.cells import in_columns, measured
from evidence.kinds import FORGETTING, NAMED, Kind, costs
from evidence.runs import Run
from reproduce.tables import Plan, Table, flags_of, parts_of

VERSIONS = ("published", "corrected")
SPELLED = {"published": "as published", "corrected": "corrected"}
BEST = "best"  # the column of rows that are chosen on validation

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
    same_as: str = ""  # label of the row that it differs from in the model's size only, where all sizes are one
    unfinished: str = ""  # seeds that have not been run, where others have


Column = Mapping[str, Sequence[Cell]]  # cells by version


def number(text: str) -> float | None:
    """Reads a value of the report, such as 92.4, 92.4% or 7,898,384; of several (36.35/38.10), the first."""
    found = re.match(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?", text)
    return float(found[0].replace(",", "")) if found else None


def reported(text: str, kind: Kind) -> float | None:
    """Reads a value of the report in the unit in which ours are stored: it has shares in percent in some tables."""
    value = number(text)
    return value / kind.factor if value is not None and kind.most == 1.0 and value > 1 else value


def cell_of(plan: Plan, seeds: str, find: Find) -> Cell:
    """Builds a cell from the runs of those seeds that have finished; where `seeds` is empty, of the row's own."""
    asked = [] if plan.why else plan.seeds(seeds)
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
        command="" if plan.why else plan.run_command(asked[0], RUNS),
        settings=settings,
        written=written,
        same_as=plan.same_as,
        seeds=tuple(found),
        runs=runs,
        keys=tuple(map(plan.place, found)),
        reason="" if runs else "not run" if asked else plan.status,
        unfinished=f"not yet run, seed {' '.join(left)}" if runs and left else "",
        cost=costs(runs),
    )


def forgotten(cell: Cell) -> Cell:
    """Returns the cell with what its runs forgot, in place of their score."""
    bare = replace(cell, kind=None, value=None, low=None, high=None, n=None, each=())
    return measured(bare, FORGETTING) if cell.runs else bare


def best_on_validation(cells: Sequence[Cell]) -> list[Cell]:
    """Returns, of the rows whose labels begin alike up to a colon, the one with the lowest validation loss."""
    groups: dict[str, list[tuple[float, Cell]]] = {}
    for cell in cells:
        losses = [loss for run in cell.runs if (loss := run.number("val", "loss", "value")) is not None]
        mean = sum(losses) / len(losses) if losses else float("inf")
        groups.setdefault(cell.label.split(":")[0], []).append((mean, cell))
    return [min(group, key=lambda one: one[0])[1] for group in groups.values()]


def columns_of(table: Table, plans: Sequence[Plan], cell: Callable[[Plan], Cell]) -> dict[str, dict[str, list[Cell]]]:
    """Measures and compares the cells; returns them by column and version, in the order of the rows.

    A family of tests is what one sentence claims: the columns with one first word, or all that show a score.
    """
    families: dict[tuple[str, str], dict[str, list[Cell]]] = {}
    for plan in plans:
        name, version = plan.row.column, plan.row.version
        family = "" if table.together and name not in NAMED else parts_of(name)[0]
        families.setdefault((version, family), {}).setdefault(name, []).append(cell(plan))
    found: dict[str, dict[str, list[Cell]]] = {plan.row.column: {} for plan in plans}
    for version in VERSIONS:
        for columns in [columns for (its, _), columns in families.items() if its == version]:
            chosen = {name: best_on_validation(cells) if name == BEST else cells for name, cells in columns.items()}
            for name, cells in in_columns(chosen).items():
                found[name][version] = cells
    return found


def joined(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Joins the columns with one first word. A number of examples stands behind the label, and every row keeps the
    comparison of its own column."""
    found: dict[str, dict[str, list[Cell]]] = {}
    for column, versions in columns.items():
        name, part = parts_of(column)
        for version, cells in versions.items():
            if column.split()[-1].isdecimal():
                end = " of the same size"
                cells = [replace(c, label=f"{c.label} on {part}") for c in cells]
                cells = [replace(c, reference=c.reference + end) if c.reference else c for c in cells]
            found.setdefault(name, {}).setdefault(version, []).extend(cells)
    return dict(found)
