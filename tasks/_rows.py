"""Reads files and folders as plain rows, with one clear ValueError for whatever is wrong with a file.

Each kind of file has its reader: _delimited.py (csv, tsv), _json.py, _tables.py (parquet, arrow); _folders.py knows
which file is which part. Nothing is cached, so that a changed file is read anew.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tasks._cells import listed
from tasks._delimited import read_delimited
from tasks._files import Row, Table, check_encoding, encoding_of, kind_of, nul_on, text_of, undecodable
from tasks._folders import list_folder, names_of, several
from tasks._json import read_json
from tasks._names import has_word, part_of
from tasks._tables import is_saved, read_arrow, read_parquet, read_saved

LONGEST = 250  # characters of what a message says of a file, its name aside


@dataclass(frozen=True)
class Source:
    """The rows of a file, a folder or a hub dataset, as they stand there.

    `parts`: rows by "train", "validation", "test", or "all" where the source has no parts. `origin`: what results.json
    calls the source. `files`: the file names of each part, for messages. `notes`: what the user should know of how it
    was read (an encoding that was not UTF-8, files that were passed over), one sentence each; printed before training.
    `sizes`: the number of rows of each of `files`, where a part has several.
    """

    parts: dict[str, list[Row]]
    origin: str
    files: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sizes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def counted(self) -> dict[str, dict[str, int]]:
        """The number of rows by file, by part."""
        sizes = {part: self.sizes.get(part, [len(rows)]) for part, rows in self.parts.items()}
        return {part: dict(zip(self.files[part], sizes[part], strict=True)) for part in self.parts}

    @property
    def rows(self) -> list[Row]:
        """All rows in the order of the parts."""
        return [row for part in self.parts.values() for row in part]


READERS: dict[str, Callable[[Path, str | None], Table]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}


def _read_file(file: Path, encoding: str | None) -> Table:
    """Reads one file. Raises ValueError, which names it, for whatever is wrong with it."""
    kind = kind_of(file)
    reader = READERS.get(kind)
    if reader is None:
        raise ValueError(f"--data {file}: unknown kind of file; known are {', '.join(READERS)}, and these with .gz")
    try:
        table = reader(file, encoding)
    except UnicodeDecodeError as error:
        reason = undecodable(file, encoding_of(file, encoding)[0])
        raise ValueError(f"--data {file}: {reason}") from error
    except (ValueError, OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:LONGEST]
        if reason.startswith(("--encoding", "the file")):
            raise ValueError(f"--data {file}: {reason}") from error
        raise ValueError(f"--data {file}: not a readable {kind} file: {reason}") from error
    if not any(table.parts.values()):
        raise ValueError(f"--data {file}: the file has no rows")
    if encoding is not None and kind in (".parquet", ".arrow"):
        table.notes.append(f"--encoding {encoding} is not used: a {kind} file holds text as it is")
    return table


def _read_folder(folder: Path, encoding: str | None) -> Source:
    listing = list_folder(folder, READERS)
    parts: dict[str, list[Row]] = {}
    notes: list[str] = []
    sizes: dict[str, list[int]] = {}
    for part, files in listing.files.items():
        rows = parts.setdefault(part, [])
        for file in files:
            table = _read_file(file, encoding)
            if list(table.parts) != ["all"]:
                raise ValueError(f"{file.name}: holds several parts itself; give this file alone")
            if rows and (others := sorted(table.parts["all"][0].keys() ^ rows[0].keys())):
                raise ValueError(
                    f"{file.relative_to(folder)}: column {listed(others)} is not in all files of this part "
                    f"({files[0].name} has {listed(rows[0])})"
                )
            rows += table.parts["all"]
            sizes.setdefault(part, []).append(len(table.parts["all"]))
            notes += [f"{file.relative_to(folder)}: {note}" for note in table.notes]
    if listing.passed_over:
        notes.append(f"{folder.name}: passed over as no data: {names_of(listing.passed_over)}")
    if listing.unread:
        notes.append(f"{folder.name}: not read, since their kind is unknown here: {names_of(listing.unread)}")
    notes += [f"read together as {part} rows: {names_of(files)}" for part, files in several(listing)]
    names = {part: [str(file.relative_to(folder)) for file in files] for part, files in listing.files.items()}
    return Source(parts, str(folder), names, notes, sizes)


def _read_saved(folder: Path) -> Source:
    found = read_saved(folder)
    named = {name: table.parts["all"] for name, table in found.items()}
    said = list(dict.fromkeys(note for table in found.values() for note in table.notes))
    if list(found) == [""]:
        if not named[""]:
            raise ValueError("it has no rows")
        return Source({"all": named[""]}, str(folder), {"all": [folder.name]}, said)
    kept = {name: rows for name, rows in named.items() if not has_word(name, "unsupervised")}
    if empty := [name for name, rows in kept.items() if not rows]:
        raise ValueError(f"its part {listed(empty, quoted=False)} has no rows; save it without that part")
    names = {name: part_of(name) for name in kept}
    if len(kept) > 1 and (None in names.values() or len(set(names.values())) < len(names)):
        raise ValueError(
            f"its parts are {listed(kept, quoted=False)}; it may have one train, one validation and one test part"
        )
    notes = [f"passed over, since it has no labels: {name}" for name in found if name not in kept]
    files = {part or "all": [name] for name, part in names.items()}
    parts = {part or "all": kept[name] for name, part in names.items()}
    return Source(parts, str(folder), files, [*said, *notes])


def read_text(file: Path, encoding: str | None = None) -> tuple[str, list[str]]:
    """Returns the whole of a text file, in `encoding` as for `read_rows`, and notes on it. Raises ValueError, which
    names the file."""
    try:
        if not file.read_bytes().strip():
            return "", []
        known, notes = encoding_of(file, encoding)
        text = text_of(file, known)
        if "\0" in text:
            raise nul_on(text.count("\n", 0, text.index("\0")) + 1)
        return text, [f"{file.name}: {note}" for note in notes]
    except UnicodeDecodeError as error:
        raise ValueError(f"--data {file}: {undecodable(file, known)}") from error
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"--data {file}: {error}") from error


def read_rows(path: Path, encoding: str | None = None) -> Source:
    """Reads a csv, tsv, json, jsonl, parquet or arrow file, or a folder of them, as rows by part.

    Files in a folder whose name, or whose sub-folder's name, says train, validation (val, dev, eval ...) or test are
    that part; if no name says so, all are "all". A file given by itself is "all", whatever its name, unless it is json
    with a list for each part. `encoding` is that of text files; None: it is detected. Raises ValueError.
    """
    if encoding is not None:
        check_encoding(encoding)
    if re.match(r"[a-z][a-z0-9+]+:/", str(path), re.IGNORECASE):  # Path makes one slash of two
        raise ValueError(f"--data {path}: addresses are not read; download the file, and name it")
    if path.is_dir() and path.resolve() == Path(path.anchor or "/").resolve():
        raise ValueError(f"--data {path}: is the whole disk; name the file or folder of the data")
    if not path.exists():
        raise ValueError(f"--data {path}: no such file or folder")
    try:
        if path.is_dir():
            return _read_saved(path) if is_saved(path) else _read_folder(path, encoding)
    except OSError as error:
        raise ValueError(f"--data {path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith("--data") else f"--data {path}: {said[:LONGEST]}") from error
    table = _read_file(path, encoding)
    files = {part: [path.name] for part in table.parts}
    notes = [f"{path.name}: {note}" for note in table.notes]
    return Source(table.parts, str(path), files, notes)
