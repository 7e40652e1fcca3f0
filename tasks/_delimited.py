"""Reads csv and tsv files under the first dialect (separator, quotation marks) that gives a table.

Anything unusual is said in a note. If a quoted cell spans lines that look like rows of their own, other rows decide, or
the file is refused. docs/readers.md compares what libraries make of such files.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from tasks._files import Table, encoding_of, kind_of, lines_of
from tasks._records import SEPARATORS, Found, Record, doubled, read, read_ordinary, spaced, with_backslashes

ORDINARY = "quotation marks were read as ordinary characters, since then each line has the cells of the header"
BACKSLASH = "quotation marks inside its cells follow backslashes, which were taken out"
SPACED = "white space between its separators and its cells was left out"
MOST = 0.75  # of the lines in a cell
FEW = 3  # lines that may have the separators of a row by chance
Lines = Callable[[], Iterator[str]]


def _unquoted(line: str) -> str:
    """Returns what stands outside quotation marks."""
    return re.sub(r'"[^"]*"', "", line)


def _count(line: str) -> int:
    return max(_unquoted(line).count(mark) for mark in SEPARATORS)


def _opening(lines: Iterator[str]) -> tuple[int, str | None, str]:
    """Returns how many lines precede the header, the separator that Excel's "sep=;" names, and the header, which may
    have line breaks in quotation marks.

    A line that begins with # and has fewer separators than the first line that does not is a comment.
    """
    separator = None
    head = list(islice(lines, 100))
    table = next((line for line in head if line.strip() and not line.startswith("#")), "")
    for i, line in enumerate(head):
        if named := re.fullmatch(r'"?sep=(.)"?', line.rstrip("\r\n"), re.IGNORECASE):
            separator = named[1]
        elif line.strip() and not (line.startswith("#") and _count(line) < _count(table)):
            end = next((j for j in range(i + 1, len(head)) if "".join(head[i:j]).count('"') % 2 == 0), i + 1)
            return i, separator, "".join(head[i:end])
    raise ValueError("the file has no rows")


def _swallowed(found: Found, separator: str) -> Record | None:
    """Returns the first record with a quoted cell whose lines look like rows: most have a recurring value in a column,
    or there are more of them than FEW, and than of the cells that show that the marks enclose cells.

    Example: with the columns label and text, a text over lines that begin with "ham" or "spam" and a tab.
    """
    counts = [Counter(row[name] for row in found.rows) for name in found.names]
    values = [{value for value, count in column.items() if value and count > 1} for column in counts]
    for record in found.doubtful:
        cells = [line.rstrip("\r\n").split(separator) for line in record.filled]
        quoted = next(i for i, cell in enumerate(record.cells) if "\n" in cell or "\r" in cell)
        others = [i for i in range(len(found.names)) if i != quoted]
        if any(sum(line[i] in values[i] for line in cells) >= MOST * len(cells) for i in others):
            return record
        if others and len(cells) > max(FEW, found.enclosing):
            return record
    return None


def _settle_doubts(found: Found, separator: str, ordinary: Callable[[], Found]) -> tuple[Found, str]:
    """Decides what to believe if lines inside quoted cells look like rows of their own, and says so in a note. Raises
    ValueError if a cell swallows rows and quotation marks cannot be ordinary characters either."""
    if not found.doubtful or found.encloses:
        return found, ""
    swallowed = _swallowed(found, separator)
    if swallowed or (separator == "\t" and any(len(record.filled) > 2 for record in found.doubtful)):
        try:
            return ordinary(), ORDINARY
        except ValueError:
            pass  # elsewhere the marks do enclose cells
    first = swallowed or max(found.doubtful, key=lambda record: len(record.filled))
    where = f"line {first.number}: a quoted cell goes on to line {first.number + len(first.lines) - 1}"
    count = len(first.filled)
    if swallowed:
        raise ValueError(
            f"{where}, over {count:,} lines that look like rows; where a quotation mark belongs to a text, put the "
            "whole cell in marks and double those inside, or save the table as jsonl"
        )
    if separator != "\t" and count <= min(FEW, found.enclosing) and 2 * len(found.doubtful) <= found.long:
        return found, ""  # in a file of prose some lines have as many commas as a row by chance
    return found, f"{where} ({count:,} lines); if these are rows of their own, double the marks that belong to the text"


def _has_spaces(lines: Iterator[str], separator: str) -> bool:
    """Whether most lines have white space between a separator and the mark that opens a cell: "a", "b"."""
    first = list(islice(lines, 1000))
    return 2 * sum(bool(re.search(re.escape(separator) + ' +"(?!")', line)) for line in first) > len(first)


def _read_with(body: Lines, start: int, separator: str) -> tuple[Found, str]:
    """Returns the table with this separator, and a note on its quotation marks ("" if they are as usual).

    Raises ValueError, saying what is wrong with it as a usual csv file.
    """

    def ordinary() -> Found:
        return read_ordinary(body(), start, separator)

    problems, usual = list[ValueError](), (spaced, SPACED) if _has_spaces(body(), separator) else (doubled, "")
    for reading, said in (usual, (with_backslashes, BACKSLASH)):
        try:
            found, note = _settle_doubts(read(body(), start, separator, reading), separator, ordinary)
            return found, note or said
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            problems.append(error)
    try:
        return ordinary(), ORDINARY
    except ValueError:
        raise problems[0] from None


def _is_data(found: Found) -> bool:
    """Whether the header is a row like the others: two of its cells recur often below, or one does (a class) while
    another does not read like a name. The numbers that pandas gives to columns without names are a header."""
    own = [name for name in found.names if name != "Unnamed: 0"]
    if own == [str(i) for i in range(len(own))]:
        return False
    first = found.rows[:1000]
    again = {name for name in found.names if sum(row[name] == name for row in first) > max(1, len(first) / 20)}
    rest = set(found.names) - again
    return len(again) > 1 or (bool(again) and any(len(name.split()) > 4 or name.isdecimal() for name in rest))


def read_delimited(file: Path, encoding: str | None = None) -> Table:
    """Reads a csv or tsv file, whatever its separator; every cell is text.

    Raises ValueError naming the line, and UnicodeDecodeError.
    """
    known, notes = encoding_of(file, encoding)
    start, named, header = _opening(lines_of(file, known))
    usual = named or ("\t" if kind_of(file) == ".tsv" else ",")
    separators = [mark for mark in dict.fromkeys([usual, *SEPARATORS]) if mark in _unquoted(header)]
    if usual in header or not separators:
        separators = list(dict.fromkeys([*separators, usual]))
    problems = list[ValueError]()
    for separator in [usual] if named else separators:
        try:
            found, note = _read_with(lambda: islice(lines_of(file, known), start, None), start + 1, separator)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            problems.append(error)
            continue
        if _is_data(found):
            raise ValueError(f"line {start + 1} looks like data; the first line has to name the columns")
        if separator != usual:
            notes.append(f"its cells are separated by the {SEPARATORS[separator]}")
        return Table({"all": found.rows}, [*notes, *found.notes, *([note] if note else [])])
    raise problems[0]
