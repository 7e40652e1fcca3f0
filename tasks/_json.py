"""Reads json and jsonl files. An error names the line of a slip, or what the file holds instead of records."""

import json
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from tasks._cells import short
from tasks._files import Row, Table, encoding_of, kind_of, lines_of, text_of
from tasks._headers import with_readable_names
from tasks._names import part_of

CHAT = {"messages", "conversations", "chosen"}  # columns of one record that are lists of objects themselves
LONGEST_NUMBER = 1000  # digits; Python itself reads 4,300
BETWEEN = re.compile(r"[\s,]*")
SECOND = "a second value begins; put all records into one list, or one on each line"
REMEDY = "write one record a row (pandas: orient='records')"


class _Decoder(json.JSONDecoder):
    """Refuses an object that has a key twice, where the usual decoder keeps the last. NaN, which pandas and Python
    write for a missing value, becomes None and is counted."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object, parse_constant=self._constant, parse_int=self._integer)
        self.nothing = 0

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"an object has the key {twice[:60]!r} twice")
        return found

    def _constant(self, name: str) -> None:
        if name != "NaN":
            raise ValueError(f"{name} is not JSON")
        self.nothing += 1

    def _integer(self, digits: str) -> int:
        if len(digits) > LONGEST_NUMBER:
            raise ValueError(f"a number has {len(digits):,} digits; write it as text, in quotation marks")
        return int(digits)

    @property
    def notes(self) -> list[str]:
        return [f"NaN is read as an empty cell, in {self.nothing:,} places"] if self.nothing else []


def _line(text: str, position: int) -> int:
    return len(re.findall(r"\r\n|\r|\n", text[:position])) + 1


def _complaint(text: str, error: json.JSONDecodeError) -> str:
    """Returns what the parser says, in plainer words if it stopped after a whole value."""
    if error.msg != "Extra data":
        return error.msg.removesuffix(" starting at")
    return "a comma follows the record; take it out" if text[error.pos] == "," else SECOND


def _slip(text: str, error: json.JSONDecodeError) -> ValueError:
    """Returns the error with the line of the slip: what is missing at the end of a line shows only on the next one."""
    position = error.pos
    before = text[:position].rstrip()
    if before.endswith(",") and text[position : position + 1] in ("}", "]", ""):
        return ValueError(f"line {_line(text, len(before))}: a comma too many, or something missing after it")
    if re.search(r"[\r\n]", text[len(before) : position]) and text[position : position + 1] in (*'{[}]"', ""):
        position = len(before)
    if not text[error.pos :].strip():
        return ValueError(f"line {_line(text, position)}: the file ends before its last bracket is closed")
    return ValueError(f"line {_line(text, position)}: {_complaint(text, error)}")


def _same_columns(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Gives every record the columns of all, None where it had none, and returns notes on their names too."""
    rows, notes = with_readable_names(rows, dict.fromkeys(name for row in rows for name in row))
    columns = dict.fromkeys(name for row in rows for name in row)
    if all(len(row) == len(columns) for row in rows):
        return rows, notes
    by_case: dict[str, str] = {}
    for name in columns:
        if (other := by_case.setdefault(name.casefold(), name)) != name:
            notes.append(
                f"columns {short(other)} and {short(name)} differ in case alone; if they are one, name them alike"
            )
    return [{name: row.get(name) for name in columns} for row in rows], notes


def _called(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")


def _list_remedy(value: Any) -> str:
    """Says what to do about a line that is a list, perhaps of the messages of a conversation."""
    if not isinstance(value, list):
        return ""
    if not _is_records(value):
        return "; write an object, whose keys name the columns"
    chat = any(isinstance(item, dict) and not {"role", "from"}.isdisjoint(item) for item in value)
    return '; put its messages under a key: {"messages": [...]}' if chat else "; put its records on lines of their own"


def _records(items: list[Any], of: str = "its list") -> list[Row]:
    if items and all(isinstance(item, list) for item in items):
        raise ValueError(f"it holds rows without column names (pandas: orient='values'), not records; {REMEDY}")
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"item {i} of {of} is {_called(item)}, not a record; {REMEDY}")
    return items


