"""What tasks of prompts and answers share: the columns that a prompt is made of, and what is said of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tasks._cells import listed, plain, short, spelled, target_cell
from tasks._chat import Turn, Unfit, messages_in, turns_in, unused_keys
from tasks._columns import ABOUT, CHATS, SYSTEM, Columns, cells_of, missing_columns, of_text
from tasks._files import Row
from tasks._labels import folded, is_placeholder, likeness, placeholder_notes
from tasks._skipped import Skipped
from tasks._task import Task

NO_MEDIA = ("", "[]", "{}", "false", "no", "0")  # as text in a csv file, beside placeholders
MEDIA = ("image", "images", "video", "videos", "audio", "audios")


def in_text(rows: Iterable[Row], *names: str) -> list[list[str]]:
    """Returns the cells of these columns, of the rows that have text in all of them."""
    every: Iterable[list[Any]] = ([row.get(name) for name in names] for row in rows)
    return [cells for cells in every if all(isinstance(cell, str) and cell.strip() for cell in cells)]


def repeats(found: Iterable[bool]) -> int:
    """Returns in how many rows an answer repeats its prompt, 0 if most do not: then it happens by chance."""
    counts = Counter(found)
    return counts[True] if counts[True] > counts[False] else 0


def lines(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def transcript(turns: Sequence[Turn]) -> str:
    return lines(*(f"{turn.role}: {turn.text}" for turn in turns))


def _has_media(cell: Any) -> bool:
    if not isinstance(cell, str):
        return bool(plain(cell))
    word = likeness(folded(cell))
    return word not in NO_MEDIA and not is_placeholder(word)


@dataclass(frozen=True)
class Prompted(Task):
    """`usual_columns`: whether columns with a usual name are read too if the file has them: what the prompt is about
    (`ABOUT`, unless `about` is off), and what the assistant is told first (`SYSTEM`)."""

    target_in_prompt: ClassVar[bool] = True
    usual_columns: bool = False
    about: bool = True

    def columns_of(self, rows: list[Row], target_needed: bool = True) -> Columns:
        present = list(rows[0])
        for columns in self.columns:
            if not columns.missing_in(present, target_needed) and self.fits(columns, rows):
                return self._with_usual(columns, rows) if self.usual_columns else columns
        flat = [columns for columns in self.columns if columns.target not in columns.inputs]
        raise missing_columns(flat or self.columns, present, target_needed, self.column_flags)

    def fits(self, columns: Columns, rows: list[Row]) -> bool:
        """Lets prompt and answer be one column only if it holds conversations."""
        name = columns.inputs[0]
        return name != columns.target or name in CHATS or any(messages_in(row.get(name)) is not None for row in rows)

    def _with_usual(self, columns: Columns, rows: list[Row]) -> Columns:
        others = [name for name in rows[0] if name not in columns.used]
        further = of_text(rows, [name for name in ABOUT if name in others]) if self.about else None
        system = columns.system or of_text(rows, [name for name in SYSTEM if name in others])
        return columns._replace(inputs=(*columns.inputs, *([further] if further else [])), system=system)

    def before(self, row: Row, columns: Columns) -> list[Turn]:
        """Returns what a system column tells the assistant. Raises Unfit for a row with images, video or audio."""
        if self._media([row], columns):
            raise Unfit("images")
        return turns_in(target_cell(row, columns.system), "System", columns.system) if columns.system else []

    def _media(self, rows: Iterable[Row], columns: Columns) -> list[str]:
        """Returns the columns that hold images, video or audio in some row."""
        names = [name for name in MEDIA if name not in columns.used]
        return [name for name in names if any(_has_media(row.get(name)) for row in rows)]

    def nothing_left(self, rows: dict[str, list[Row]], skipped: Skipped) -> str:
        """Adds to the usual message the columns of images, video or audio, for which whole rows are left out."""
        media = self._media([row for part in rows.values() for row in part], next(iter(self._used(rows, {}).values())))
        named = f"; {listed(media)} would be images, video or audio: take out a column that is not"
        return super().nothing_left(rows, skipped) + named * bool(media)

    def taken_along(self, used: Mapping[str, Columns]) -> list[str]:
        known = {name for form in self.columns for name in form.used}
        parts: dict[str, list[str]] = {}  # by column
        for part, columns in used.items():
            for name in (*columns.inputs, columns.system):
                if name and name not in known:
                    parts.setdefault(name, []).append(part)
        choose = "; --input-column names another, '' none" * ("--input-column" in self.column_flags)
        found = []
        for where in dict.fromkeys(map(tuple, parts.values())):
            names = " and ".join(short(name) for name in parts if tuple(parts[name]) == where)
            alone = f", in the {' and '.join(where)} part alone" * (len(where) < len(used))
            found.append(f"the prompt includes column {names} because of its name{alone}{choose}")
        return found

    def note_columns(self, rows: dict[str, list[Row]], used: Mapping[str, Columns], notes: list[str]) -> None:
        """Notes columns read unasked, numbers read as text, keys not read. Raises ValueError for prompts of numbers."""
        notes += self.taken_along(used)
        super().note_columns(rows, used, notes)
        every = used.values()
        names = dict.fromkeys(name for c in every for name in (*c.inputs, c.target, c.system) if name is not None)
        for name in names:
            cells = [cell for held in cells_of(name, rows, used) if (cell := plain(held)) not in (None, "")]
            numbers = sum(spelled(cell) is not None for cell in cells)
            if numbers and numbers == len(cells) and name in {columns.inputs[0] for columns in every}:
                raise ValueError(
                    f"column {short(name)} holds numbers alone, no prompts; {self.column_flags} name others"
                )
            if numbers:
                notes.append(f"column {short(name)} holds numbers or truth values in {numbers:,} rows, taken as text")
            notes += placeholder_notes(cells, name)
        media = dict.fromkeys(name for part in used for name in self._media(rows[part], used[part]))
        if media:
            notes.append(f"rows with images, video or audio are left out, by column {listed(media)}")
        keys = unused_keys(cell for name in names for cell in cells_of(name, rows, used))
        if keys:
            notes.append(f"keys of messages that are not used: {listed(keys, 9, 90)}")
