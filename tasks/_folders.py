"""Finds out which part each file of a folder is. A file of no part is named in a note, or the folder is refused."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tasks._cells import listed
from tasks._files import kind_of
from tasks._names import PARTS, has_word, part_word

# Files of metadata: the hub's, Croissant's, Kaggle's, those of Frictionless Data.
METADATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "metadata.json"}
METADATA |= {"croissant.json", "dataset-metadata.json", "datapackage.json", "schema.json", "config.json"}
OTHER_DATA = {".txt", ".xlsx", ".xls", ".ods", ".zip", ".zst", ".bz2", ".xz", ".7z", ".tar", ".tgz", ".pkl", ".pickle"}
OTHER_DATA |= {
    ".tfrecord",
    ".feather",
    ".orc",
    ".avro",
    ".xml",
    ".h5",
    ".npy",
    ".npz",
    ".sqlite",
    ".db",
    ".dta",
    ".sav",
}
OF_A_RUN = ("adapter", "model", "checkpoint", "trained_on.json")  # what a run folder has beside results.json
PIECE = re.compile(r"(?<![^\W_])(part|shard|chunk)?[-_.]?[0-9]+([-_]of[-_]?[0-9]+)?(?![^\W_])")  # of one file
NO_PART = ("unsupervised", "submission")  # texts without labels (imdb); the template of a competition's answers


class Listing(NamedTuple):
    """The data files of a folder by part ("all" where none is named after one), those passed over as no data, and those
    of a kind that is not read."""

    files: dict[str, list[Path]]
    passed_over: list[Path]
    unread: list[Path]


def several(listing: Listing) -> list[tuple[str, list[Path]]]:
    """Returns the parts that have more than the numbered pieces of one file."""
    return [
        (part, files) for part, files in listing.files.items() if len({PIECE.sub("", file.name) for file in files}) > 1
    ]


def names_of(files: Iterable[Path]) -> str:
    """Lists the names of files for a message, the first few if there are many."""
    return listed((file.name for file in files), quoted=False)


def kind_free(name: str) -> str:
    """Returns a file's name without its ending: "test.set" for test.set.csv.gz."""
    return name[: -len(kind_of(Path(name)))] if not name.lower().endswith(".gz") else kind_free(name[:-3])


def _word(file: Path, folder: Path) -> str | None:
    """Returns the word of the file's name that names a part, else that of the nearest folder above it that has one.

    Raises ValueError if the names of file and folders name different parts.
    """
    inside = file.relative_to(folder)
    try:
        said = [part_word(name) for name in (kind_free(inside.name), *reversed(inside.parts[:-1]))]
    except ValueError as error:
        raise ValueError(f"{inside}: {error}") from error
    words = [word for word in said if word]
    parts = list(dict.fromkeys(PARTS[word] for word in words))
    if len(parts) > 1:
        raise ValueError(f"{inside}: file and folder are named after different parts ({' and '.join(parts)})")
    return words[0] if words else None


def _check_part(part: str, files: list[Path], words: set[str | None]) -> None:
    """Raises ValueError if the files of a part are likely to be the same rows twice, or of several data sets."""
    if len(words) > 1:
        raise ValueError(f"{names_of(files)} would all be {part}; rename one after another part, or move it away")
    kinds = {(kind_of(file), file.suffix.lower() == ".gz") for file in files}
    if len(kinds) > 1 and part != "all":
        raise ValueError(
            f"{names_of(files)} are {part} files of different kinds, likely the same rows twice; keep one kind"
        )
    stems = [file.with_name(kind_free(file.name)) for file in files]
    if twice := next((file for file in stems if stems.count(file) > 1), None):
        raise ValueError(f"{twice.name} is there in different kinds, likely the same rows twice; keep one")
    folders = sorted({file.parent for file in files})
    if len(folders) > 1 and part != "all":
        raise ValueError(
            f"{part} files are in several folders ({names_of(folders)}), which may be several "
            "data sets; give one of them, or put their files together"
        )


