"""Conversations -> an instruction, what was said before it, and the answer (docs/chat.md).

The last turn of the assistant is the answer, the last turn of the user before it the instruction. What else was said
comes as the input of the prompt, a turn a line, behind the names that a model of plain English knows. Example:

    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
     {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Who are you?"},
     {"role": "assistant", "content": "A program."}]

    ### Instruction:            ### Input:                  ### Response:
    Who are you?                System: Be brief.           A program.
                                User: Hi
                                Assistant: Hello!
"""

import ast
import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tasks._cells import kind_of, plain, short, spelled, writable

ROLES = dict.fromkeys(("system", "developer"), "System")
ROLES |= dict.fromkeys(("user", "human", "prompter"), "User")
ROLES |= dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bard", "bing"), "Assistant")
TOOLS = {"tool", "tool_call", "tool_calls", "tool_response", "function", "function_call", "observation", "ipython"}
KEYS = {"role", "from", "content", "value", "tool_calls", "function_call"}  # of a message, that are looked at
WEIGHTS = ("weight", "train", "training", "loss")  # of a message: 0 or false where it is not to be trained on
HEADING = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")  # how Anthropic's hh-rlhf writes a conversation


class Unfit(Exception):
    """A conversation that is not one of text between user and assistant; the error is its count of `Skipped`."""


class Turn(NamedTuple):
    role: str  # System, User or Assistant
    text: str
    trained: bool = True  # off where it is marked as none to learn


class Dialogue(NamedTuple):
    """`response` is None where the user has the last word."""

    instruction: str
    input: str
    response: str | None


def messages_in(cell: Any) -> list[dict[str, Any]] | None:
    """The messages of a cell: a list of records, one record, a record of lists (as `datasets` writes it), or the text
    of a list (as csv files have it). None for a cell that holds something else."""
    cell, needed = plain(cell), [{"role"}, {"from"}]
    if isinstance(cell, str):  # an answer can be JSON too, so that more is asked of a text
        cell = _parsed(cell) if cell.lstrip().startswith("[{") else None
        needed = [{"role", "content"}, {"from", "value"}]
    if isinstance(cell, dict):
        lists = all(isinstance(value, list) for value in cell.values()) and len({*map(len, cell.values())}) == 1
        cell = [dict(zip(cell, row, strict=True)) for row in zip(*cell.values(), strict=True)] if lists else [cell]
    if not isinstance(cell, list) or not all(isinstance(m, dict) and any(n <= m.keys() for n in needed) for m in cell):
        return None
    return cell


def _parsed(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):  # what pandas writes into a csv file is Python's spelling
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return read(text)
    return None


def _text(content: Any, column: str, id: int) -> str:
    """The text of a message, which can have several parts."""
    if isinstance(content, list):
        kinds = {str(part.get("type", "text")) if isinstance(part, dict) else "text" for part in content}
        if kinds - {"text"}:
            raise Unfit("images")
        return "\n".join(_text(part.get("text") if isinstance(part, dict) else part, column, id) for part in content)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"column {short(column)}: row {id} has a message that holds {kind_of(content)}, not text")
    return writable(content or "")


def _turn(message: Mapping[str, Any], column: str, id: int) -> Turn:
    name = message.get("role") or message.get("from")
    known = name.strip().casefold() if isinstance(name, str) else ""
    if known in TOOLS or message.get("tool_calls") or message.get("function_call"):
        raise Unfit("tool_calls")
    if known not in ROLES:
        raise ValueError(
            f"column {short(column)}: row {id} has a message by {short(str(name))}; known are system, user and "
            "assistant (developer, human, gpt, bot, model)"
        )
    weights = (plain(message.get(key)) for key in WEIGHTS)  # OpenAI's, axolotl's and its usual setting's, ms-swift's
    trained = all(str(spelled(weight) or weight).casefold() not in ("0", "false") for weight in weights)
    return Turn(ROLES[known], _text(message.get("content", message.get("value")), column, id), trained)


def _wanted(cell: Any, role: str) -> str:
    """What a cell should hold, with the keys of messages and those that are there instead."""
    if role:
        return "text"
    records = [message for message in cell if isinstance(message, dict)] if isinstance(cell, list) else []
    keys = [short(str(key)) for key in dict.fromkeys(key for record in records for key in record)]
    found = f"; its keys are {', '.join(keys[:4])}" if keys else ""
    return f"a list of messages, each with the keys role and content, or from and value{found}"


def turns_in(cell: Any, role: str, column: str, id: int) -> list[Turn]:
    """The turns of a cell of messages; plain text, or a number, is one turn by `role`. Raises ValueError for others."""
    messages = messages_in(cell)
    if messages is not None:
        return [turn for message in messages if (turn := _turn(message, column, id)).text.strip()]
    text = plain(cell)
    text = (spelled(text) if role else None) or text
    if text is None or (isinstance(text, str) and not text.strip()):
        return []
    if not isinstance(text, str) or not role:
        raise ValueError(f"column {short(column)}: row {id} holds {kind_of(text)}, not {_wanted(text, role)}")
    return [Turn(role, writable(text))]


def marked_turns(text: str) -> list[Turn]:
    """The turns of a text in which they are marked; without marks it is the user's."""
    first, *rest = HEADING.split(text)  # text before the first mark, then mark and text in turn
    named = zip(rest[::2], rest[1::2], strict=True)
    turns = [Turn("System" if rest else "User", first), *(Turn(ROLES[name.casefold()], said) for name, said in named)]
    return [turn for turn in turns if turn.text.strip()]


def is_marked(text: str) -> bool:
    """Whether a text has turns of a user that are marked."""
    return any(mark[1] == "Human" for mark in HEADING.finditer(text))


def dialogue(turns: Sequence[Turn]) -> Dialogue:
    """Raises Unfit when nobody asks anything, or the answer is not to be trained on."""
    if turns and turns[-1].role == "Assistant" and not turns[-1].trained:
        raise Unfit("not_trained")
    response = turns[-1].text if turns and turns[-1].role == "Assistant" else None
    before = list(turns if response is None else turns[:-1])
    asked = [i for i, turn in enumerate(before) if turn.role == "User"]
    if turns and not asked:
        raise Unfit("no_question")
    instruction = before.pop(asked[-1]).text if asked else ""
    return Dialogue(instruction, "\n".join(f"{turn.role}: {turn.text}" for turn in before), response)


def common_start(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """How far two answers are the same: of lists in messages, of texts in characters (as TRL's `extract_prompt`)."""
    for i, (one, other) in enumerate(zip(chosen, rejected, strict=False)):
        if one != other:
            return i
    return min(len(chosen), len(rejected))


def unused_keys(cells: Iterable[Any]) -> list[str]:
    """Keys of messages that hold something and are not looked at, such as a name, or an earlier answer's weight."""
    found: dict[str, None] = {}
    for messages in map(messages_in, cells):
        for after, message in enumerate(messages or [], 1 - len(messages or [])):
            read = KEYS if after else KEYS.union(WEIGHTS)  # a weight of the last message is heeded
            found |= {k: None for k, value in message.items() if k not in read and value not in (None, "", [], {})}
    return list(found)
