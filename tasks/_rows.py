"""Files and hub datasets -> plain rows, with one clear ValueError for whatever is wrong with a file.

Text formats are read by the standard library: every csv cell stays the text it is ("007", "null", "NA"), a wrong line
is named, and no cache can give back what a file once held. The hub is left to the library `datasets`.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
SPLIT_NAMES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation"}
SPLIT_NAMES |= {"dev": "validation", "test": "test"}


@dataclass(frozen=True)
class Source:
    """The rows of a file, a folder or a hub dataset, as they stand there.

    `parts`: rows by "train", "validation", "test", or "all" where the source has no parts. `origin`: what results.json
    calls the source. `files`: the file names of each part, for messages. `notes`: what the user should know of how it
    was read (an encoding that was not UTF-8, files that were passed over), one sentence each; printed before training.
    """

    parts: dict[str, list[Row]]
    origin: str
    files: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """All rows in the order of the parts."""
        return [row for part in self.parts.values() for row in part]


def read_rows(path: Path) -> Source:
    """A csv, tsv, json, jsonl or parquet file, or a folder of them -> rows by split.

    Files in a folder that are named train, validation (val, valid, dev) or test, alone or with something behind it that
    is no letter (train-00000.parquet), become that split; everything else is "all".
    """
    if not path.exists():
        raise ValueError(f"--data {path}: no such file or folder")
    if not path.is_dir():
        return Source({"all": _read_file(path)}, str(path), {"all": [path.name]})
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in READERS)
    if not files:
        raise ValueError(f"--data {path}: the folder holds no {', '.join(READERS)} file")
    rows: dict[str, list[Row]] = {}
    names: dict[str, list[str]] = {}
    for file in files:
        word = re.match("[a-z]*", file.stem.lower())
        name = SPLIT_NAMES.get(word[0] if word else "", "all")
        part = rows.setdefault(name, [])
        part += _read_file(file)
        names.setdefault(name, []).append(file.name)
        if part[-1].keys() != part[0].keys():
            raise ValueError(
                f"--data {file}: its columns ({', '.join(part[-1])}) differ from those of the files before it"
            )
    return Source(rows, str(path), names)


def read_hub(repository: str) -> Source:
    """A hub dataset -> rows by split. Raises OSError when the hub cannot be reached and nothing is cached."""
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    loaded = datasets.load_dataset(repository)
    parts = {name: split.to_list() for name, split in loaded.items() if name in ("train", "validation", "test")}
    return Source(parts, f"hub {repository}")


def _read_file(file: Path) -> list[Row]:
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"--data {file}: unknown kind of file; known are {', '.join(READERS)}")
    try:
        empty = not file.read_bytes().strip()
        rows = [] if empty else reader(file)
    except UnicodeDecodeError as error:
        raise ValueError(f"--data {file}: not UTF-8 (byte {error.start}); save it as UTF-8 and try again") from error
    except (ValueError, csv.Error, OSError) as error:
        raise ValueError(f"--data {file}: not a readable {file.suffix} file ({error})") from error
    if empty:
        raise ValueError(f"--data {file}: the file is empty")
    if not rows:
        raise ValueError(f"--data {file}: the file has no rows")
    return rows


def _text(file: Path) -> str:
    """The whole file, without a byte order mark. Decoded at once, so that an error knows its byte."""
    return file.read_bytes().decode("utf-8").removeprefix("\ufeff")


def _read_csv(file: Path) -> list[Row]:
    csv.field_size_limit(sys.maxsize)  # a mail can be longer than the 131,072 characters allowed by default
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), delimiter=delimiter, restval="", strict=True)
    rows = []
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more cells than the header")
        rows.append(row)
    return rows


def _read_json(file: Path) -> list[Row]:
    """A list of records, an object with one list of records in it, or one record a line."""
    text = _text(file)
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        return _read_json_lines(file)
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else [content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError("it holds no list of records")
    return _same_columns(content)


def _read_json_lines(file: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_text(file).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} holds no record")
            rows.append(row)
    return _same_columns(rows)


def _same_columns(rows: list[Row]) -> list[Row]:
    """Every record with the columns of all, None where it had none."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def _read_parquet(file: Path) -> list[Row]:
    from pyarrow import parquet

    return parquet.read_table(file).to_pylist()


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}
