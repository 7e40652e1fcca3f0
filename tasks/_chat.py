"""Turns a conversation into an instruction, what was said before it, and the answer (docs/chat.md).

If the assistant has the last turn, that is the answer; the last turn of the user before it is the instruction. All else
that was said becomes the input of the prompt, one turn per line after a plain English name of its speaker. Example:

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

from tasks._cells import NoText, kind_of, plain, short, spelled, visible_text

ROLES = dict.fromkeys(("system", "developer"), "System")
ROLES |= dict.fromkeys(("user", "human", "prompter"), "User")
ROLES |= dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bard", "bing"), "Assistant")
TOOLS = {"tool", "tool_call", "tool_calls", "tool_response", "function", "function_call", "observation", "ipython"}
TEXTS = {"text", "input_text", "output_text"}  # types of the parts of a message
THOUGHTS = {"thinking", "redacted_thinking", "reasoning"}
CALLS = re.compile(r".*tool_(use|result|call)s?|function_call(_output)?")
MEDIA = re.compile(".*(image|audio|video).*")
KEYS = {"role", "from", "content", "value", "tool_calls", "function_call"}  # the keys of a message that are read
WEIGHTS = ("weight", "train", "training", "loss")  # keys that hold 0 or false if a message is not to be trained on
RECORDS = re.compile(r"\s*\[\s*\{")
MESSAGES = re.compile(RECORDS.pattern + r"\s*['\"](role|from|content|value)['\"]\s*:")
HEADING = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")  # how Anthropic's hh-rlhf writes a conversation


class Unfit(Exception):
    """Raised for a conversation that cannot be trained on; the message is the field of `Skipped` that counts it."""


class Turn(NamedTuple):
    role: str  # System, User or Assistant
    text: str
    trained: bool = True  # False if the message is marked as not to be trained on


class Dialogue(NamedTuple):
    """`response` is None if the assistant does not have the last word."""

    instruction: str
    input: str
    response: str | None


def messages_in(cell: Any) -> list[dict[str, Any]] | None:
    """Returns the messages of a cell: a list of records, one record, a record of lists (as `datasets` writes it), or
    the text of a list (as csv files have it). None for a cell that holds something else. Raises ValueError for the text
    of messages that cannot be read."""
    cell, needed = plain(cell), [{"role"}, {"from"}]
    if isinstance(cell, str):  # an answer can be JSON too, so both keys of a message are needed
        written, cell = cell, _parsed(cell) if RECORDS.match(cell) else None
        if cell is None and MESSAGES.match(written):
            raise ValueError(
                f"holds messages that cannot be read: {written[:40]!r}... (as numpy writes them, or cut short); "
                "save the data as jsonl or parquet"
            )
        needed = [{"role", "content"}, {"from", "value"}]
    if isinstance(cell, dict):
        lists = all(isinstance(value, list) for value in cell.values()) and len({*map(len, cell.values())}) == 1
        cell = [dict(zip(cell, row, strict=True)) for row in zip(*cell.values(), strict=True)] if lists else [cell]
    if not isinstance(cell, list) or not all(isinstance(m, dict) and any(n <= m.keys() for n in needed) for m in cell):
        return None
    return cell


def _parsed(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):  # pandas writes Python's spelling into a csv file
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return read(text)
    return None


def _type(part: Any) -> str:
    """Returns the type of a part of a message; "text" where it says none."""
    return str(part.get("type") or "text") if isinstance(part, dict) else "text"


def _check_type(kind: str, column: str) -> None:
    """Raises Unfit for a tool's part of a message and for media, ValueError for a type of part that is not known."""
    if CALLS.fullmatch(kind) or MEDIA.fullmatch(kind):
        raise Unfit("tool_calls" if CALLS.fullmatch(kind) else "images")
    if kind not in TEXTS:
        raise ValueError(
            f"column {short(column)} has a message with a part of type {short(kind)}, which is not known; make it one "
            "of type text, or take it out"
        )


def _text(content: Any, column: str) -> str:
    """Returns the text of a message, which can have several parts; thoughts are left out. Raises what `_check_type`
    raises, and NoText."""
    if isinstance(content, list):
        said = [part for part in content if _type(part) not in THOUGHTS]
        for kind in dict.fromkeys(map(_type, said)):
            _check_type(kind, column)
        return "\n".join(_text(part.get("text") if isinstance(part, dict) else part, column) for part in said)
    if content is not None and not isinstance(content, str):
        raise NoText(f"column {short(column)} has a message that holds {kind_of(content)}, not text")
    return visible_text(content or "")


def _turn(message: Mapping[str, Any], column: str) -> Turn:
    name = message.get("role") or message.get("from")
    known = name.strip().casefold() if isinstance(name, str) else ""
    if known in TOOLS or message.get("tool_calls") or message.get("function_call"):
        raise Unfit("tool_calls")
    if known not in ROLES:
        raise ValueError(
            f"column {short(column)} has a message by {short(str(name))}; known roles are system, user and "
            "assistant (developer, human, gpt, bot, model)"
        )
    weights = [plain(message[key]) for key in WEIGHTS if key in message]  # OpenAI's, two of axolotl's, ms-swift's
    trained = all(str(spelled(weight) or weight).casefold() not in ("0", "false") for weight in weights)
    said = message.get("content")  # null beside `value` where two spellings were put together
    return Turn(ROLES[known], _text(message.get("value") if said is None else said, column), trained)


