"""A page is made of these parts before it is written as Markdown, HTML or LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

NONE = "–"


def listing(words: Sequence[str]) -> str:
    """The words become "a", "a and b", or "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def on_any_machine(value: Any) -> str:
    """A number keeps the digits that do not depend on the processor."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


class Shown(NamedTuple):
    """A cell of a grid has a text, a key that it is sorted by (None goes last), and a remark for who points at it."""

    text: str
    key: float | str | None = None
    remark: str = ""


@dataclass(frozen=True)
class Grid:
    header: Sequence[str]
    rows: Sequence[Sequence[Shown]]

    def text(self) -> str:
        """A terminal shows labels to the left and numbers to the right."""
        lines = [[*self.header], *([shown.text for shown in row] for row in self.rows)]
        widths = [max(map(len, words)) for words in zip(*lines, strict=True)]
        start, *others = widths
        return "\n".join("  ".join([f"{a:<{start}}", *map(str.rjust, b, others)]) for a, *b in lines)


class Fold(NamedTuple):
    """This is shown to those who ask for it: sentences, a grid, lines for a terminal."""

    title: str
    notes: Sequence[str] = ()
    grid: Grid | None = None
    code: str = ""


@dataclass(frozen=True)
class Block:
    """This is a column of a table, with sentences under it."""

    title: str
    grid: Grid
    notes: Sequence[str] = ()
    folds: Sequence[Fold] = ()


class Example(NamedTuple):
    """These are answers to one instruction, as (whose answer, text)."""

    instruction: str
    answers: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """This is a table, figure or result. `picture` is SVG, and `caption` says what it shows. `finding` is what a person
    says of it, in Markdown."""

    name: str
    title: str
    blocks: Sequence[Block]
    picture: str = ""
    caption: str = ""
    examples: Sequence[Example] = ()
    finding: str = ""
    folds: Sequence[Fold] = ()


@dataclass(frozen=True)
class Page:
    title: str
    sections: Sequence[Section]
    words: str = ""  # above all, in Markdown
    folds: Sequence[Fold] = ()  # what the numbers come from
