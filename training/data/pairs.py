"""Preference pairs -> token arrays -> batches with both answers of each pair side by side; rated answers likewise.

A pair is one example to the plan of an epoch, so that no update and no micro-batch splits it; to the model it is two
sequences, chosen before rejected. Letters: B pairs, so 2B sequences, of which M tokens are targets. A rated answer is
two sequences as well: its own, and its prompt with the answer to another prompt, which serves the reference point of
KTO.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt2_scratch.tokenizer import Tokenizer
from tasks import Preference, Rated
from training.data.batches import Batch, Encoded, collate, encode_all_instructions


@dataclass(frozen=True)
class Pair:
    """A preference pair: `texts` with the chosen and with the rejected answer; `reference`: log-probabilities of both
    answers under the reference, where they are known."""

    id: int
    texts: tuple[Encoded, Encoded]
    reference: tuple[float, float] | None = None
    count = 1  # term of the loss

    @property
    def tokens(self) -> np.ndarray:
        """The tokens of both texts in a row, by whose number the plan of an epoch sorts."""
        return np.concatenate([text.tokens for text in self.texts])

    @property
    def left_out(self) -> str | None:
        """Why the pair is left out, if it is: once cut, an answer is gone, or both texts are alike."""
        if any(e.left_out for e in self.texts):
            return "no_room_for_answers"
        ends = [(e.tokens.tolist(), e.labels.tolist()) for e in self.texts]  # type: ignore[union-attr]
        return "alike_once_cut" if ends[0] == ends[1] else None


@dataclass(frozen=True)
class RatedPair(Pair):
    """A rated answer: `texts` are its prompt with this answer, and with the answer to another prompt."""

    good: bool = True

    @property
    def left_out(self) -> str | None:
        """Why the example is left out, if it is: once cut, an answer is gone."""
        return "no_room_for_answers" if any(e.left_out for e in self.texts) else None


def _by_two(texts: Sequence[Encoded]) -> list[tuple[Encoded, Encoded]]:
    """Returns the two texts of each example i, with ids of their own: 2 i and 2 i + 1."""
    both = zip(texts[::2], texts[1::2], strict=True)
    return [(replace(a, id=2 * a.id), replace(b, id=2 * b.id + 1)) for a, b in both]


def encode_pairs(
    tokenizer: Tokenizer, examples: Sequence[Preference], max_length: int, response_header: bool = True
) -> list[Pair]:
    """Encodes prompt and answers in the form of finetune_ift, with the answers alone as targets."""
    records = [record for example in examples for record in example.records()]
    texts = encode_all_instructions(tokenizer, records, max_length, response_header=response_header)
    return [Pair(e.id, both) for e, both in zip(examples, _by_two(texts), strict=True)]


def mismatched(examples: Sequence[Rated]) -> list[Rated]:
    """Returns the examples, each with another one's answer, to another prompt if it can be; every answer is used once.

    The examples are put in a ring, those of one prompt side by side, and the answers are moved on by as many places as
    the prompt with the most answers has. Where no prompt has two, that is TRL's rotation by one place, and so it is
    where all have one prompt. Where one prompt has more than half of all answers, some of them stay with it.
    """
    prompts, place = Counter(e.group for e in examples), dict[Any, int]()
    for e in examples:
        place.setdefault(e.group, len(place))
    ring = sorted(range(len(examples)), key=lambda i: place[examples[i].group])
    moved, found = max(prompts.values(), default=0) % max(len(examples), 1) or 1, [*examples]
    for at, i in enumerate(ring):
        found[i] = replace(examples[i], response=examples[ring[at - moved]].response)
    return found


def encode_rated(
    tokenizer: Tokenizer, examples: Sequence[Rated], max_length: int, response_header: bool = True
) -> list[RatedPair]:
    """Encodes rated answers in the form of `encode_pairs`."""
    records = [e for both in zip(examples, mismatched(examples), strict=True) for e in both]
    texts = encode_all_instructions(tokenizer, records, max_length, response_header=response_header)
    return [RatedPair(e.id, both, good=bool(e.good)) for e, both in zip(examples, _by_two(texts), strict=True)]


def texts_of(examples: Sequence[Encoded | Pair]) -> list[Encoded]:
    """Returns the texts that a model reads: both of a pair, and any other example itself."""
    return [text for e in examples for text in (e.texts if isinstance(e, Pair) else (e,))]


def with_texts(examples: Sequence[Encoded | Pair], texts: Sequence[Encoded]) -> list[Any]:
    """Returns the examples with `texts` in place of their own, in the order of `texts_of`."""
    if not any(isinstance(e, Pair) for e in examples):
        return [*texts]
    both = zip(examples, texts[::2], texts[1::2], strict=True)
    return [replace(pair, texts=(a, b)) for pair, a, b in both if isinstance(pair, Pair)]


@dataclass(frozen=True)
class PairBatch(Batch):
    """A batch of pairs: `labels` as for a language model; `targets` (B, 2): the number of targets of each text;
    `reference` (B, 2): zeros where it is computed for each batch. For rated answers both are (B,), and `good` (B,) is
    their label. All three stay on the CPU, but for a `reference` that the device has computed."""

    targets: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    reference: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    good: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))


def collate_pairs(pairs: Sequence[Pair]) -> PairBatch:
    """Packs 2B texts into one batch; without pairs, returns the stand-in of `collate`."""
    batch = collate(texts_of(pairs))
    targets = torch.tensor([[e.count for e in pair.texts] for pair in pairs]).view(-1, 2)
    reference = torch.tensor([pair.reference or (0.0, 0.0) for pair in pairs], dtype=torch.float64).view(-1, 2)
    return PairBatch(**vars(batch), targets=targets, reference=reference)


def collate_rated(examples: Sequence[RatedPair]) -> PairBatch:
    """Packs B answers, without those to other prompts; without examples, returns the stand-in of `collate`."""
    answers = [e.texts[0] for e in examples]
    targets, good = torch.tensor([text.count for text in answers]), torch.tensor([e.good for e in examples]).bool()
    reference = torch.tensor([e.reference[0] if e.reference else 0.0 for e in examples], dtype=torch.float64)
    return PairBatch(**vars(collate(answers)), targets=targets, reference=reference, good=good)


def collate_examples(examples: Sequence[Encoded | Pair]) -> Batch:
    """Makes the training batch of examples of any kind."""
    kinds: dict[type, Any] = {Pair: collate_pairs, RatedPair: collate_rated}
    kind = type(examples[0]) if examples else Encoded
    found: Batch = kinds.get(kind, collate)(examples)
    return found
