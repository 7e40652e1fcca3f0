"""Chooses the columns of a file: those that flags or a dataset name, or those with the names people usually give."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from tasks._cells import listed, plain, short, spelled
from tasks._files import Row
from tasks._names import PARTS

PROMPTS = ("instruction", "prompt", "question", "query")
RESPONSES = ("response", "output", "completion", "answer")
INPUT = "input"
ABOUT = (INPUT, "context", "passage", "document", "article")  # what an instruction is about: Alpaca, Dolly, SQuAD
SYSTEM = ("system", "system_prompt", "system_message")
HELD_OUT_FLAGS = ("is_valid", "is_validation", "is_val", "is_test", "is_train", "is_dev")  # fastai's and the like
MARKS = ("label", "good", "is_good", "desirable", "thumbs", "thumbs_up", "kto_tag", "feedback", "rating", "liked")
ALIKE = 0.8  # of two names, by difflib; 0.8 is true of class and classes
CHATS = ("messages", "conversations", "conversation")  # OpenAI's and TRL's; ShareGPT's


class Columns(NamedTuple):
    """Names of the columns that carry the inputs and the target in one form of the dataset.

    A chat has both in one column, which is then input and target. `system`: the column with what the assistant is told
    before the conversation. `repeated`: in how many rows the answers begin with the prompt again, if most do. `mark`:
    the column that says whether the target is a good answer.
    """

    inputs: tuple[str, ...]
    target: str
    system: str | None = None
    repeated: int = 0
    mark: str | None = None

    @property
    def used(self) -> set[str]:
        return {*self.inputs, self.target, *filter(None, (self.system, self.mark))}

    def missing_in(self, present: Sequence[str], target_needed: bool) -> list[str]:
        needed = (self.target, *([self.mark] if self.mark else [])) if target_needed else ()
        return [c for c in (*self.inputs, *needed) if c not in present]


def missing_columns(forms: Sequence[Columns], present: Sequence[str], target_needed: bool, flags: str) -> ValueError:
    """Returns the error for a file with none of the `forms`: it names the missing columns, similar ones, and all."""
    missing = min((c.missing_in(present, target_needed) for c in forms), key=len)
    by_case = {name.casefold(): name for name in present}
    near = [by_case[n] for c in missing for n in get_close_matches(c.casefold(), by_case, n=1)]
    which = f"columns {listed(missing)} are" if len(missing) > 1 else f"column {listed(missing)} is"
    return ValueError(
        f"{which} missing ({flags} name them); the file has {listed(present, 9, 90)}"
        + (f"; is it {listed(near)}?" if near else "")
    )


def cells_of(name: str, rows: Mapping[str, Sequence[Row]], used: Mapping[str, Columns]) -> Iterator[Any]:
    """Returns the cells of a column, in the parts in which it is read."""
    return (row.get(name) for part, columns in used.items() if name in columns.used for row in rows[part])


def refuse_respelled(part: str, present: Mapping[str, Sequence[str]], used: Mapping[str, Columns]) -> None:
    """Raises ValueError for a part that spells the target of the others otherwise, and so would not be used.

    `present` and `used` are the columns of each part, and those of them that are read.
    """
    others = [other for other in used if other != part]
    own = {name.casefold(): name for name in present[part] if all(name not in present[other] for other in others)}
    for kind in ("target", "mark"):
        wanted = [name for other in others if (name := getattr(used[other], kind)) in present[other]]
        if wanted and getattr(used[part], kind) not in present[part]:
            for near in get_close_matches(wanted[0].casefold(), own, n=1, cutoff=ALIKE):
                raise ValueError(
                    f"column {short(wanted[0])} is missing; is it {short(own[near])}? All parts need the same name"
                )


def of_text(rows: Sequence[Row], names: Iterable[str]) -> str | None:
    """Returns the first of these columns that has a cell of text, None if none has. Numbers count as text in INPUT,
    where instructions are about them; elsewhere they are likely to be ids."""

    def is_text(name: str, cell: Any) -> bool:
        return bool(cell) if isinstance(cell, str) else name == INPUT and spelled(plain(cell)) is not None

    return next((name for name in names if any(is_text(name, row.get(name)) for row in rows)), None)


def instruction_forms(prompt: str | None, response: str | None) -> tuple[Columns, ...]:
    """Returns the forms that a file of instructions can have, the most common first. Flags may have named a column."""
    prompts, responses = (prompt,) if prompt else PROMPTS, (response,) if response else RESPONSES
    chats = [Columns((name,), name) for name in ((prompt,) if prompt else CHATS) if response in (None, name)]
    pairs = [Columns((p,), r) for p in prompts for r in responses if p != r]
    return (*pairs, *chats) if prompt else (*chats, *pairs)


def rating_forms(prompt: str | None, response: str | None, label: str | None) -> tuple[Columns, ...]:
    """Returns the same for a file of answers that are rated one by one."""
    marks = (label,) if label else MARKS
    return tuple(form._replace(mark=mark) for mark in marks for form in instruction_forms(prompt, response))


def preference_forms(prompt: str | None, chosen: str | None, rejected: str | None) -> tuple[Columns, ...]:
    """Returns the forms that a file of preferences can have; without `prompt`, the last one has it in the answers."""
    better, worse = chosen or "chosen", rejected or "rejected"
    prompts = (prompt,) if prompt else (*sorted(PROMPTS, key=lambda name: name != "prompt"), *CHATS, better)
    return tuple(Columns((name, worse), better) for name in prompts)


def refuse_rejected(rows: Sequence[Row], column: str) -> None:
    """Raises ValueError if Prodigy's column of verdicts rejects rows."""
    verdicts = Counter(str(row.get(column) or "accept") for row in rows) if column == "answer" else Counter[str]()
    rejected = verdicts["reject"] + verdicts["ignore"]
    if rejected and verdicts.keys() <= {"accept", "reject", "ignore"}:
        raise ValueError(
            f"column 'answer' is reject or ignore in {rejected:,} rows (Prodigy), and this script would train on "
            "them; keep the rows with accept, or leave the column out"
        )


def parts_note(rows: Sequence[Row], column: str) -> list[str]:
    """Returns a note on a column that holds nothing but names of parts, or says which rows are held out."""
    values = Counter(str(cell).strip().casefold() for row in rows if (cell := row.get(column)) is not None)
    flags = column.casefold() in HELD_OUT_FLAGS and values.keys() <= {"true", "false", "0", "1"}
    if not flags and (len(values) > 20 or not values or not values.keys() <= PARTS.keys()):
        return []
    counts = ", ".join(f"{value} {count:,}" for value, count in values.most_common(4))
    return [
        f"column {short(column)} names the file's own parts ({counts}), which are not used: other parts are drawn; to "
        "keep them, save each part as a file of its name (train.csv, test.csv) in one folder"
    ]


def unused_note(present: Iterable[str], used: Iterable[str], flags: str) -> list[str]:
    """Returns a note that names the columns that are not read, if there are any."""
    unused = [name for name in present if name not in set(used)]
    plural = "columns are" if len(unused) > 1 else "column is"
    return [f"{len(unused)} {plural} not used: {listed(unused, 9, 90)} ({flags} name those that are)"] if unused else []
