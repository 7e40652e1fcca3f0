"""Writes data files as people have them, whole and damaged, and judges what `read_rows` makes of each.

    python tests/mutations.py --files 20000 --seed 0

A mutation either keeps the meaning (line ends, quotation marks, order of columns, byte order mark, separator,
encoding), and the rows have to be the generator's; or it damages the file, and a csv or tsv file has to be refused, or
give the rows that pandas gives wherever duckdb agrees with pandas. Never a traceback, a hang, or a message of over 300
characters.
"""

import argparse
import csv
import gzip
import io
import json
import random
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import read_rows

KINDS = ("csv", "tsv", "json", "jsonl", "parquet")
SECONDS = 20  # a file of a few kilobytes that takes longer hangs
WORDS = [
    "river",
    "stone",
    "lamp",
    "music,",
    "train;",
    "window:",
    "garden|coffee",
    "café",
    "☕",
    "007",
    "null",
    "-5",
    "it's",
]
ODD = [
    'say "yes"',
    "two\nlines",
    "a, b",
    '"quoted"',
    "",
    " x ",
    "a\tb",
    "C:\\new",
    "1,5\n2,5",
    "#tag",
    'ends "so"',
    "x\n\ny",
]
KNOWN_DIFFERENCES = {  # refused here, though pandas and duckdb read it
    "holds a NUL byte": "no text has one: the file is damaged",
    "looks like data": "the first row would become the names of the columns",
    "twice; rename": "pandas renames the second of two equal names, which --text-column then cannot mean",
    "repeats the header": "two files in one: the names of the columns would become a row",
    "over lines that look like rows": "the rows in that cell would be lost",
    "has more cells than the header": "a cell stands under no name",
    "names no columns": "there is nothing to name with --text-column",
}
Rows = list[dict[str, str]]


class Case(NamedTuple):
    """A file, by what was done to it; `rows` where the meaning is kept; `encoding` where the reader has to be told."""

    ending: str
    content: bytes
    done: tuple[str, ...]
    rows: Rows | None = None
    encoding: str | None = None
    separator: str = ","


def generate(rng: random.Random) -> Rows:
    """Up to 30 rows of a text, a label and at times more, in any order of columns."""
    names = rng.sample(["text", "label", "id", "note"], rng.choice([2, 2, 3, 4]))
    odd = rng.choice([0, 0.05, 0.4])
    labels = rng.choice([["ham", "spam"], ["0", "1"], ["7", "07", "007"], ["positive", "NA", "null"]])

    def cell(name: str, number: int) -> str:
        if name == "label":
            return rng.choice(labels)
        if name == "id":
            return str(number)
        return rng.choice(ODD) if rng.random() < odd else " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))

    return [{name: cell(name, number) for name in names} for number in range(rng.randint(1, 30))]


def as_table(rows: Rows, separator: str, end: str = "\n", quoting: int = csv.QUOTE_MINIMAL) -> str:
    out = io.StringIO(newline="")
    settings: dict[str, Any] = {"delimiter": separator, "lineterminator": end, "quoting": quoting}
    writer = csv.DictWriter(out, list(rows[0]), **settings)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def whole_table(rng: random.Random, kind: str, rows: Rows) -> Case:
    """A csv or tsv file that means `rows`."""
    usual = "\t" if kind == "tsv" else ","
    separator = rng.choice([usual, usual, usual, ",", ";", "\t", "|"])
    end = rng.choice(["\n", "\n", "\r\n", "\r"])
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    encoding = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
    if end == "\r" and any("\n" in cell for row in rows for cell in row.values()):
        quoting = csv.QUOTE_ALL  # the library would leave such a cell without marks, and nobody could read it
    text = as_table(rows, separator, end, quoting)
    done = [f"separator {separator!r}", f"line ends {end!r}", f"quoting {quoting}", encoding]
    if encoding == "cp1252":
        text = text.replace("☕", "€")
        rows = [{name: cell.replace("☕", "€") for name, cell in row.items()} for row in rows]
    if rng.random() < 0.2:
        text, done = text.removesuffix(end), [*done, "no last line end"]
    if rng.random() < 0.1:
        text, done = text + end * 3, [*done, "blank lines at the end"]
    if rng.random() < 0.05:
        text, done = f"sep={separator}{end}{text}", [*done, "separator named"]
    content, ending = text.encode(encoding), kind
    if rng.random() < 0.1:
        content, ending = gzip.compress(content), kind + ".gz"
    return Case(ending, content, tuple(done), rows, "cp1252" if encoding == "cp1252" else None, separator)


def whole_json(rng: random.Random, kind: str, rows: Rows) -> Case:
    """A json or jsonl file that means `rows`; either may hold what the other should."""
    lines = (kind == "jsonl") != (rng.random() < 0.1)
    plain, end = rng.random() < 0.5, rng.choice(["\n", "\r\n", "\r"])
    if lines and len(rows) > 1:
        text = end.join(json.dumps(row, ensure_ascii=plain) for row in rows) + end * rng.randint(0, 2)
    else:
        content: Any = {"version": 1, "data": rows} if kind == "json" and rng.random() < 0.2 else rows
        text = json.dumps(content, ensure_ascii=plain, indent=rng.choice([None, 0, 2])).replace("\n", end)
    encoding = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
    done = ("lines" if lines else "list", "ASCII" if plain else "as it is", f"line ends {end!r}", encoding)
    return Case(kind, text.encode(encoding), done, rows)


