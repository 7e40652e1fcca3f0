"""What a page is made of, before it is Markdown, HTML, LaTeX or CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MISSING, NONE = "missing", "–"


def listing(words: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def on_any_machine(value: Any) -> str:
    """A number with the digits that do not depend on the processor (its exp and log differ in the last of 16)."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


class Shown(NamedTuple):
    """A cell of a grid: its text, what it is sorted by (None goes last), and a remark for those who point at it."""

    text: str
    key: float | str | None = None
    remark: str = ""


@dataclass(frozen=True)
class Grid:
    header: Sequence[str]
    rows: Sequence[Sequence[Shown]]

    def text(self) -> str:
        """For a terminal: labels to the left, numbers to the right."""
        lines = [[*self.header], *([shown.text for shown in row] for row in self.rows)]
        widths = [max(map(len, words)) for words in zip(*lines, strict=True)]
        start, *others = widths
        return "\n".join("  ".join([f"{a:<{start}}", *map(str.rjust, b, others)]) for a, *b in lines)


class Note(NamedTuple):
    """A line under a grid; `kind`: note, warning (of a confound), small (n too small), disagreement."""

    kind: str
    text: str


WARNINGS = {"warning": "Confounded", "small": "Too few examples", "disagreement": "The two disagree"}


@dataclass(frozen=True)
class Block:
    """A column of a table in both versions, what is to be known about it, and what each cell took."""

    title: str
    grid: Grid
    notes: Sequence[Note] = ()
    details: Grid | None = None
    commands: Sequence[tuple[str, str]] = ()  # what, command

    def script(self) -> str:
        """The commands as lines of a shell, each below what it is for."""
        return "\n".join(f"# {what}\n{command}" for what, command in self.commands)


class Example(NamedTuple):
    """What a model answered: (whose answer, text)."""

    instruction: str
    answers: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A table, figure or result. `picture`: SVG, `caption` says what it shows. `finding`: what a person says of it, in
    Markdown."""

    name: str
    title: str
    blocks: Sequence[Block]
    picture: str = ""
    caption: str = ""
    examples: Sequence[Example] = ()
    finding: str = ""


@dataclass(frozen=True)
class Page:
    title: str
    facts: Sequence[tuple[str, str]]  # commit, command, device, seeds
    sections: Sequence[Section]
    words: str = ""  # above all, in Markdown
