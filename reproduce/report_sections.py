"""Cells -> the blocks of the page: a column in both versions beside what the report says, and what each cell took."""

import re
from collections.abc import Mapping
from dataclasses import replace

from report_cells import Cell
from report_document import Block, Example, Grid, Shown
from report_list import NOTHING
from report_metrics import OF_A_RUN
from report_notes import (
    Column,
    commonest_notes,
    comparison_notes,
    confound_notes,
    disagreements,
    metric_notes,
    missing_notes,
    small_notes,
)
from report_scale import Design, identical_notes, rate_notes, size_notes
from report_settings import settings_of
from report_words import (
    MISSING,
    NONE,
    SPELLED,
    Unit,
    column_title,
    interval,
    mark,
    number,
    p_remark,
    p_text,
    size_in,
    sized,
    unit_of,
)

# A question and its answers, as generate.py prints them.
COMPARED = re.compile(r"^> (.*?)\nbase: (.*?)\nfine-tuned: (.*?)(?=\n\n> |\s*\Z)", re.MULTILINE | re.DOTALL)
NO_SCORE = ("parameters", "memory", "minutes", "peak-lr", "answers")  # columns that compare no rows
DETAILS = ["", "version", "n", "seeds", "sd", "difference", "p", "trained", "share", "peak MiB", "train s", "tokens/s"]
DETAILS += ["forgetting, nats"]


def quoted(text: str, column: str, unit: Unit) -> Shown:
    """A value that others gave, as they printed it; counts in full."""
    value = number(text)
    if value is None:
        return Shown(text or NONE)
    return Shown(unit.text(value) if column == "parameters" else text, value)


def ours(unit: Unit, cell: Cell | None) -> Shown:
    if cell is None:
        return Shown(NONE)
    if cell.value is None:
        return Shown(MISSING, remark=cell.reason)
    found = cell.comparison
    remark = p_remark(found.p) if found else ""
    return Shown(mark(cell) + interval(unit, cell), cell.value, remark)


def main_grid(name: str, column: Column, unit: Unit) -> Grid:
    """Report, record and ours in the versions that there are; without report and record where no row has them."""
    by_label = {version: {cell.label: cell for cell in cells} for version, cells in column.items()}
    labels = list(dict.fromkeys(label for cells in by_label.values() for label in cells))
    first = {label: next(cells[label] for cells in by_label.values() if label in cells) for label in labels}
    told = any(cell.report or cell.record for cell in first.values())
    whose = " (judge)" if unit.ratio else ""
    given = (f"report{whose}", f"authors' record{whose}") if told else ()
    rows = []
    for label in labels:
        cell, row = first[label], [Shown(label, label)]
        if told:
            record = quoted(cell.record, name, unit) if cell.record else Shown(MISSING, remark="there is no record")
            row += [quoted(cell.report, name, unit), record]
        rows.append([*row, *(ours(unit, cells.get(label)) for cells in by_label.values())])
    return Grid(["", *given, *(SPELLED[version] for version in column)], rows)


def details(column: Column, unit: Unit) -> Grid | None:
    """What stands behind each measured cell."""
    rows = []
    for version, cells in column.items():
        for cell in cells:
            if cell.value is None:
                continue
            cost, found = cell.cost, cell.comparison
            difference = NONE
            if found:
                value, low, high = (unit.difference(x) for x in found[:3])
                difference = f"{value} [{low}, {high}]"
            row = [Shown(cell.label, cell.label), Shown(SPELLED[version], version), _count(cell.n)]
            row += [Shown(f"{len(cell.seeds)}", len(cell.seeds), f"seeds {' '.join(cell.seeds)}")]
            row += [Shown(unit.text(cell.sd), cell.sd) if cell.sd is not None else Shown(NONE)]
            row += [Shown(difference, found.value if found else None, cell.why_alone)]
            row += [Shown(p_text(found.p), found.p) if found else Shown(NONE)]
            row += [_count(cost.get("trained")), _shown(cost.get("share"), ".2%")]
            row += [_count(cost.get(name)) for name in ("peak_mib", "seconds", "tokens_per_second")]
            rows.append([*row, _forgetting(cost)])
    return Grid(DETAILS, rows) if rows else None


def _count(value: float | None) -> Shown:
    return _shown(value, ",.0f")


def _shown(value: float | None, pattern: str) -> Shown:
    return Shown(NONE) if value is None else Shown(format(value, pattern), value)


def _forgetting(cost: Mapping[str, float]) -> Shown:
    if "forgetting" not in cost:
        return Shown(NONE)
    value, low, high = (cost[f"forgetting{end}"] for end in ("", "_low", "_high"))
    return Shown(f"{value:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−"), value)


def block_of(name: str, column: Column, design: Design) -> Block:
    """One column of a table. `design`: its rows' commands as they are written."""
    everything = [cell for cells in column.values() for cell in cells]
    metric = next((cell.metric for cell in everything if cell.metric is not None), None)
    unit = unit_of(name, metric, [text for cell in everything for text in (cell.report, cell.record)])
    notes = metric_notes(everything) + comparison_notes(column, unit) + commonest_notes(column) + missing_notes(column)
    notes += identical_notes(column) + rate_notes(column, design)
    if name not in NO_SCORE:
        for version, cells in column.items():
            written = {label: settings_of(command) for label, command in design.get(version, {}).items()}
            notes += confound_notes(version, cells, list(written.values()))
            notes += size_notes(version, cells, written) + small_notes(version, cells, unit)
    commands = [(f"{c.label}, {SPELLED[c.version]}", c.command) for c in everything if c.command not in NOTHING]
    title = column_title(name)
    title += f": {unit.name}" if unit.name and name not in OF_A_RUN else ""
    return Block(
        title, main_grid(name, column, unit), [*notes, *disagreements(column)], details(column, unit), commands
    )


def by_size(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Columns that are named alike but for a number of examples ("spam 125") as one, the number in front of the label.

    Every row keeps the comparison of its own column.
    """
    found: dict[str, dict[str, list[Cell]]] = {}
    for name, column in columns.items():
        family = size_in(name)[0]
        for version, cells in column.items():
            for cell in cells:
                against = f"{cell.reference} of the same size" if cell.reference else ""
                label = sized(cell.label, name)
                shown = cell if label == cell.label else replace(cell, label=label, reference=against)
                found.setdefault(family, {}).setdefault(version, []).append(shown)
    return {family: dict(by_version) for family, by_version in found.items()}


def examples_of(column: Column) -> list[Example]:
    """Answers of every cell's first seed to the report's own questions, then to test prompts."""
    measured = [(f"{c.label}, {SPELLED[c.version]}", c.runs[0]) for cells in column.values() for c in cells if c.runs]
    asked: dict[str, list[tuple[str, str]]] = {}

    def show(who: str, question: str, before: str, response: str, wanted: str | None = None) -> None:
        shown = asked.setdefault(question, [("wanted", wanted)] if wanted is not None else [])
        if before not in [text for name, text in shown if name != "wanted"]:  # one base has one answer
            shown.append((f"before ({who})", before))
        shown.append((who, response))

    for who, run in measured:
        for question, before, response in COMPARED.findall(run.asked):
            show(who, question, before, response)
    for who, run in measured:
        for answer in run.answers:
            question = "\n".join(part for part in (answer["instruction"], answer["input"]) if part)
            show(who, question, answer["before"], answer["response"], answer["reference"])
    return [Example(question, answers) for question, answers in asked.items()]
