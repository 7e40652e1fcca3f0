"""A task whose texts have one class each."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from tasks._cells import label_cell, listed, one_of, plain, spelled, text_cell
from tasks._classes import class_notes, refuse_several, refuse_untrained, refuse_what_is_no_class
from tasks._columns import Columns, cells_of
from tasks._examples import Labelled
from tasks._files import Row
from tasks._labels import (
    NO_CLASS,
    as_arguments,
    folded,
    folding_notes,
    in_order,
    is_placeholder,
    likeness,
    placeholder_notes,
    spelling_notes,
    spellings,
    typed_spellings,
)
from tasks._several import on_lines
from tasks._task import Files, Rows, Task, join_lines


class OneClass(ValueError):
    """All examples have the same class."""


@dataclass(frozen=True)
class Classification(Task):
    """If `labels` is None, those of the file are taken. `compose` makes (text, kept) of the input columns (see
    `Labelled`). Rows with a label among `left_out` are skipped."""

    labels: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    spelling: Mapping[str, str] = field(default_factory=dict)  # other spellings of labels, with the one that is kept
    compose: Callable[[tuple[str, ...]], tuple[str, str]] = field(default=join_lines)
    required: Callable[[Iterable[str]], bool] = any  # which input cells a row needs: any of them, or all
    column_flags: ClassVar[str] = "--text-column and --label-column"

    def example(self, id: int, row: Row, columns: Columns) -> Labelled:
        text, kept = self.compose(tuple(text_cell(row, name) for name in columns.inputs))
        label = folded(label_cell(row, columns.target) or "") or None
        return Labelled(id, text, kept, label and self.spelling.get(label, label))

    def lacks(self, example: Labelled, row: Row, columns: Columns) -> str:
        if not self.required(text_cell(row, column).strip() for column in columns.inputs):
            return "empty"
        return "label_left_out" if example.label in self.left_out else "" if example.label else "unlabelled"

    def unanswered(self, examples: Sequence[Labelled], others: Iterable[Labelled]) -> bool:
        """Takes a placeholder in every row (-1 in sets of the hub) for no label, unless other parts have it too."""
        labels = {example.label for example in examples if example.label is not None}
        hidden = all(is_placeholder(label) or label in NO_CLASS for label in labels)
        return hidden and len(labels) <= 1 and not labels & {*(self.labels or ()), *(other.label for other in others)}

    def fitted(self, rows: Rows, files: Files) -> tuple[Self, list[str]]:
        """Returns the task with one spelling for each label of the file, and notes on the labels."""
        used = self._used(rows, files)
        target = next(iter(used.values())).target
        cells = [one_of(row.get(used[name].target)) for name, part in rows.items() for row in part]
        spelling = typed_spellings(cells)
        left_out, notes = self._left_out(cells, spelling)
        if self.labels is None:
            refuse_several(on_lines(cell for cell in cells if folded(str(cell)) not in left_out), target)
        notes += [*folding_notes(cells, target), *spelling_notes(spelling, cells, target)]
        return replace(self, left_out=left_out, spelling=spelling), notes

    def note_columns(self, rows: Rows, used: Mapping[str, Columns], notes: list[str]) -> None:
        """Also notes texts that seem to say that there is none."""
        super().note_columns(rows, used, notes)
        for name in dict.fromkeys(name for columns in used.values() for name in columns.inputs):
            notes += placeholder_notes(cells_of(name, rows, used), name)

    def check(
        self, parts: Mapping[str, Sequence[Labelled]], columns: Columns, place: Callable[[Labelled], str]
    ) -> None:
        """Raises ValueError for a label column that holds something other than classes."""
        counts = Counter(e.label or "" for part in parts.values() for e in part)
        if self.labels is None and counts:
            refuse_what_is_no_class(counts, columns.target)

    def _left_out(self, cells: Iterable[Any], spelling: Mapping[str, str]) -> tuple[tuple[str, ...], list[str]]:
        """Returns the labels to leave out in all their spellings in the file, and a note on those that no row has.
        Raises ValueError for one that differs from a label of the file only in case or in the spelling of a number."""
        texts = (spelled(value) or value for value in map(plain, cells))
        present = {folded(text) for text in texts if isinstance(text, str)}
        same = spellings(self.left_out, present)
        named = {spelling.get(label, label) for label in (same.get(label, label) for label in self.left_out)}
        unknown = in_order(named - present)
        for label in unknown:
            if near := [other for other in in_order(present - named) if likeness(other) == likeness(label)]:
                raise ValueError(
                    f"--leave-out-labels {as_arguments([label])}: no row has this label; is it {listed(near)}?"
                )
        notes = [f"no row has the label {listed(unknown)} of --leave-out-labels"] if unknown else []
        return (*named, *(text for text, label in spelling.items() if label in named)), notes

    def classes(self, examples: Iterable[Labelled], where: str = "in the file") -> tuple[str, ...]:
        """Returns the class names in order. Raises ValueError for one outside `labels`, OneClass for one `where`."""
        seen = {e.label for e in examples if e.label is not None}
        same = spellings(self.labels or (), seen)
        names = tuple(same.get(name, name) for name in self.labels or in_order(seen))
        if unknown := in_order(seen - set(names)):
            expected = listed(names)
            raise ValueError(
                f"labels {listed(unknown)} are not among the expected {expected}; correct them, or leave such rows out "
                f"with --leave-out-labels {as_arguments(unknown[:1])}"
            )
        if len(seen) < 2:
            raise OneClass(f"only one class {where} ({listed(in_order(seen))}); a classifier needs two or more")
        return names

    def remarks(self, splits: Mapping[str, Sequence[Labelled]], limited: bool = False) -> list[str]:
        """Returns notes on the classes. Raises ValueError as `classes` does, and for one without a training example."""
        counts = {name: Counter(e.label or "" for e in part) for name, part in splits.items()}
        names = self.classes([e for part in splits.values() for e in part])
        self.classes(splits["train"], "among the examples to train on")
        refuse_untrained(counts, limited)
        total = sum(counts.values(), Counter())
        missing = [name for name in names if not total[name]]
        found = [f"no example has the label {listed(missing)}"] if missing else []
        return found + class_notes(total, self.columns[0].target)
