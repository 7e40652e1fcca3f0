"""Writes data files as people have them, whole and damaged, and judges what `read_rows` makes of each.

    python tests/mutations.py --files 20000 --seed 0

A mutation either keeps the meaning (line ends, quotation marks, order of columns, byte order mark, separator,
encoding), and the rows have to be the generator's; or it damages the file, and a csv or tsv file has to be refused, or
give the rows that pandas gives wherever duckdb agrees with pandas. Never a traceback, a hang, or a message of over 300
characters.
"""

import argparse
import csv
import io
import json
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas
from mutated_files import Case, make

from tasks import folded, read_rows

SECONDS = 20  # a file of a few kilobytes that takes longer hangs
KNOWN_DIFFERENCES = {  # refused here, though pandas and duckdb read it
    "holds a NUL byte": "no text has one: the file is damaged",
    "looks like data": "the first row would become the names of the columns",
    "twice; rename": "pandas renames the second of two equal names, which --text-column then cannot mean",
    "repeats the header": "two files in one: the names of the columns would become a row",
    "over lines that look like rows": "the rows in that cell would be lost",
    "has more cells than the header": "a cell stands under no name",
    "has fewer cells than the header": "another separator parts the header, which then not all rows have",
    "has no name in the header": "a text stands under no name",
    "names no columns": "there is nothing to name with --text-column",
}


def pandas_rows(path: Path, separator: str) -> list[list[str]] | None:
    """Header and rows as pandas reads them, or None where it refuses the file."""
    try:
        frame = pandas.read_csv(path, sep=separator, dtype=str, keep_default_na=False, index_col=False, header=None)
    except (ValueError, pandas.errors.ParserError, UnicodeDecodeError):
        return None
    return frame.fillna("").values.tolist()


def duckdb_rows(path: Path, separator: str) -> list[list[str]] | None:
    """Header and rows as duckdb reads them, every cell as text, or None where it refuses the file."""
    how = f"delim={separator!r}, quote='\"', escape='\"', header=false, all_varchar=true, auto_detect=false"
    try:
        text = io.StringIO(path.read_text(encoding="utf-8"), newline="")
        names = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(next(csv.reader(text, delimiter=separator)))))
        found = duckdb.sql(f"select * from read_csv('{path}', columns={{{names}}}, {how})").fetchall()
    except (duckdb.Error, ValueError, StopIteration, csv.Error):
        return None
    return [["" if cell is None else cell for cell in row] for row in found]


class Verdict(NamedTuple):
    """What became of a file: an outcome to be counted, and a surprise in words where it should not have been so."""

    outcome: str
    surprise: str = ""


def _hang(*_: object) -> None:
    raise TimeoutError(f"took over {SECONDS} seconds")


@contextmanager
def limited() -> Iterator[None]:
    """Ends what hangs. A timer that ran before, such as that of a test's time, runs on behind it."""
    begun = time.monotonic()
    handler, (left, interval) = signal.signal(signal.SIGALRM, _hang), signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 0.001), interval)


def judge(case: Case, folder: Path) -> Verdict:
    """Reads the file and compares."""
    path = folder / f"a.{case.ending}"
    path.write_bytes(case.content)
    try:
        with limited():
            source = read_rows(path, case.encoding)
    except ValueError as error:
        said = str(error).replace(str(path), path.name)
        if len(said) > 300 or "\n" in said:
            return Verdict("refused", f"a message of {len(said)} characters: {said[:400]!r}")
        return _refused(case, path, said)
    except Exception as error:  # noqa: BLE001  # whatever else comes is the fault that is looked for
        return Verdict("traceback", f"{type(error).__name__}: {str(error)[:200]}")
    if case.rows is not None:
        right = source.parts == {"all": case.rows}
        return Verdict("whole: read rightly" if right else "whole: read wrongly", "" if right else str(source.notes))
    if case.ending not in ("csv", "tsv"):
        return Verdict("damaged: read")
    return _compared(case, path, source.rows, source.notes)


def _refused(case: Case, path: Path, said: str) -> Verdict:
    if case.rows is not None:
        return Verdict("whole: refused", said)
    if case.ending in ("csv", "tsv"):
        theirs = pandas_rows(path, case.separator)
        if theirs is not None and len(theirs) > 1 and theirs == duckdb_rows(path, case.separator):
            return Verdict(f"damaged: refused, though pandas and duckdb agree: {_reason(said)}")
    return Verdict("damaged: refused")


def _reason(said: str) -> str:
    """A message without what is of the one file."""
    return re.sub(r"[0-9]+", "N", said.split(": ", 1)[1])[:110]


def _named(table: list[list[str]]) -> list[list[str]]:
    """A table with the names of its columns as this project spells them, and no byte order mark before a row."""
    names = [folded(cell) or f"Unnamed: {i}" for i, cell in enumerate(table[0])]
    return [names, *([row[0].removeprefix("\ufeff"), *row[1:]] for row in table[1:])]


def _compared(case: Case, path: Path, rows: list[dict[str, Any]], notes: list[str]) -> Verdict:
    """A csv or tsv file that was read, against pandas and duckdb."""
    ours = [list(row.values()) for row in rows]
    theirs = pandas_rows(path, case.separator)
    agree = theirs is not None and theirs == duckdb_rows(path, case.separator)
    same = theirs is not None and [list(rows[0]), *ours] == [row[: len(rows[0])] for row in _named(theirs)]
    if same:
        return Verdict("damaged: read as pandas and duckdb do" if agree else "damaged: read as pandas does, not duckdb")
    if notes:
        said = "; ".join(note.split(": ", 1)[1][:40] for note in notes)
        return Verdict(f"damaged: read otherwise than {'both' if agree else 'pandas'}, and said: {said}")
    if not agree:
        return Verdict("damaged: read otherwise than pandas, which duckdb does not follow")
    return Verdict(
        "damaged: read otherwise than pandas and duckdb", f"{len(ours)} rows, theirs {len(theirs or []) - 1}"
    )


def write(seed: int, count: int, folder: Path) -> None:
    """The files themselves, and a list of what each means, for other programs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.jsonl").open("w", encoding="utf-8") as out:
        for number in range(count):
            case = make(seed, number)
            name = f"{number}.{case.ending}"
            (folder / name).write_bytes(case.content)
            out.write(json.dumps({"file": name, "rows": case.rows, "done": case.done}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file, to see one again")
    parser.add_argument("--write", type=Path, help="write the files into this folder instead of reading them")
    args = parser.parse_args()
    if args.write:
        write(args.seed, args.files, args.write)
        return
    outcomes, surprises = Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.first, args.first + args.files):
            case = make(args.seed, number)
            verdict = judge(case, Path(folder))
            outcomes[verdict.outcome] += 1
            if verdict.surprise:
                surprises += 1
                print(f"file {number} ({case.ending}; {', '.join(case.done)}): {verdict.outcome}: {verdict.surprise}")
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:>7,}  {outcome}")
    print(f"{args.files:>7,}  files of seed {args.seed}, {surprises:,} surprises")


if __name__ == "__main__":
    main()
