"""Examples -> token arrays -> the plan of an epoch -> batches of packed tokens.

The plan is a pure function: every process computes all of it, so none has to ask another for counts, and resuming takes
only a position. Which examples make up a step depends neither on the number of processes nor on the micro-batch size.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from gpt2_scratch.model import Hidden
from gpt2_scratch.tokenizer import END_OF_TEXT, Tokenizer
from gpt2_scratch.transfer import to_device
from tasks import RESPONSE_HEADER, Instruction, Labelled
from training.flags.common import UpdateArgs

T = TypeVar("T")
IGNORED = -100
TOKENS_PER_BATCH = 8192  # in evaluation
POOL = 50  # batches sorted by length together; more save padding in attention, fewer mix lengths better


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as token ids. `labels`: a class, or next-token targets as long as `tokens`, -100 where there is none."""

    id: int
    tokens: np.ndarray
    labels: int | np.ndarray
    cut: bool = False
    response_from: int = 0  # first position whose target belongs to the response
    pads: int = 0  # tokens at the end that only fill the text up
    hidden: Hidden | None = None  # after the frozen blocks, where that is cached (training/model/frozen_activations.py)

    @property
    def left_out(self) -> str | None:
        """Why the example is left out, if it is: its prompt leaves no room for the response within the length limit."""
        return None if self.response_from < len(self.tokens) else "no_room_for_response"

    @property
    def count(self) -> int:
        """The number of terms that this example adds to the loss."""
        return 1 if isinstance(self.labels, int) else int((self.labels != IGNORED).sum())


@dataclass(frozen=True)
class Batch:
    """N tokens of B sequences back to back. `weight` 0 marks the stand-in of a process without work in a step.

    Lengths and labels stay on the CPU, which reads them, and would have to wait for a GPU."""

    tokens: Tensor  # (N,)
    lengths: Tensor  # (B,)
    labels: Tensor  # (B,) classes or (N,) next tokens
    example_ids: list[int]  # (B,)
    weight: float = 1.0
    hidden: Hidden | None = None  # of all N tokens, or of the B last ones

    def to(self, device: torch.device) -> Self:
        hidden = self.hidden and self.hidden._replace(states=to_device(self.hidden.states, device))
        return replace(self, tokens=to_device(self.tokens, device), hidden=hidden)


def encode_all_labelled(
    tokenizer: Tokenizer,
    examples: Sequence[Labelled],
    labels: Iterable[int],
    max_length: int,
    pad_to: int | None = None,
    pad_id: int = END_OF_TEXT,
    cut_tail: bool = False,
) -> list[Encoded]:
    """Encodes texts and their classes, in at most `max_length` tokens, cut after a whole character. An empty text
    becomes one end-of-text token.

    `pad_to` appends tokens `pad_id`, after which the class is read: a defect of the published runs, on demand.
    """

    def shortened(text: list[int], kept: list[int]) -> list[int]:
        if len(text) + len(kept) <= max_length:
            return text + kept
        if not cut_tail:
            text = tokenizer.whole_characters(text[: max(max_length - len(kept), 0)])
        tokens = text + kept
        return tokens if len(tokens) <= max_length else tokenizer.whole_characters(tokens[:max_length])

    found, texts = [], tokenizer.encode_all(part for e in examples for part in (e.text, e.kept))
    for example, label, text, kept in zip(examples, labels, texts, texts, strict=True):
        tokens = shortened(text, kept) or [tokenizer.empty]
        cut, pads = len(text) + len(kept) > max_length, max((pad_to or 0) - len(tokens), 0)
        found.append(Encoded(example.id, np.array(tokens + [pad_id] * pads, np.int32), label, cut, pads=pads))
    return found


def encode_all_instructions(
    tokenizer: Tokenizer,
    examples: Sequence[Instruction],
    max_length: int,
    mask_prompt: bool = True,
    response_header: bool = True,
) -> list[Encoded]:
    """Encodes prompt, response and one end-of-text token; `mask_prompt` leaves the prompt out of the targets.

    Without `response_header`, the header is part of the response. A response that ends in an end-of-text token (where
    special tokens are read as tokens) gets no second one. The target at a position is the token after it. Example:
    prompt 3 4, response 5: tokens 3 4 5, targets -100 5 50256.
    """
    end = [] if tokenizer.vocabulary.end is None else [tokenizer.vocabulary.end]
    header, found = tokenizer.encode(RESPONSE_HEADER), []
    parts = ((e.prompt(response_header=False), e.response or "") for e in examples)
    texts = tokenizer.encode_all(part for pair in parts for part in pair)
    for example, asked, response in zip(examples, texts, texts, strict=True):
        whole = asked + header + response + (end if response[-1:] != end else [])
        targets = np.array(whole[1 : max_length + 1], np.int64)
        if mask_prompt:
            targets[: len(asked) + len(header) * response_header - 1] = IGNORED
        cut, start = len(whole) > max_length + 1, len(asked) + len(header) - 1
        found.append(Encoded(example.id, np.array(whole[:-1][:max_length], np.int32), targets, cut, start))
    return found


def encode_prompt(
    tokenizer: Tokenizer, example: Instruction, longest: int | None = None, response_header: bool = True
) -> list[int]:
    """Encodes the prompt in at most `longest` tokens (None: all of it). One that is too long keeps its header and
    loses the end of its input, after a whole character."""
    header = tokenizer.encode(RESPONSE_HEADER) if response_header else []
    prompt = tokenizer.encode(example.prompt(response_header=False))
    if longest is not None and len(prompt) + len(header) > longest:
        prompt = tokenizer.whole_characters(prompt[: max(longest - len(header), 0)])
    return prompt + header


