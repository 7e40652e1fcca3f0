"""Text for pretraining: documents -> one stream of tokens -> batches of a fixed number of tokens.

Documents lie back to back and do not see each other; nothing is padded. The step alone says where a run is in it.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from gpt2_scratch.tokenizer import Tokenizer
from tasks import read_rows, read_text
from tasks._cells import plain
from tasks._files import kind_of
from tasks._folders import visible
from tasks._rows import READERS
from training.data.batches import Batch, Encoded, collate
from training.data.special_tokens import special_tokens_note

TEXT = (".txt", ".md")
LEAST = 16  # tokens of a document that can be cut in two


class Documents(NamedTuple):
    """The texts of a corpus, and notes on what was changed, left out or skipped."""

    texts: list[str]
    notes: list[str]


def read_documents(paths: Sequence[Path], column: str, encoding: str | None = None) -> Documents:
    """Reads documents: text files, rows of tables (csv, json, jsonl, parquet), and the text files in folders.

    `<br />` becomes a line break; blank lines before a text and white space after it are dropped. Duplicate and empty
    documents are left out, and counted in the notes. Raises ValueError for what cannot be read.
    """
    found: dict[str, None] = {}
    notes: list[str] = []
    read = breaks = empty = 0
    for path in paths:
        for text in _texts(path, column, encoding, notes):
            read, breaks = read + 1, breaks + ("<br />" in text)
            text = re.sub(r"^(\s*\n)+", "", text.replace("<br />", "\n")).rstrip()
            if text:
                found.setdefault(text)
            else:
                empty += 1
    if breaks:
        notes.append(f"in {breaks:,} documents <br /> was read as a line break")
    if len(found) < read:
        notes.append(f"documents left out: {read - empty - len(found):,} duplicate, {empty:,} empty")
    return Documents(list(found), notes)


def _texts(path: Path, column: str, encoding: str | None, notes: list[str]) -> Iterator[str]:
    if path.is_dir():
        try:
            files = visible(path)
        except ValueError as error:
            raise ValueError(f"--data {path}: {error}") from error
        texts = [file for file in files if file.suffix.lower() in TEXT]
        if not texts:
            raise ValueError(f"--data {path}: the folder holds no {' or '.join(TEXT)} file")
        if len(texts) < len(files):
            passed = ", ".join(file.name for file in files if file not in texts)
            notes.append(f"{path}: skipped files that are not text ({len(files) - len(texts):,}): {passed[:100]}")
        yield from (text for file in texts for text in _texts(file, column, encoding, notes))
    elif path.is_file() and path.suffix.lower() in TEXT:
        text, said = read_text(path, encoding)
        notes += said
        yield text
    elif path.is_file() and kind_of(path) not in READERS:
        known = f"{', '.join(TEXT)} for a text, {', '.join(READERS)} for a table"
        raise ValueError(f"--data {path}: unknown kind of file; known are {known}")
    else:
        source = read_rows(path, encoding)
        notes += source.notes
        cells = [plain(row.get(column)) for row in source.rows]
        other = sum(not isinstance(cell, str | None) for cell in cells)
        if other or not any(isinstance(cell, str) for cell in cells):
            found = f"something other than text there in {other:,} rows" if other else "no text there"
            columns = ", ".join(source.rows[0])[:100]
            raise ValueError(f"--text-column {column}: {path} has {found}; its columns: {columns}")
        yield from (cell or "" for cell in cells)


def tokenised(documents: Sequence[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Returns the tokens of each document, with the end of text (if the base has one), int32.

    An end of text inside a text (where special tokens are read as tokens) parts it into two documents.
    """
    end = tokenizer.vocabulary.end
    found = []
    for tokens in tokenizer.encode_all(documents):
        document = np.array(tokens if end is None else [*tokens, end], np.int32)
        if end is None or tokenizer.meaning == "text":
            found.append(document)
        else:
            parts = np.split(document, np.flatnonzero(document == end) + 1)
            found += [part for part in parts if len(part) > 1]
    return found


def fingerprint(documents: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.tobytes())
    return digest.hexdigest()


