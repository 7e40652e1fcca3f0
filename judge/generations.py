"""generations.jsonl of scripts/finetune_ift.py: what was asked, what was wanted, what was answered."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tasks import Instruction

FILE, JUDGE, RESULTS = "generations.jsonl", "judge.json", "results.json"
Text = Literal["response", "before"]


class Generation(NamedTuple):
    """`question.response` is the reference. The last three fields are None for answers of the base."""

    question: Instruction
    answer: str
    stopped: bool | None  # whether the model ended it by itself
    reference_loss: float | None  # nats, summed over the tokens of the reference
    reference_tokens: int | None


NO_ANSWER = "holds no answer (was the run made with --new-tokens 0?)"


def read_generations(path: Path, text: Text, flag: str) -> list[Generation]:
    """Reads `path`, a run folder or the file. Raises ValueError, naming flag and line, for whatever is wrong."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{flag} {path}: there is no {file.name}; give a run folder of finetune_ift or its {FILE}")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # Windows' editors write a mark before the text
    except UnicodeDecodeError as error:
        raise ValueError(f"{flag} {file}: not UTF-8 (byte {error.start})") from error
    found: dict[str, Generation] = {}  # by the text of the id, as judge.json has it
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
                if isinstance(row, dict) and "reference_loss" in row and "response" not in row:
                    raise ValueError(NO_ANSWER)
                generation = _generation(row, text)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{flag} {file}: line {number}: {error}") from error
            id = generation.question.id
            if (first := found.setdefault(str(id), generation)) is not generation:
                otherwise = " (as a number and as text)" * (first.question.id != id)
                raise ValueError(f"{flag} {file}: line {number}: id {id!r} is there twice{otherwise}")
    if not found:
        raise ValueError(f"{flag} {file}: {NO_ANSWER}")
    return list(found.values())


def _generation(row: Any, text: Text) -> Generation:
    if not isinstance(row, dict):
        raise ValueError("is not a record")
    row = {"input": "", "kind": ""} | {name: value for name, value in row.items() if value is not None}
    for name in ("instruction", "reference", text, "input", "kind"):
        if not isinstance(row.get(name), str):
            raise ValueError(f"has no text in {name!r}")
        row[name].encode()  # raises for half a character (a lone surrogate), which no server takes
    if type(row.get("id")) not in (int, str):
        raise ValueError("has no 'id'")
    str(row["id"]).encode()
    if not row["reference"].strip():
        raise ValueError("its 'reference' is empty; a judge compares with it")
    question = Instruction(row["id"], row["instruction"], row["input"], row["reference"], row["kind"])
    if text == "before":
        return Generation(question, row[text], None, None, None)
    stopped, loss, tokens = (row.get(name) for name in ("stopped", "reference_loss", "reference_tokens"))
    if type(stopped) not in (bool, type(None)):
        raise ValueError(f"'stopped' is {stopped!r}, not true or false")
    if loss is not None and not (type(loss) in (int, float) and 0 <= loss < math.inf):
        raise ValueError(f"'reference_loss' is {loss!r}, not a number of nats")
    if tokens is not None and not (type(tokens) is int and tokens >= 0):
        raise ValueError(f"'reference_tokens' is {tokens!r}, not a number of tokens")
    return Generation(question, row[text], stopped, loss, tokens)


def same_questions(ours: Sequence[Generation], others: Sequence[Generation], against: Path) -> list[Generation]:
    """Puts `others` into the order of `ours`. Raises ValueError unless both answer the same questions."""
    by_id = {other.question.id: other for other in others}
    asked = {one.question.id for one in ours}
    different = asked ^ by_id.keys()
    different |= {one.question.id for one in ours if one.question != by_id.get(one.question.id, one).question}
    if different:
        raise ValueError(
            f"--against {against}: answers other questions ({len(different)} of {len(asked | by_id.keys())} differ, "
            f"the first has id {min(different, key=str)}); both runs must be tested on the same records"
        )
    return [by_id[one.question.id] for one in ours]


def results_beside(generations: Path) -> dict[str, Any] | None:
    """Returns results.json of the run that the generations are of; None where there is none, or another program's.

    Raises ValueError for one that is damaged.
    """
    path = (generations if generations.is_dir() else generations.parent) / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); move it away, or copy it again") from error
    is_ours = isinstance(results, dict) and "script" in results and isinstance(results.get("judge", {}), dict)
    return results if is_ours else None
