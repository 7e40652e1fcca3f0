"""The encoded examples of a run, part by part, and what results.json says of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from typing import Any, Generic, TypeVar

import numpy as np

from tasks import balance
from training.data.batches import Encoded
from training.data.general import General, general_text
from training.data.pairs import Pair, texts_of
from training.data.sources import Inputs
from training.flags.finetuning import FineTuneArgs

E = TypeVar("E", bound=Encoded | Pair)


@dataclass(frozen=True)
class DataFacts:
    """Where the examples came from, how many of them each part uses, what was left out, how long they are in tokens."""

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
    """All that a fine-tuning run reads: encoded examples by part, the general text, and the inputs behind them."""

    train: list[E]
    validation: list[E]
    test: list[E]
    facts: DataFacts
    general: General
    inputs: Inputs[Any]
    cache: CacheFacts | None = None  # where there is a frozen-activation cache
    tests_base: bool = True  # whether the test examples are scored before the training too

    @property
    def before(self) -> list[E]:
        """The test examples that are scored before the training."""
        return self.test if self.tests_base else []

    @property
    def parts(self) -> tuple[list[E], list[E], list[E]]:
        return self.train, self.validation, self.test

    def with_parts(self, parts: Sequence[list[E]], cache: CacheFacts | None = None) -> "Data[E]":
        """Returns a copy with other forms of its examples, such as those with cached hidden states."""
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
    """Encodes each part; examples with a reason to be left out (one of `reasons`) are left out and counted.

    Raises ValueError when no training example remains, or when a flag needs held-out examples and there are none.
    """
    splits = inputs.splits
    encoded = {name: encode(part) for name, part in splits.named().items()}
    why = {name: [e.left_out for e in part] for name, part in encoded.items()}
    counts = Counter(reason for told in why.values() for reason in told)
    fits = {name: [reason is None for reason in told] for name, told in why.items()}
    used = {name: [*compress(part, fits[name])] for name, part in splits.named().items()}
    train, validation, test = parts = [[*compress(part, fits[name])] for name, part in encoded.items()]
    facts = DataFacts(
        source=inputs.source,
        sha256=splits.fingerprint(),
        rows={name: len(part) for name, part in used.items()},
        skipped=asdict(splits.skipped) | {reason: counts[reason] for reason in reasons},
        balance=balance(used),
        lengths={name: _lengths(texts_of(part)) for name, part in zip(encoded, parts, strict=True) if part},
        notes=[*splits.notes],
        labels=None if labels is None else [*labels],
    )
    if not train:
        told = ", ".join(f"{counts[reason]:,} {reason.replace('_', ' ')}" for reason in reasons)
        raise ValueError(f"--max-length {args.data.max_length}: leaves no example to train on ({told}); give more")
    args.run.check_examples(validation)
    args.forgetting.check_examples([*validation, *test])
    general = general_text(args.forgetting, inputs.model_folder, inputs.config, inputs.tokenizer)
    if args.run.score == "validation":
        test, general = [], replace(general, pieces=())
    return Data(train, validation, test, facts, general, inputs, tests_base=args.run.score == "all")
