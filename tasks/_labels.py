"""Compares labels: those that differ only in white space or invisible characters are one, likely variants are noted."""

import re
import shlex
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from functools import lru_cache
from itertools import accumulate
from typing import Any

from tasks._cells import BLANK, INVISIBLE, listed, plain, short, spelled

# Apostrophes, hyphens, and the choice between an emoji's two pictures, which only some programs write.
ALIKE = str.maketrans(dict.fromkeys("’‘ʼ‛′´`", "'") | dict.fromkeys("‐‑‒–—―−", "-") | dict.fromkeys("\ufe0e\ufe0f"))
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d{1,3})?")
PLACEHOLDERS = frozenset("? ?? ??? - -- --- – — _ . .. ... #".split())  # noqa: SIM905
PLACEHOLDERS |= {"#n/a", "n/a", "n.a.", "na", "<na>", "nan", "null", "none", "nil", "unlabeled", "unlabelled"}
PLACEHOLDERS |= {"\\n", "(null)", "[null]", "(none)", "(blank)", "undefined", "nat"}  # \N: MySQL and Postgres
PLACEHOLDERS |= {"#ref!", "#name?", "#value!", "#div/0!", "#num!", "#null!", "#spill!", "#calc!"}  # Excel's errors
NO_CLASS = ("-1", "-100")  # mean "no class" among numbers from 0 on, in data sets of the hub and in torch's losses
GOOD = "true, 1, good, yes, up, thumbs up, thumbs_up, 👍, liked, desirable, chosen, accepted, correct, helpful"
BAD = "false, 0, -1, bad, no, down, thumbs down, thumbs_down, 👎, disliked, undesirable, rejected, incorrect, unhelpful"
RATINGS = dict.fromkeys(GOOD.split(", "), True) | dict.fromkeys(BAD.split(", "), False)  # whether an answer is good
CODE = re.compile(r"\+|-?0\d")


@lru_cache(maxsize=4096)  # classes are few, and every row names one
def folded(label: str) -> str:
    """Gives a label its one spelling: no outer or double white space, nothing invisible, Unicode's composed form."""
    text = unicodedata.normalize("NFC", label.translate(INVISIBLE | BLANK))
    return " ".join(" ".join(text.split()).strip("\u200c\u200d").split())


def number_in(label: str) -> Decimal | None:
    """Returns the number that a label spells, with a point or a comma; None if it spells none."""
    return Decimal(label.replace(",", ".")) if NUMBER.fullmatch(label) else None


