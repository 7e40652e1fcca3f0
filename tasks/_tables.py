"""Reads parquet and arrow files, and folders that save_to_disk of the library `datasets` wrote.

Classes that such a file knows by number and name (ClassLabel) are read by name.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks._cells import short
from tasks._files import Row, Table, open_file
from tasks._headers import with_readable_names

DAMAGED = (OverflowError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError, zlib.error)  # Python's own
BATCH = 4096  # rows
INDEX = "__index_level_"  # pandas' own column for an index without a name


def class_labels(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Returns the names of the classes by column, from what `datasets` writes into the schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: f["names"] for name, f in features.items() if f.get("_type") == "ClassLabel" and "names" in f}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def named_classes(rows: list[Row], names: dict[str, list[str]]) -> list[Row]:
    """Puts the names of classes in place of their numbers; -1 stands for no class in `datasets`."""
    for row in rows:
        for column, classes in names.items():
            number = row.get(column)
            if isinstance(number, int):
                if number >= len(classes):
                    raise ValueError(f"column {column!r} holds class {number}, but only {len(classes)} have a name")
                row[column] = classes[number] if number >= 0 else None
    return rows


def _cells(name: str, column: Any) -> list[Any]:
    """Returns the cells of a column. Those of times that Python does not have, such as the year 10000, become text."""
    import pyarrow as pa

    try:
        try:
            return column.to_pylist()  # type: ignore[no-any-return]
        except OverflowError:
            return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]
    except (pa.ArrowException, ValueError, *DAMAGED) as error:
        said = str(error)[:100]
        raise ValueError(f"column {short(name)} cannot be read ({said}); leave it out of the file") from error


def _rows_of(schema: Any, batches: Iterable[Any]) -> Table:
    """Reads the rows batch by batch, so that a large file is not held twice."""
    import numpy as np

    names = [name for name in schema.names if not name.startswith(INDEX)]
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise ValueError(f"it has the column {name[:60]!r} twice; rename one of them")
    rows = list[Row]()
    for batch in batches:
        columns = [_cells(name, batch.column(name)) for name in names]
        rows += [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
    for name in names:
        kind = {"float": np.float32, "halffloat": np.float16}.get(str(schema.field(name).type))
        if kind is not None:
            for row in rows:  # 0.1 of 32 bits is 0.1, not its nearest double, 0.10000000149011612
                row[name] = None if row[name] is None else float(str(kind(row[name])))
    named, notes = with_readable_names(named_classes(rows, class_labels(schema.metadata)), names)
    return Table({"all": named}, notes)


def _guarded(act: Any) -> Any:
    """Returns what `act` returns. Raises ValueError, in few words, for whatever the library says of a damaged file."""
    import pyarrow as pa

    try:
        return act()
    except (pa.ArrowException, OSError, MemoryError, *DAMAGED) as error:
        raise ValueError(f"damaged, or of another kind ({str(error)[:100]})") from error


def read_parquet(file: Path, encoding: str | None = None) -> Table:
    """Reads a parquet file, to which `encoding` does not apply."""
    from pyarrow import parquet

    def table(opened: Any) -> Table:
        return _rows_of(opened.schema_arrow, opened.iter_batches(BATCH))

    if file.stat().st_size == 0:
        raise ValueError("the file is empty")
    with open_file(file) as stream:
        if stream.read(23) == b"version https://git-lfs":
            raise ValueError("the file is a Git LFS pointer, not the data itself; run: git lfs pull")
        stream.seek(0)
        return _guarded(lambda: table(parquet.ParquetFile(stream)))  # type: ignore[no-any-return]


def read_arrow(file: Path, encoding: str | None = None) -> Table:
    """Reads a file in arrow's stream or file format, to which `encoding` does not apply."""
    import pyarrow as pa

    def table() -> Any:
        with open_file(file) as stream:
            is_file = stream.read(6) == b"ARROW1"
            stream.seek(0)
            opened = pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches)) if is_file else opened
            return _rows_of(opened.schema, batches)

    return _guarded(table)  # type: ignore[no-any-return]


def is_saved(folder: Path) -> bool:
    """Whether save_to_disk wrote the folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def read_saved(folder: Path) -> dict[str, Table]:
    """Returns the tables of a DatasetDict by name, under "" that of a Dataset, from a folder that save_to_disk wrote.

    The library reads it, because the folder may hold other arrow files (its cache) that are not data.
    """
    import datasets

    datasets.disable_progress_bars()
    try:
        saved = _guarded(lambda: datasets.load_from_disk(str(folder)))
    except IndexError as error:  # of the library, for a table without a batch of rows
        raise ValueError("a part of it has no rows; save it without that part") from error
    parts = saved if isinstance(saved, datasets.DatasetDict) else {"": saved}

    def table(part: Any) -> Any:
        return _rows_of(part.features.arrow_schema, part.with_format("arrow").iter(BATCH))

    return {str(name): _guarded(lambda part=part: table(part)) for name, part in parts.items()}
