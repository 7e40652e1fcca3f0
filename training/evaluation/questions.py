"""Turns rows into questions to a trained model: one for each row, in order, whatever it holds. Imports no torch."""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from typing import Any, Literal

from tasks import Columns, Source, Task
from tasks._cells import listed
from tasks._labels import folded, spellings
from tasks._rows import Row
from training.data.trained_on import digest
from training.evaluation.applied import Applied
from training.evaluation.prediction_output import near

Mark = Literal["", "empty", "unreadable"]


@dataclass(frozen=True)
class Question:
    """One row: `place` names part and file where there are several; `example` is None where there is nothing to read.

    `mark`: "empty" rows have no text, "unreadable" ones something other than text. `label`: the class or response in
    the file, or None; the model may not have that class.
    """

    row: int
    place: dict[str, str]
    cells: Row
    example: Any  # Labelled or Instruction
    mark: Mark
    label: str | None


@dataclass(frozen=True)
class Questions:
    """The rows of `source` by a task's rules; `columns` by part; `spelling`: label in the file -> class."""

    source: Source
    task: Task
    columns: Mapping[str, Columns]
    spelling: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.source.parts.values())

    @property
    def places(self) -> bool:
        """Whether a row needs to say which part and file it is from."""
        return len(self.source.parts) > 1 or any(len(files) > 1 for files in self.source.files.values())

    @property
    def has_target(self) -> bool:
        """Whether any part has the column of the label or response."""
        return any(self.columns[part].target in rows[0] for part, rows in self.source.parts.items())

    @property
    def present(self) -> list[str]:
        """The columns of the input, in order."""
        return list(dict.fromkeys(name for rows in self.source.parts.values() for name in rows[0]))

    def chunks(self, size: int) -> Iterator[list[Question]]:
        """Yields all questions, `size` at a time, so that no more are in memory beside the rows."""
        rest = iter(self)
        while chunk := list(islice(rest, size)):
            yield chunk

    def __iter__(self) -> Iterator[Question]:
        row = 0
        for part, rows in self.source.parts.items():
            for cells, file in zip(rows, self._files(part), strict=True):
                place = {"part": part, "file": file} if self.places else {}
                yield self._question(row, place, cells, self.columns[part])
                row += 1

    def _files(self, part: str) -> Iterator[str]:
        """Yields the file of each row of a part."""
        files, rows = self.source.files.get(part, [""]), len(self.source.parts[part])
        for file, size in zip(files, self.source.sizes.get(part, [rows]), strict=True):
            yield from repeat(file, size)

    def _question(self, row: int, place: dict[str, str], cells: Row, columns: Columns) -> Question:
        try:
            example, label = self._example(row, cells, columns)
            lacks = self.task.lacks(example, cells, columns)
        except ValueError:
            return Question(row, place, cells, None, "unreadable", self._label(row, cells, columns))
        if lacks == "empty":
            return Question(row, place, cells, None, "empty", label)
        if lacks == "label_left_out":
            return Question(row, place, cells, example, "", None)
        if lacks not in ("", "unlabelled"):  # a conversation that holds no text
            return Question(row, place, cells, None, "unreadable", label)
        return Question(row, place, cells, example, "", self.spelling.get(label or "", label))

    def _label(self, row: int, cells: Row, columns: Columns) -> str | None:
        """Returns the label or response of a row whose text cannot be read; None if that is in the same column."""
        try:
            label = self._example(row, {**cells, **dict.fromkeys(columns.inputs)}, columns)[1]
        except ValueError:
            return None
        return self.spelling.get(label or "", label)

    def _example(self, row: int, cells: Row, columns: Columns) -> tuple[Any, str | None]:
        """Returns the example, and its label or response even if the task cannot read that."""
        try:
            example: Any = self.task.example(row, cells, columns)
            return example, example.label
        except ValueError:
            if columns.target in columns.inputs:
                raise
            return self.task.example(row, {**cells, columns.target: None}, columns), str(cells[columns.target])


def columns_in(task: Task, rows: list[Row], flags: tuple[str, str], named: str | None) -> Columns:
    """Returns the first form of the task whose inputs are there, preferably with its target.

    `flags` are those that name input and target, for messages; `named` is a target that must be there. Raises
    ValueError, naming what is missing and what is like it.
    """
    present = list(rows[0])
    if named is not None and named not in present:
        raise ValueError(
            f"{flags[1]} {named[:40]}: the data has no such column{near(named, present)}; "
            f"it has {listed(present, 6, 120)}"
        )
    for target_needed in (True, False):
        with contextlib.suppress(ValueError):
            return task.columns_of(rows, target_needed)
    forms = [columns for columns in task.columns if columns.target not in columns.inputs] or task.columns
    missing = min((c.missing_in(present, target_needed=False) for c in forms), key=len)
    raise ValueError(
        f"the data has no column {listed(missing)}{near(missing[0], present)}; name the column to read with "
        f"{flags[0]}; it has {listed(present, 6, 120)}"
    )


def respelled(questions: Questions, classes: Sequence[str]) -> Questions:
    """Returns a copy in which labels that spell a number or truth value, as csv files do ("True" for true), are the
    classes that they stand for. Class names from other tools keep their spelling, white space included."""
    labels = {question.label for question in questions if question.label is not None}
    names = {folded(name): name for name in classes if folded(name) != name}
    return replace(questions, spelling=names | spellings(labels - names.keys(), classes))


def ask(task: Task, source: Source, flags: tuple[str, str], named: str | None) -> Questions:
    """Makes questions of the rows. Raises the errors of `columns_in`, naming the part where there are several."""
    source = replace(source, parts={part: rows for part, rows in source.parts.items() if rows})
    columns = {}
    for part, rows in source.parts.items():
        try:
            columns[part] = columns_in(task, rows, flags, named)
        except ValueError as error:
            raise ValueError(f"{error} (in {part})" if len(source.parts) > 1 else str(error)) from error
    return Questions(source, task, columns)


