"""A judge's reply -> a score or a choice, read strictly: a number that has to be looked for in prose is no score."""

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from judge.prompts import TIE

# Why a reply gives no verdict, beside one that is cut off. Blocked ones are counted apart, the others are unparsed.
BLOCKED, EMPTY, PROSE, OUT_OF_RANGE = "blocked", "empty", "prose", "out of range"


class Reply(NamedTuple):
    """What a server answered. `finish`: how it says that the reply ended, in its own word."""

    text: str
    end: Literal["stop", "cut off", "blocked"] = "stop"
    finish: str | None = None
    prompt_tokens: int | None = None
    reply_tokens: int | None = None


class Verdict(NamedTuple):
    """A score (0 to 100), or A, B or tie; else None and why."""

    value: int | str | None
    missing: str | None = None


Read = Callable[[Reply], Verdict]


def read_score(reply: Reply) -> Verdict:
    """An integer from 0 to 100, alone or as {"score": 85}, and nothing else. The end of a cut number may be missing."""
    if missing := _nothing_to_read(reply):
        return Verdict(None, missing)
    value = _json(reply.text)
    if isinstance(value, dict) and value.keys() == {"score"}:
        value = value["score"]
    if type(value) is not int:
        return Verdict(None, PROSE)
    return Verdict(value) if 0 <= value <= 100 else Verdict(None, OUT_OF_RANGE)


def read_choice(reply: Reply) -> Verdict:
    """A, B or tie, alone or as {"winner": "A"}, and nothing else."""
    if missing := _nothing_to_read(reply):
        return Verdict(None, missing)
    value = _json(reply.text)
    if isinstance(value, dict) and value.keys() == {"winner"}:
        value = value["winner"]
    word = value if isinstance(value, str) else reply.text.strip()
    if word in ("A", "B"):
        return Verdict(word)
    return Verdict(TIE) if word.lower() == TIE else Verdict(None, PROSE)


def _nothing_to_read(reply: Reply) -> str | None:
    if reply.end != "stop":
        return reply.end
    return None if reply.text.strip() else EMPTY


def _json(text: str) -> Any:
    """What the text is in JSON; None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: ten thousand brackets
        return None
