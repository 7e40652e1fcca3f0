"""What stands under a column because of the scale: rows that became the same runs, sizes that became one model, and
learning rates that moved with the width.

Rows "as written" are the commands at the report's scale, by version and label.
"""

import re
from collections.abc import Mapping, Sequence

from report_cells import Cell
from report_document import Note
from report_notes import Column
from report_settings import Settings, between
from report_words import SPELLED, listing, number

Design = Mapping[str, Mapping[str, str]]  # version -> label -> command as written


def identical_notes(column: Column) -> list[Note]:
    """Which rows show the same runs, alike versions together."""
    found: dict[str, list[str]] = {}
    for version, cells in column.items():
        labels: dict[tuple[str, ...], list[str]] = {}
        for cell in cells:
            if cell.keys:
                labels.setdefault(cell.keys, []).append(cell.label)
        groups = "; ".join(listing(same) for same in labels.values() if len(same) > 1)
        if groups:
            found.setdefault(groups, []).append(SPELLED[version])
    return [
        Note("note", f"At this scale the same runs stand in several rows, {' and '.join(versions)}: {groups}.")
        for groups, versions in found.items()
    ]


def size_notes(version: str, cells: Sequence[Cell], written: Mapping[str, Settings]) -> list[Note]:
    """What is between rows of two sizes where one model stands for all; `written`: the rows as written, by label."""
    rows = [cell for cell in cells if cell.value is not None and cell.label in written]
    if len({cell.settings["model"] for cell in rows}) != 1:
        return []
    first = rows[0]
    alike: dict[str, list[str]] = {}
    for cell in rows[1:]:
        if written[cell.label]["model"] != written[first.label]["model"]:
            what = listing(between(first.settings, cell.settings)) or "none of the settings that are compared"
            alike.setdefault(what, []).append(cell.label)
    if not alike:
        return []
    parts = [
        f"{listing(labels)} differ{'s' * (len(labels) == 1)} from {first.label} in {what}"
        for what, labels in alike.items()
    ]
    text = f"{SPELLED[version].capitalize()}: at this scale all sizes are one model, and no difference is one of size; "
    return [Note("warning", f"{text}{'; '.join(parts)}.")]


def rate_notes(column: Column, design: Design) -> list[Note]:
    """How the learning rates that ran relate to those in the labels: 2.5e-5 at width 1024 is 5.33 times that at 192."""
    factors = []
    for version, cells in column.items():
        for cell in cells:
            given = re.search(r"--lr[ =](\S+)", design.get(version, {}).get(cell.label, ""))
            if given is None or given[1] not in re.findall(r"[\w.+-]+", cell.label):
                continue
            rate = number(given[1])
            ran = [run.number("args", "lr") for run in cell.runs]
            factors += [lr / rate for lr in ran if lr is not None and rate]
    if not factors:
        return []
    times = dict.fromkeys(f"{factor:.3g}" for factor in (min(factors), max(factors)))
    if list(times) == ["1"]:
        return []
    text = f"Learning rates in the labels are for the width as written; what ran is {' to '.join(times)} times that."
    return [Note("note", text)]