@dataclass
class Tally:
    """Counts of the rows, taken before the model is loaded. `seen`: rows by the part of the training they were in."""

    rows: int = 0
    labelled: int = 0
    scored: int = 0  # labelled rows that the metrics are over
    marks: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)  # labels that the model does not have

    def facts(self) -> dict[str, int]:
        """Returns the counts for the file of metrics."""
        counts = {"rows": self.rows, "labelled": self.labelled, "unknown_label": self.unknown.total()}
        return counts | dict(self.marks) | {f"seen_in_{part}": count for part, count in self.seen.items()}


def tally(questions: Questions, applied: Applied) -> Tally:
    counts, classes = Tally(), applied.labels
    for question in questions:
        counts.rows += 1
        counts.labelled += question.label is not None
        if question.mark:
            counts.marks[question.mark] += 1
        if classes is not None and question.label is not None and question.label not in classes:
            counts.unknown[question.label] += 1
        elif question.label is not None:
            counts.scored += question.example is not None
        if part := seen_in(question, applied):
            counts.seen[part] += 1
    return counts


def seen_in(question: Question, applied: Applied) -> str | None:
    """Returns the part of the training, "train" or "validation", with this row's text; None: neither, or unknown."""
    if question.example is None or applied.trained_on is None:
        return None
    return applied.trained_on.get(digest(question.example))


def _values(labels: Collection[str]) -> str:
    """Returns labels for a message; if they look like texts, only their number."""
    classes = len(labels) <= 20 and all(len(label) <= 24 for label in labels)
    return listed(labels) if classes else f"{len(labels):,} different values"


def check(questions: Questions, counts: Tally, applied: Applied, flags: tuple[str, str], named: str | None) -> None:
    """Raises ValueError where a column must be wrong: no row holds text, or the model has none of the labels."""
    columns = next(iter(questions.columns.values()))
    if counts.marks["unreadable"] == counts.rows:
        raise ValueError(
            f"column {listed(columns.inputs)} holds no text in any row; name the column to read with {flags[0]}"
        )
    if named is not None and applied.labels and 0 < counts.labelled == counts.unknown.total():
        order = " or the names of the classes, in the model's order, with --labels"
        raise ValueError(
            f"{flags[1]} {named[:40]}: its labels ({_values(counts.unknown)}) are none of the classes of the model, "
            f"{listed(applied.labels)}; name another column{'' if applied.flags else order}"
        )


def columns_of(questions: Questions, applied: Applied, kept: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the columns of the output, with those `kept` of the input, each with the value for lines without it."""
    names: dict[str, Any] = {"row": None} | ({"part": None, "file": None} if questions.places else {})
    names |= dict.fromkeys(kept)
    if applied.labels is not None:
        names |= {"text": None, "prediction": None} | {f"probability_{label}": None for label in applied.labels}
        names |= {"label": None} if questions.has_target else {}
    else:
        names |= {"prompt": None, "response": None, "stopped": None}
    names |= {"empty": False, "unreadable": False, "cut": False}
    return names | ({} if applied.trained_on is None else {"seen": None})


def notes(questions: Questions, counts: Tally, applied: Applied, target: str) -> list[str]:
    """Returns what the user should know of the rows before they are answered, a sentence each."""
    source = questions.source
    found = [*source.notes, *questions.task.taken_along(questions.columns)]
    if applied.own_labels:
        pairs = [
            f"{name!r} is the model's {own!r}"
            for name, own in zip(applied.labels or (), applied.own_labels, strict=True)
        ]
        found.append(f"--labels names the classes: {', '.join(pairs[:4])}{' ...' * (len(pairs) > 4)}")
    for text, label in [pair for pair in questions.spelling.items() if folded(pair[1]) != pair[0]][:1]:
        found.append(f"labels are read as the classes that they spell: {text[:40]!r} as {label[:40]!r}")
    labelled = counts.labelled - counts.unknown.total()
    if not questions.has_target:
        found.append(
            f"the data has no column {listed({c.target for c in questions.columns.values()}, 6, 120)}; no metrics"
        )
    if missing := counts.rows - counts.labelled if questions.has_target else 0:
        found.append(f"{missing:,} of {counts.rows:,} rows have no {target}")
    if counts.unknown:
        alike = {name.casefold(): name for name in applied.labels or ()}
        like = (f"; {name!r} is like {alike[name.casefold()]!r}" for name in counts.unknown if name.casefold() in alike)
        found.append(
            f"{counts.unknown.total():,} rows have a {target} that the model does not have ({_values(counts.unknown)}"
            + next(like, "")
            + f"): they are answered, and left out of the metrics, which are of the other {counts.scored:,}"
        )
    words = {"empty": "no text", "unreadable": "something other than text where the text should be"}
    for mark, count in counts.marks.items():
        found.append(f"{count:,} rows have {words[mark]}: marked {mark!r}, without a prediction")
    if counts.seen["train"]:
        found.append(
            f"the model was trained on {counts.seen['train']:,} of the {counts.rows:,} rows (marked 'seen'): what it "
            "scores on these says nothing of new texts"
        )
    if counts.seen["validation"]:
        found.append(f"{counts.seen['validation']:,} rows were the validation part, on which its weights were chosen")
    if applied.trained_on is None and source.origin == applied.source:
        found.append("the data is what the model was trained on: what it scores here says nothing of new texts")
    elif applied.trained_on is None and labelled:
        found.append("the model does not say what it was trained on: whether these rows were part of it is not known")
    return found