def hold_out(documents: list[np.ndarray], share: float, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Splits the documents into training and validation: whole documents are drawn until they have `share` of all
    tokens, at least one for each part. Of a single document, such as a book, the end is for validation.

    Raises ValueError if there is no text to split.
    """
    if not documents or (len(documents) == 1 and len(documents[0]) < LEAST):
        count = sum(map(len, documents))
        raise ValueError(f"--data: has {count} tokens, too few for a training and a validation part; give more text")
    if len(documents) == 1:
        end = max(int(share * len(documents[0])), LEAST // 2)
        return [documents[0][:-end]], [documents[0][-end:]]
    order = np.random.default_rng(seed).permutation(len(documents))
    sizes = np.cumsum([len(documents[i]) for i in order])
    count = int(np.clip(np.searchsorted(sizes, share * sizes[-1]) + 1, 1, len(documents) - 1))
    return [documents[i] for i in sorted(order[count:])], [documents[i] for i in sorted(order[:count])]


def pieces(documents: Sequence[np.ndarray], max_length: int) -> list[Encoded]:
    """Cuts documents into pieces of at most `max_length` tokens for evaluation; every next token is a target."""
    cut = [d[start : start + max_length + 1] for d in documents for start in range(0, len(d) - 1, max_length)]
    return [Encoded(i, part[:-1], part[1:].astype(np.int64)) for i, part in enumerate(cut)]


def upto(examples: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """Returns the first of the examples: about `tokens` tokens of them, but at least one example."""
    ends = np.cumsum([len(e.tokens) for e in examples])
    return list(examples[: int(np.searchsorted(ends, tokens)) + 1])


@dataclass(frozen=True)
class CorpusFacts:
    """What results.json says of the documents."""

    source: list[str]
    sha256: str
    notes: list[str]
    documents: dict[str, int]
    tokens: dict[str, int]


@dataclass(frozen=True)
class Corpus:
    """Encoded documents: those to train on, and pieces of the held-out ones."""

    train: list[np.ndarray]
    validation: list[Encoded]
    facts: CorpusFacts


def encode_corpus(
    paths: Sequence[Path], documents: Documents, tokenizer: Tokenizer, share: float, max_length: int, seed: int
) -> Corpus:
    """Encodes documents and holds out `share` of their tokens. Raises the errors of `hold_out`."""
    tokens = tokenised(documents.texts, tokenizer)
    train, held_out = hold_out(tokens, share, seed)
    validation = pieces(held_out, max_length)
    cut = ["its only document is cut in two: the end is for validation"] * (len(tokens) == 1)
    facts = CorpusFacts(
        source=[str(path) for path in paths],
        sha256=fingerprint(tokens),
        notes=[*documents.notes, *cut, *tokenizer.notes, *special_tokens_note(tokenizer, documents.texts, "documents")],
        documents={"train": len(train), "validation": len(held_out)},
        tokens={"train": sum(len(d) - 1 for d in train), "validation": sum(e.count for e in validation)},
    )
    return Corpus(train, validation, facts)


class Stream(NamedTuple):
    """The tokens of one epoch, its documents in random order; `starts` are the places where sequences begin."""

    tokens: np.ndarray  # (E,) inputs
    targets: np.ndarray  # (E,) the token after each
    starts: np.ndarray

    def bounds(self, start: int, end: int) -> np.ndarray:
        """Returns `start`, the starts of sequences up to `end`, and `end`; the outer two may cut a document."""
        inside = self.starts[np.searchsorted(self.starts, start, "right") : np.searchsorted(self.starts, end)]
        return np.array([start, *inside, end])

    def batch(self, start: int, end: int) -> Batch:
        """Returns the batch of tokens `start` to `end` - 1; a stand-in where there are none."""
        if start == end:
            return collate([])
        tokens, targets = (torch.from_numpy(part[start:end].astype(np.int64)) for part in (self.tokens, self.targets))
        return Batch(tokens, torch.from_numpy(np.diff(self.bounds(start, end))), targets, [])


def stream(documents: Sequence[np.ndarray], max_length: int, seed: int, epoch: int) -> Stream:
    """Makes an epoch's stream. With max_length 2, 3 4 5 50256 gives tokens 3 4 5, targets 4 5 50256, starts 0 and 2."""
    order = np.random.default_rng([seed, epoch]).permutation(len(documents))
    drawn = [documents[i] for i in order]
    tokens, targets = np.concatenate([d[:-1] for d in drawn]), np.concatenate([d[1:] for d in drawn])
    begins = np.cumsum([0, *(len(d) - 1 for d in drawn)])
    starts = [np.arange(a, b, max_length) for a, b in zip(begins, begins[1:], strict=False)]
    return Stream(tokens, targets, np.concatenate(starts))


class Packing:
    """Packs the batches of each optimizer step: `batch_tokens` tokens over all processes and micro-batches."""

    def __init__(
        self, documents: Sequence[np.ndarray], max_length: int, batch_tokens: int, micro_tokens: int, seed: int
    ) -> None:
        self.documents, self.max_length, self.seed = documents, max_length, seed
        self.batch_tokens, self.micro_tokens = batch_tokens, micro_tokens
        self.tokens = sum(len(d) - 1 for d in documents)  # of one epoch
        self.per_epoch = -(-self.tokens // batch_tokens)
        self.epoch, self.stream = -1, Stream(*[np.empty(0)] * 3)

    def span(self, step: int) -> tuple[int, int]:
        """Returns where the tokens of `step` begin and end in its epoch's stream; the last step may have fewer."""
        start = step % self.per_epoch * self.batch_tokens
        return start, min(start + self.batch_tokens, self.tokens)

    def at(self, step: int, rank: int, processes: int) -> list[Batch]:
        """Returns the micro-batches of process `rank`: as many for each, of about equal size, with no sequence cut."""
        epoch = step // self.per_epoch
        if epoch != self.epoch:
            self.stream, self.epoch = stream(self.documents, self.max_length, self.seed, epoch), epoch
        start, end = self.span(step)
        micros = -(-(end - start) // (processes * self.micro_tokens))
        bounds, parts = self.stream.bounds(start, end), processes * micros
        part_of = ((bounds[:-1] + bounds[1:]) / 2 - start) * parts // (end - start)  # by the middle of each sequence
        edges = bounds[np.searchsorted(part_of, np.arange(rank * micros, (rank + 1) * micros + 1))]
        return [self.stream.batch(a, b) for a, b in zip(edges, edges[1:], strict=False)]
