"""Data files as people have them, whole and damaged, each a pure function of a seed and a number."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

KINDS = ("csv", "tsv", "json", "jsonl", "parquet")
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
FRAGMENTS = [b'"', b",", b"\n", b"\r", b"a", b"\t", b";", b"#", b"\\", b" ", b"{", b"}", b"[", b"]", b":", b"1", b"\0"]
FRAGMENTS += [b"\xef\xbb\xbf", b"\xff\xfe", b"sep=", b"null", b'"a":1', b"{}\n"]
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
    "fragments in its place": lambda rng, content: b"".join(rng.choices(FRAGMENTS, k=rng.randint(0, 12))),
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
