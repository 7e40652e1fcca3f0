"""What is to be known about a column: what could have been found in it, what is missing, and what to beware of."""

import math
from collections.abc import Mapping, Sequence

from evidence.cells import distinct_runs
from evidence.document import listing
from evidence.kinds import NAMED, Kind
from reproduce.cells import BEST, SPELLED, VERSIONS, Cell, Column, reported
from reproduce.confounds import between, confounds

VERDICTS = {1: "better", -1: "worse", 0: "not told apart"}


def reference(cells: Sequence[Cell]) -> Cell | None:
    """Returns the row that the others were compared with."""
    return next((cell for cell in cells if cell.scored), None)


def comparison_note(cells: Sequence[Cell], kind: Kind) -> str:
    """Returns a sentence on n, the tests, and the difference that would have been found."""
    tested = [cell.comparison for cell in cells if cell.comparison is not None]
    if not tested:
        return ""
    text = f"n = {tested[0].n:,} {kind.examples}"
    text += f", p adjusted over {tested[0].among} comparisons (Holm); " if tested[0].among > 1 else "; "
    known = [one.detectable for one in tested if not math.isnan(one.detectable)]
    if known:
        aside = " (rows of which that cannot be said aside)" * (len(known) < len(tested))
        return f"{text}four of five tries would find a difference of {kind.size(max(known))}{aside}."
    seeds = max(len(cell.seeds) for cell in cells)
    if any(one.claims and one.low < one.high for one in tested):
        return f"{text}{seeds} seeds do not tell how small a difference would be found."
    if any(one.claims for one in tested):
        return f"{text}every row scores the same on each, which does not tell how small a difference could be found."
    return f"{text}{seeds} seeds by themselves claim nothing."


def missing_notes(column: Column) -> list[str]:
    """Returns why cells are missing, lack a seed, or were not compared; equal reasons share a sentence. That a row is
    another one's run stands in its cell."""
    why: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for reasons in ("reason", "unfinished", "why_alone"):
        for version, cells in column.items():
            found = dict.fromkeys(getattr(cell, reasons) for cell in cells)
            for reason in filter(None, found):
                labels = tuple(cell.label for cell in cells if getattr(cell, reasons) == reason and not cell.same_as)
                labels = ("every row",) if len(labels) == len(cells) > 1 else labels
                if labels:
                    why.setdefault(reason, {}).setdefault(labels, []).append(SPELLED[version])
    notes = []
    for reason, rows in why.items():
        parts = [f"{listing(labels)} ({' and '.join(versions)})" for labels, versions in rows.items()]
        notes.append(f"{reason[0].upper()}{reason[1:]}: {'; '.join(parts)}.")
    return notes


def confound_notes(version: str, cells: Sequence[Cell]) -> list[str]:
    """Returns what is confounded in the rows as written, and what else is at this scale."""
    written = confounds([cell.written for cell in cells])
    known = {names for one in written for names in one.names}
    here = confounds([cell.settings for cell in cells if cell.runs or cell.reason == "not run"])
    texts = [one.text for one in written]
    texts += [f"at this scale, {one.text}" for one in here if not one.names <= known]
    return [f"{SPELLED[version].capitalize()}: {text}." for text in texts]


def size_notes(version: str, cells: Sequence[Cell]) -> list[str]:
    """If one model stands for all sizes, returns what really differs between rows of two sizes."""
    rows = [cell for cell in cells if cell.value is not None]
    if len({cell.settings["model"] for cell in rows}) != 1:
        return []
    first = rows[0]
    alike: dict[str, list[str]] = {}
    for cell in rows[1:]:
        if cell.written.get("model") != first.written.get("model"):
            what = listing(between(first.settings, cell.settings)) or "none of the settings that are compared"
            alike.setdefault(what, []).append(cell.label)
    if not alike:
        return []
    parts = [
        f"{listing(labels)} differ{'s' * (len(labels) == 1)} from {first.label} in {what}"
        for what, labels in alike.items()
    ]
    return [f"{SPELLED[version].capitalize()}: at this scale all sizes are one model; {'; '.join(parts)}."]


def moving(name: str, version: str, cells: Sequence[Cell], kind: Kind) -> list[str]:
    """Returns what changes in a column along with what it is about, if its rows are compared at all."""
    if name in ("answers", BEST) or not NAMED.get(name, kind).compares:
        return []
    return confound_notes(version, cells) + size_notes(version, cells)


def too_small(cell: Cell, first: Cell | None, kind: Kind) -> bool:
    """Whether the report claims a difference from the reference that is smaller than could be found here."""
    found = cell.comparison
    if first is None or found is None or kind.ratio:
        return False
    value, base = reported(cell.report, kind), reported(first.report, kind)
    return value is not None and base is not None and 0 < abs(value - base) < found.detectable


def disagreements(column: Column) -> list[str]:
    """Returns a sentence on the rows that have another verdict as published than when corrected."""
    firsts = [reference(column.get(version, ())) for version in VERSIONS]
    if firsts[0] is None or firsts[1] is None or firsts[0].label != firsts[1].label:
        return []
    published, corrected = ({c.label: c for c in column[v] if c.scored} for v in VERSIONS)
    changed: dict[tuple[int, int], list[str]] = {}
    for label in [label for label in published if label in corrected]:
        if published[label].keys == firsts[0].keys or corrected[label].keys == firsts[1].keys:
            continue  # the reference's own runs are not compared with themselves
        if not all(one.comparison and one.comparison.claims for one in (published[label], corrected[label])):
            continue  # where nothing is claimed there is nothing to disagree with
        changed.setdefault((published[label].verdict, corrected[label].verdict), []).append(label)
    parts = [
        f"{listing(labels)} {'are' if len(labels) > 1 else 'is'} {VERDICTS[one]} as published, {VERDICTS[other]} "
        "when corrected"
        for (one, other), labels in changed.items()
        if one != other
    ]
    return [f"Against {firsts[0].label}: {'; '.join(parts)}."] if parts else []


def identical_notes(column: Column) -> list[str]:
    """Returns which rows show the same runs; equal versions share a sentence."""
    groups: dict[str, list[str]] = {}
    for version, cells in column.items():
        labels: dict[tuple[str, ...], list[str]] = {}
        for cell in distinct_runs(cells):
            labels[cell.keys] = [other.label for other in cells if other.keys == cell.keys]
        text = "; ".join(listing(same) for same in labels.values() if len(same) > 1)
        groups.setdefault(text, []).append(SPELLED[version])
    return [
        f"At this scale the same runs stand in several rows, {' and '.join(versions)}: {same}."
        for same, versions in groups.items()
        if same
    ]


def warnings(name: str, column: Column, kind: Kind, main: str) -> list[str]:
    """Returns all that stands folded under a column; the sentence on the tests of the `main` version stands above."""
    said: Mapping[str, str] = {v: comparison_note(cells, kind) for v, cells in column.items() if v != main}
    notes = [f"{SPELLED[version].capitalize()}: {text}" for version, text in said.items() if text]
    for version, cells in column.items():
        notes += moving(name, version, cells, kind)
    return notes + disagreements(column) + missing_notes(column) + identical_notes(column)
