"""The work that is timed: its flags and its batches, which are the same for both sides of a comparison."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gpt2_scratch.config import SIZES, GPT2Config
from gpt2_scratch.tokenizer import GPT2
from tasks import Classification, Instructions, Task, find
from training.data.sources import locate_rows, split_rows
from training.flags.cli import at_least, problems_between
from training.flags.common import DataArgs, MethodArgs, ModelArgs, UpdateArgs

if TYPE_CHECKING:
    from training.data.batches import Encoded

PRECISIONS: dict[str, Literal["no", "bf16", "fp16"]] = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
CLASSES = ("ham", "spam")


@dataclass(frozen=True)
class Work:
    """What is timed"""

    task: Literal["cls", "ift"] = "cls"
    """cls: the class of Enron mail; ift: the responses of Alpaca; both from $DATA_DIR, else the hub"""
    model: str = "gpt2"
    """a size of GPT-2 (gpt2-nano, gpt2 and so on up to gpt2-xl), with random weights"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """precision of the matrix products; bf16 and fp16 by autocast"""
    batch_size: int = 8
    """examples per step"""
    max_length: int = 512
    """the most tokens of an example; longer ones are cut"""
    mask_prompt: bool = True
    """ift: the loss is on the response alone"""
    steps: int = 10
    """steps that are timed; two more come first"""
    device: Literal["cpu", "cuda"] | None = None
    """None: a GPU where there is one"""

    @property
    def config(self) -> GPT2Config:
        return SIZES[self.model]

    @property
    def update(self) -> UpdateArgs:
        return UpdateArgs(batch_size=self.batch_size, micro_batch_size=self.batch_size)

    def problems(self) -> list[str]:
        found = at_least(self, 1, "batch_size", "max_length", "steps")
        if self.model not in SIZES:
            found.append(f"--model {self.model}: must be one of {', '.join(SIZES)}")
        return found

    def problems_given(self, method: MethodArgs) -> list[str]:
        data = DataArgs(max_length=self.max_length)
        found = problems_between(method=method, model=ModelArgs(self.model), config=self.config, data=data)
        if self.task == "cls" and "lm-head" in method.lora_targets:
            found.append("--lora-targets lm-head: a classifier has none; use --task ift")
        if self.task == "ift" and method.method == "head":
            found.append("--method head: the LM head is the token embedding; use --task cls")
        return found


def shuffled_examples(task: Literal["cls", "ift"]) -> list[Any]:
    """Returns training examples in random order. Raises ValueError if the data cannot be found."""
    found: Task = find("enron", Classification) if task == "cls" else find("alpaca", Instructions)
    try:
        source = locate_rows(found, None)
    except ValueError as error:
        raise ValueError(f"{found.file} is not in $DATA_DIR; set DATA_DIR. {error}") from error
    train = split_rows(found, source, DataArgs()).train
    random.Random(0).shuffle(train)
    return train


def pool(work: Work) -> "list[Encoded]":
    """Returns as many random training examples as are sorted by length together, as token ids. Raises ValueError if the
    data cannot be found."""
    from training.data.batches import POOL, encode_all_instructions, encode_all_labelled

    examples = shuffled_examples(work.task)[: POOL * work.batch_size]
    if work.task == "cls":
        return encode_all_labelled(GPT2, examples, [CLASSES.index(e.label) for e in examples], work.max_length)
    encoded = encode_all_instructions(GPT2, examples, work.max_length, work.mask_prompt)
    return [e for e in encoded if not e.left_out]


def batches(work: Work, examples: "Sequence[Encoded]") -> "list[list[Encoded]]":
    """Returns `steps` batches of the pool `examples` as training would form them, each of examples of similar length.

    They are taken evenly over the lengths, so that few steps stand for the whole; their order is random. Raises
    ValueError when the pool does not fill so many.
    """
    from training.data.batches import epoch_plan

    lengths = [len(e.tokens) for e in examples]
    size = work.batch_size
    found = [[examples[i] for i in step[0][0]] for step in epoch_plan(0, 0, lengths, size, size, 1, drop_last=True)]
    if len(found) < work.steps:
        raise ValueError(f"--steps {work.steps}: must be at most {len(found)}, the batches of one pool")
    by_length = sorted(range(len(found)), key=lambda i: sum(len(e.tokens) for e in found[i]))
    chosen = {by_length[(2 * k + 1) * len(found) // (2 * work.steps)] for k in range(work.steps)}
    return [found[i] for i in sorted(chosen)]


def in_random_order(grouped: "list[list[Encoded]]") -> "list[list[Encoded]]":
    """Returns the same examples in batches of the same sizes, whatever their lengths."""
    mixed = [example for batch in grouped for example in batch]
    random.Random(0).shuffle(mixed)
    following = iter(mixed)
    return [[next(following) for _ in batch] for batch in grouped]


def random_examples(task: Literal["cls", "ift"], lengths: Sequence[int], vocabulary: int) -> "list[Encoded]":
    """Returns texts of random tokens; the first half of an instruction is its prompt, which is no target."""
    import numpy as np

    from training.data.batches import IGNORED, Encoded

    rng, found = np.random.default_rng(0), []
    for i, length in enumerate(lengths):
        tokens = rng.integers(0, vocabulary, length + 1)
        targets = np.where(np.arange(length) < length // 2, IGNORED, tokens[1:])
        found.append(Encoded(i, tokens[:-1].astype(np.int32), i % 2 if task == "cls" else targets))
    return found
