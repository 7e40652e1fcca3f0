"""A task of prompts with two answers, one of which is preferred. They are texts in columns, or conversations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tasks._cells import listed, plain, short, target_cell, text_cell
from tasks._chat import (
    HEADING,
    Turn,
    Unfit,
    asked_before,
    behind_prompt,
    common_start,
    dialogue,
    is_marked,
    marked_turns,
    messages_in,
    turns_in,
)
from tasks._columns import Columns, of_text
from tasks._examples import Preference, Rated
from tasks._files import Row
from tasks._labels import rating_notes
from tasks._prompted import Prompted, in_text, lines, repeats
from tasks._skipped import Skipped
from tasks._task import Files


def shared_text(chosen: str, rejected: str) -> int:
    """Returns where two texts that begin with the prompt diverge: after the last mark of the assistant, else, as in
    TRL's `extract_prompt`, at the first character that differs and without the space before it."""
    end = common_start(chosen, rejected)
    marks = [mark.end() for mark in HEADING.finditer(chosen[:end]) if mark[1] == "Assistant"]
    return marks[-1] if marks else end - chosen[:end].endswith(" ")


def behind(prompt: str, chosen: str, rejected: str) -> tuple[list[Turn], str, str] | None:
    """Returns what is asked, and the rest of each of two answers that both repeat the prompt, as it stands or as the
    last of the marked turns; None if they do not."""
    asked, start = marked_turns(prompt), prompt.strip()
    for mark in reversed(list(HEADING.finditer(chosen[: common_start(chosen, rejected)]))):
        before = marked_turns(chosen[: mark.start()])
        if mark[1] == "Assistant" and (before == asked or (before and before[-1] == Turn("User", start))):
            return before, chosen[mark.end() :], rejected[mark.end() :]
    better, worse = (behind_prompt(prompt, text) for text in (chosen, rejected))
    return None if better is None or worse is None else (asked, better, worse)


