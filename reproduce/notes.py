"""The notes under a column: what its marks mean, what could have been found, what is missing, and what to beware of."""

import math
import re
from collections.abc import Mapping, Sequence

from evidence.cells import distinct_runs
from evidence.document import Note, listing
from evidence.kinds import Kind
from reproduce.cells import SPELLED, VERSIONS, Cell, Column, number
from reproduce.confounds import between, confounds

VERDICTS = {1: "better", -1: "worse", 0: "not told apart"}


def reference(cells: Sequence[Cell]) -> Cell | None:
    """Returns the row that the others were compared with."""
    return next((cell for cell in cells if cell.scored), None)


def comparison_notes(column: Column, kind: Kind) -> list[Note]:
    """Notes on what the arrows mean, n, and the difference that would have been found; equal versions share one."""
    found: dict[tuple[str, int, int], list[str]] = {}
    notes = []
    for version, cells in column.items():
        tested = [(cell.reference, cell.comparison) for cell in cells if cell.comparison is not None]
        if not tested:
            continue
        references, comparisons = zip(*tested, strict=True)
        against = listing(list(dict.fromkeys(references)))
        version_is = SPELLED[version].capitalize()
        if not any(one.claims for one in comparisons):
            seeds = max(len(cell.seeds) for cell in cells)
            text = (
                f"{version_is}: {seeds} seeds tell too little of how much seeds vary, so no row is said to differ from "
            )
            notes.append(Note("note", f"{text}{against}."))
            continue
        known = [one.detectable for one in comparisons if not math.isnan(one.detectable)]
        if not known:
            text = (
                f"{version_is}: on each of the n = {comparisons[0].n:,} {kind.examples} every row scores the same as "
            )
            text += f"{against}, which does not tell how small a difference could be found."
            notes.append(Note("note", text))
            continue
        key = against, comparisons[0].among, comparisons[0].n
        found.setdefault(key, []).append(f"{kind.size(max(known))} ({SPELLED[version]})")
    for (against, count, n), sizes in found.items():
        text = f"↑ higher, ↓ lower than {against} (over seeds and examples, Holm over {count}, 5%). "
        text += f"n = {n:,} {kind.examples}; four of five tries would have found a difference of {listing(sizes)}."
        notes.append(Note("note", text))
    return notes


