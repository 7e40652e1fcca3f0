"""Recognises the parts of a data set by the names that people give to files, folders and lists."""

import re
from collections.abc import Iterable

WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "validate", "valid", "val", "evaluation", "eval", "development", "devel", "dev"),
    "test": ("test", "testing", "tests", "tst", "heldout", "holdout"),
}
PARTS = {word: part for part, words in WORDS.items() for word in words}
ENDS = ("set", "data", "split", "part", "file")  # testset, traindata


def _words(name: str) -> Iterable[str]:
    """Yields the words of a name: runs of letters, split where a small letter is followed by a capital one."""
    name = re.sub(r"(?i)(held|hold)[^a-z0-9]?out", "heldout", name)
    for run in re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name)):
        word = run.lower()
        yield next((word.removesuffix(end) for end in ENDS if word.removesuffix(end) in PARTS), word)


def part_word(name: str) -> str | None:
    """Returns the word of a name that names a part ("eval"), or None if none does ("latest", "contest").

    Raises ValueError for a name that names two parts.
    """
    found = [word for word in _words(name) if word in PARTS]
    parts = list(dict.fromkeys(PARTS[word] for word in found))
    if len(parts) > 1:
        raise ValueError(f"its name says {' and '.join(parts)}; rename it after one part, or after none")
    return found[0] if found else None


def part_of(name: str) -> str | None:
    """Returns "train", "validation" or "test", or None, by `part_word`."""
    word = part_word(name)
    return PARTS[word] if word else None


def has_word(name: str, *words: str) -> bool:
    return any(word in words for word in _words(name))
