"""Whether labels can be classes, asked before training: what cannot be meant is refused, what may be meant is noted."""

import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from tasks._cells import short
from tasks._labels import in_order, is_placeholder, likeness, number_in, shown, variants

DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ].*)?")
FEW_ROWS = 20  # as many classes as rows can be meant in a trial of so few
FEW_VALUES = 10  # half stars have ten; more decimals, or dates, are no classes
LONG = 100  # characters


def is_decimal(number: Decimal | None) -> bool:
    return number is not None and number != number.to_integral_value()


def refuse_what_is_no_class(counts: Mapping[str, int], column: str) -> None:
    """Raises ValueError for an id, a score, dates or texts in place of labels. `counts`: rows by label."""
    rows, labels = sum(counts.values()), in_order(counts)
    numbers = [number_in(label) for label in labels]
    remedy = "name another column with --label-column"
    if len(labels) > FEW_VALUES and all(DATE.fullmatch(label) for label in labels):
        raise ValueError(f"column {short(column)} holds {len(labels):,} different dates, not classes; {remedy}")
    if len(labels) > FEW_VALUES and all(n is not None for n in numbers) and any(map(is_decimal, numbers)):
        raise ValueError(
            f"column {short(column)} holds {len(labels):,} different decimals ({shown(labels)}): to predict a score is "
            f"a regression, which this tool does not do; put the scores into a few classes, or {remedy}"
        )
    if sorted(map(len, counts))[len(counts) // 2] > LONG:
        raise ValueError(f"column {short(column)} holds long texts, not classes; {remedy}")
    if rows >= FEW_ROWS and len(labels) > rows / 2:
        raise ValueError(
            f"column {short(column)} has {len(labels):,} classes in {rows:,} rows ({shown(labels)}): an id, or free "
            f"text, cannot be learnt; {remedy}"
        )


def refuse_untrained(parts: Mapping[str, Counter[str]]) -> None:
    """Raises ValueError for a class that only held-out parts have. `parts`: rows by label, of train and the others."""
    for name, counts in parts.items():
        if unknown := in_order(counts.keys() - parts["train"].keys()):
            alike = [label for label in in_order(parts["train"]) if likeness(label) == likeness(unknown[0])]
            found = f"train has {shown(alike[:1])}; spell it alike" if alike else "add rows of it to train"
            rows = sum(counts[label] for label in unknown)
            raise ValueError(
                f"the {name} part has {rows:,} rows with labels that no training row has: {shown(unknown)}; {found}, "
                f"or leave such rows out with --leave-out-labels {short(unknown[0])}"
            )


def class_notes(counts: Mapping[str, int], column: str) -> list[str]:
    """What may be meant, and should be looked at: one sentence each. `counts`: rows by label."""
    labels, found = in_order(counts), []
    for group in variants(counts)[:2]:
        each = ", ".join(f"{short(label)} ({counts[label]:,} rows)" for label in group[:4])
        found.append(f"labels that differ in case or in the spelling of a number are classes of their own: {each}")
    if empty := [label for label in labels if is_placeholder(label)]:
        hidden, words = sum(counts[label] for label in empty), " ".join(empty)
        found.append(
            f"{hidden:,} rows have the label {shown(empty)}, which is taken as a class; if it means that there is "
            f"none, leave such rows out: --leave-out-labels {words}"
        )
    if single := [label for label in labels if counts[label] == 1]:
        found.append(
            f"{len(single):,} classes have one example, which can teach little and tests nothing: {shown(single)}"
        )
    rows = sum(counts.values())
    if len(labels) > FEW_VALUES and rows < 5 * len(labels):
        found.append(f"column {short(column)} has {len(labels):,} classes in {rows:,} rows: few of each to learn from")
    if len(labels) > 2 and all(number_in(label) is not None for label in labels):
        amounts = any(is_decimal(number_in(label)) for label in labels)
        if amounts or len(labels) > FEW_VALUES:
            found.append(
                f"column {short(column)} holds {len(labels):,} different numbers, which are taken as classes without "
                "an order; to predict an amount is a regression, which this tool does not do"
            )
    if all(DATE.fullmatch(label) for label in labels):
        found.append(f"column {short(column)} holds dates, which are taken as classes")
    return found
