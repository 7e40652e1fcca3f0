"""Reads a score or a choice from a judge's reply.

Models think aloud, fence their JSON, add words, or count out of ten. Each form below is unambiguous by itself. A number
that would have to be looked for in prose is no score, and a reply with two different verdicts has none.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from judge.prompts import TIE

# Why a reply gives no verdict. Blocked ones are counted apart, the others are unparsed.
BLOCKED, CUT_OFF, EMPTY, PROSE = "blocked", "cut off", "empty", "prose"
OUT_OF_RANGE, AMBIGUOUS = "out of range", "ambiguous"

THOUGHT = "think|thinking|thought|thoughts|reason|reasoning|analysis"
WHOLE_THOUGHT = re.compile(rf"<({THOUGHT})\b[^>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
END_OF_THOUGHT = re.compile(rf"</({THOUGHT})\s*>", re.IGNORECASE)  # some chat templates begin it in the prompt
START_OF_THOUGHT = re.compile(rf"<({THOUGHT})\b[^>]*>", re.IGNORECASE)
FENCE = re.compile(r"^[ \t]*(```|~~~)[ \t]*\w*[ \t]*$", re.MULTILINE)
STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')  # of JSON; braces in it say nothing
MARKUP = re.compile(r"[*_`#>\"]|\\boxed|[{}]|\[|\]")

LARGEST = 10**9  # a score that is out of range, as is any larger one, which may be too large for a float
NUMBER = r"([-+]?[0-9]+(?:\.[0-9]+)?)"
# 85, 85%, 85/100, 8 (out of 10), 85 points; with nothing after it that makes it a range or another number.
OF = r"(?:\s*%|\s*\(?\s*(?:/|(?:out\s+)?of)\s*([0-9]+)\)?)?(?:\s*points?)?"
ALONE = r"(?![^\W_]|[/%]|[.,][0-9]|\s*\(?\s*(?:-|\u2013|/|to|or|of|out)\s*[0-9])"
LABEL = r"(?:(?:the|my|final|overall|total)\s+)*(?:score|rating|grade)(?:\s*\([^)]*\))?\s*(?:is\b|:|=)\s*"
SCORE_LINE = re.compile(rf"^(?:{LABEL})?{NUMBER}{OF}[.!]?$", re.IGNORECASE)
LABELLED = re.compile(rf"^{LABEL}{NUMBER}{OF}{ALONE}", re.IGNORECASE)
OF_100 = re.compile(rf"^{NUMBER}\s*(?:/|out\s+of)\s*(100)(?=\s*[.:;(\u2013\u2014-])", re.IGNORECASE)

WHO = r"(?:(?:model\s+)?(?:response|answer)\s+)?(A|B|tie)"
CHOICE_LINE = re.compile(
    rf"^(?:(?:the\s+|my\s+|final\s+)*(?:winner|verdict|choice|answer|better(?:\s+(?:one|response|answer))?)\s*(?:is|:|=)\s*)?"
    rf"(?:it\s+is\s+a\s+)?{WHO}(?:\s+(?:is\s+(?:the\s+)?(?:better|best|winner)(?:\s+(?:one|response|answer))?|wins))?[.!]?$",
    re.IGNORECASE,
)  # fmt: skip


class Reply(NamedTuple):
    """What a server answered. `finish`: how it says that the reply ended, in its own word."""

    text: str
    end: Literal["stop", "cut off", "blocked"] = "stop"
    finish: str | None = None
    prompt_tokens: int | None = None
    reply_tokens: int | None = None


class Verdict(NamedTuple):
    """A score (0 to 100), or A, B or tie; else None and why."""

    value: int | float | str | None
    missing: str | None = None


Read = Callable[[Reply], Verdict]


def read_score(reply: Reply) -> Verdict:
    """Reads a number from 0 to 100 (85, 85.5, "85", 85/100, 8/10, 85%): the whole reply, the score of a JSON object, a
    line of its own, or what a line has after "Score:". Two different scores are none."""
    if missing := _nothing_to_read(reply):
        return Verdict(None, missing)
    text = _said(reply.text)
    if text is None or _breaks_off(text):
        return Verdict(None, PROSE if text is None else CUT_OFF)
    found = [*_scores_of_json(text)] or [*_scores_of_text(text)]
    values = {one for one in found if one is not None}
    if not found or len(values) < len({*found}):
        return Verdict(None, PROSE)
    if len(values) > 1:
        return Verdict(None, AMBIGUOUS)
    value = values.pop()
    return Verdict(int(value) if value == int(value) else value) if 0 <= value <= 100 else Verdict(None, OUT_OF_RANGE)


def read_choice(reply: Reply) -> Verdict:
    """Reads A, B or tie: the whole reply, the winner of a JSON object, or a line of its own; never two that differ."""
    if missing := _nothing_to_read(reply):
        return Verdict(None, missing)
    text = _said(reply.text)
    if text is None or _breaks_off(text):
        return Verdict(None, PROSE if text is None else CUT_OFF)
    named = [str(value) for value in _of_json(text, "winner")]
    lines = named or [line for line in _lines(text) if CHOICE_LINE.match(line)]
    found = {match[1].upper() if (match := CHOICE_LINE.match(line.strip())) else None for line in lines}
    if not found or None in found:
        return Verdict(None, PROSE)
    if len(found) > 1:
        return Verdict(None, AMBIGUOUS)
    word = found.pop()
    return Verdict(word if word in ("A", "B") else TIE)


def _nothing_to_read(reply: Reply) -> str | None:
    if reply.end != "stop":
        return reply.end
    return None if reply.text.strip() else EMPTY


def _said(text: str) -> str | None:
    """Returns the text after the thinking, without fences; None if it is all thinking, or thinking that never ends."""
    text = WHOLE_THOUGHT.sub("", text)
    text = END_OF_THOUGHT.split(text)[-1]
    if START_OF_THOUGHT.search(text) or not text.strip():
        return None
    return FENCE.sub("", text)


def _breaks_off(text: str) -> bool:
    """Whether JSON begins and does not end, whatever the server says: what {"score": 8 began may have been 85."""
    outside = STRING.sub("", text.strip())
    open_list = outside.startswith("[") and "]" not in outside
    return outside.count("{") > outside.count("}") or open_list or outside.startswith('"')


def _lines(text: str) -> list[str]:
    """Returns the lines without marks of bold type and headings, and without brackets."""
    return [line for one in text.splitlines() if (line := MARKUP.sub("", one).strip())]


def _of_json(text: str, name: str) -> Iterator[Any]:
    """Yields what every JSON object in the text has under `name`, in upper or lower case."""
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # RecursionError: ten thousand brackets
            end = start + 1
        else:
            yield from (value for key, value in found.items() if key.strip().lower() == name)
        start = text.find("{", end)


def _scores_of_json(text: str) -> Iterator[float | None]:
    """Yields the scores in JSON objects; None for one that is not a number."""
    for value in _of_json(text, "score"):
        if isinstance(value, str):
            yield _number(SCORE_LINE.match(value.strip()))
        else:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            yield float(max(min(value, LARGEST), -LARGEST)) if is_number else None


def _scores_of_text(text: str) -> Iterator[float | None]:
    for line in _lines(text):
        if match := SCORE_LINE.match(line) or LABELLED.match(line) or OF_100.match(line):
            yield _number(match)


def _number(match: re.Match[str] | None) -> float | None:
    """Returns the number as one out of 100; None for a number out of anything but 100 or 10."""
    if match is None or len(match[1]) > 20:
        return None
    whole = float(match[2] or 100)
    return float(match[1]) * 100 / whole if whole in (10, 100) else None
