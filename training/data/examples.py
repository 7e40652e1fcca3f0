"""The examples of a run as tokens, part by part, and what results.json says of them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from training.data.batches import Encoded
from training.data.general import General, general_text
from training.data.pairs import Pair, texts_of
from training.data.sources import Inputs
from training.flags.finetuning import FineTuneArgs

E = TypeVar("E", bound=Encoded | Pair)


@dataclass(frozen=True)
class DataFacts:
    """Where the examples came from, how many each part has, what was left out, how long they are in tokens."""

    source: str
    sha256: str
    rows: dict[str, int]
    skipped: dict[str, int]
    balance: dict[str, dict[str, int]]
    lengths: dict[str, dict[str, int]]
    notes: list[str]
    labels: list[str] | None = None  # of a classifier, in the order of its head


@dataclass(frozen=True)
class CacheFacts:
    """What results.json says of a cache: `built` is False where its file was found."""

    where: str
    blocks: int
    texts: int
    bytes: int
    built: bool
    seconds: float


@dataclass(frozen=True)
class Data(Generic[E]):
    """All that a run of fine-tuning reads: encoded examples by part, the general text, and what they were made of."""

    train: list[E]
    validation: list[E]
    test: list[E]
    facts: DataFacts
    general: General
    inputs: Inputs[Any]
    cache: CacheFacts | None = None  # where there is a frozen-activation cache

    @property
    def parts(self) -> tuple[list[E], list[E], list[E]]:
        return self.train, self.validation, self.test

    def with_parts(self, parts: Sequence[list[E]], cache: CacheFacts | None = None) -> "Data[E]":
        """A copy with other forms of its examples, such as those with cached hidden states."""
        train, validation, test = parts
        return replace(self, train=train, validation=validation, test=test, cache=cache or self.cache)


def _lengths(part: Sequence[Encoded]) -> dict[str, int]:
    lengths = [len(e.tokens) for e in part]
    low, high = np.quantile(lengths, [0.5, 0.95]).astype(int)
    return {"median": int(low), "p95": int(high), "longest": max(lengths), "cut": sum(e.cut for e in part)}


def encode_splits(
    args: FineTuneArgs,
    inputs: Inputs[Any],
    encode: Callable[[Any], list[E]],
    reasons: Sequence[str] = (),
    labels: Sequence[str] | None = None,
) -> Data[E]:
    """Encodes each part; what has a reason to be left out (one of `reasons`) is left out and counted.

    Raises ValueError when no training example remains, and when nothing is held out that a flag asks for.
    """
    splits = inputs.splits
    encoded = {name: encode(part) for name, part in splits.named().items()}
    why = [e.left_out for part in encoded.values() for e in part]
    facts = DataFacts(
        source=inputs.source,
        sha256=splits.fingerprint(),
        rows={name: len(part) for name, part in splits.named().items()},
        skipped=asdict(splits.skipped) | {reason: why.count(reason) for reason in reasons},
        balance=splits.balance(),
        lengths={name: _lengths(texts_of(part)) for name, part in encoded.items() if part},
        notes=[*splits.notes],
        labels=None if labels is None else [*labels],
    )
    train, validation, test = ([e for e in part if e.left_out is None] for part in encoded.values())
    if not train:
        counts = ", ".join(f"{facts.skipped[reason]:,} {reason.replace('_', ' ')}" for reason in reasons)
        raise ValueError(f"--max-length {args.data.max_length}: leaves no example to train on ({counts}); give more")
    args.run.evaluated(validation, args.update.batch_size)  # refuses --early-stop without validation examples
    args.forgetting.check_examples([*validation, *test])
    general = general_text(args.forgetting, inputs.model_folder, inputs.config, inputs.tokenizer)
    return Data(train, validation, test, facts, general, inputs)