def _parts(content: Any) -> Table:
    """Returns the rows by part of a whole file: a list of records, or an object with one, or with one for each part."""
    if isinstance(content, list):
        return Table({"all": _records(content)}, [])
    if not isinstance(content, dict):
        raise ValueError(f"it holds {_called(content)}, not records; {REMEDY}")
    if CHAT & content.keys() or not content:
        return Table({"all": [content] if content else []}, [])
    (first, *more) = content.values()
    if not more and isinstance(first, dict) and any(map(_is_records, first.values())):
        return _parts(first)  # lists inside one object inside another
    lists = {key: value for key, value in content.items() if _is_records(value)}
    names = {key: part_of(key) for key in lists}
    lengths = {len(value) if isinstance(value, list) else None for value in content.values()}
    if not lists or (len(lists) < len(content) > 1 and len(lengths) == 1 and None not in lengths):
        return Table({"all": [_single(content)]}, [])
    if len(lists) == 1:
        parts = {"all": _records(next(iter(lists.values())), _some(lists))}
    elif all(names.values()) and len(set(names.values())) == len(lists):
        parts = {str(names[key]): _records(value, repr(key)) for key, value in lists.items()}
    else:
        raise ValueError(
            f"it holds several lists of records ({_some(lists)}); keep one, or call them train, validation and test"
        )
    others = [key for key in content if key not in lists]
    return Table(parts, [f"passed over beside its records: {_some(others)}"] if others else [])


def _is_records(value: Any) -> bool:
    """Whether a list holds a record; `_records` refuses it if it holds other things too."""
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _some(keys: Iterable[str]) -> str:
    return ", ".join(repr(key[:30]) for key in list(keys)[:4])


def _single(content: dict[str, Any]) -> Row:
    """Returns an object that is itself the one record. Raises ValueError for one that holds many in another form."""
    values = list(content.values())
    if {"columns", "data"} <= content.keys():
        raise ValueError(f"it holds a table in pieces (pandas: orient='split'), not records; {REMEDY}")
    if all(isinstance(value, dict) for value in values):
        if all(key.isdecimal() for value in values for key in value):
            raise ValueError(f"it holds columns, not records (pandas: orient='columns'); {REMEDY}")
        raise ValueError(f"it holds records by a key of their own (pandas: orient='index'), not in a list; {REMEDY}")
    if all(isinstance(value, list) for value in values):
        raise ValueError(f"it holds columns ({_some(content)}), not records; {REMEDY}")
    if all(isinstance(value, (dict, list)) for value in values):
        raise ValueError(f"it holds one object ({_some(content)}) without a list of records; {REMEDY}")
    return content


def _twice(text: str, error: ValueError) -> ValueError:
    """Returns the error with the line of the record that was refused, found by going through the list again."""
    position, decoder = text.find("[") + 1, _Decoder()
    while True:
        position = BETWEEN.match(text, position).end()  # type: ignore[union-attr]  # it matches anywhere
        try:
            _, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            return error
        except ValueError:
            return ValueError(f"line {_line(text, position)}: {error}")


def _read_lines(file: Path, encoding: str) -> Table:
    """Reads one record per line. Raises ValueError with the line."""
    rows, decoder = [], _Decoder()
    for number, line in enumerate(lines_of(file, encoding), 1):
        if line.strip():
            try:
                row = decoder.decode(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {_complaint(line, error)}") from error
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {str(error)[:200]}") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} holds {_called(row)}, not a record{_list_remedy(row)}")
            rows.append(row)
    return Table({"all": rows}, decoder.notes)


def _read_whole(file: Path, encoding: str) -> Table:
    text, decoder = text_of(file, encoding), _Decoder()
    try:
        content = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise _slip(text, error) from error
    except RecursionError as error:
        raise ValueError("its objects are nested too deeply") from error
    except ValueError as error:
        raise _twice(text, error) from error
    table = _parts(content)
    return Table(table.parts, [*decoder.notes, *table.notes])


def _goes_by_lines(file: Path, encoding: str) -> bool:
    """Whether the first line is an object by itself, and either more lines follow or the object must be a record; or a
    list by itself before other lines, which is refused by its line."""
    lines = list(islice((line for line in lines_of(file, encoding) if line.strip()), 2))
    if not lines:
        raise ValueError("the file is empty")
    try:
        first = json.loads(lines[0])
    except (ValueError, RecursionError):
        return False
    if not isinstance(first, dict) or len(lines) > 1:
        return isinstance(first, dict) or (isinstance(first, list) and len(lines) > 1)
    return kind_of(file) != ".json" and not all(isinstance(value, (dict, list)) for value in first.values())


def read_json(file: Path, encoding: str | None = None) -> Table:
    """Reads a .json or .jsonl file, either of which may hold what the other should: the first line tells.

    Raises ValueError naming the line or what the file holds, and UnicodeDecodeError.
    """
    known, notes = encoding_of(file, encoding)
    table = (_read_lines if _goes_by_lines(file, known) else _read_whole)(file, known)
    parts = {part: _same_columns(rows) for part, rows in table.parts.items()}
    said = dict.fromkeys(note for _, of_part in parts.values() for note in of_part)
    return Table({part: rows for part, (rows, _) in parts.items()}, [*notes, *table.notes, *said])
