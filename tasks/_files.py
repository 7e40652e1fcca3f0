"""Reads a data file as text: its compression, its encoding, and where it is not what its name says."""

import codecs
import contextlib
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

Row = dict[str, Any]
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python's codecs for text inside something else, such as domain names and source code.
NOT_OF_FILES = ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "charmap", "undefined")
PIECE = 1 << 16  # bytes
BY_CHANCE = 7  # characters that text in another encoding of several bytes may have in UTF-8 too
OTHER_KINDS = (
    (b"PK\x03\x04", "an Excel or zip file; save its table as csv"),
    (b"\xd0\xcf\x11\xe0", "an Excel file; save its table as csv"),
    (b"PAR1", "a parquet file; name it .parquet"),
    (b"\x1f\x8b", "compressed; name it .gz"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data itself; run: git lfs pull"),
    (b"<!doctype html", "a web page, perhaps one that asks to sign in; download the data itself"),
    (b"<html", "a web page, perhaps one that asks to sign in; download the data itself"),
)


class Table(NamedTuple):
    """What one file gives: rows by part ("all" for most), and notes on how it was read."""

    parts: dict[str, list[Row]]
    notes: list[str]


def kind_of(file: Path) -> str:
    """Returns the ending that says how a file is read, .gz aside: ".csv" for mails.csv and for Mails.CSV.gz."""
    name = file.name.lower().removesuffix(".gz")
    return Path(name).suffix


def open_file(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")  # type: ignore[return-value]


def check_encoding(encoding: str) -> None:
    """Raises ValueError for a name that is not an encoding of text files."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)
        if codecs.lookup(encoding).name.replace("_", "-") in NOT_OF_FILES:
            raise ValueError("no encoding of files")
    except (LookupError, ValueError) as error:
        raise ValueError(
            f"--encoding {encoding[:40]}: unknown; common ones are utf-8, cp1252 (Windows), latin-1, utf-16"
        ) from error


def encoding_of(file: Path, encoding: str | None = None) -> tuple[str, list[str]]:
    """Returns the encoding of a text file, and a note if it was detected: the one given, else that of the byte order
    mark, else UTF-32 or UTF-16 where zero bytes show it, else UTF-8.

    Raises ValueError for an empty file or one of another kind, and if the one given is not the one detected.
    """
    with open_file(file) as stream:
        head = stream.read(PIECE)
        if not head.strip() and not stream.read().strip():
            raise ValueError("the file is empty")
    start = head[:1000].removeprefix(codecs.BOM_UTF8).lstrip()
    starts = start, start.lower()  # a web page may be written in capitals
    if kind := next((kind for mark, kind in OTHER_KINDS if any(each.startswith(mark) for each in starts)), None):
        raise ValueError(f"the file is {kind}")
    found = next((name for mark, name in MARKS if head.startswith(mark)), None) or _unmarked(head)
    if encoding is None:
        return (found, [f"it was read as {found.upper()}"]) if found not in (None, "utf-8") else ("utf-8", [])
    check_encoding(encoding)
    given = codecs.lookup(encoding).name.removesuffix("-sig")
    if found is None:
        if given != "utf-8" and _beyond_ascii(file) > (0 if _is_single_byte(given) else BY_CHANCE):
            raise ValueError(
                f"--encoding {encoding}: {file.name} is UTF-8; leave --encoding out, or save all files alike"
            )
        return encoding, []
    if not found.startswith(given):
        raise ValueError(f"--encoding {encoding}: the file begins as {found.upper()} does; leave --encoding out")
    return found, []


def _is_single_byte(codec: str) -> bool:
    return len(bytes(range(256)).decode(codec, "replace")) == 256


def _start_of(head: bytes, encoding: str) -> str | None:
    """Returns the start of a file as text, the last character of which may be cut; None if it is not so encoded."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return None


def _beyond_ascii(file: Path) -> int:
    """Counts the characters that ASCII does not have in UTF-8, up to the piece of the file in which it is not UTF-8;
    bytes in another encoding are hardly ever UTF-8 too."""
    decoder, count = codecs.getincrementaldecoder("utf-8")(), 0
    with open_file(file) as stream, contextlib.suppress(UnicodeDecodeError):
        while piece := stream.read(PIECE):
            text = decoder.decode(piece)
            count += len(text) - len(text.encode("ascii", "ignore"))
    return count


def _reads_as(head: bytes, encoding: str) -> bool:
    """Whether the start of a file is text of lines, or JSON, in this encoding."""
    text = _start_of(head, encoding) or ""
    return "\0" not in text and bool(re.search(r"[\r\n{]", text))


def _unmarked(head: bytes) -> str | None:
    """Returns which of UTF-32 and UTF-16 a file without a byte order mark is in, if either."""
    if 0 not in head:
        return None
    if wide := next((name for name in ("utf-32-le", "utf-32-be") if _reads_as(head, name)), None):
        return wide
    for offset, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if head[offset::2].count(0) > 0.4 * len(head) / 2 > 1:
            return name
    if head.count(0) > 2 and _start_of(head, "utf-8") is None:  # few zeros, as in Chinese; fewer are damage
        return next((name for name in ("utf-16-le", "utf-16-be") if _reads_as(head, name)), None)
    return None


def nul_on(line: int) -> ValueError:
    return ValueError(f"line {line} holds a NUL byte, which no text has; the file is damaged or binary")


def text_of(file: Path, encoding: str) -> str:
    """Returns the whole text, without a byte order mark. Raises UnicodeDecodeError with the place in the whole file."""
    with open_file(file) as stream:
        return stream.read().decode(encoding).lstrip("\ufeff")


def lines_of(file: Path, encoding: str) -> Iterator[str]:
    """Yields the lines with their ends (LF, CRLF or CR), decoded on demand, so that a file is never held twice. Byte
    order marks are left out, also where files that begin with one were joined.

    Raises ValueError for a NUL byte, which no text has.
    """
    with open_file(file) as stream, io.TextIOWrapper(stream, encoding, newline="") as text:
        for number, line in enumerate(text, 1):
            if "\0" in line:
                raise nul_on(number)
            yield line.lstrip("\ufeff")


def _is_utf8(file: Path) -> bool:
    try:
        return "\0" not in text_of(file, "utf-8")  # UTF-16 of ASCII alone is UTF-8 too, with zeros
    except UnicodeDecodeError:
        return False


def undecodable(file: Path, encoding: str) -> str:
    """Says where a file is not in its encoding (line and byte), and what to do."""
    try:
        text_of(file, encoding)
    except UnicodeDecodeError as error:
        with open_file(file) as stream:
            before = stream.read(error.start)
        line = len(before.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
        name = encoding.upper()
        advice = (
            "--encoding says which it is instead (from Windows or Excel often cp1252, in Cyrillic cp1251, in Chinese "
            "gb18030, in Japanese shift_jis), or save it as UTF-8"
        )
        if encoding != "utf-8" and _is_utf8(file):
            advice = "it is UTF-8, so leave --encoding out"
        return f"line {line} is not {name} (byte {error.start}); {advice}"
    raise AssertionError(f"{file} can be decoded after all")