def by_version(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns each text of `texts` (by version) with the versions that have it; empty texts are left out."""
    found: dict[str, list[str]] = {}
    for version, text in texts.items():
        if text:
            found.setdefault(text, []).append(SPELLED[version])
    return [(text, " and ".join(versions)) for text, versions in found.items()]


def baseline_notes(column: Column) -> list[Note]:
    """A note on the score of always giving the same answer, on the reference row's test examples."""
    firsts = {version: reference(cells) for version, cells in column.items()}
    found = by_version({v: first.kind.baseline(first.runs[0]) for v, first in firsts.items() if first and first.kind})
    if not found:
        return []
    told = listing([f"{share} ({versions})" for share, versions in found]) if len(found) > 1 else found[0][0]
    return [Note("note", f"Always answering the commonest class would be right in {told}.")]


def missing_notes(column: Column) -> list[Note]:
    """Notes on why cells are missing, lack a seed, or were not compared; equal reasons share one."""
    why: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for reasons in ("reason", "unfinished", "why_alone"):
        for version, cells in column.items():
            for reason in dict.fromkeys(found for cell in cells if (found := getattr(cell, reasons))):
                labels = tuple(cell.label for cell in cells if getattr(cell, reasons) == reason)
                labels = ("every row",) if len(labels) == len(cells) > 1 else labels
                why.setdefault(reason, {}).setdefault(labels, []).append(SPELLED[version])
    notes = []
    for reason, rows in why.items():
        parts = [f"{listing(labels)} ({' and '.join(versions)})" for labels, versions in rows.items()]
        notes.append(Note("note", f"{reason[0].upper()}{reason[1:]}: {'; '.join(parts)}."))
    return notes


def kind_notes(cells: Sequence[Cell]) -> list[Note]:
    """A note on the number itself: which judge gave it, or that it stands in for a judge's score."""
    first = reference(cells)
    about = first.kind.about(first.runs, any(cell.report for cell in cells)) if first and first.kind else ""
    return [Note("note", about)] if about else []


def confound_notes(version: str, cells: Sequence[Cell]) -> list[Note]:
    """Warnings of what is confounded in the rows as written, and of what else is at this scale."""
    written = confounds([cell.written for cell in cells])
    known = {names for one in written for names in one.names}
    here = confounds([cell.settings for cell in cells if cell.runs or cell.reason == "not run"])
    texts = [one.text for one in written]
    texts += [f"at this scale, {one.text}" for one in here if not one.names <= known]
    return [Note("warning", f"{SPELLED[version].capitalize()}: {text}.") for text in texts]


def small_notes(version: str, cells: Sequence[Cell], kind: Kind) -> list[Note]:
    """A note on the differences that the report claims and for which n is too small."""
    first = reference(cells)
    base = None if first is None or kind.ratio else number(first.report)
    if first is None or base is None:
        return []
    small = []
    for cell in cells:
        value, found = number(cell.report), cell.comparison
        if found is None or value is None or value == base:  # no n shows that the reference's own runs differ
            continue
        claimed = value - base
        if abs(claimed) < found.detectable * kind.factor:
            shown = f"{claimed:+.{kind.digits}f}".replace("-", "−")
            small.append(f"{cell.label} {shown} (could be found: {kind.size(found.detectable)})")
    if not small:
        return []
    text = f"{SPELLED[version].capitalize()}: n = {first.n:,} is too small for the differences from {first.label} that "
    return [Note("small", f"{text}the report claims: {listing(small)}.")]


def disagreements(column: Column) -> list[Note]:
    """A note on where published and corrected settings give a row other verdicts, or order the rows differently."""
    firsts = [reference(column.get(version, ())) for version in VERSIONS]
    if firsts[0] is None or firsts[1] is None:
        return []
    published, corrected = ({c.label: c for c in column[v] if c.scored} for v in VERSIONS)
    both = [label for label in published if label in corrected]
    texts = []
    if firsts[0].label == firsts[1].label:
        changed: dict[tuple[int, int], list[str]] = {}
        for label in both:
            if published[label].keys == firsts[0].keys or corrected[label].keys == firsts[1].keys:
                continue  # the reference's own runs are not compared with themselves
            changed.setdefault((published[label].verdict, corrected[label].verdict), []).append(label)
        parts = [
            f"{listing(labels)} {'are' if len(labels) > 1 else 'is'} {VERDICTS[one]} as published, {VERDICTS[other]} "
            "when corrected"
            for (one, other), labels in changed.items()
            if one != other
        ]
        texts += [f"Against {firsts[0].label}: {'; '.join(parts)}."] if parts else []
    once = [{cell.label for cell in distinct_runs(cells.values())} for cells in (published, corrected)]
    ranked = [label for label in both if label in once[0] & once[1]]  # the same runs have no order
    orders = [_best_first([cells[label] for label in ranked]) for cells in (published, corrected)]
    if orders[0] != orders[1] and any(cells[label].verdict for cells in (published, corrected) for label in both):
        texts.append(f"Best first, as published: {', '.join(orders[0])}; corrected: {', '.join(orders[1])}.")
    return [Note("disagreement", " ".join(texts))] if texts else []


def _best_first(cells: Sequence[Cell]) -> list[str]:
    best = 1 if cells and cells[0].kind is not None and cells[0].kind.higher_is_better else -1
    return [cell.label for cell in sorted(cells, key=lambda cell: -best * (cell.value or 0.0))]


def identical_notes(column: Column) -> list[Note]:
    """Notes on rows that show the same runs; equal versions share one."""
    groups = {}
    for version, cells in column.items():
        labels: dict[tuple[str, ...], list[str]] = {}
        for cell in cells:
            if cell.keys:
                labels.setdefault(cell.keys, []).append(cell.label)
        groups[version] = "; ".join(listing(same) for same in labels.values() if len(same) > 1)
    return [
        Note("note", f"At this scale the same runs stand in several rows, {versions}: {same}.")
        for same, versions in by_version(groups)
    ]


def size_notes(version: str, cells: Sequence[Cell]) -> list[Note]:
    """If one model stands for all sizes, a warning of what really differs between rows of two sizes."""
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
    text = f"{SPELLED[version].capitalize()}: at this scale all sizes are one model, and no difference is one of size; "
    return [Note("warning", f"{text}{'; '.join(parts)}.")]


def rate_notes(column: Column) -> list[Note]:
    """How the rates that ran relate to those in the labels: 2.5e-5 at width 1024 is 5.33 times that at 192."""
    factors = []
    for cell in [cell for cells in column.values() for cell in cells]:
        rate = cell.written.get("lr")
        if rate in [number(word) for word in re.findall(r"[\w.+-]+", cell.label)] and rate:
            factors += [lr / rate for run in cell.runs if (lr := run.number("args", "lr")) is not None]
    times = dict.fromkeys(f"{factor:.3g}" for factor in (min(factors, default=1), max(factors, default=1)))
    if list(times) == ["1"]:
        return []
    text = f"Learning rates in the labels are for the width as written; what ran is {' to '.join(times)} times that."
    return [Note("note", text)]
