"""Reads a data set of the hub; the library `datasets` knows its configurations and which files are its splits.

Files in the formats that we read ourselves are downloaded and read like the user's own: `datasets` would take the label
007 of a csv for 7, and a text that is a date for a time. All others are left to it. Errors are raised as the libraries
raise them; training/data/hub.py puts them into words.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks._cells import listed
from tasks._files import Row, kind_of
from tasks._folders import METADATA
from tasks._headers import with_readable_names
from tasks._names import part_of
from tasks._rows import READERS, Source, read_rows
from tasks._tables import class_labels

if TYPE_CHECKING:
    from datasets import DatasetBuilder

PARTS = ("train", "validation", "test")


class ConfigNeeded(ValueError):
    """The data set has several configurations and none was chosen, or the chosen one is not there."""

    def __init__(self, names: Sequence[str]):
        super().__init__(", ".join(names))
        self.names = names


class Unreadable(ValueError):
    """A file of the data set, by name, and what is wrong with it."""


@dataclass(frozen=True)
class HubData:
    """`splits`: files of each at this commit; `classes`: class names of each column that numbers them; `left_out`: data
    files in no split. Without a commit the library reads the data, and the splits name no files."""

    repository: str
    commit: str | None
    config: str
    splits: dict[str, list[str]]
    classes: dict[str, list[str]]
    left_out: list[str] = field(default_factory=list)
    why_last_seen: str = ""  # what the hub said instead of describing it now


def open_hub(repository: str, config: str | None = None) -> HubData:
    """Returns what the data set says of itself, as last seen if the hub does not, with the reason. Downloads no data.

    Raises ConfigNeeded, and what the libraries raise.
    """
    known = _known(repository, config)
    last_seen = HubData(**json.loads(known.read_text(encoding="utf-8"))) if known.exists() else None
    try:
        found = _described(_builder(repository, config), config is not None)
    except Exception as error:  # of any kind, see training/data/hub.py
        if last_seen is not None:
            return replace(last_seen, why_last_seen=" ".join(str(error).split()) or type(error).__name__)
        _ask_again(repository)
        if isinstance(error, ValueError):
            _check_config(repository, config, error)
        raise
    if found.commit is None:
        return last_seen or found
    known.parent.mkdir(parents=True, exist_ok=True)
    new = known.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(asdict(found)), encoding="utf-8")
    new.replace(known)
    return found


def _known(repository: str, config: str | None) -> Path:
    """Returns the file that keeps what the hub said of a data set, for when it does not answer."""
    import datasets

    name = f"{config or ''}.json".replace("/", "--")
    return Path(datasets.config.HF_DATASETS_CACHE) / "splits_on_the_hub" / repository.replace("/", "--") / name


def _builder(repository: str, config: str | None) -> "DatasetBuilder":
    import datasets

    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    datasets.config.USE_PARQUET_EXPORT = False  # it is on another server, which may not have it
    if not sys.stderr.isatty() or os.environ.get("LOCAL_RANK", "0") != "0":
        datasets.disable_progress_bars()
    return datasets.load_dataset_builder(repository, config)


def _described(builder: "DatasetBuilder", chosen: bool) -> HubData:
    """Describes the data set. `chosen`: the user named the configuration, so that files of others are not missed."""
    import datasets

    base, listed = f"{builder.base_path}/", builder.config.data_files
    found = {str(split): [str(file) for file in files] for split, files in (listed or {}).items()}
    names = [file for files in found.values() for file in files]
    features = builder.info.features or {}
    classes = {name: f.names for name, f in features.items() if isinstance(f, datasets.ClassLabel)}
    ours = all(name.startswith(base) and kind_of(Path(name)) in READERS for name in names)
    left_out = _left_out(builder, names, chosen) if names else []
    if names and ours and not _is_special(builder.config):
        found = {split: [file.removeprefix(base) for file in files] for split, files in found.items()}
        return HubData(builder.repo_id, builder.hash, builder.config.name, found, classes, left_out)
    splits = dict.fromkeys(found or map(str, builder.info.splits or ()), list[str]())
    return HubData(builder.repo_id, None, builder.config.name, splits, {}, left_out)


def _left_out(builder: "DatasetBuilder", used: Sequence[str], chosen: bool) -> list[str]:
    """Lists the data files of the repository that are not `used`, nor of other configurations if one was `chosen`."""
    from huggingface_hub import HfApi

    there = HfApi().list_repo_files(builder.repo_id, revision=builder.hash, repo_type="dataset")
    data = [f for f in there if kind_of(Path(f)) in READERS and Path(f).name.lower() not in METADATA and f[0] != "."]
    left = [name for name in data if f"{builder.base_path}/{name}" not in used]
    for other in builder.builder_configs.values() if chosen else ():
        if left and isinstance(other.data_files, dict):
            other._resolve_data_files(builder.base_path, None)
            files = {str(file) for part in other.data_files.values() for file in part}
            left = [name for name in left if f"{builder.base_path}/{name}" not in files]
    return left


def _is_special(config: Any) -> bool:
    """Whether the data set's card says how its files are to be read."""
    usual = type(config)(name=config.name, version=config.version, data_files=config.data_files)
    special = [f.name for f in fields(config) if getattr(config, f.name) != getattr(usual, f.name)]
    return bool(set(special) - {"description", "data_dir"})