def whole_parquet(rng: random.Random, kind: str, rows: Rows) -> Case:
    """A parquet file that means `rows`, in one of the ways to store it."""
    table = pa.Table.from_pylist(rows)
    stored = rng.choice(["string", "large", "dictionary"])
    if stored != "string":
        kind_of = pa.large_string() if stored == "large" else pa.dictionary(pa.int32(), pa.string())
        table = table.cast(pa.schema([(name, kind_of) for name in table.column_names]))
    compression = rng.choice(["snappy", "zstd", "gzip", "none"])
    out = io.BytesIO()
    pq.write_table(table, out, compression=compression, row_group_size=rng.choice([1, 7, 100]))
    return Case(kind, out.getvalue(), (stored, compression), rows)


WHOLE: dict[str, Callable[[random.Random, str, Rows], Case]] = {
    "csv": whole_table,
    "tsv": whole_table,
    "json": whole_json,
    "jsonl": whole_json,
    "parquet": whole_parquet,
}


def _place(rng: random.Random, content: bytes, of: bytes) -> int | None:
    places = [i for i in range(len(content)) if content[i : i + len(of)] == of]
    return rng.choice(places) if places else None


def _without(of: bytes) -> Callable[[random.Random, bytes], bytes]:
    def damage(rng: random.Random, content: bytes) -> bytes:
        place = _place(rng, content, of)
        return content if place is None else content[:place] + content[place + len(of) :]

    return damage


def _with(*added: bytes) -> Callable[[random.Random, bytes], bytes]:
    def damage(rng: random.Random, content: bytes) -> bytes:
        place = rng.randint(0, len(content))
        return content[:place] + rng.choice(added) + content[place:]

    return damage


def _at_a_cell(added: bytes) -> Callable[[random.Random, bytes], bytes]:
    """`added` where a cell begins or ends."""

    def damage(rng: random.Random, content: bytes) -> bytes:
        places = [i + side for i, byte in enumerate(content) if byte in b",\t;|\n" for side in (0, 1)]
        place = rng.choice(places or [0])
        return content[:place] + added + content[place:]

    return damage


def _flip(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def _lines(act: Callable[[random.Random, list[bytes]], None]) -> Callable[[random.Random, bytes], bytes]:
    def damage(rng: random.Random, content: bytes) -> bytes:
        lines = content.split(b"\n")
        act(rng, lines)
        return b"\n".join(lines)

    return damage


def _typed(rng: random.Random, content: bytes) -> bytes:
    """Another value in place of a text of JSON."""
    start = _place(rng, content, b': "')
    end = content.find(b'"', start + 3) if start is not None else -1
    value = rng.choice([b"null", b"7", b"1.5", b"true", b"[1]", b'{"a": 1}', b"NaN", b"None"])
    return content if start is None or end < 0 else content[: start + 2] + value + content[end + 1 :]


DAMAGE: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "a bit flipped": _flip,
    "cut short": lambda rng, content: content[: rng.randrange(len(content))],
    "begun late": lambda rng, content: content[rng.randrange(len(content)) :],
    "a quotation mark put in": _with(b'"'),
    "a quotation mark put at a cell": _at_a_cell(b'"'),
    "a quotation mark taken out": _without(b'"'),
    "two lines joined": _without(b"\n"),
    "a line end put in": _with(b"\n", b"\r", b"\r\n"),
    "a separator put in": _with(b",", b"\t", b";"),
    "a separator taken out": _without(b","),
    "a bracket taken out": lambda rng, content: _without(rng.choice([b"{", b"}", b"[", b"]"]))(rng, content),
    "a backslash put in": _with(b"\\", b'\\"'),
    "a NUL put in": _with(b"\0"),
    "bytes put in": lambda rng, content: _with(rng.randbytes(rng.randint(1, 4)))(rng, content),
    "a line taken out": _lines(lambda rng, lines: lines.pop(rng.randrange(len(lines)))),  # type: ignore[arg-type, return-value]
    "a line twice": _lines(lambda rng, lines: lines.insert(rng.randrange(len(lines)), rng.choice(lines))),
    "lines in another order": _lines(lambda rng, lines: rng.shuffle(lines)),
    "another type": _typed,
}


def make(seed: int, number: int) -> Case:
    """File `number` of a seed: one in three means what the generator made, the others have one to three damages."""
    rng = random.Random(f"{seed}/{number}")
    kind = KINDS[number % len(KINDS)]
    rows = generate(rng)
    if rng.random() < 1 / 3:
        return WHOLE[kind](rng, kind, rows)
    usual = "\t" if kind == "tsv" else ","
    content = as_table(rows, usual).encode() if kind in ("csv", "tsv") else WHOLE[kind](rng, kind, rows).content
    names = rng.sample(sorted(DAMAGE), rng.choice([1, 1, 2, 3]))
    for name in names:
        content = DAMAGE[name](rng, content) if content else content
    return Case(kind, content, tuple(names), separator=usual)


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


def judge(case: Case, folder: Path) -> Verdict:
    """Reads the file and compares."""
    path = folder / f"a.{case.ending}"
    path.write_bytes(case.content)
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(SECONDS)
    try:
        source = read_rows(path, case.encoding)
    except ValueError as error:
        said = str(error).replace(str(path), path.name)
        if len(said) > 300 or "\n" in said:
            return Verdict("refused", f"a message of {len(said)} characters: {said[:400]!r}")
        return _refused(case, path, said)
    except Exception as error:  # noqa: BLE001  # whatever else comes is the fault that is looked for
        return Verdict("traceback", f"{type(error).__name__}: {str(error)[:200]}")
    finally:
        signal.alarm(0)
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


def _compared(case: Case, path: Path, rows: list[dict[str, Any]], notes: list[str]) -> Verdict:
    """A csv or tsv file that was read, against pandas and duckdb."""
    ours = [list(row.values()) for row in rows]
    theirs = pandas_rows(path, case.separator)
    agree = theirs is not None and theirs == duckdb_rows(path, case.separator)
    same = theirs is not None and ours == [row[: len(rows[0])] for row in theirs[1:]]
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
