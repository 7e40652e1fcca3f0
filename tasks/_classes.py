"""Checks before training whether labels can be classes: impossible ones are refused, suspicious ones are noted."""

import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from tasks._cells import listed, short
from tasks._labels import as_arguments, hidden_in, in_order, is_placeholder, likeness, number_in, variants
from tasks._several import made_of_others, several_in_one

DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ].*)?")
FEW_ROWS = 20  # a trial with fewer rows may well have a class for each row
FEW_VALUES = 10  # ratings in half stars have ten values; more decimals, or dates, are not classes
LONG = 100  # characters
MOST = 0.9  # a column with this share of numbers, or of dates, is one of numbers, or of dates
THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d*)?")
INFINITE = {"inf", "infinity", "+inf", "-inf", "+infinity", "-infinity"}


def is_decimal(number: Decimal | None) -> bool:
    return number is not None and number != number.to_integral_value()


def amount_in(label: str) -> Decimal | None:
    """Returns the number in a label with or without currency, percent sign or thousands separator: $1,234.50, 6.5%."""
    text = re.sub(r"^([+-]?)\s?[$€£¥]\s?|\s?[%‰€]$", r"\1", label.replace("\u2212", "-"))
    return number_in(text.replace(",", "") if THOUSANDS.fullmatch(text) else text)


def refuse_several(counts: Mapping[str, int], column: str) -> None:
    """Raises ValueError if there are labels that are several in one. `counts` has their rows."""
    if counts:
        raise ValueError(
            f"column {short(column)} holds several labels in one cell, in {sum(counts.values()):,} rows "
            f"({listed(counts)}), but a row can have only one; keep one, leave such rows out with --leave-out-labels, "
            "or name all classes with --labels if each of these is one"
        )


def _refuse_amounts(counts: Mapping[str, int], column: str, remedy: str) -> None:
    """Raises ValueError for dates or scores if nearly all rows hold them, and for infinity among numbers."""
    numbers = {label: amount for label in counts if (amount := amount_in(label)) is not None}
    infinite = [label for label in counts if label.casefold() in INFINITE]
    if infinite and len(counts) == len(infinite) + len(numbers):
        raise ValueError(
            f"column {short(column)} holds {listed(infinite)} among numbers, which is not a class; correct it, or "
            f"leave such rows out with --leave-out-labels {as_arguments(infinite)}"
        )
    most = MOST * sum(counts.values())
    dates = [label for label in counts if DATE.fullmatch(label)]
    if len(dates) > FEW_VALUES and sum(counts[label] for label in dates) >= most:
        raise ValueError(f"column {short(column)} holds {len(dates):,} different dates, not classes; {remedy}")
    decimals = [label for label, number in numbers.items() if is_decimal(number)]
    if len(numbers) > FEW_VALUES and decimals and sum(counts[label] for label in numbers) >= most:
        if all("," in label and "." not in label for label in decimals) and any("," not in label for label in numbers):
            raise ValueError(
                f"column {short(column)} holds several labels in one cell ({listed(decimals)}), or scores with a "
                f"comma, neither of which is a class; {remedy}, or name all classes with --labels"
            )
        raise ValueError(
            f"column {short(column)} holds {len(numbers):,} different decimals ({listed(list(numbers))}): to predict a "
            f"score is a regression, which this tool does not do; put the scores into a few classes, or {remedy}"
        )


def refuse_what_is_no_class(counts: Mapping[str, int], column: str) -> None:
    """Raises ValueError for ids, scores, dates, texts or several labels in one cell. `counts` has the rows by label."""
    rows, labels = sum(counts.values()), in_order(counts)
    remedy = "name another column with --label-column"
    refuse_several({label: counts[label] for label in several_in_one(labels)}, column)
    hidden = {*hidden_in(labels)}
    _refuse_amounts({label: counts[label] for label in labels if label not in hidden}, column, remedy)
    if sorted(map(len, counts))[len(counts) // 2] > LONG:
        raise ValueError(f"column {short(column)} holds long texts, not classes; {remedy}")
    if rows >= FEW_ROWS and len(labels) > rows / 2:
        raise ValueError(
            f"column {short(column)} has {len(labels):,} classes in {rows:,} rows ({listed(labels)}): an id, or free "
            f"text, cannot be learnt; {remedy}"
        )


def refuse_untrained(parts: Mapping[str, Counter[str]], limited: bool = False) -> None:
    """Raises ValueError for a class that only held-out parts have. `parts` has the rows by label of every part;
    `limited` says whether there are more training rows than were asked for."""
    for name, counts in parts.items():
        if unknown := in_order(counts.keys() - parts["train"].keys()):
            alike = [label for label in in_order(parts["train"]) if likeness(label) == likeness(unknown[0])]
            more = "raise --train-examples" if limited else "add rows of it to train"
            found = f"train has {listed(alike[:1])}; spell it alike" if alike else more
            rows = sum(counts[label] for label in unknown)
            raise ValueError(
                f"the {name} part has {rows:,} rows with labels that no training row has: {listed(unknown)}; {found}, "
                f"or leave such rows out with --leave-out-labels {as_arguments(unknown)}"
            )


def class_notes(counts: Mapping[str, int], column: str) -> list[str]:
    """Returns a sentence on each thing that may be meant but should be looked at. `counts` has the rows by label."""
    labels, found = in_order(counts), []
    groups = variants(counts)
    for group in groups[:2]:
        each = ", ".join(f"{short(label)} ({counts[label]:,} rows)" for label in group[:3])
        more = f" and {len(group) - 3:,} more" if len(group) > 3 else ""
        found.append(
            "labels that differ in case, in characters that look alike or in the spelling of a number or truth value "
            f"are classes of their own: {each}{more}"
        )
    if len(groups) > 2:
        found.append(
            f"{len(groups) - 2:,} more groups of labels differ in this way: {listed(g[0] for g in groups[2:])}"
        )
    if empty := hidden_in(labels):
        hidden = sum(counts[label] for label in empty)
        found.append(
            f"{hidden:,} rows have the label {listed(empty)}, which is taken as a class; if it means that there is "
            f"none, leave such rows out: --leave-out-labels {as_arguments(empty)}"
        )
    if made := made_of_others(labels):
        found.append(
            f"{sum(counts[label] for label in made):,} rows have a label made of other labels ({listed(made)}), which "
            "is taken as a class of its own; if it means all of these, keep one, or leave such rows out"
        )
    if single := [label for label in labels if counts[label] == 1]:
        found.append(
            f"{len(single):,} classes have one example, which can teach little and tests nothing: {listed(single)}"
        )
    rows = sum(counts.values())
    if len(labels) > FEW_VALUES and rows < 5 * len(labels):
        found.append(f"column {short(column)} has {len(labels):,} classes in {rows:,} rows: few of each to learn from")
    amounts = [amount_in(label) for label in labels if not is_placeholder(label)]
    many = len(amounts) > FEW_VALUES or (len(amounts) > 2 and any(map(is_decimal, amounts)))
    if many and all(amount is not None for amount in amounts):
        found.append(
            f"column {short(column)} holds {len(amounts):,} different numbers, which are taken as classes without "
            "an order; to predict an amount is a regression, which this tool does not do"
        )
    if all(DATE.fullmatch(label) for label in labels):
        found.append(f"column {short(column)} holds dates, which are taken as classes")
    return found
