"""Reads the lines of a csv or tsv file as a table, under one reading of its quotation marks, or refuses them.

Every cell is the text that stands there ("007", "null", "NA", " x "). The parser is the standard library's in its
strict form, fed line by line, so that every error knows its line.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

from tasks._files import Row
from tasks._headers import header_notes
from tasks._labels import folded

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
ESCAPED = "\ue000"  # stands for a quotation mark after a backslash while the parser is at work
LONGEST_CELL = 2**31 - 1  # characters; the most that every system takes
LONGEST_NAME = 200  # characters; a longer column name is text, in a file without a header


class Record(NamedTuple):
    """One row of the file: the number of its first line (from 1), its lines, its cells."""

    number: int
    lines: list[str]
    cells: list[str]

    @property
    def filled(self) -> list[str]:
        """Its lines without the blank ones."""
        return [line for line in self.lines if line.strip(" \r\n")]


Reading = Callable[[Iterable[str], int, str], Iterator[Record]]


@dataclass
class Found:
    """A table: names of its columns, whether one of these stands in quotation marks, and its rows.

    `long` counts rows over several lines; `doubtful` are those of them whose every line has the separators of a row.
    `marked` counts rows on one line with a quotation mark, `enclosing` the cells that need theirs, doubtful rows aside.
    """

    names: list[str]
    quoted_header: bool
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    doubtful: list[Record] = field(default_factory=list)
    long: int = 0
    marked: int = 0
    enclosing: int = 0

    @property
    def encloses(self) -> bool:
        """Whether quotation marks surely enclose cells: they do in the header, and stand in most rows too."""
        return self.quoted_header and 2 * self.marked >= len(self.rows) - self.long


def doubled(lines: Iterable[str], start: int, separator: str, spaced: bool = False) -> Iterator[Record]:
    """Reads cells with or without quotation marks, doubled inside (RFC 4180); `spaced`: also with spaces in front."""
    taken: list[str] = []

    def watched() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    csv.field_size_limit(LONGEST_CELL)  # a mail can be longer than the 131,072 characters allowed by default
    reader = csv.reader(watched(), delimiter=separator, strict=True, skipinitialspace=spaced)
    number = start
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise ValueError(f"line {number}: a quotation mark opens a cell and none closes it") from error
            opened = f" that opened on line {number}" if len(taken) > 1 else ""
            raise ValueError(
                f"line {number + len(taken) - 1}: a quotation mark inside a quoted cell{opened} is not doubled"
            ) from error
        yield Record(number, taken.copy(), cells)
        number += len(taken)
        taken.clear()


spaced = partial(doubled, spaced=True)  # "a", "b"


def with_backslashes(lines: Iterable[str], start: int, separator: str) -> Iterator[Record]:
    r"""Reads as `doubled` does, but a mark inside a quoted cell may follow a backslash: "say \"yes\"".

    A backslash counts only before a mark, where two stand for one.
    """

    def hide(found: re.Match[str]) -> str:
        count = len(found[1])
        return "\\" * (count // 2) + (ESCAPED if count % 2 else '"')

    for record in doubled((re.sub(r'(\\+)"', hide, line) for line in lines), start, separator):
        yield record._replace(cells=[cell.replace(ESCAPED, '"') for cell in record.cells])


def ordinary(lines: Iterable[str], start: int, separator: str) -> Iterator[Record]:
    """Takes quotation marks for ordinary characters, but for the header's, and every line for a row."""
    every = iter(lines)
    yield from doubled(islice(every, 1), start, separator)
    for number, line in enumerate(every, start + 1):
        yield Record(number, [line], line.rstrip("\r\n").split(separator))


def _names(header: Record) -> list[str]:
    """Returns the column names, made readable; an empty one is named as pandas names it.

    Empty ones at the end are left out: they come from separators at the ends of lines.
    """
    names = [folded(cell) for cell in header.cells]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ValueError(f"line {header.number}: the header names no columns")
    names = [name or f"Unnamed: {i}" for i, name in enumerate(names)]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"line {header.number}: the header has the column {name[:60]!r} twice; rename one of them")
    if any(len(name) > LONGEST_NAME for name in names):
        raise ValueError(f"line {header.number} looks like data; the first line has to name the columns")
    return names


