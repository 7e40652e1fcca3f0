"""Finds the heads of a base: training goes on from a class head of the same classes; a note names unused heads."""

import json
from collections.abc import Sequence
from pathlib import Path

from gpt2_scratch.config import class_names
from gpt2_scratch.pretrained import has_bias, heads_in
from gpt2_scratch.weights import has_weights
from tasks import folded
from tasks._cells import listed

WORDS = {"score": "class head", "classifier": "token classification head", "v_head": "value head"}
WORDS |= {"multiple_choice_head": "multiple choice head", "qa_outputs": "question answering head"}


def names_in(folder: Path) -> tuple[str, ...]:
    """Returns the names of the classes in config.json; none where it has none, or none by number."""
    try:
        return class_names(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        return ()


def trained_rows(folder: Path, classes: Sequence[str], bias: bool = False) -> list[int] | None:
    """Returns for each of `classes` its row in the folder's class head; None if that is missing or has other classes.

    LABEL_0 and the like are not names, so they match nothing. A head with a bias is none for one without (`bias` off).
    """
    if not has_weights(folder) or "score" not in heads_in(folder):
        return None
    theirs = [folded(name) for name in names_in(folder)]
    wanted = [folded(name) for name in classes]
    if sorted(theirs) != sorted(wanted) or len(set(wanted)) < len(wanted) or wanted[0].startswith("LABEL_"):
        return None
    if has_bias(folder) and not bias:
        return None
    return [theirs.index(name) for name in wanted]


def head_notes(folder: Path, classes: Sequence[str] | None = None, used: bool = False) -> list[str]:
    """Returns notes on the heads in the folder. `classes` is None where a language model is trained."""
    if not has_weights(folder):
        return []  # a dry run leaves weights on the hub
    notes = []
    for head in heads_in(folder):
        if head == "score" and used:
            notes.append("training goes on from the class head of the model, whose classes are the same")
        elif head == "score" and classes is not None and trained_rows(folder, classes, bias=True) is not None:
            notes.append("the model's class head is not used: it has a bias (--head-bias goes on from it)")
        elif head == "score" and classes is not None:
            named = listed(names_in(folder), 4, 90, quoted=False) or "without names"
            notes.append(f"the model's class head is not used: its classes are different ({named})")
        else:
            notes.append(f"the model's {WORDS[head]} is not used")
    return notes
