"""Keeps hashes of the texts that a run learnt from, so that predict.py can say which rows the model has seen.

A renamed copy, a part or a superset of the training file is recognised row by row, in any format.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from tasks import Instruction, Labelled, Splits
from tasks._examples import normalised
from training.storage.files import write_json

TRAINED_ON = "trained_on.json"
PARTS = ("train", "validation")  # learnt from, and chosen by


def digest(example: Labelled | Instruction) -> str:
    """Returns a hash that ignores case and white space; label and response do not count."""
    parts = "\x1f".join(normalised(part) for part in example.group)
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def write_trained_on(folder: Path, splits: Splits[Any]) -> None:
    write_json(folder / TRAINED_ON, {part: [digest(e) for e in splits.named()[part]] for part in PARTS})


def read_trained_on(folder: Path) -> dict[str, str] | None:
    """Maps each hash to "train" or "validation"; returns None for a model that does not say what it was trained on.

    Raises ValueError when the file is damaged.
    """
    path = folder / TRAINED_ON
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {text: part for part in reversed(PARTS) for text in content[part]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is damaged ({error}); delete it, or train again") from error
