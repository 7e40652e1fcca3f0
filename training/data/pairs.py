"""Preference pairs -> token arrays -> batches with both answers of each pair side by side.

A pair is one example to the plan of an epoch, so that no update and no micro-batch splits it; to the model it is two
sequences, chosen before rejected. Letters: B pairs, so 2B sequences, of which M tokens are targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt2_scratch.tokenizer import Tokenizer
from tasks import Preference
from training.data.batches import Batch, Encoded, collate, encode_all_instructions


@dataclass(frozen=True)
class Pair:
    """A preference pair. `reference`: log-probabilities of both answers under the reference, where they are kept."""

    id: int
    chosen: Encoded
    rejected: Encoded
    reference: tuple[float, float] | None = None
    count = 1  # terms that a pair adds to the loss

    @property
    def texts(self) -> tuple[Encoded, Encoded]:
        return self.chosen, self.rejected

    @property
    def tokens(self) -> np.ndarray:
        """The tokens of both texts, one behind the other, by which the plan of an epoch sorts."""
        return np.concatenate([self.chosen.tokens, self.rejected.tokens])

    @property
    def left_out(self) -> str | None:
        """The reason why it is not trained on: once cut, nothing is left of an answer, or of what sets the answers
        apart."""
        if any(e.left_out for e in self.texts):
            return "no_room_for_answers"
        ends = [(e.tokens.tolist(), e.labels.tolist()) for e in self.texts]  # type: ignore[union-attr]
        return "alike_once_cut" if ends[0] == ends[1] else None


def encode_pairs(
    tokenizer: Tokenizer, examples: Sequence[Preference], max_length: int, response_header: bool = True
) -> list[Pair]:
    """Prompt and answers in the form of finetune_ift, the answers alone as targets. The two texts of a pair have ids of
    their own: 2 i and 2 i + 1."""
    records = [record for example in examples for record in example.records()]
    texts = encode_all_instructions(tokenizer, records, max_length, response_header=response_header)
    return [
        Pair(e.id, replace(chosen, id=2 * e.id), replace(rejected, id=2 * e.id + 1))
        for e, chosen, rejected in zip(examples, texts[::2], texts[1::2], strict=True)
    ]


def texts_of(examples: Sequence[Encoded | Pair]) -> list[Encoded]:
    """The texts that a model reads: both of a pair, and any other example itself."""
    return [text for e in examples for text in (e.texts if isinstance(e, Pair) else (e,))]


def with_texts(examples: Sequence[Encoded | Pair], texts: Sequence[Encoded]) -> list[Any]:
    """A copy of the examples with `texts` in place of theirs, in the order of `texts_of`; these may have hidden
    states."""
    if not any(isinstance(e, Pair) for e in examples):
        return [*texts]
    both = zip(examples, texts[::2], texts[1::2], strict=True)
    return [replace(pair, chosen=a, rejected=b) for pair, a, b in both if isinstance(pair, Pair)]


@dataclass(frozen=True)
class PairBatch(Batch):
    """`labels` as of a language model; `targets` (B, 2): labelled tokens of each text; `reference` (B, 2): zeros where
    it is computed for each batch. Both stay on the CPU."""

    targets: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    reference: Tensor = field(default_factory=lambda: torch.zeros(0, 2))


def collate_pairs(pairs: Sequence[Pair]) -> PairBatch:
    """One packed batch of 2B texts; without pairs, the stand-in of `collate`."""
    batch = collate(texts_of(pairs))
    targets = torch.tensor([[e.count for e in pair.texts] for pair in pairs]).view(-1, 2)
    reference = torch.tensor([pair.reference or (0.0, 0.0) for pair in pairs], dtype=torch.float64).view(-1, 2)
    return PairBatch(**vars(batch), targets=targets, reference=reference)