def with_all_tokens_labelled(example: Encoded) -> Encoded:
    """Returns a copy in which every next token is a target, for the perplexity of the whole text."""
    last = example.labels[-1:]  # type: ignore[index]
    return replace(example, labels=np.concatenate([example.tokens[1:].astype(np.int64), last]))


def with_response_labelled(example: Encoded) -> Encoded:
    """Returns a copy in which the response alone is a target, whatever was trained on, for comparable perplexities."""
    labels = np.array(with_all_tokens_labelled(example).labels)
    labels[: example.response_from] = IGNORED
    return replace(example, labels=labels)


def _joined(parts: Sequence[Hidden | None]) -> Hidden | None:
    known = [part for part in parts if part is not None]
    assert len(known) in (0, len(parts)), "a batch of texts with and without hidden states"
    return Hidden(torch.cat([part.states for part in known]), known[0].blocks) if known else None


def collate(examples: Sequence[Encoded]) -> Batch:
    """Packs examples into one batch; without any, into a stand-in of one token and weight 0."""
    if not examples:
        one = torch.zeros(1, dtype=torch.long)  # any token
        return Batch(one, torch.ones(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), [], weight=0.0)
    tokens = torch.from_numpy(np.concatenate([e.tokens for e in examples]).astype(np.int64))
    if isinstance(examples[0].labels, int):
        labels = torch.tensor([e.labels for e in examples])
    else:
        labels = torch.from_numpy(np.concatenate([e.labels for e in examples]))
    lengths, ids = torch.tensor([len(e.tokens) for e in examples]), [e.id for e in examples]
    return Batch(tokens, lengths, labels, ids, hidden=_joined([e.hidden for e in examples]))


Step = list[list[list[int]]]  # [process][micro-batch] -> indices of examples


def epoch_plan(
    seed: int,
    epoch: int,
    lengths: Sequence[int],
    batch_size: int,
    micro_batch_size: int,
    processes: int,
    drop_last: bool = False,
) -> list[Step]:
    """Plans an epoch: every example once, in batches of similar length and random order, a short one last or dropped.

    `lengths` are in tokens. Example: 5 examples in batches of 2 make two full steps and one of a single example.
    """
    rng = random.Random(f"{seed}/order/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    full = len(order) - len(order) % batch_size
    batches = []
    for start in range(0, full, POOL * batch_size):
        pool = sorted(order[start : min(start + POOL * batch_size, full)], key=lambda i: lengths[i])
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    rng.shuffle(batches)
    if full < len(order) and not drop_last:
        batches.append(sorted(order[full:], key=lambda i: lengths[i]))
    return [_deal(batch, micro_batch_size, processes) for batch in batches]


class Plan:
    """The plan of the whole training, an epoch at a time: `at(step)` -> [process][micro-batch] -> example indices."""

    def __init__(self, examples: Sequence[Any], update: UpdateArgs, processes: int) -> None:
        """Each example, a text or a pair, has `tokens`."""
        self.lengths = [len(e.tokens) for e in examples]
        self.update, self.processes = update, processes
        self.per_epoch = update.steps_per_epoch(len(examples))
        self.epoch, self.steps = -1, list[Step]()

    def examples_in(self, steps: int) -> int:
        """Returns the number of examples in the first `steps` steps; only the last step of an epoch can be short."""
        epochs, rest = divmod(steps, self.per_epoch)
        whole = min(len(self.lengths), self.per_epoch * self.update.batch_size)
        return epochs * whole + rest * self.update.batch_size

    def shares(self, step: int, examples: Sequence[T], rank: int) -> tuple[list[T], list[list[T]]]:
        """Returns the examples of a step over all processes, and the micro-batches of process `rank`."""
        step_plan = self.at(step)
        chosen = [examples[i] for share in step_plan for micro in share for i in micro]
        return chosen, [[examples[i] for i in micro] for micro in step_plan[rank]]

    def at(self, step: int) -> Step:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            u = self.update
            assert isinstance(u.micro_batch_size, int), (
                "auto is resolved (forecast/micro_batch.py) before a plan is made"
            )
            self.steps = epoch_plan(
                u.seed, epoch, self.lengths, u.batch_size, u.micro_batch_size, self.processes, u.drop_last
            )
            self.epoch = epoch
        return self.steps[place]


def _deal(batch: list[int], micro_batch_size: int, processes: int) -> Step:
    """Deals out a batch sorted by length in shares as equal as possible, each in micro-batches of similar length.

    All processes get the same number of micro-batches, since they synchronise after the last; some may be empty.
    """
    shares = [batch[rank::processes] for rank in range(processes)]
    count = -(-len(shares[0]) // micro_batch_size)
    return [[share[len(share) * i // count : len(share) * (i + 1) // count] for i in range(count)] for share in shares]


def inference_plan(lengths: Sequence[int], tokens_per_batch: int, processes: int) -> list[list[list[int]]]:
    """Returns [process] -> batches of indices, longest first, of at most `tokens_per_batch` tokens or one example."""
    batches: list[list[int]] = []
    held = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or held + lengths[i] > tokens_per_batch:
            batches.append([])
            held = 0
        batches[-1].append(i)
        held += lengths[i]
    return [batches[rank::processes] for rank in range(processes)]
