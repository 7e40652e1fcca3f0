"""Encodes the general text that forgetting is measured on (training/evaluation/forgetting.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.pretrained import unwrapped
from gpt2_scratch.tokenizer import Tokenizer
from gpt2_scratch.weights import has_weights, keys
from training.data.batches import Encoded
from training.data.corpus import fingerprint, pieces, tokenised
from training.flags.forgetting import ForgettingArgs

LONGEST = 512  # tokens of a piece
SPACIOUS = 8  # characters for each wanted token: nearly twice what a token of English has
MARGIN = 100  # tokens: how a text is parted does not depend on what comes so much later


@dataclass(frozen=True)
class General:
    """The text in pieces; there are none if nothing is measured."""

    source: str | None = None
    sha256: str = ""  # of the tokens
    pieces: Sequence[Encoded] = ()
    head: Path | None = None  # folder of the base model, if its LM head is a matrix of its own
    curve: bool = False  # whether --forgetting-curve is given

    @property
    def counts(self) -> np.ndarray:
        return np.array([piece.count for piece in self.pieces])


def general_text(args: ForgettingArgs, folder: Path, config: GPT2Config, tokenizer: Tokenizer) -> General:
    """Encodes the first tokens of the text, each but the first a target; `folder`, `config` and `tokenizer` are the
    base's. Raises ValueError when the text has fewer than two tokens, or the base no language model head."""
    source = args.source()
    if source is None:
        return General()
    text = args.text()
    if len(tokenizer.encode(text[:256])) < 2:
        raise ValueError(f"--forgetting-data {source}: holds fewer than two tokens of text; give another file, or none")
    document = _first_tokens(text, args.forgetting_tokens, tokenizer)
    cut = pieces([document], min(LONGEST, config.context))
    head = None if config.tied_head else folder
    if head is not None and has_weights(folder) and "lm_head.weight" not in map(unwrapped, keys(folder)):
        raise ValueError(
            f"--forgetting-data {source}: {folder} is a classifier's, without a head for language; "
            "add --forgetting-data none"
        )
    return General(source, fingerprint([document]), cut, head, args.forgetting_curve)


def _first_tokens(text: str, count: int | None, tokenizer: Tokenizer) -> np.ndarray:
    """Returns the first token of the text and `count` more (None: all). If its start has so many, only that is read."""
    if count is None:
        return tokenised([text], tokenizer)[0]
    (document,) = tokenised([text[: SPACIOUS * count]], tokenizer)
    if len(document) <= count + MARGIN:
        (document,) = tokenised([text], tokenizer)
    return document[: count + 1]
