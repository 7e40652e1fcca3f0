"""A page is made of these parts before it is written as Markdown, HTML or LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MISSING, NONE = "missing", "–"


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


class Note(NamedTuple):
    """This is a line under a grid; `kind` is note, warning (of a confound), small (n is too small), or disagreement."""

    kind: str
    text: str


WARNINGS = {"warning": "Confounded", "small": "Too few examples", "disagreement": "The two disagree"}


@dataclass(frozen=True)
class Block:
    """This is a column of a table, with what is to be known about it and what each cell took."""

    title: str
    grid: Grid
    notes: Sequence[Note] = ()
    details: Grid | None = None
    commands: Sequence[tuple[str, str]] = ()  # what, command

    def script(self) -> str:
        """Each command stands below a comment that says what it is for."""
        return "\n".join(f"# {what}\n{command}" for what, command in self.commands)


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


@dataclass(frozen=True)
class Page:
    title: str
    facts: Sequence[tuple[str, str]]  # commit, command, device, seeds
    sections: Sequence[Section]
    words: str = ""  # above all, in Markdown
