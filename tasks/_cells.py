"""Reads the cells of a file as text: words stay as they are, numbers and truth values get one spelling."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from decimal import Decimal
from itertools import accumulate
from numbers import Integral
from typing import Any

from tasks._files import Row

# Soft hyphen, zero-width space, marks of direction, word joiner, byte order mark, NUL: what spreadsheets and web pages
# leave behind. Joiners (200C, 200D) belong to words of some scripts and to emoji, so only those at the ends go.
INVISIBLE = dict.fromkeys([0, 0xAD, 0x61C, 0x200B, 0x200E, 0x200F, 0xFEFF, *range(0x202A, 0x202F)])
INVISIBLE |= dict.fromkeys(range(0x2060, 0x206A))
BLANK = dict.fromkeys([0x115F, 0x1160, 0x180E, 0x2800, 0x3164, 0xFFA0], " ")  # look like spaces, but are not
UNSEEN = "".join(map(chr, [*INVISIBLE, *BLANK, 0x200C, 0x200D, *(c for c in range(0x3001) if chr(c).isspace())]))


def short(name: str, most: int = 24) -> str:
    """Quotes the name of a column, or a label, for a message: at most `most` characters of it."""
    kept = name[:most]
    while kept and len(repr(kept)) > most + 2:  # an unprintable character is escaped, which takes more room
        kept = kept[:-1]
    return repr(name if kept == name else kept[: most - 1] + "…")


def listed(names: Iterable[object], most: int = 3, room: int = 66, quoted: bool = True) -> str:
    """Lists names for a message, "'a', 'b' and 4 more": at most `most`, and no more than `room` characters hold."""
    every = [short(str(name)) if quoted else str(name)[:60] for name in names]
    ends = list(accumulate(len(name) + 2 for name in every))
    few = min(max(bisect_right(ends, room), 1), most)
    return ", ".join(every[:few]) + (f" and {len(every) - few:,} more" if len(every) > few else "")


def writable(text: str) -> str:
    """Replaces half a character (a lone surrogate, which JSON can spell) by "?", since no file could hold it."""
    written = text.encode("utf-8", "replace").decode()
    return text if written == text else written  # the same object, so that no text is held twice


def visible_text(text: str) -> str:
    """Returns a text as `writable` does, "" if nothing but white space and invisible characters are in it."""
    return "" if text.strip() and not text.strip(UNSEEN) else writable(text)


def plain(value: Any) -> Any:
    """Returns Python's own value for numpy's, and None for NaN, which libraries write where a cell is empty."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(value, float | Decimal) and math.isnan(value) else value


def spelled(value: Any) -> str | None:
    """Spells a number or truth value as text: 1, 1.0 and Decimal("1.00") are all "1". None for anything else."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, float | Decimal):
        return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)
    return None


def kind_of(value: Any) -> str:
    """Names the kind of value in a cell, for messages that do not quote the value."""
    if spelled(value) is not None:
        return f"a {'truth value' if isinstance(value, bool) else 'number'} ({type(value).__name__})"
    return {"str": "text", "list": "a list", "dict": "a record"}.get(type(value).__name__, type(value).__name__)


class NoText(ValueError):
    """A cell holds something other than text; the message names its column."""


def text_cell(row: Row, column: str) -> str:
    """Returns the text in a cell, "" if it is empty. Raises NoText for a number or a nested value."""
    value = plain(row.get(column))
    if value is None:
        return ""
    if not isinstance(value, str):
        raise NoText(f"column {short(column)} holds {kind_of(value)}, not text")
    return visible_text(value)


def one_of(value: Any) -> Any:
    """Returns the label in a list of one, as labelling tools write it, None for an empty list; else the value itself,
    as Python's own."""
    value = plain(value)
    return plain(value[0] if value else None) if isinstance(value, list) and len(value) < 2 else value


def label_cell(row: Row, column: str) -> str | None:
    """Returns a label as text, or None. Raises NoText for several labels, and as `target_cell` does."""
    value = one_of(row.get(column))
    if isinstance(value, list):
        raise NoText(f"column {short(column)} holds a list (several labels in one cell), neither text nor number")
    return target_cell({column: value}, column)


def target_cell(row: Row, column: str) -> str | None:
    """Returns a label or response as text, or None. Raises NoText for other kinds."""
    value = plain(row.get(column))
    if value is None or isinstance(value, str):
        return value and visible_text(value)
    if (text := spelled(value)) is not None:
        return text
    raise NoText(f"column {short(column)} holds {kind_of(value)}, neither text nor number")