def conversation(prompt: list[Turn], chosen: list[Turn], rejected: list[Turn], prompt_is_chat: bool) -> list[Turn]:
    """Returns the turns before the answers. What both begin with is the prompt, unless a prompt in messages goes before
    it (as in TRL's `maybe_extract_prompt`). Raises Unfit if the answers diverge before the last turn."""
    start = min(common_start(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    if any(len(turns) - start != 1 or turns[-1].role != "Assistant" for turns in (chosen, rejected)):
        raise Unfit("different_context")
    shared = chosen[:start]
    repeated = shared[: len(prompt)] == prompt
    if repeated or (not prompt_is_chat and any(turn.role == "User" for turn in shared)):
        return shared
    return prompt + shared


def asks_another(row: Row, columns: Columns) -> bool:
    """Whether the prompt of a column is text that occurs nowhere in the conversation of the preferred answer, which has
    a question of its own."""
    prompt, name = plain(row.get(columns.inputs[0])), columns.target
    if columns.inputs[0] == name or not isinstance(prompt, str) or messages_in(prompt) is not None:
        return False
    try:
        turns = turns_in(row.get(name), "Assistant", name)
    except Unfit:
        return False
    asked = any(turn.role == "User" for turn in turns[:-1])
    return asked and all(prompt.strip() not in turn.text for turn in turns)


@dataclass(frozen=True)
class Preferences(Prompted):
    """Inputs are the prompt, the answer that was rejected and, where there is a third column, what the prompt is about;
    the target is the answer that was chosen. If the prompt column is the target, there is no column of prompts: both
    answers begin with the prompt."""

    column_flags: ClassVar[str] = "--prompt-column, --chosen-column and --rejected-column"

    def fits(self, columns: Columns, rows: list[Row]) -> bool:
        """Takes texts to begin with the prompt if all have marked turns, or if no other column could be the prompt."""
        answers = (columns.target, columns.inputs[1])
        if columns.inputs[0] != columns.target or any(messages_in(row.get(columns.target)) is not None for row in rows):
            return True
        pairs = ([row.get(name) for name in answers] for row in rows)
        starts = [a[: shared_text(a, b)] for a, b in pairs if isinstance(a, str) and isinstance(b, str)]
        alone = of_text(rows, [name for name in rows[0] if name not in answers]) is None
        return bool(starts) and all(start.strip() if alone else HEADING.search(start) for start in starts)

    def columns_of(self, rows: list[Row], target_needed: bool = True) -> Columns:
        """Also finds out whether the answers of most rows repeat the prompt of a column."""
        columns = super().columns_of(rows, target_needed)
        if columns.inputs[0] == columns.target:
            return columns
        texts = in_text(rows, columns.inputs[0], columns.target, columns.inputs[1])
        return columns._replace(repeated=repeats(behind(*cells) is not None for cells in texts))

    def example(self, id: int, row: Row, columns: Columns) -> Preference:
        about = target_cell(row, columns.inputs[2]) or "" if len(columns.inputs) > 2 else ""
        try:
            before = self.before(row, columns)
            asked, chosen, rejected = self._pair(row, columns)
            if not (asked and chosen.strip() and rejected.strip()):
                return Preference(id, "", "", "")
            said = dialogue(asked_before(before, [*asked, Turn("Assistant", chosen)]))
        except Unfit as reason:
            return Preference(id, "", "", "", unfit=str(reason))
        return Preference(id, said.instruction, chosen, rejected, lines(about, said.input))

    def _pair(self, row: Row, columns: Columns) -> tuple[list[Turn], str, str]:
        """Returns what is said before the answers, and the answers: chosen, rejected."""
        prompt, apart = columns.inputs[0], columns.inputs[0] != columns.target
        answers = (columns.target, columns.inputs[1])
        asked = turns_in(row.get(prompt), "User", prompt) if apart else []
        if any(messages_in(row.get(name)) is not None for name in answers):
            chosen, rejected = (turns_in(row.get(name), "Assistant", name) for name in answers)
            if not (chosen and rejected):
                return [], "", ""
            if not (chosen[-1].trained and rejected[-1].trained):
                raise Unfit("not_trained")
            context = max(chosen, rejected, key=len)[:-1]  # of an answer that stands alone beside a conversation
            chosen, rejected = (context + turns if len(turns) == 1 else turns for turns in (chosen, rejected))
            asked = conversation(asked, chosen, rejected, messages_in(row.get(prompt)) is not None)
            return asked, chosen[-1].text, rejected[-1].text
        better, worse = (text_cell(row, name) for name in answers)
        if not (better.strip() and worse.strip()):
            return [], "", ""
        if columns.repeated and asked and (found := behind(asked[-1].text, better, worse)):
            asked, better, worse = found
        elif apart and (messages_in(row.get(prompt)) is not None or not any(is_marked(turn.text) for turn in asked)):
            return asked, better, worse
        elif apart:
            asked = marked_turns(asked[-1].text)
        else:
            start = shared_text(better, worse)
            asked, better, worse = marked_turns(better[:start]), better[start:], worse[start:]
        if HEADING.search(better) or HEADING.search(worse):
            raise Unfit("different_context")
        return asked, better, worse

    def note_columns(self, rows: dict[str, list[Row]], used: Mapping[str, Columns], notes: list[str]) -> None:
        """Also adds a note if the prompt was found in the answers, or removed from them, or left for theirs."""
        prompt = short(next(iter(used.values())).inputs[0])
        if repeated := sum(columns.repeated for columns in used.values()):
            notes.append(
                f"both answers of {repeated:,} rows begin with the prompt of column {prompt}, and are read without it"
            )
        if others := sum(asks_another(row, columns) for name, columns in used.items() for row in rows[name]):
            notes.append(
                f"the answers of {others:,} rows are conversations in which the prompt of column {prompt} does not "
                "occur; they are read as they are, without it"
            )
        if any(columns.inputs[0] == columns.target for columns in used.values()):
            notes.append("there is no column of prompts: what both answers of a row begin with is its prompt")
        super().note_columns(rows, used, notes)

    def lacks(self, example: Preference, row: Row, columns: Columns) -> str:
        return example.unfit or ("" if example.prompt else "empty")

    def check(
        self, parts: Mapping[str, Sequence[Preference]], columns: Columns, place: Callable[[Preference], str]
    ) -> None:
        """Raises ValueError for pairs whose two answers are the same."""
        same = [e for part in parts.values() for e in part if e.chosen.rstrip() == e.rejected.rstrip()]
        if same:
            places = listed(map(place, same), quoted=False)
            raise ValueError(
                f"chosen and rejected answer are the same in {len(same):,} rows ({places}); such a pair prefers "
                "nothing: correct these rows, or remove them"
            )


@dataclass(frozen=True)
class Unpaired(Preferences):
    """Reads the better answer of a pair as a good one, the other as a bad one: examples 2 i and 2 i + 1 of row i."""

    def parts(
        self,
        rows: dict[str, list[Row]],
        skipped: Skipped,
        notes: list[str] | None = None,
        files: Files | None = None,
    ) -> dict[str, list[Any]]:
        def apart(pair: Preference) -> list[Rated]:
            both = zip(pair.records(), (True, False), strict=True)
            return [Rated(2 * e.id + (not good), e.instruction, e.input, e.response, good=good) for e, good in both]

        pairs = super().parts(rows, skipped, notes, files)
        return {name: [answer for pair in part for answer in apart(pair)] for name, part in pairs.items()}

    def remarks(self, splits: Mapping[str, Sequence[Any]], limited: bool = False) -> list[str]:
        return rating_notes(splits, limited) + super().remarks(splits, limited)
