"""Writes predictions as JSON lines, csv or tsv by the ending of the file, whole or not at all, without torch."""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tasks._cells import writable
from training.flags.near_misses import nearest as nearest_name
from training.storage.files import replace_file
from training.storage.run_folder import OURS, nearest

ENDINGS = (".jsonl", ".csv", ".tsv")
Line = dict[str, Any]


def metrics_file(output: Path) -> Path:
    return output.with_suffix(".metrics.json")


def output_problems(output: Path, overwrite: bool, data: Path, model: Path) -> list[str]:
    """Returns why predictions and metrics may not be written there: an unknown ending, the data, the model's own files,
    an earlier output without --overwrite, or a place that cannot be written."""
    at = f"--output {output}:"
    if output.suffix.lower() not in ENDINGS:
        return [f"{at} its ending says what is written; known are {', '.join(ENDINGS)}"]
    if data.is_dir() and data.resolve() in output.resolve().parents:
        return [f"{at} lies in the folder of the data, where it would be read as data; choose another folder"]
    own = {name for name in OURS if output.resolve().parent == model.resolve()}
    for path in (output, metrics_file(output)):
        if path.resolve() == data.resolve() or (path.exists() and data.exists() and path.samefile(data)):
            return [f"{at} is the data itself; choose another file"]
        if path.name in own:
            return [f"{at} is a file of the run; choose another name"]
        if path.is_dir():
            return [f"{at} {path.name} is a folder; give a file"]
        if os.path.lexists(path) and not overwrite:
            return [f"{at} {path.name} is there already; add --overwrite or choose another file"]
    if not (nearest(output.parent).is_dir() and os.access(nearest(output.parent), os.W_OK)):
        return [f"{at} cannot be written there; choose another folder"]
    return []


def near(name: str, known: Iterable[str]) -> str:
    """Returns a question that ends a message about an unknown name; empty when no known name is like it."""
    found = nearest_name(name, list(known))
    return f" (did you mean {found}?)" if found else ""


def kept_names(wanted: Sequence[str], present: Sequence[str], taken: Iterable[str]) -> dict[str, str]:
    """Maps columns of the input to their names in the output, which differ where predictions have such a column.

    Example: `text` becomes `input_text`. `wanted` "all" alone: all columns. Raises ValueError for an unknown column.
    """
    if missing := [name for name in wanted if name not in present and wanted != ("all",)]:
        raise ValueError(
            f"--keep-columns {missing[0][:40]}: no such column{near(missing[0], present)}; all keeps them all"
        )
    columns = present if tuple(wanted) == ("all",) else tuple(dict.fromkeys(wanted))
    taken = {*taken, "probabilities"}  # a column of JSON lines
    used, names = {*taken, *columns}, dict[str, str]()
    for column in columns:
        name = column if column not in taken else f"input_{column}"
        while name != column and name in used:
            name = f"input_{name}"
        names[column] = name
        used.add(name)
    return names


def _plain(value: Any) -> Any:
    """Returns what JSON can hold: whole characters, null for non-finite numbers, text for dates and the like."""
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, dict):
        return {writable(str(name)): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else writable(str(value))


def _cell(value: Any) -> Any:
    """Returns a value as one cell; a NUL, at which readers of tables stop, becomes U+FFFD."""
    plain = _plain(value)
    text = json.dumps(plain, ensure_ascii=False) if isinstance(plain, dict | list) else plain
    return text.replace("\0", "\ufffd") if isinstance(text, str) else text


def _flat(line: Line) -> Iterator[tuple[str, Any]]:
    for name, value in line.items():
        if name == "probabilities":
            yield from ((f"probability_{label}", share) for label, share in (value or {}).items())
        else:
            yield name, value


def _write_table(file: IO[str], lines: Iterable[Line], columns: Mapping[str, Any], delimiter: str) -> None:
    # Text is always quoted: the csv module of Python 3.11 leaves a lone carriage return bare, which ends a row.
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(columns)
    for line in lines:
        cells = dict(_flat(line))
        assert cells.keys() <= columns.keys(), f"no column for {cells.keys() - columns.keys()}"
        writer.writerow([_cell(value) for value in (dict(columns) | cells).values()])


def write_predictions(output: Path, lines: Iterable[Line], columns: Mapping[str, Any], stale: Path) -> None:
    """Writes the lines as they come. For csv and tsv, `columns` are the header, each with the value for lines without
    it, and `probabilities` becomes a column for each class.

    `stale`, the metrics of the output to be replaced, is removed once all lines are on the disk. Raises OSError when
    the disk is full; what was at `output` is then still there.
    """
    kind = output.suffix.lower()

    def write(new: Path) -> None:
        with new.open("w", encoding="utf-8", newline="") as file:
            if kind == ".jsonl":
                file.writelines(json.dumps(_plain(line), ensure_ascii=False) + "\n" for line in lines)
            else:
                _write_table(file, lines, columns, "\t" if kind == ".tsv" else ",")
        stale.unlink(missing_ok=True)

    replace_file(output, write)
