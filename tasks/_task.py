"""What a dataset is: where its rows are, which columns matter, how a row becomes an example."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tasks._examples import Example, Instruction, Labelled, Preference
from tasks._rows import Row

BUNDLED = Path(__file__).parent / "bundled"


class Columns(NamedTuple):
    """Names of the columns that carry the inputs and the target in one form of the dataset."""

    inputs: tuple[str, ...]
    target: str

    def missing_in(self, present: Sequence[str], target_needed: bool) -> list[str]:
        return [c for c in (*self.inputs, *([self.target] if target_needed else [])) if c not in present]


@dataclass
class Skipped:
    """Rows that gave no example, by reason."""

    empty: int = 0
    duplicate: int = 0
    contradictory: int = 0
    over_limit: int = 0


@dataclass(frozen=True)
class Task:
    """`file` is looked for in the data folder, `bundled` in tasks/bundled; `columns`: the known forms, ours first."""

    name: str
    columns: tuple[Columns, ...]
    file: str | None = None
    bundled: str | None = None
    hub: str | None = None
    required: Callable[[Iterable[str]], bool] = any  # which input cells a row needs: any of them, or all
    report_subset: Callable[[dict[str, list[Any]]], dict[str, list[Any]]] | None = None
    column_flags: ClassVar[str] = "--text-column, --label-column, --prompt-column and --response-column"

    def columns_of(self, rows: list[Row], target_needed: bool = True) -> Columns:
        """The first known form that `rows` has. Raises ValueError naming what is missing and what is there."""
        present = list(rows[0])
        for columns in self.columns:
            if not columns.missing_in(present, target_needed):
                return columns
        missing = min((c.missing_in(present, target_needed) for c in self.columns), key=len)
        raise ValueError(
            f"column {', '.join(map(repr, missing))} is missing ({self.column_flags} name them); "
            f"the file has {', '.join(map(repr, present))}"
        )

    def example(self, id: int, row: Row, columns: Columns) -> Example:
        """One row -> one example, whose label or response is None where the cell is empty or the column absent."""
        raise NotImplementedError

    def parts(self, rows: dict[str, list[Row]], skipped: Skipped) -> dict[str, list[Any]]:
        """Rows by split -> examples by split, numbered through; rows without text or target count in `skipped`."""
        columns = {name: self.columns_of(part) for name, part in rows.items()}
        parts: dict[str, list[Any]] = {}
        numbered = enumerate((name, row) for name, part in rows.items() for row in part)
        for id, (name, row) in numbered:
            example = self.example(id, row, columns[name])
            filled = [text_cell(row, column, id).strip() for column in columns[name].inputs]
            if self.required(filled) and example.label:
                parts.setdefault(self.part_of(row) or name, []).append(example)
            else:
                skipped.empty += 1
        return parts

    def part_of(self, row: Row) -> str | None:
        """The split that the row itself names, if the dataset has fixed ones."""
        return None


def join_lines(inputs: tuple[str, ...]) -> tuple[str, str]:
    """The default text of several columns: one below the other, empty ones left out; nothing is kept from cutting."""
    return "\n".join(part for part in inputs if part.strip()), ""


@dataclass(frozen=True)
class Classification(Task):
    """`labels` None: those found in the file. `compose` makes (text, kept) of the input columns (see `Labelled`)."""

    labels: tuple[str, ...] | None = None
    compose: Callable[[tuple[str, ...]], tuple[str, str]] = field(default=join_lines)

    def example(self, id: int, row: Row, columns: Columns) -> Labelled:
        text, kept = self.compose(tuple(text_cell(row, name, id) for name in columns.inputs))
        label = target_cell(row, columns.target, id) or ""
        return Labelled(id, text, kept, label if label.strip() else None)

    def classes(self, examples: Iterable[Labelled]) -> tuple[str, ...]:
        """Class names in order. Raises ValueError for a label outside `labels`, or fewer than two classes."""
        seen = {e.label for e in examples if e.label is not None}
        names = self.labels or tuple(sorted(seen, key=lambda name: (not name.isdecimal(), name.zfill(20))))
        if unknown := sorted(seen - set(names)):
            raise ValueError(
                f"labels {', '.join(map(repr, unknown[:8]))} are not among the expected {', '.join(names)}"
            )
        if len(seen) < 2:
            raise ValueError(
                f"only one class in the file ({', '.join(map(repr, seen))}); a classifier needs two or more"
            )
        return names


@dataclass(frozen=True)
class Instructions(Task):
    """Inputs are the instruction and, where there is a second column, what it is about.

    `fixed_columns` names two further columns of a bundled file: the kind of a record and the split it belongs to.
    """

    fixed_columns: tuple[str, str] | None = None

    def example(self, id: int, row: Row, columns: Columns) -> Instruction:
        instruction, about = (*(text_cell(row, name, id).strip() for name in columns.inputs), "")[:2]
        response = (target_cell(row, columns.target, id) or "").strip() or None
        return Instruction(id, instruction, about, response, self._fixed(row, 0))

    def part_of(self, row: Row) -> str | None:
        return "test" if self._fixed(row, 1) == "test" else None

    def _fixed(self, row: Row, which: int) -> str:
        return (row.get(self.fixed_columns[which]) or "") if self.fixed_columns else ""


@dataclass(frozen=True)
class Preferences(Task):
    """Inputs are the prompt and the answer that was rejected, the target is the one that was chosen."""

    required: Callable[[Iterable[str]], bool] = all
    column_flags: ClassVar[str] = "--prompt-column, --chosen-column and --rejected-column"

    def example(self, id: int, row: Row, columns: Columns) -> Preference:
        names = (columns.inputs[0], columns.target, columns.inputs[1])
        return Preference(id, *(text_cell(row, name, id).strip() for name in names))

    def parts(self, rows: dict[str, list[Row]], skipped: Skipped) -> dict[str, list[Any]]:
        """Raises ValueError for pairs of twice the same answer: slips that no training could make sense of."""
        parts = super().parts(rows, skipped)
        same = [str(e.id) for part in parts.values() for e in part if e.chosen == e.rejected]
        if same:
            raise ValueError(
                f"chosen and rejected answer are the same in {len(same):,} rows ({', '.join(same[:8])}); such a pair "
                "prefers nothing: correct these rows, or remove them"
            )
        return parts


def writable(text: str) -> str:
    """Half a character (a lone surrogate, which JSON can spell) becomes "?", since no file could hold it."""
    return text.encode("utf-8", "replace").decode()


def text_cell(row: Row, column: str, id: int) -> str:
    """The text in a cell, "" for nothing. Raises ValueError for numbers and nested values: a file with mixed types."""
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"column {column!r} mixes types: row {id} holds {type(value).__name__} {value!r}, not text")
    return writable(value)


def target_cell(row: Row, column: str, id: int) -> str | None:
    """A label or response as it is spelled in the file; whole numbers and truth values can be labels, no more."""
    value = row.get(column)
    if value is None or isinstance(value, str):
        return value and writable(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise ValueError(
        f"column {column!r}: row {id} holds {type(value).__name__} {value!r}, neither text nor whole number"
    )
