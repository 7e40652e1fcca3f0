"""Decides what an exception of an SDK, its HTTP client or the clock means for a question and for the others.

What a server says is shown and stored without the key that it was sent.
"""

import os
import re
from typing import Any, Literal

KEYS = {"gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "openai": ("OPENAI_API_KEY",)}
AGAIN = {408, 409, 425, 429}
FOR_ALL = {401, 402, 403, 404}
# How OpenAI and others say, with a 429 or 400, that there is nothing left to pay with; waiting does not help.
NO_MONEY = re.compile("insufficient[_ ](?:quota|balance|funds)|billing_hard_limit", re.IGNORECASE)
LONGEST_MESSAGE, SHORTEST_KEY = 140, 8  # characters
REFUSED = {400, 422}
# Parameters of a request as an error may name them, and what to do about those that flags set.
REMEDIES = {
    "response_format": "add --judge-output text",
    "response_json_schema": "add --judge-output text",
    "response_mime_type": "add --judge-output text",
    "json mode": "add --judge-output text",
    "max_tokens": "leave out --reply-tokens",
    "max_completion_tokens": "change or leave out --reply-tokens",
    "max_output_tokens": "change or leave out --reply-tokens",
    "reasoning_effort": "change or leave out --reasoning-effort",
    "thinking": "change or leave out --thinking-tokens",
}
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
REQUIRED = re.compile(r"field required|is required|missing|must be (?:given|set|specified|provided)", re.IGNORECASE)
OTHER_MODEL = "choose another --judge-model"
# How an error says that the model never takes a parameter, not that its value is wrong this once.
UNSUPPORTED = re.compile(
    r"support|only|unknown|unrecogni[sz]ed|unexpected|not (?:permitted|allowed|accepted|available|enabled)|unavailable"
    r"|not one of|extra|deprecated|incompatible|cannot|can't|must be|invalid|positive|does not (?:take|accept)|use ",
    re.IGNORECASE,
)
OF_ONE_QUESTION = re.compile(r"context|too long|too large|exceed", re.IGNORECASE)


OF_ODD_SHAPE = (AttributeError, IndexError, KeyError, TypeError)  # what reading such a reply raises, in an SDK or here


class Failure(Exception):
    """A request without a reply.

    `kind`: again (may work a second time), item (this question will never work), unreachable (no server there), all
    (no question will work). `after`: seconds that the server asks to wait. `remedy`: what to change, without which the
    same command fails again.
    """

    def __init__(
        self,
        message: str,
        kind: Literal["again", "item", "unreachable", "all"],
        status: int | None = None,
        after: float = 0,
        remedy: str = "",
    ) -> None:
        super().__init__("; ".join(filter(None, [message, remedy])))
        self.kind, self.status, self.after, self.remedy = kind, status, after, remedy


class Refused(ValueError):
    """Raised when no question will work before the command is changed as the message says."""


def without_key(text: str) -> str:
    """Removes the key from a message: a server may repeat the key it was sent, and nobody else may read it."""
    for kind in KEYS:
        for name in KEYS[kind]:
            key = os.environ.get(name, "").strip()
            if len(key) >= SHORTEST_KEY:  # a server of one's own may take "x" for a key
                text = text.replace(key, f"[{name}]")
    return text


def _told(error: Exception) -> str:
    """Returns the message of the SDK, with what the server said if the SDK left it out (when it has no `message`)."""
    body, text = getattr(error, "body", None), str(error)
    return f"{text} - {body}" if body and text == f"Error code: {status_of(error)}" else text


def status_of(error: Exception) -> int | None:
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else None


def _words(error: Exception) -> str:
    return f"{getattr(error, 'code', '')} {_told(error)}"


def refused(error: Exception) -> str | None:
    """Returns the parameter that the model does not take according to an error; None for every other error."""
    found = UNSUPPORTED.search(_words(error)) and not _lacks_limit(error)
    return _parameter(error) if found else None


def _lacks_limit(error: Exception) -> bool:
    """Returns whether an error asks for a limit of the reply's tokens."""
    return _parameter(error) in LIMITS and REQUIRED.search(_words(error)) is not None


def _parameter(error: Exception) -> str | None:
    """Returns the parameter that an error is about, None where it names none."""
    text = _words(error)
    if status_of(error) not in REFUSED or OF_ONE_QUESTION.search(text):
        return None
    names = ("temperature", *REMEDIES)
    named = str(getattr(error, "param", None) or "")
    if named in names:
        return named
    places = {name: found.start() for name in names if (found := re.search(rf"(?<!\w){name}", _snake(text)))}
    return min(places, key=lambda name: places[name], default=None)


def _snake(text: str) -> str:
    """Spells names as most servers write them: max_output_tokens for Google's maxOutputTokens."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower()


def failure_of(error: Exception) -> Failure:
    """Returns what an exception of an SDK, its HTTP client or the clock means for the question and for the others."""
    import httpx2

    if isinstance(error, Failure):
        return error
    status = status_of(error)
    message = " ".join(without_key(_told(error)).split())[:LONGEST_MESSAGE]
    name = type(error.__cause__ or error).__name__
    if isinstance(error, OF_ODD_SHAPE):
        return Failure(f"a reply of odd shape ({name}: {message})", "again")
    if status is None:
        unreachable = httpx2.ConnectError, httpx2.ConnectTimeout
        missing = isinstance(error, unreachable) or isinstance(error.__cause__, unreachable)
        return Failure(f"{name} {message}".strip(), "unreachable" if missing else "again")
    of_all = status in FOR_ALL or NO_MONEY.search(f"{getattr(error, 'code', '')} {message}") is not None
    if (remedy := _remedy(error)) or of_all:
        return Failure(f"status {status}: {message}", "all", status, remedy=remedy)
    kind: Literal["again", "item"] = "again" if status in AGAIN or status >= 500 else "item"
    return Failure(f"status {status}: {message}", kind, status, _asked_to_wait(error))


def _remedy(error: Exception) -> str:
    """Returns what to change so that any question works; "" where that is not known."""
    status, kind = status_of(error), "openai" if type(error).__module__.startswith("openai") else "gemini"
    if status == 401 or "API_KEY_INVALID" in str(error):
        return f"set {' or '.join(KEYS[kind])} to a key that the server knows"
    if status == 404 and kind == "openai" and not re.search("model|deployment", _words(error), re.IGNORECASE):
        return "nothing is at this address: --judge-url usually ends in /v1"
    if _lacks_limit(error):
        return "add --reply-tokens, such as 512"
    parameter = refused(error)
    return REMEDIES.get(parameter or "", OTHER_MODEL) if parameter or status == 404 else ""


def _asked_to_wait(error: Exception) -> float:
    """Returns the seconds in the header Retry-After, or in Google's RetryInfo in the body ("37s"); 0 without either."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    found: Any = getattr(error, "details", None)
    for name in ("error", "details"):
        found = found.get(name) if isinstance(found, dict) else None
    delays = [d["retryDelay"] for d in found or () if isinstance(d, dict) and "retryDelay" in d]
    for text in (headers.get("retry-after"), *delays):
        try:
            return max(0.0, float(str(text).removesuffix("s")))
        except ValueError:  # none, or a date
            continue
    return 0.0