def likeness(label: str) -> str:
    """Returns a form that labels share if they differ only in case, in characters that look alike, or in the spelling
    of a number."""
    label = unicodedata.normalize("NFKC", label.translate(ALIKE))
    number = number_in(label)
    return label.casefold() if number is None else str(number.normalize(Context(prec=len(label))))


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sorts numbers by size, then words by alphabet, whatever the order of the set that they come from."""

    def key(label: str) -> tuple[bool, Decimal, str]:
        number = number_in(label)
        return number is None, number or Decimal(0), label

    return tuple(sorted(labels, key=key))


def is_placeholder(label: str) -> bool:
    """Whether a label seems to say that there is none."""
    return label.casefold() in PLACEHOLDERS


def hidden_in(labels: Iterable[str]) -> list[str]:
    """Returns the labels that seem to say that there is none: placeholders, or -1 if it is the only negative one."""
    every = in_order(labels)
    found = [label for label in every if is_placeholder(label)]
    others = [label for label in every if not is_placeholder(label)]
    negative = [label for label in others if label.startswith("-")]
    whole = all(re.fullmatch(r"-?\d+", label) for label in others)
    return negative + found if whole and len(negative) == 1 and negative[0] in NO_CLASS and len(others) > 2 else found


def placeholder_notes(cells: Iterable[Any], column: str) -> list[str]:
    """Returns a note on texts that seem to say that there is none. Marks and people's words (?, none) are texts; what
    programs write (nan, None) hardly is."""
    texts = Counter(cell.strip() for cell in cells if isinstance(cell, str) and len(cell) < 20)
    words = {text: count for text, count in texts.items() if any(map(str.isalpha, text)) and text != "none"}
    found = {text: count for text, count in words.items() if is_placeholder(text)}
    if not found:
        return []
    return [
        f"column {short(column)} holds {listed(found)} in {sum(found.values()):,} rows, which is taken as text; if it "
        "means that there is none, leave such cells empty"
    ]


def as_arguments(labels: Iterable[str], room: int = 70) -> str:
    """Returns labels as words of a command line, as many as fit into about `room` characters."""
    quoted = ((label, shlex.quote(label)) for label in labels)
    words = [word if len(word) <= room else shlex.quote(label[:12] + "…") for label, word in quoted]
    ends = list(accumulate(len(word) + 1 for word in words))
    return " ".join(words[: max(bisect_right(ends, room), 1)])


def _visible(text: str, most: int = 30) -> str:
    """Quotes a text for a message and escapes what a reader could not see, such as joiners and combining accents."""
    marks = {ord(c): f"\\u{ord(c):04x}" for c in text[:most] if unicodedata.category(c) in ("Mn", "Cf", "Cc", "Zs")}
    return "'" + text[:most].translate({**marks, ord(" "): " "})[: 2 * most] + "'"


def folding_notes(cells: Iterable[Any], column: str) -> list[str]:
    """Returns a note on what `folded` changed: how many rows, and an example."""
    raw = Counter(cell for cell in cells if isinstance(cell, str))
    changed = {cell: count for cell, count in raw.items() if folded(cell) and cell != folded(cell)}
    if not changed:
        return []
    example = next(iter(changed))
    return [
        f"column {short(column)}: {sum(changed.values()):,} rows spell their label with other white space, invisible "
        f"characters or Unicode form and are read without: {_visible(example)} as {_visible(folded(example))}"
    ]


def value_in(label: str) -> str | None:
    """Returns the number or truth value that a label spells; None for words, and for 07 or +7, which are codes."""
    is_value = number_in(label) is not None or label.casefold() in ("true", "false")
    return None if CODE.match(label) or not is_value else likeness(label)


def spellings(texts: Iterable[str], labels: Iterable[str]) -> dict[str, str]:
    """Maps each text to the one label that is the same number or truth value; texts that are labels are left out.

    Example: texts "1.0", "True", "Spam", labels "1", "0", "true", "spam": {"1.0": "1", "True": "true"}.
    """
    alike: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        if (value := value_in(label)) is not None:
            alike.setdefault(value, []).append(label)
    found = {text: alike.get(value_in(text) or "", []) for text in in_order(set(texts) - set(labels))}
    return {text: same[0] for text, same in found.items() if len(same) == 1}


def typed_spellings(cells: Iterable[Any]) -> dict[str, str]:
    """Returns the `spellings` of the text in some cells as the numbers and truth values that other cells hold (in JSON
    or parquet). In text files, where no cell has a type, 7, 07 and 1.0 stay what they are."""
    typed, texts = set(), set()
    for cell in map(plain, cells):
        if isinstance(cell, str):
            texts.add(folded(cell))
        elif (spelling := spelled(cell)) is not None:
            typed.add(spelling)
    return spellings(texts, typed)


def spelling_notes(spelling: Mapping[str, str], cells: Iterable[Any], column: str) -> list[str]:
    """Returns a note on what `typed_spellings` found: the first pairs, with their rows."""
    if not spelling:
        return []
    rows = Counter(folded(cell) for cell in cells if isinstance(cell, str))
    pairs = [f"{short(text, 16)} is {short(label, 16)} ({rows[text]:,} rows)" for text, label in spelling.items()]
    more = f" and {len(pairs) - 4:,} more" if len(pairs) > 4 else ""
    return [
        f"column {short(column)} holds numbers or truth values and text that spells them: {', '.join(pairs[:4])}{more}"
    ]


def variants(labels: Iterable[str]) -> list[list[str]]:
    """Groups labels that are alike, or that are the same truth value."""
    groups: dict[str, list[str]] = {}
    truths = {"true": "1", "false": "0"}
    for label in in_order(labels):
        groups.setdefault(truths.get(likeness(label), likeness(label)), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def refuse_one_kind(ratings: Iterable[str | None], remedy: str = "add answers of the other kind") -> None:
    """Raises ValueError if all answers are good or all are bad, since training needs both kinds."""
    counts = Counter(ratings)
    if len(counts) == 1:
        (kind,) = counts
        alone = ", or train on these alone with scripts/finetune_ift.py" * (kind == "good")
        raise ValueError(
            f"all {counts.total():,} answers to train on are {kind}; both kinds are needed: {remedy}{alone}"
        )


def rating_notes(splits: Mapping[str, Iterable[Any]], limited: bool) -> list[str]:
    """Returns a note for each held-out part whose answers are all of one kind. Raises what `refuse_one_kind` raises of
    the training part; `limited` says whether there are more training answers than were asked for."""
    kinds = {name: Counter(answer.label for answer in part) for name, part in splits.items()}
    refuse_one_kind(kinds["train"].elements(), *(["raise --train-examples"] if limited else []))
    return [
        f"all {counts.total():,} answers of the {name} part are {next(iter(counts))}: it has no reward accuracy and no "
        "reward of the other kind"
        for name, counts in kinds.items()
        if len(counts) == 1 and name != "train"
    ]