def _ask_again(repository: str) -> None:
    """Raises the reason why the hub does not give the data set; `datasets` itself only says that it does not."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        hf_hub_download(repository, "README.md", repo_type="dataset")
    except RemoteEntryNotFoundError:
        return


def _check_config(repository: str, config: str | None, error: ValueError) -> None:
    import datasets

    names = datasets.get_dataset_config_names(repository)
    if config not in names and (config is not None or len(names) > 1):
        raise ConfigNeeded(names) from error


def usual_part(split: str) -> str | None:
    """Returns train, validation or test, as for names of files; None if the split's name names none, or several."""
    try:
        return part_of(split)
    except ValueError:
        return None


def choose_splits(name: str, present: Sequence[str], wanted: Sequence[str]) -> dict[str, list[str]]:
    """Returns, for each part, the splits (or slices, train[:80%]) of data set `name` that become it.

    `wanted`: PART=SPLIT, or a split alone, which is for training; if empty, names decide. Raises ValueError for a split
    that is not there, and if several would become one part by their names.
    """
    import datasets

    if not wanted:
        return _by_name(name, present)
    chosen: dict[str, list[str]] = {}
    for each in wanted:
        part, _, split = each.rpartition("=")
        if (part or "train") not in PARTS:
            raise ValueError(f"--split {each}: {part} is not one of {', '.join(PARTS)}; give PART=SPLIT")
        if unknown := [split for split in names_in(split) if split not in present]:
            raise ValueError(f"--split {each}: {name} has no split {unknown[0]!r}, but {', '.join(present)[:120]}")
        try:
            datasets.ReadInstruction.from_spec(split)
        except (ValueError, AssertionError) as error:
            raise ValueError(f"--split {each}: {split!r} is neither a split nor a slice of one, train[:80%]") from error
        chosen.setdefault(part or "train", []).append(split)
    if "train" not in chosen:
        raise ValueError(f"--split {' '.join(wanted)}: names nothing to train on; add train=SPLIT")
    return chosen


def _by_name(name: str, present: Sequence[str]) -> dict[str, list[str]]:
    parts = {part: [split for split in present if usual_part(split) == part] for part in PARTS}
    for part, splits in parts.items():
        if part in splits:
            parts[part] = [part]
        elif len(splits) > 1:
            raise ValueError(
                f"--dataset {name}: could all be {part}: {', '.join(splits)[:120]}; choose, for example --split "
                + " ".join(f"{p}={parts[p][0]}" for p in PARTS if parts[p])
            )
    if not parts["train"]:
        raise ValueError(
            f"--dataset {name}: has no train split, but {', '.join(present)[:120]}; choose with --split train=NAME"
        )
    return {part: splits for part, splits in parts.items() if splits}


def names_in(split: str) -> list[str]:
    """Returns the splits that `datasets` would read for it: train[:80%] -> train, a+b -> a, b."""
    return [name.partition("[")[0].strip() for name in split.split("+")]


def read_splits(data: HubData, chosen: Mapping[str, list[str]], encoding: str | None = None) -> Source:
    """Downloads and reads the files of the chosen splits. Raises what the libraries raise, and Unreadable."""
    needed = [name for splits in chosen.values() for split in splits for name in names_in(split)]
    rows, notes = {}, []
    for name in dict.fromkeys(needed):
        given = _through_library(data, name) if data.commit is None else _through_readers(data, name, encoding)
        rows[name], more = given
        notes += [f"{data.repository}, {name}: {note}" for note in more]
    if left_out := [name for name in data.splits if name not in needed]:
        notes.append(f"{data.repository}: not used: {', '.join(left_out)} (--split PART=NAME takes them)")
    if data.left_out:
        unread = listed(data.left_out, quoted=False)
        notes.append(f"{data.repository}: in no split, and not read: {unread} (--data reads a folder of them)")
    pieces = {part: [_sliced(rows, split) for split in splits] for part, splits in chosen.items()}
    parts = {part: [row for piece in of_part for row in piece] for part, of_part in pieces.items()}
    sizes = {part: [len(piece) for piece in of_part] for part, of_part in pieces.items()}
    config = "" if data.config == "default" else f" ({data.config})"
    return Source(parts, f"hub {data.repository}{config}", dict(chosen), notes, sizes)


