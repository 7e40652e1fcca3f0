"""Turns replies into what a judge says of a run: counts of what is missing, mean score or win rate with intervals."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evidence.intervals import bounded_mean, share
from judge.measures import variance_components
from judge.prompts import TIE
from judge.questions import ORDERS, Question
from judge.store import Key
from judge.verdicts import BLOCKED

Replies = Mapping[Key, Mapping[str, Any]]


def counts(questions: Sequence[Question], model: str, replies: Replies) -> dict[str, Any]:
    """Counts questions: asked = parsed + unparsed + blocked + failed. The `failed` ones have no reply."""
    found = [replies.get(question.key(model)) for question in questions]
    why = Counter(reply["missing"] for reply in found if reply is not None and reply["missing"] is not None)
    blocked, failed = why.pop(BLOCKED, 0), sum(reply is None for reply in found)
    unparsed = sum(why.values())
    parsed = len(found) - unparsed - blocked - failed
    return {
        "asked": len(found),
        "parsed": parsed,
        "unparsed": unparsed,
        "why_unparsed": dict(sorted(why.items())),
        "blocked": blocked,
        "failed": failed,
    }


def tokens_of(questions: Sequence[Question], model: str, replies: Replies) -> dict[str, int] | None:
    """Counts the tokens in all prompts and replies, as the server reported them; None if it did not."""
    found = [reply for question in questions if (reply := replies.get(question.key(model))) is not None]
    if not any(reply.get("prompt_tokens") for reply in found):
        return None
    columns = {"prompts": "prompt_tokens", "replies": "reply_tokens"}
    return {name: sum(reply.get(column) or 0 for reply in found) for name, column in columns.items()}


def scored(
    items: Sequence[Any], questions: Sequence[Question], model: str, replies: Replies
) -> tuple[dict, np.ndarray]:
    """Returns the entry for results.json, with the mean score and that of each item that has one, and the latter as
    (n,), nan where an item has none. `if_missing` is the mean if all items without a score had 0, and if they had 100.
    """
    by_item: dict[Any, list[float]] = defaultdict(list)
    for question in questions:
        reply = replies.get(question.key(model))
        if reply is not None and reply["value"] is not None:
            by_item[question.item].append(float(reply["value"]))
    values = np.array([np.mean(by_item[item]) if item in by_item else np.nan for item in items])
    known = values[np.isfinite(values)]
    found: dict[str, Any] = {"items": len(items)}
    found["scores"] = {str(item): float(np.mean(by_item[item])) for item in items if item in by_item}
    if len(known):
        found["score"] = bounded_mean(known, 100).entry()
        extremes = (float(np.nan_to_num(values, nan=worst).mean()) for worst in (0.0, 100.0))
        found["if_missing"] = dict(zip(("low", "high"), extremes, strict=True))
        found["variance"] = variance_components([by_item[item] for item in items])
    return {name: value for name, value in found.items() if value is not None}, values


def preference(verdicts: Mapping[str, str]) -> float | None:
    """Returns 1 for ours, 0 for theirs, 0.5 if a verdict is a tie or the two orders disagree; None unless both orders
    have a verdict. `verdicts`: A, B or tie, by whose answer was A."""
    if set(verdicts) != set(ORDERS):
        return None
    for_ours = {verdicts["ours"] == "A", verdicts["theirs"] == "B"}
    if TIE in verdicts.values() or len(for_ours) == 2:
        return 0.5
    return float(for_ours.pop())


def compared(
    items: Sequence[Any], questions: Sequence[Question], model: str, replies: Replies
) -> tuple[dict, np.ndarray]:
    """Returns the entry for results.json, with the win rate of ours (a tie counts half), and each mean preference (n,),
    nan for an item without one. `first_position`: the share of A among verdicts that are no tie, 0.5 without a bias."""
    pairs: dict[tuple[Any, int], dict[str, str]] = defaultdict(dict)
    for question in questions:
        reply = replies.get(question.key(model))
        if reply is not None and reply["value"] is not None:
            pairs[question.item, question.repeat][question.order] = reply["value"]
    by_item: dict[Any, list[float]] = defaultdict(list)
    for (item, _), verdicts in pairs.items():
        if (one := preference(verdicts)) is not None:
            by_item[item].append(one)
    values = np.array([np.mean(by_item[item]) if item in by_item else np.nan for item in items])
    known = values[np.isfinite(values)]
    found: dict[str, Any] = {"items": len(items)}
    if len(known):
        outcomes = Counter(one for item in by_item.values() for one in item)
        found["win_rate"] = share(known).entry()
        found |= {"wins": outcomes[1.0], "ties": outcomes[0.5], "losses": outcomes[0.0]}
    chosen = [float(v == "A") for verdicts in pairs.values() for v in verdicts.values() if v != TIE]
    if chosen:
        found["first_position"] = float(np.mean(chosen))
    return found, values