def _check_cells(record: Record, names: list[str], width: int, separator: str) -> None:
    """Raises ValueError for a row with too few or too many cells, or equal to the header, which has `width` cells."""
    count = len(record.cells)
    if count < len(names):
        raise ValueError(
            f"line {record.number} has fewer cells than the header: {count}, not {len(names)} (a cell with a line "
            "break in it has to stand in quotation marks)"
        )
    filled = next((i for i, cell in enumerate(record.cells[len(names) :], len(names) + 1) if cell), 0)
    quote = f"(a cell with a {SEPARATORS.get(separator, separator)} in it has to stand in quotation marks)"
    if 0 < filled <= width:
        raise ValueError(
            f"line {record.number} has text in column {filled}, which has no name in the header; name it there, or "
            f"move the text {quote}"
        )
    if filled:
        raise ValueError(f"line {record.number} has more cells than the header: {count}, not {width} {quote}")
    if len(names) > 1 and [folded(cell) for cell in record.cells[: len(names)]] == names:
        raise ValueError(f"line {record.number} repeats the header; remove the line")


def _enclosing(record: Record, separator: str) -> int:
    """Counts the cells whose quotation marks keep a separator or a doubled mark together."""
    whole = "".join(record.lines)
    return sum(separator in cell or ('"' in cell and cell.replace('"', '""') in whole) for cell in record.cells)


def read(lines: Iterable[str], start: int, separator: str, reading: Reading) -> Found:
    """Reads the table in `lines`, the first of which is line `start` of the file. Raises ValueError, with the line, if
    it is not a table under this reading. Blank lines are skipped; where one may be an empty row, a note counts them."""
    records = reading(lines, start, separator)
    header = next(record for record in records if record.filled)
    names = _names(header)
    found = Found(names, '"' in "".join(header.lines))
    renamed = zip(header.cells, names, strict=False)
    read = {cell: new for cell, new in renamed if " ".join(cell.split()) not in ("", new)}
    found.notes += header_notes(read) if read else []
    longer: list[int] = []  # lines with empty cells beyond the header's own
    blank = blank_at_end = 0
    for record in records:
        if not record.filled:
            blank_at_end += 1
            continue
        blank, blank_at_end = blank + blank_at_end, 0
        _check_cells(record, names, len(header.cells), separator)
        if len(record.cells) > len(header.cells):
            longer.append(record.number)
        long = len(record.lines) > 1
        found.long += long
        if long and all(line.count(separator) == len(record.cells) - 1 for line in record.filled):
            found.doubtful.append(record)
        else:
            found.marked += not long and '"' in record.lines[0]
            found.enclosing += _enclosing(record, separator)
        found.rows.append(dict(zip(names, record.cells, strict=False)))
    if 0 < len(longer) < len(found.rows):
        raise ValueError(f"line {longer[0]} has more cells than the header; a separator too many?")
    if blank and len(names) == 1:
        found.notes.append(f'blank lines in its one column are no rows ({blank:,} lines); write an empty row as ""')
    return found


def read_ordinary(lines: Iterable[str], start: int, separator: str) -> Found:
    """Reads the table with quotation marks as ordinary characters. Raises ValueError if that is not likely.

    It is likely if few of them enclose cells and, unless tabs separate these, some column has recurring values.
    """
    found = read(lines, start, separator, ordinary)
    opened = [cell for row in found.rows for cell in row.values() if cell.startswith('"')]
    wrapped = sum(len(cell) > 1 and cell.endswith('"') for cell in opened)
    if found.encloses or len(found.names) < 2 or 2 * wrapped > len(opened):
        raise ValueError("quotation marks stand around cells")
    if separator != "\t" and all(2 * len({r[name] for r in found.rows}) > len(found.rows) for name in found.names):
        raise ValueError("nothing shows that each line is a row")
    return found