def visible(folder: Path) -> list[Path]:
    """Lists all files in `folder` and below, also behind links, except hidden ones.

    Raises ValueError for a link to nothing, as git-annex and DVC leave where they have not fetched the content.
    """
    found = list[Path]()
    for place, below, names in os.walk(folder, followlinks=True):
        inside = Path(place).relative_to(folder).parts
        above = {Path(folder, *inside[:depth]).resolve() for depth in range(len(inside) + 1)}
        shown = [name for name in below if not _is_hidden(name)]
        below[:] = [name for name in shown if Path(place, name).resolve() not in above]  # else links go in circles
        files = [Path(place, name) for name in names if not _is_hidden(name)]
        if broken := next((file for file in files if not file.exists()), None):
            raise ValueError(f"{broken.relative_to(folder)}: is a link to nothing; fetch its content, or remove it")
        found += [file for file in files if file.is_file()]
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _check_unreadable(files: list[Path], folder: Path, parts: set[str | None]) -> None:
    """Raises ValueError for a file of another kind that is the only one of its part: train.xlsx beside test.csv."""
    for file in files:
        word = _word(file, folder) if file.suffix.lower() in OTHER_DATA else None
        if word and PARTS[word] not in parts:
            raise ValueError(f"{file.name}: its kind of file is unknown here, and it is the only one of its part")


def _splits(entry: Any) -> Iterator[str]:
    """Yields the names of splits in a list of configurations, whatever its form."""
    if isinstance(entry, dict):
        yield from [str(entry["split"])] if "split" in entry else []
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from _splits(inner)


def _check_card(folder: Path) -> None:
    """Raises ValueError if the README of a data repository, as the hub has them, assigns its files to parts."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        head = re.match(r"---\s*\n(.*?)^---\s*$", text, re.DOTALL | re.MULTILINE)
        card = yaml.safe_load(head[1]) if head else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    splits = _splits(card.get("configs")) if isinstance(card, dict) else ()
    parts = dict.fromkeys(PARTS[split.lower()] for split in splits if split.lower() in PARTS)
    if len(parts) > 1:
        raise ValueError(
            f"README.md says which of its files are {' and '.join(parts)}; name them so, since only names are read"
        )


def list_folder(folder: Path, kinds: Iterable[str]) -> Listing:
    """Lists the data files in `folder` and below by part. Raises ValueError, naming files, if that is not clear."""
    known = tuple(kinds)
    if (folder / "results.json").is_file() and any((folder / name).exists() for name in OF_A_RUN):
        raise ValueError("is a run folder, with what a run wrote; name the file or folder of the data")
    every = visible(folder)
    data = [file for file in every if kind_of(file) in known]
    passed = [f for f in data if f.name.lower() in METADATA or has_word(kind_free(f.name), *NO_PART)]
    files = [file for file in data if file not in passed]
    if passed and not files:
        raise ValueError(
            f"the folder holds {names_of(passed)} alone, whose name is that of metadata, of texts without labels or of "
            "the form of an answer; rename it, or give the file itself"
        )
    if not files:
        texts = sum(file.suffix.lower() == ".txt" for file in every)
        remedy = f", but {texts:,} of .txt; write their texts into a table, with a column of classes" * bool(texts)
        raise ValueError(f"the folder holds no {', '.join(known)} file{remedy}")
    if column := next((n for f in files for n in f.relative_to(folder).parts[:-1] if "=" in n), None):
        raise ValueError(f"the folder {column[:60]!r} names a column and its value; write that column into the files")
    words = {file: _word(file, folder) for file in files}
    if len(files) > 1 and not any(words.values()):
        _check_card(folder)
    named = [file for file in files if words[file]]
    others = [file for file in files if not words[file]]
    if named and others:
        unknown = listed((f.relative_to(folder) for f in others), quoted=False)
        raise ValueError(
            f"{unknown}: no known part, unlike {named[0].name}; rename after train, validation or test, or move away"
        )
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(PARTS.get(words[file] or "", "all"), []).append(file)
    for part, members in found.items():
        _check_part(part, members, {words[file] for file in members})
    rest = [file for file in every if file not in data]
    _check_unreadable(rest, folder, set(found))
    return Listing(found, passed, [file for file in rest if file.suffix.lower() in OTHER_DATA - {".txt"}])
