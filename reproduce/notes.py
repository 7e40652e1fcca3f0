"""What stands under a column: what its marks mean, what could have been found, what is missing, what to beware of."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from report_cells import VERSIONS, Cell, distinct_runs
from report_document import Note
from report_metrics import ACCURACY, JUDGE, PERPLEXITY
from report_settings import Settings, confounds
from report_words import SPELLED, Unit, listing, number, verdict

Column = Mapping[str, Sequence[Cell]]  # cells by version
VERDICTS = {1: "better", -1: "worse", 0: "not told apart"}


def reference(cells: Sequence[Cell]) -> Cell | None:
    """The row that the others were compared with."""
    return next((cell for cell in cells if cell.metric is not None), None)


def comparison_notes(column: Column, unit: Unit) -> list[Note]:
    """What the arrows mean, n, and the smallest difference that would have been found; alike versions together."""
    found: dict[tuple[str, int, int], list[str]] = {}
    notes = []
    for version, cells in column.items():
        tested = [(cell.reference, cell.comparison) for cell in cells if cell.comparison is not None]
        if not tested:
            continue
        references, comparisons = zip(*tested, strict=True)
        against = listing(list(dict.fromkeys(references)))
        known = [one.detectable for one in comparisons if not math.isnan(one.detectable)]
        if not known:
            text = f"{SPELLED[version].capitalize()}: on each of the n = {comparisons[0].n:,} test examples every row "
            text += f"scores the same as {against}, which does not tell how small a difference could be found."
            notes.append(Note("note", text))
            continue
        least = unit.size(max(known))
        key = against, comparisons[0].among, comparisons[0].n
        found.setdefault(key, []).append(f"{least} ({SPELLED[version]})")
    for (against, count, n), sizes in found.items():
        text = f"↑ higher, ↓ lower than {against} (paired bootstrap over examples, Holm over {count}, 5%). "
        text += f"n = {n:,} test examples; four of five tries would have found a difference of {listing(sizes)}."
        notes.append(Note("note", text))
    return notes


def commonest_notes(column: Column) -> list[Note]:
    """What an answer that is always the same would score, on the reference row's test examples."""
    found: dict[str, list[str]] = {}
    for version, cells in column.items():
        first = reference(cells)
        if first is not None and first.metric is ACCURACY:
            labels = first.runs[0].examples["label"]
            ((_, count),) = Counter(labels).most_common(1)
            share = f"{count / len(labels):.1%} of n = {len(labels):,}"
            found.setdefault(share, []).append(SPELLED[version])
    if not found:
        return []
    shares = [f"{share} ({' and '.join(versions)})" for share, versions in found.items()]
    told = listing(shares) if len(found) > 1 else next(iter(found))
    return [Note("note", f"Always answering the commonest class would be right in {told}.")]


def missing_notes(column: Column) -> list[Note]:
    """Why cells are missing, lack a seed, or were not compared, alike ones together."""
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


def metric_notes(cells: Sequence[Cell]) -> list[Note]:
    """Which judge; and that perplexity stands in for one."""
    first = reference(cells)
    if first is None or first.metric is ACCURACY:
        return []
    if first.metric is JUDGE:
        judges = sorted({one["judge"]["model"] for run in first.runs for one in run.results.get("judge", {}).values()})
        return [Note("note", f"Judge: {listing(judges)}. The report's judge was another, so only differences compare.")]
    if first.metric is PERPLEXITY and any(cell.report for cell in cells):
        return [
            Note("note", "No judge was asked: the perplexity of the reference responses stands in (lower is better).")
        ]
    return []


def confound_notes(version: str, cells: Sequence[Cell], design: Sequence[Settings]) -> list[Note]:
    """Of the rows as they are written, and what else moves at this scale among the rows that there are."""
    written = confounds(design)
    known = {names for one in written for names in one.names}
    here = confounds([cell.settings for cell in cells if cell.runs or cell.reason == "not run"])
    texts = [one.text for one in written]
    texts += [f"at this scale, {one.text}" for one in here if not one.names <= known]
    return [Note("warning", f"{SPELLED[version].capitalize()}: {text}.") for text in texts]


def small_notes(version: str, cells: Sequence[Cell], unit: Unit) -> list[Note]:
    """Differences that the report claims, where n is too small to find them."""
    first = reference(cells)
    base = None if first is None or first.metric is PERPLEXITY else number(first.report)
    if first is None or base is None:
        return []
    small = []
    for cell in cells:
        value, found = number(cell.report), cell.comparison
        if found is None or value is None or value == base:  # no n shows that the reference's own runs differ
            continue
        claimed = value - base
        if abs(claimed) < found.detectable * unit.factor:
            shown = f"{claimed:+.{unit.digits}f}".replace("-", "−")
            small.append(f"{cell.label} {shown} (could be found: {unit.size(found.detectable)})")
    if not small:
        return []
    text = f"{SPELLED[version].capitalize()}: n = {first.n:,} is too small for the differences from {first.label} that "
    return [Note("small", f"{text}the report claims: {listing(small)}.")]


def disagreements(column: Column) -> list[Note]:
    """Where published and corrected settings lead to other conclusions: a row's verdict, or the order of rows."""
    firsts = [reference(column.get(version, ())) for version in VERSIONS]
    if firsts[0] is None or firsts[1] is None:
        return []
    published, corrected = ({c.label: c for c in column[v] if c.metric is not None} for v in VERSIONS)
    both = [label for label in published if label in corrected]
    texts = []
    if firsts[0].label == firsts[1].label:
        changed: dict[tuple[int, int], list[str]] = {}
        for label in both:
            if published[label].keys == firsts[0].keys or corrected[label].keys == firsts[1].keys:
                continue  # the reference's own runs are not compared with themselves
            changed.setdefault((verdict(published[label]), verdict(corrected[label])), []).append(label)
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
    if orders[0] != orders[1] and any(verdict(cells[label]) for cells in (published, corrected) for label in both):
        texts.append(f"Best first, as published: {', '.join(orders[0])}; corrected: {', '.join(orders[1])}.")
    return [Note("disagreement", " ".join(texts))] if texts else []


def _best_first(cells: Sequence[Cell]) -> list[str]:
    best = 1 if cells and cells[0].metric is not None and cells[0].metric.higher_is_better else -1
    return [cell.label for cell in sorted(cells, key=lambda cell: -best * (cell.value or 0.0))]
