"""What a dataset is: where its rows are, which columns matter, how a row becomes an example."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from tasks._cells import NoText, listed, short
from tasks._columns import Columns, missing_columns, parts_note, refuse_rejected, refuse_respelled, unused_note
from tasks._examples import Example
from tasks._files import Row
from tasks._skipped import Skipped

Rows = dict[str, list[Row]]  # by part
Files = Mapping[str, Mapping[str, int]]  # the number of rows by file, by part
BUNDLED = Path(__file__).parent / "bundled"
HELD_OUT = ("test", "validation")


@contextmanager
def _naming(part: str, parts: Collection[str], files: Files) -> Iterator[None]:
    """Adds the files of the part to a ValueError if there are several parts."""
    try:
        yield
    except ValueError as error:
        where = listed(files.get(part, []), quoted=False) if len(parts) > 1 else ""
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def _place(part: str, i: int, files: Files) -> str:
    """Says which row of a part it is: counted from 1 in its own file, which is named if there are several."""
    several = len(files) > 1 or len(files.get(part, [])) > 1
    for file, count in files.get(part, {}).items():
        if i < count:
            return f"{file}: row {i + 1}" if several else f"row {i + 1}"
        i -= count
    return f"row {i + 1}"


def _place_of(number: int, rows: Rows, files: Files) -> str:
    """Says which row it is of all the parts together."""
    for part, own in rows.items():
        if number < len(own):
            return _place(part, number, files)
        number -= len(own)
    raise IndexError(number)


@dataclass(frozen=True)
class Task:
    """`file` is looked up in the data folder, `bundled` in tasks/bundled; `columns` has the known forms, ours first."""

    name: str
    columns: tuple[Columns, ...]
    file: str | None = None
    bundled: str | None = None
    hub: str | None = None
    report_subset: Callable[[dict[str, list[Any]]], dict[str, list[Any]]] | None = None
    fixed_columns: tuple[str, ...] = ()  # columns of a bundled file that a user need not know of
    target_in_prompt: ClassVar[bool] = False  # whether the first input and the target can be one column
    column_flags: ClassVar[str] = "--text-column, --label-column, --prompt-column and --response-column"

    def columns_of(self, rows: list[Row], target_needed: bool = True) -> Columns:
        """Returns the first known form that `rows` has. Raises ValueError naming what is missing and what is there."""
        present = list(rows[0])
        for columns in self.columns:
            if not columns.missing_in(present, target_needed):
                return columns
        raise missing_columns(self.columns, present, target_needed, self.column_flags)

    def example(self, id: int, row: Row, columns: Columns) -> Example:
        """Makes an example of a row; its label or response is None if the cell is empty or the column absent."""
        raise NotImplementedError

    def lacks(self, example: Any, row: Row, columns: Columns) -> str:
        """Returns the field of `Skipped` that says why a row cannot be learnt from; "" if it can."""
        raise NotImplementedError

    def unanswered(self, examples: Sequence[Any], others: Iterable[Any]) -> bool:
        """Whether a part has no label or response at all and is to be predicted. `others`: examples of other parts."""
        return not any(example.label for example in examples)

    def parts(
        self, rows: Rows, skipped: Skipped, notes: list[str] | None = None, files: Files | None = None
    ) -> dict[str, list[Any]]:
        """Makes examples of rows, both by part, numbered in the order of the rows.

        Rows that nothing can be learnt from are counted in `skipped`; `notes` gets what the user should know. A
        held-out part without any label or response, as competitions give it out, is left out.
        """
        notes, files = [] if notes is None else notes, files or {}
        task, more = self.fitted(rows, files)
        used, read = task._read(rows, files)
        found: dict[str, list[Any]] = {}
        for name, examples in read.items():
            others = (example for other in read if other != name for example in read[other])
            if name in HELD_OUT and len(read) > 1 and task.unanswered(examples, others):
                columns, where = used.pop(name), listed(files.get(name, [name]), quoted=False)
                held = list(dict.fromkeys(str(example.label) for example in examples if example.label))
                lack = f"holds {', '.join(map(short, held))} only" if held else "is missing or empty"
                notes.append(
                    f"{where}: column {short(columns.mark or columns.target)} {lack}; its {len(examples):,} rows are "
                    f"for scripts/predict.py, and the {name} part is drawn from the other rows"
                )
                continue
            for example, row in zip(examples, rows[name], strict=True):
                if reason := task.lacks(example, row, used[name]):
                    skipped.count(reason)
                else:
                    found.setdefault(task.part_of(row) or name, []).append(example)
        if not used:
            raise ValueError("no row has a label or response to learn from; such files are for scripts/predict.py")
        task.note_columns(rows, used, notes)
        notes += more
        task.check(found, next(iter(used.values())), lambda example: _place_of(example.id, rows, files))
        return found

    def fitted(self, rows: Rows, files: Files) -> tuple[Self, list[str]]:
        """Returns the task adapted to these rows, and notes on that."""
        return self, []

    def check(self, parts: Mapping[str, Sequence[Any]], columns: Columns, place: Callable[[Any], str]) -> None:
        """Raises ValueError for examples that no training could make sense of; `place` says in which row one stands."""

    def _read(self, rows: Rows, files: Files) -> tuple[dict[str, Columns], dict[str, list[Any]]]:
        """Returns columns and examples of each part. A ValueError names the file if there are several, and the row."""
        used = self._used(rows, files)
        read: dict[str, list[Any]] = {}
        start = 0
        for name, part in rows.items():
            read[name] = []
            for i, row in enumerate(part):
                try:
                    read[name].append(self.example(start + i, row, used[name]))
                except NoText as error:
                    remedy = f"write it as text, or name another column with {self.column_flags}"
                    raise ValueError(f"{_place(name, i, files)}: {error}; {remedy}") from error
                except ValueError as error:
                    raise ValueError(f"{_place(name, i, files)}: {error}") from error
            start += len(part)
        return used, read

    def _used(self, rows: Rows, files: Files) -> dict[str, Columns]:
        """Returns the columns of each part. A ValueError names the files of the part if there are several."""
        used: dict[str, Columns] = {}
        for name in rows:
            with _naming(name, rows, files):
                used[name] = self._columns_in(name, rows)
                self._refuse_twice(used[name])
        for name in used:
            with _naming(name, rows, files):
                refuse_respelled(name, {part: list(rows[part][0]) for part in used}, used)
        return used

    def _refuse_twice(self, columns: Columns) -> None:
        """Raises ValueError for a column that is read twice, unless as a conversation: inputs would hold the answer."""
        both = self.target_in_prompt and columns.inputs[0] == columns.target
        named = [*columns.inputs[both:], columns.target]
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise ValueError(f"column {short(twice)} would be read twice; {self.column_flags} name one each")

    def _columns_in(self, name: str, rows: Rows) -> Columns:
        """Returns the columns of a part. A held-out one beside others needs no target."""
        try:
            return self.columns_of(rows[name])
        except ValueError:
            if name not in HELD_OUT or len(rows) < 2:
                raise
            return self.columns_of(rows[name], target_needed=False)

    def nothing_left(self, rows: Rows, skipped: Skipped) -> str:
        """Returns the message for data without a single example: the counts that tell why, and the empty columns."""
        columns = self._used(rows, {})
        every = dict.fromkeys(name for name in columns for name in (*columns[name].inputs, columns[name].target))
        empty = [n for n in every if not any(str(row.get(n) or "").strip() for part in rows.values() for row in part)]
        lack = f"; column {listed(empty, 9, 90)} is empty in all of them ({self.column_flags} name others)"
        said = skipped.said() + lack * bool(empty)
        return f"no training examples remain; left out of {sum(map(len, rows.values())):,} rows: {said}"

    def taken_along(self, used: Mapping[str, Columns]) -> list[str]:
        """Returns notes on the columns, by part, that are read unasked."""
        return []

    def note_columns(self, rows: Rows, used: Mapping[str, Columns], notes: list[str]) -> None:
        """Notes which columns are not read, and which of these name parts. Raises what `refuse_rejected` raises."""
        present = dict.fromkeys(column for name in used for column in rows[name][0])
        read = {*self.fixed_columns, *(column for columns in used.values() for column in columns.used)}
        every = [row for name in used for row in rows[name]]
        for column in (name for name in present if name not in read):
            refuse_rejected(every, column)
            notes += parts_note(every, column)
        notes += unused_note(present, read, self.column_flags)

    def remarks(self, splits: Mapping[str, Sequence[Any]], limited: bool = False) -> list[str]:
        """Returns notes on the examples. Raises ValueError for examples that cannot be learnt from; `limited` says that
        there are more to train on than were asked for."""
        return []

    def part_of(self, row: Row) -> str | None:
        """Returns the part that the row itself names, if the dataset has fixed ones."""
        return None


def join_lines(inputs: tuple[str, ...]) -> tuple[str, str]:
    """Joins several columns, one below the other without empty ones; all of the text may be truncated."""
    return "\n".join(part for part in inputs if part.strip()), ""
