"""Finds labels that are several in one cell: lists, tags, or other labels with a mark between them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tasks._labels import folded, in_order, number_in

NUMBER = r"\d[\d.]*"
LISTS = re.compile(  # as Python and numpy write them, and tags as Stack Overflow does
    r"\[\s*(['\"].*|\d[\d\s,]*)\]|\{\s*['\"].*\}|\(\s*['\"].*\)"
    rf"|\[[^\[\],]+(,[^\[\],]+)+\]|\[\s*{NUMBER}([\s,]+{NUMBER})+\s*\]|(<[^<>]+>\s*){{2,}}"
)
MARKS = {",": ",", ";": ";", "|": r"\|", "#": "#", "/": "/", "+": r"\+", "&": "&", "and": " and ", " ": " "}
WORDS = ("/", "+", "&", "and", " ")  # marks that may stand inside a label: R&B, black and white


def _parted(labels: Iterable[str], mark: str) -> dict[str, list[str]]:
    """Returns the labels with a mark between parts, and these."""
    every = ((label, [part.strip() for part in re.split(MARKS[mark], label)]) for label in labels)
    return {label: parts for label, parts in every if len(parts) > 1 and all(parts)}


def _without_order(parted: Iterable[list[str]], alone: set[str]) -> bool:
    """Whether at least half of the parts are labels themselves, and one of them is first here and last there: in
    "Paris, France" and "sport news" each has its place."""
    parted = list(parted)
    parts = [part for each in parted for part in each]
    unlike = [each for each in parted if each[0] != each[-1]]
    moved = {each[0] for each in unlike} & {each[-1] for each in unlike} & alone
    return bool(moved) and 2 * sum(part in alone for part in parts) >= len(parts)


def _are_several(mark: str, parted: list[list[str]], alone: set[str]) -> bool:
    """Whether parts joined by a mark are clearly labels: they are that by themselves, recur, have no order, or cannot
    be one number."""
    known = all(alone.issuperset(parts) for parts in parted)
    if mark == "," and all(number_in(part) is not None for parts in parted for part in parts):
        # 2,5 may be a decimal; 1,2,3 is none, nor are 1,7 and 6,22 of 28 classes
        several = any(len(parts) > 2 and len(parts[1]) < 3 for parts in parted)
        return several or (len({parts[-1] for parts in parted}) > 2 and known)
    if mark == " " and (len(parted) < 3 or not known):
        return False
    if mark in (";", "|") and len({part for parts in parted for part in parts}) < len(parted):
        return True
    return (known and mark not in WORDS) or _without_order(parted, alone)


def several_in_one(labels: Iterable[str]) -> list[str]:
    """Returns the labels that are clearly several in one: lists, or parts joined by the first mark that joins some."""
    every = in_order(labels)
    if lists := [label for label in every if LISTS.fullmatch(label)]:
        return lists
    for mark in MARKS:
        parted = _parted(every, mark)
        if parted and _are_several(mark, [*parted.values()], {*every} - {*parted}):
            return [*parted]
    return []


def made_of_others(labels: Iterable[str]) -> list[str]:
    """Returns the labels, numbers aside, whose parts are labels too, which may be meant: black and white."""
    every = set(labels)
    found = {label for mark in MARKS for label, parts in _parted(every, mark).items() if every.issuperset(parts)}
    return [label for label in in_order(found) if number_in(label) is None]


def on_lines(cells: Iterable[Any]) -> Mapping[str, int]:
    """Counts the cells with several lines, each of which is a label of other cells."""
    counts = Counter(cell for cell in cells if isinstance(cell, str))
    lines = {cell: [folded(line) for line in cell.splitlines() if folded(line)] for cell in counts}
    alone = {label for each in lines.values() if len(each) == 1 for label in each}
    return {cell: counts[cell] for cell, each in lines.items() if len(each) > 1 and alone.issuperset(each)}