def _wanted(cell: Any, role: str) -> str:
    """Says what a cell should hold and, if it holds other records, which keys they have."""
    if role:
        return "text"
    records = [message for message in cell if isinstance(message, dict)] if isinstance(cell, list) else []
    keys = [short(str(key)) for key in dict.fromkeys(key for record in records for key in record)]
    found = f"; its keys are {', '.join(keys[:4])}" if keys else ""
    return f"a list of messages, each with the keys role and content, or from and value{found}"


def turns_in(cell: Any, role: str, column: str) -> list[Turn]:
    """Returns the turns in a cell; plain text, or a number, is one turn by `role`. Raises NoText for others."""
    messages = messages_in(cell)
    if messages is not None:
        return [turn for message in messages if (turn := _turn(message, column)).text.strip()]
    text = plain(cell)
    text = (spelled(text) if role else None) or text
    if text is None or (isinstance(text, str) and not text.strip()):
        return []
    if not isinstance(text, str) or not role:
        raise NoText(f"column {short(column)} holds {kind_of(text)}, not {_wanted(text, role)}")
    return [Turn(role, visible_text(text))]


def marked_turns(text: str) -> list[Turn]:
    """Splits a text at the marks of its turns; a text without marks is one turn of the user."""
    first, *rest = HEADING.split(text)  # text before the first mark, then mark and text in turn
    named = zip(rest[::2], rest[1::2], strict=True)
    turns = [Turn("System" if rest else "User", first), *(Turn(ROLES[name.casefold()], said) for name, said in named)]
    return [turn for turn in turns if turn.text.strip()]


def behind_prompt(prompt: str, answer: str) -> str | None:
    """Returns what follows the prompt in an answer that repeats it; None if it does not."""
    start, text = prompt.strip(), answer.lstrip()
    rest = text[len(start) :]
    if not text.startswith(start) or (rest[:1].isalnum() and start[-1:].isalnum()):
        return None
    return rest[1:] if rest.startswith(" ") else rest.lstrip("\n")


def asked_before(asked: Sequence[Turn], answered: Sequence[Turn]) -> list[Turn]:
    """Returns the turns of a conversation with those that are asked before it, unless it repeats them itself."""
    places = range(len(answered) - len(asked))
    repeated = any([*answered[place : place + len(asked)]] == [*asked] for place in places)
    return [*answered] if repeated else [*asked, *answered]


def is_marked(text: str) -> bool:
    """Whether a text has a marked turn of the user."""
    return any(mark[1] == "Human" for mark in HEADING.finditer(text))


def dialogue(turns: Sequence[Turn]) -> Dialogue:
    """Makes a dialogue of turns. Raises Unfit when nobody asks anything, or the answer is not to be trained on."""
    if turns and turns[-1].role == "Assistant" and not turns[-1].trained:
        raise Unfit("not_trained")
    response = turns[-1].text if turns and turns[-1].role == "Assistant" else None
    before = list(turns if response is None else turns[:-1])
    asked = [i for i, turn in enumerate(before) if turn.role == "User"]
    if turns and not asked:
        raise Unfit("no_question")
    instruction = before.pop(asked[-1]).text if asked else ""
    return Dialogue(instruction, "\n".join(f"{turn.role}: {turn.text}" for turn in before), response)


def earlier_answers(cell: Any, column: str) -> int:
    """Counts the answers of a conversation before the one that is trained on; 0 if there is none."""
    try:
        turns = turns_in(cell, "", column)
        answered = dialogue(turns).response is not None
    except Unfit:
        return 0
    return sum(turn.role == "Assistant" for turn in turns[:-1]) if answered else 0


def common_start(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """Counts the messages, or the characters of text, at the start that two answers share (TRL's `extract_prompt`)."""
    for i, (one, other) in enumerate(zip(chosen, rejected, strict=False)):
        if one != other:
            return i
    return min(len(chosen), len(rejected))


def unused_keys(cells: Iterable[Any]) -> list[str]:
    """Lists keys of messages that hold something and are not read, such as a name, or an earlier answer's weight, and
    types of parts that are not."""
    found: dict[str, None] = {}
    for messages in map(messages_in, cells):
        for after, message in enumerate(messages or [], 1 - len(messages or [])):
            read = KEYS if after else KEYS.union(WEIGHTS)  # a weight of the last message is heeded
            found |= {k: None for k, value in message.items() if k not in read and value not in (None, "", [], {})}
            parts = message.get("content")
            kinds = map(_type, parts if isinstance(parts, list) else [])
            found |= dict.fromkeys(kind for kind in kinds if kind in THOUGHTS)
    return list(found)
