"""Tests what libraries make of csv and tsv files as people have them: the numbers of docs/readers.md.

    python tests/mutations.py --files 2000 --seed 1 --write mutated
    python benchmarks/readers.py --folder mutated

polars, duckdb and clevercsv are asked if they are installed. Each is told what a user knows, that cells are text and
that a .tsv has tabs, unless it finds that out itself.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evidence.runs import json_lines
from tasks import read_rows
from training.flags.cli import run

Reader = Callable[[Path], list[list[str]]]
KINDS = ("usual", "other separator", "other encoding", "damaged")
LINE = re.compile(r"(?i)\b(line|row|record)s?\b[^0-9]{0,12}[0-9]+")


@dataclass(frozen=True)
class Args:
    folder: Path
    """files that tests/mutations.py --write wrote, with its list cases.jsonl"""


def separator_of(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","


def ours(path: Path) -> list[list[str]]:
    return [list(row.values()) for row in read_rows(path).rows]


def standard(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [row for row in csv.reader(stream, delimiter=separator_of(path), strict=True) if row][1:]


def with_pandas(path: Path) -> list[list[str]]:
    import pandas

    frame = pandas.read_csv(path, sep=separator_of(path), dtype=str, keep_default_na=False)
    return frame.fillna("").values.tolist()


def with_pyarrow(path: Path) -> list[list[str]]:
    import pyarrow as pa
    from pyarrow import csv as arrow

    parse = arrow.ParseOptions(delimiter=separator_of(path), newlines_in_values=True)
    names = arrow.read_csv(path, parse_options=parse).column_names
    convert = arrow.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False)
    return [
        list(row.values()) for row in arrow.read_csv(path, parse_options=parse, convert_options=convert).to_pylist()
    ]


def with_polars(path: Path) -> list[list[str]]:
    import polars

    frame = polars.read_csv(path, separator=separator_of(path), infer_schema=False, empty_string_is_null=False)
    return [list(row) for row in frame.rows()]


def with_duckdb(path: Path) -> list[list[str]]:
    import duckdb

    query = f"select * from read_csv('{path}', all_varchar=true, header=true)"
    found = duckdb.connect().execute(query).fetchall()
    return [["" if cell is None else cell for cell in row] for row in found]


def with_clevercsv(path: Path) -> list[list[str]]:
    import clevercsv

    return clevercsv.read_table(str(path), encoding="utf-8-sig")[1:]


READERS: dict[str, Reader] = {
    "this reader": ours,
    "csv, strict": standard,
    "pandas": with_pandas,
    "pyarrow": with_pyarrow,
    "polars": with_polars,
    "duckdb": with_duckdb,
    "clevercsv": with_clevercsv,
}


def kind_of(case: dict[str, Any]) -> str:
    """Names what is unusual about a file."""
    if not case["rows"]:
        return "damaged"
    separator, _, _, encoding = case["done"][:4]
    if not encoding.startswith("utf-8"):
        return "other encoding"
    return "usual" if separator == f"separator {separator_of(Path(case['file']))!r}" else "other separator"


def outcome(read: Reader, path: Path, rows: list[list[str]] | None) -> str:
    """Says what a reader makes of a file that means `rows`, or of a damaged one (None)."""
    try:
        found = read(path)
    except Exception as error:  # noqa: BLE001  # each library has errors of its own
        return "refused with its line" if LINE.search(str(error)) else "refused"
    return "right" if rows is None or found == rows else "wrong"


def cell(kind: str, count: Counter[tuple[str, str]]) -> str:
    """Counts files read right / wrong / refused with the line / refused without it; damaged ones are never wrong."""
    shown = [f"{count[kind, what]:,}" for what in ("right", "wrong", "refused with its line", "refused")]
    return " / ".join(shown[:1] + shown[2:] if kind == "damaged" else shown)


def chat(path: Path) -> list[list[str]]:
    """Writes a chat export with ordinary quotation marks: some messages begin with one, later ones end with one."""
    rows = [
        ["spam" if i % 2 else "ham", '"' * (i % 40 == 10) + f"message {i}" + '"' * (i % 40 == 25)] for i in range(400)
    ]
    path.write_text("label\ttext\n" + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def rows_found(read: Reader, path: Path) -> str:
    try:
        return f"{len(read(path)):,}"
    except Exception as error:  # noqa: BLE001  # each library has errors of its own
        return str(error).splitlines()[0][:60]


def main(args: Args) -> None:
    exported = args.folder / "chat.tsv"
    messages = len(chat(exported))
    cases = [case for case in json_lines(args.folder / "cases.jsonl") if case["file"].endswith((".csv", ".tsv"))]
    print(f"{len(cases):,} files; chat export of {messages:,} rows")
    print("| reader | chat | " + " | ".join(KINDS) + " |\n|---|---|" + "---|" * len(KINDS))
    for name, read in READERS.items():
        if name in ("polars", "duckdb", "clevercsv") and find_spec(name) is None:
            continue
        counts: Counter[tuple[str, str]] = Counter()
        for case in cases:
            rows = case["rows"] and [list(row.values()) for row in case["rows"]]
            counts[kind_of(case), outcome(read, args.folder / case["file"], rows)] += 1
        print(f"| {name} | {rows_found(read, exported)} | " + " | ".join(cell(kind, counts) for kind in KINDS) + " |")


if __name__ == "__main__":
    run(main, Args, __doc__)
