"""A task of prompts with single answers, each rated as good or bad."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tasks._cells import listed, short, target_cell
from tasks._columns import Columns
from tasks._examples import Rated
from tasks._files import Row
from tasks._instructions import Instructions
from tasks._labels import RATINGS, folded, likeness, rating_notes


def spelling(row: Row, column: str) -> str:
    """Returns the label of a row as RATINGS spells it, "" for none. Raises what `target_cell` raises."""
    return likeness(folded(target_cell(row, column) or ""))


@dataclass(frozen=True)
class Ratings(Instructions):
    """`Columns.mark` is the column of the labels, each one of RATINGS; all else is as in `Instructions`."""

    column_flags: ClassVar[str] = "--prompt-column, --response-column and --label-column"

    def example(self, id: int, row: Row, columns: Columns) -> Rated:
        """Raises ValueError for a label that is not known to mean good or bad."""
        column = str(columns.mark)
        label = spelling(row, column)
        if label and label not in RATINGS:
            raise ValueError(
                f"column {short(column)} holds {short(label)}, which is not known to mean good or bad; write "
                "true or false, 1 or 0, good or bad, or name another column with --label-column"
            )
        return Rated(**asdict(super().example(id, row, columns)), good=RATINGS.get(label))

    def lacks(self, example: Any, row: Row, columns: Columns) -> str:
        return super().lacks(example, row, columns) or ("" if example.label else "unlabelled")

    def note_columns(self, rows: dict[str, list[Row]], used: Mapping[str, Columns], notes: list[str]) -> None:
        """Also says how the labels are read. Raises ValueError if two of them mean the same: of 0 and -1, one may mean
        that nobody has rated the answer."""
        super().note_columns(rows, used, notes)
        for column in dict.fromkeys(str(columns.mark) for columns in used.values()):
            parts = [rows[name] for name, columns in used.items() if columns.mark == column]
            counts, said = Counter(spelling(row, column) for part in parts for row in part), []
            for kind, good in (("good", True), ("bad", False)):
                words = [word for word in counts if RATINGS.get(word) is good]
                if len(words) > 1:
                    raise ValueError(
                        f"column {short(column)} holds {listed(words)}, which all mean {kind}; write one label for "
                        "good answers and one for bad ones, and leave the cell of an unrated answer empty"
                    )
                said += [f"{short(word)} ({counts[word]:,} rows) is read as {kind}" for word in words]
            notes.append(f"column {short(column)}: {', '.join(said)}")

    def remarks(self, splits: Mapping[str, Sequence[Any]], limited: bool = False) -> list[str]:
        return rating_notes(splits, limited) + super().remarks(splits, limited)
