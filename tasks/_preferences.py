"""A task of prompts with two answers, of which one is preferred; texts in columns, or conversations."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tasks._cells import text_cell
from tasks._chat import HEADING, Turn, Unfit, common_start, dialogue, marked_turns, messages_in, turns_in
from tasks._columns import Columns, of_text
from tasks._examples import Preference
from tasks._files import Row
from tasks._prompted import Prompted, lines
from tasks._skipped import Skipped


def shared_text(chosen: str, rejected: str) -> int:
    """Where two texts that begin with the prompt part: behind the last turn that is marked, else as TRL's
    `extract_prompt` has it, at the first character that differs and without the space before it."""
    end = common_start(chosen, rejected)
    marks = [mark.end() for mark in HEADING.finditer(chosen[:end]) if mark[1] == "Assistant"]
    return marks[-1] if marks else end - chosen[:end].endswith(" ")


def conversation(prompt: list[Turn], chosen: list[Turn], rejected: list[Turn], prompt_is_chat: bool) -> list[Turn]:
    """The turns before the answers. What both answers begin with is the prompt, unless a prompt in messages goes before
    (as TRL's `maybe_extract_prompt`). Raises Unfit where the answers part before the last turn."""
    start = min(common_start(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    if any(len(turns) - start != 1 or turns[-1].role != "Assistant" for turns in (chosen, rejected)):
        raise Unfit("different_context")
    shared = chosen[:start]
    repeated = shared[: len(prompt)] == prompt
    if repeated or (not prompt_is_chat and any(turn.role == "User" for turn in shared)):
        return shared
    return prompt + shared


@dataclass(frozen=True)
class Preferences(Prompted):
    """Inputs are the prompt, the answer that was rejected and, where there is a third column, what the prompt is about;
    the target is the answer that was chosen. A prompt column that is the target's stands for none: then both answers
    begin with the prompt."""

    required: Callable[[Iterable[str]], bool] = all
    column_flags: ClassVar[str] = "--prompt-column, --chosen-column and --rejected-column"

    def fits(self, columns: Columns, rows: list[Row]) -> bool:
        """Texts begin with the prompt if all have marked turns, or if the file has nothing else that could be one."""
        answers = (columns.target, columns.inputs[1])
        if columns.inputs[0] != columns.target or any(messages_in(row.get(columns.target)) is not None for row in rows):
            return True
        pairs = ([row.get(name) for name in answers] for row in rows)
        starts = [a[: shared_text(a, b)] for a, b in pairs if isinstance(a, str) and isinstance(b, str)]
        alone = of_text(rows, [name for name in rows[0] if name not in answers]) is None
        return bool(starts) and all(start.strip() if alone else HEADING.search(start) for start in starts)

    def example(self, id: int, row: Row, columns: Columns) -> Preference:
        about = text_cell(row, columns.inputs[2], id) if len(columns.inputs) > 2 else ""
        try:
            before = self.before(row, columns, id)
            asked, chosen, rejected = self._pair(row, columns, id)
            if not (asked and chosen.strip() and rejected.strip()):
                return Preference(id, "", "", "")
            said = dialogue([*before, *asked, Turn("Assistant", chosen)])
        except Unfit as reason:
            return Preference(id, "", "", "", unfit=str(reason))
        return Preference(id, said.instruction, chosen, rejected, lines(about, said.input))

    def _pair(self, row: Row, columns: Columns, id: int) -> tuple[list[Turn], str, str]:
        """What is said before the answers, and the answers: chosen, rejected."""
        prompt, apart = columns.inputs[0], columns.inputs[0] != columns.target
        answers = (columns.target, columns.inputs[1])
        asked = turns_in(row.get(prompt), "User", prompt, id) if apart else []
        if any(messages_in(row.get(name)) is not None for name in answers):
            chosen, rejected = (turns_in(row.get(name), "Assistant", name, id) for name in answers)
            if not (chosen and rejected):
                return [], "", ""
            asked = conversation(asked, chosen, rejected, messages_in(row.get(prompt)) is not None)
            return asked, chosen[-1].text, rejected[-1].text
        better, worse = (text_cell(row, name, id) for name in answers)
        if apart:
            return asked, better, worse
        start = shared_text(better, worse)
        return marked_turns(better[:start]), better[start:], worse[start:]

    def note_columns(self, rows: dict[str, list[Row]], used: Mapping[str, Columns], notes: list[str]) -> None:
        """Says too where the prompt was looked for in the answers."""
        if any(columns.inputs[0] == columns.target for columns in used.values()):
            notes.append("there is no column of prompts: what both answers of a row begin with is its prompt")
        super().note_columns(rows, used, notes)

    def lacks(self, example: Preference, row: Row, columns: Columns) -> str:
        return example.unfit or ("" if example.prompt else "empty")

    def parts(
        self,
        rows: dict[str, list[Row]],
        skipped: Skipped,
        notes: list[str] | None = None,
        files: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, list[Any]]:
        """Raises ValueError for pairs of twice the same answer: slips that no training could make sense of."""
        parts = super().parts(rows, skipped, notes, files)
        same = [str(e.id) for part in parts.values() for e in part if e.chosen.strip() == e.rejected.strip()]
        if same:
            raise ValueError(
                f"chosen and rejected answer are the same in {len(same):,} rows ({', '.join(same[:8])}); such a pair "
                "prefers nothing: correct these rows, or remove them"
            )
        return parts