def _sliced(rows: Mapping[str, list[Row]], split: str) -> list[Row]:
    import datasets

    lengths = {name: len(part) for name, part in rows.items()}
    bounds = datasets.ReadInstruction.from_spec(split).to_absolute(lengths)
    return [row for each in bounds for row in rows[each.splitname][each.from_ : each.to]]


def _through_readers(data: HubData, split: str, encoding: str | None) -> tuple[list[Row], list[str]]:
    """Returns the rows of a split, with class names in place of numbers, and notes on them."""
    from huggingface_hub import hf_hub_download

    rows, notes, columns = list[Row](), list[str](), dict[str, None]()
    for name in data.splits[split]:
        path = Path(hf_hub_download(data.repository, name, repo_type="dataset", revision=data.commit))
        try:
            source = read_rows(path, encoding)
        except ValueError as error:
            raise Unreadable(f"{name}: {str(error).removeprefix(f'--data {path}: ')}") from error
        if list(source.parts) != ["all"]:
            raise Unreadable(f"{name}: holds several parts itself; download it, and give this file alone as --data")
        if rows and (others := source.rows[0].keys() ^ rows[0].keys()):
            lacking = listed(sorted(others))
            raise Unreadable(f"{name}: column {lacking} is not in all files of {split}; choose with --dataset-config")
        classes = data.classes or _classes_in(path)
        try:
            _put_class_names(source.rows, classes, all_text=kind_of(path) in (".csv", ".tsv"))
        except ValueError as error:
            raise Unreadable(f"{name}: {error}; download it, and give this file as --data") from error
        rows += source.rows
        notes += source.notes
        columns |= dict.fromkeys(classes)
    return rows, list(dict.fromkeys(notes)) + _without_class(rows, columns)


def _classes_in(path: Path) -> dict[str, list[str]]:
    """Returns the class names that the library wrote into a parquet file; its rows have them already."""
    from pyarrow import parquet

    return class_labels(parquet.read_schema(path).metadata) if path.suffix.lower() == ".parquet" else {}


def _put_class_names(rows: Sequence[Row], classes: Mapping[str, list[str]], all_text: bool = False) -> None:
    """Puts class names in place of numbers, None in place of -1 (no class). Any other value stays what it is, but a
    whole number of no class raises ValueError.

    `all_text`: the file has no numbers but those that its texts spell; in others a text that is a name is no number.
    """
    for column, names in classes.items():
        numbers = {str(i): each for i, each in enumerate(names)} | {"-1": None}
        named = set() if all_text else {*names}
        given = [row for row in rows if column in row and row[column] not in named]
        if odd := [v for row in given if (v := str(row[column])) not in numbers and re.fullmatch("-?[0-9]+", v)]:
            raise ValueError(
                f"column {column!r} holds a number of no class, such as {odd[0][:20]}, in {len(odd):,} of "
                f"{len(rows):,} rows; its classes are {listed(names, quoted=False)}"
            )
        for row in given:
            row[column] = numbers.get(str(row[column]), row[column])


def _without_class(rows: Sequence[Row], columns: Iterable[str]) -> list[str]:
    """Returns a note on each of the `columns` of classes that is empty in some rows."""
    empty = {column: sum(row.get(column) is None for row in rows) for column in columns}
    return [f"column {name!r} has no class in {few:,} of {len(rows):,} rows" for name, few in empty.items() if few]


def _through_library(data: HubData, split: str) -> tuple[list[Row], list[str]]:
    """Returns the rows of a split that only the library can read, and notes on them. It downloads all splits."""
    import datasets

    builder = _builder(data.repository, data.config)
    builder.download_and_prepare()
    found = builder.as_dataset(split)
    decoded = [name for name, feature in found.features.items() if hasattr(feature, "decode_example")]
    media = [name for name in decoded if not isinstance(found.features[name], datasets.ClassLabel | datasets.Value)]
    classes = {name: f.names for name, f in found.features.items() if isinstance(f, datasets.ClassLabel)}
    rows = found.remove_columns(media).to_list()
    _put_class_names(rows, classes)
    without = _without_class(rows, classes)
    rows, renamed = with_readable_names(rows, found.features)
    return rows, renamed + without + [f"column {name} holds no text and is left out" for name in media]
