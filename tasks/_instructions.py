"""A task of prompts with a response, from columns of text or from conversations."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tasks._cells import listed, plain, short, spelled, target_cell
from tasks._chat import (
    Turn,
    Unfit,
    asked_before,
    behind_prompt,
    dialogue,
    earlier_answers,
    is_marked,
    marked_turns,
    messages_in,
    turns_in,
)
from tasks._columns import RESPONSES, Columns
from tasks._examples import Instruction
from tasks._files import Row
from tasks._labels import likeness
from tasks._prompted import Prompted, in_text, lines, repeats, transcript

MANY = 0.05  # of the rows
FEW = 10  # rows, which may have one prompt by chance
MARK = "label"  # the column of TRL's unpaired preferences that says whether the completion is a good one


def _marked_bad(rows: Mapping[str, Sequence[Row]], columns: Columns) -> int:
    """Counts the rows that MARK calls bad: false, as whatever a file spells it, or 0 beside a completion."""
    cells = (plain(row.get(MARK)) for part in rows.values() for row in part)
    marks = Counter(likeness(spelled(cell) or str(cell)) for cell in cells if cell not in (None, ""))
    rated = marks.keys() <= {"true", "false"} or (marks.keys() <= {"0", "1"} and "completion" in columns.used)
    return marks["false"] + marks["0"] if rated else 0


def _apart(rows: Sequence[Row], names: Iterable[str]) -> str | None:
    """Returns the first of these columns that has a text of several words of its own in most rows, None if none has."""
    for name in names:
        texts = {cell for row in rows if isinstance(cell := row.get(name), str) and len(cell.split()) > 1}
        if 2 * len(texts) > len(rows):
            return name
    return None


@dataclass(frozen=True)
class Instructions(Prompted):
    """Inputs are the instruction and, where there is a second column, what it is about.

    `fixed_columns` names two further columns of a bundled file: the kind of a record and the split it belongs to.
    """

    column_flags: ClassVar[str] = "--prompt-column, --input-column and --response-column"

    def columns_of(self, rows: list[Row], target_needed: bool = True) -> Columns:
        """Also finds out whether the answers of most rows repeat the prompt."""
        columns = super().columns_of(rows, target_needed)
        if target_needed:
            self._refuse_second_form(columns, rows)
        if columns.inputs[0] == columns.target:
            return columns
        texts = in_text(rows, columns.inputs[0], columns.target)
        return columns._replace(repeated=repeats(bool(behind_prompt(*cells)) for cells in texts))

    def _refuse_second_form(self, columns: Columns, rows: list[Row]) -> None:
        """Raises ValueError where many rows lack prompt or answer in these columns and have both in others."""

        def filled(row: Row, form: Columns) -> bool:
            return all(plain(row.get(name)) not in (None, "") for name in (form.inputs[0], form.target))

        lacking = [row for row in rows if not filled(row, columns)]
        for other in self.columns if len(lacking) > MANY * len(rows) else ():
            if (found := sum(filled(row, other) for row in lacking)) > MANY * len(rows):
                theirs, ours = (listed(dict.fromkeys((form.inputs[0], form.target))) for form in (other, columns))
                raise ValueError(
                    f"{found:,} of {len(rows):,} rows have {theirs} and lack {ours}; give all rows the same columns, "
                    f"or name those to be read with {self.column_flags}"
                )

    def example(self, id: int, row: Row, columns: Columns) -> Instruction:
        prompt, target, kind = columns.inputs[0], columns.target, self._fixed(row, 0)
        about = target_cell(row, columns.inputs[1]) or "" if len(columns.inputs) > 1 else ""
        try:
            before = self.before(row, columns)
            if prompt != target and not any(messages_in(row.get(name)) is not None for name in (prompt, target)):
                instruction, response = target_cell(row, prompt) or "", target_cell(row, target) or ""
                rest = behind_prompt(instruction, response) if columns.repeated else None
                response = response if rest is None else rest
                if is_marked(instruction):
                    said = dialogue([*before, *marked_turns(instruction), Turn("Assistant", response)])
                    instruction, about = said.instruction, lines(said.input, about)
                else:
                    about = lines(transcript(before), about)
                return Instruction(id, instruction, about, response if response.strip() else None, kind)
            asked = turns_in(row.get(prompt), "User" if prompt != target else "", prompt)
            answered = turns_in(row.get(target), "Assistant", target) if prompt != target else []
            said = dialogue(asked_before(before, asked_before(asked, answered)))
            return Instruction(id, said.instruction, lines(about, said.input), said.response, kind)
        except Unfit as reason:
            return Instruction(id, "", kind=kind, unfit=str(reason))

    def lacks(self, example: Instruction, row: Row, columns: Columns) -> str:
        if not example.unfit and not (example.instruction.strip() or example.input.strip()):
            return "empty"
        return example.unfit or ("" if example.response else "unlabelled")

    def note_columns(self, rows: dict[str, list[Row]], used: Mapping[str, Columns], notes: list[str]) -> None:
        """Adds the usual notes, counts answers that are not trained on and prompts that are read otherwise than they
        stand. Also raises ValueError if some answers are marked as bad, or if texts that tell equal prompts apart are
        not read."""
        super().note_columns(rows, used, notes)
        prompt = next(iter(used.values())).inputs[0]
        if repeated := sum(columns.repeated for columns in used.values()):
            notes.append(
                f"the answers of {repeated:,} rows begin with the prompt of column {short(prompt)}, and are read "
                "without it"
            )
        texts = [text for name in used for row in rows[name] if isinstance(text := row.get(prompt), str)]
        if marked := sum(map(is_marked, texts)):
            notes.append(f"{marked:,} prompts are marked with Human: and Assistant:, and are read as conversations")
        if self.usual_columns and self.about:
            self._refuse_one_prompt([row for name in used for row in rows[name]], next(iter(used.values())))
        talks = [(row.get(form.target), form) for name, form in used.items() for row in rows[name]]
        earlier = [earlier_answers(cell, form.target) for cell, form in talks if form.target in form.inputs]
        if any(earlier):
            notes.append(
                f"{sum(earlier):,} earlier answers in {sum(map(bool, earlier)):,} conversations are context, not "
                "targets: only the last answer of a row is trained on; to train on others too, add a row for each"
            )
        unused = all(MARK not in columns.used for columns in used.values())
        bad = _marked_bad(rows, next(iter(used.values()))) if unused else 0
        if bad:
            raise ValueError(
                f"column {MARK!r} is false or 0 in {bad:,} rows, which marks answers as bad (TRL's unpaired "
                "preferences), and this script would train on them; keep the rows where it is true, or leave the "
                "column out"
            )

    def _refuse_one_prompt(self, rows: Sequence[Row], columns: Columns) -> None:
        """Raises ValueError if most rows have one prompt, and a column that is not read has texts to tell them apart:
        the instruction is always "Summarize", and what to summarise stands in a column of no usual name."""
        prompts = [tuple(str(plain(row.get(name)) or "") for name in columns.inputs) for row in rows]
        prompt, count = Counter(prompts).most_common(1)[0]
        alike = [row for row, own in zip(rows, prompts, strict=True) if own == prompt]
        others = (name for name in rows[0] if name not in columns.used and name not in RESPONSES)
        if count > max(FEW, len(rows) / 2) and any(prompt) and (name := _apart(alike, others)):
            raise ValueError(
                f"column {listed(columns.inputs)} is the same in {count:,} of {len(rows):,} rows, and column "
                f"{short(name)}, in which they differ, is not read; --input-column {name[:40]} reads it, "
                "--input-column '' does without"
            )

    def remarks(self, splits: Mapping[str, Sequence[Any]], limited: bool = False) -> list[str]:
        """Notes that prompts recur, which can be meant, or means that a column that tells them apart is not read."""
        examples = [e for part in splits.values() for e in part]
        prompts = len({e.group for e in examples})
        if prompts == len(examples):
            return []
        return [f"{len(examples):,} examples have {prompts:,} different prompts: all responses to a prompt are kept"]

    def part_of(self, row: Row) -> str | None:
        return "test" if self._fixed(row, 1) == "test" else None

    def _fixed(self, row: Row, which: int) -> str:
        return (row.get(self.fixed_columns[which]) or "") if self.fixed_columns else ""
