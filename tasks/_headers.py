"""Makes column names such that people can type them: without what nobody sees, in Unicode's composed form."""

from collections import Counter
from collections.abc import Iterable, Mapping

from tasks._cells import listed, short
from tasks._files import Row
from tasks._labels import folded


def readable(name: str) -> str:
    """Removes outer and double white space and invisible characters. A name of nothing else stays as it is."""
    return folded(name) or name


def header_notes(read: Mapping[str, str]) -> list[str]:
    """Returns a note that says which names were changed."""
    named = listed((f"{ascii(name)[:30]} as {short(new)}" for name, new in read.items()), quoted=False)
    return [f"column names are read without white space or characters that cannot be seen: {named}"]


def with_readable_names(rows: list[Row], names: Iterable[str]) -> tuple[list[Row], list[str]]:
    """Returns the rows with the `names` of their columns made readable, and a note on it.

    Raises ValueError if that makes two columns of a row one.
    """
    read = {name: new for name in names if (new := readable(name)) != name}
    if not read:
        return rows, []
    renamed = [{read.get(name, name): value for name, value in row.items()} for row in rows]
    for row, changed in zip(rows, renamed, strict=True):
        if len(changed) < len(row):
            twice = Counter(map(readable, row)).most_common(1)[0][0]
            raise ValueError(f"it has the column {short(twice)} twice, once with a character that cannot be seen")
    return renamed, header_notes(read)
