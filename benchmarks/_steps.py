"""The clock, and our side of the comparison: an update and an evaluation, put together as in the scripts."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch.nn import functional as F

from _work import CLASSES, Work
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.pretrained import without_storage
from training.data.batches import Batch, Encoded, collate
from training.evaluation.inference import classify, score_targets
from training.flags.common import MethodArgs, ModelArgs, UpdateArgs
from training.flags.compute import ComputeArgs
from training.forecast.micro_batch import usual_size
from training.forecast.workload import Workload
from training.model.frozen_activations import with_frozen_activations
from training.model.methods import apply_compute, apply_method, build_classifier, build_language_model
from training.run.launch import start
from training.run.results import environment, peak_memory_mib
from training.run.threads import choose_threads
from training.step.losses import loss_of
from training.step.optimizers import build_optimizer
from training.step.seeds import generator
from training.step.update import accumulate, apply_update
from training.storage.files import write_json

LEARNING_RATE = 1e-5
CLIP = 1.0
MATRIX_ROWS, ROUNDS = 2048, 5  # rows of a product, rounds
# Products of a round. A GPU is waited for at the end of each, which must be little beside them.
PRODUCTS, PRODUCTS_OF_A_GPU = 5, 200


def use_device(work: Work) -> None:
    """Call this before the first accelerator. Both sides of a comparison get the number of threads that a run takes.

    Raises ValueError for a missing GPU, and for fp16 without a GPU.
    """
    choose_threads()
    if work.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    if work.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no CUDA GPU; leave it out")
    if work.precision == "fp16" and (work.device == "cpu" or not torch.cuda.is_available()):
        raise ValueError("--precision fp16: needs a GPU; use fp32 or bf16")


def random_model(work: Work) -> Classifier | LanguageModel:
    """Returns an untrained GPT-2 of this size, with the same numbers on every call."""
    kind: Any = (Classifier, work.config, len(CLASSES)) if work.task == "cls" else (LanguageModel, work.config)
    model = without_storage(*kind)
    model.to_empty(device="cpu")
    model.tie()
    initialise(model, generator(0))
    return model


def read_model(work: Work, folder: Path, base_bits: Literal[4, 8] | None) -> Classifier | LanguageModel:
    """Reads the weights in `folder`, of this size, as the scripts do."""
    model = ModelArgs(base_bits=base_bits)
    if work.task == "cls":
        return build_classifier(folder, work.config, model, len(CLASSES), 0)
    return build_language_model(folder, work.config, model)


class Training:
    """A model about to be trained, and what the scripts do with it in a step. `model` None: random weights.

    An update is divided as a run that trains on `train` divides it by default, and not at all if there is none.
    """

    def __init__(
        self,
        work: Work,
        method: MethodArgs,
        compute: ComputeArgs,
        model: Classifier | LanguageModel | None = None,
        update: UpdateArgs | None = None,
        train: Sequence[Encoded] = (),
    ) -> None:
        self.compute = compute
        self.accelerator, _ = start(compute, Path("runs"), False)
        self.model = random_model(work) if model is None else model
        apply_method(self.model, method, 0)
        apply_compute(self.model, method.method, compute, self.accelerator.mixed_precision)
        scaled = self.accelerator.scaler is not None
        optimizer = build_optimizer(self.model, update or work.update, scaled=scaled)
        self.prepared, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        self.size = work.batch_size  # examples at a time
        if train:
            self.size = usual_size(Workload(self.model, work.update, self.accelerator, train))
        self.steps = 0

    def cached(self, batches: list[list[Encoded]]) -> list[list[Encoded]]:
        """Returns the batches as every epoch but the first has them: with the frozen blocks' activations, if cached."""
        if self.compute.cache_frozen is None:
            return batches
        return with_frozen_activations(self.accelerator, self.model, self.compute, "random weights", batches)[0]

    def loss(self, batch: Batch) -> torch.Tensor:
        return loss_of(self.accelerator, self.model, batch)

    def update(self, chosen: Sequence[Encoded]) -> torch.Tensor:
        """Makes an update and returns the mean loss before it."""
        return self.update_by([chosen[start : start + self.size] for start in range(0, len(chosen), self.size)])

    def update_by(self, micro_batches: Sequence[Sequence[Encoded]]) -> torch.Tensor:
        """Makes an update of these micro-batches and returns the mean loss before it."""
        count = sum(e.count for micro in micro_batches for e in micro)
        batches = [collate(micro) for micro in micro_batches]
        loss = accumulate(self.accelerator, self.prepared, batches, count, self.loss, (0, self.steps))
        apply_update(self.accelerator, self.model, self.optimizer, LEARNING_RATE, CLIP)
        self.steps += 1
        return loss / count

    def evaluate(self, chosen: Sequence[Encoded]) -> None:
        if isinstance(self.model, Classifier):
            classify(self.model, chosen, self.accelerator, len(CLASSES))
        else:
            score_targets(self.model, chosen, self.accelerator)


def longest(batches: Sequence[Sequence[Encoded]]) -> Sequence[Encoded]:
    """Returns the batch with the longest text, for which a GPU's allocator asks for more than for any other."""
    return max(batches, key=lambda batch: max(len(e.tokens) for e in batch))


def clock(step: Callable[[Any], Any], batches: Sequence[Any], device: torch.device) -> float:
    """Returns the seconds that `step` takes on all batches."""
    _wait_for(device)
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    _wait_for(device)
    return time.perf_counter() - started


def clock_updates(
    update: Callable[[Any], Any], batches: Sequence[Any], first: Any, accelerator: Accelerator
) -> dict[str, Any]:
    """Times updates, after one on `first`, whose loss is reported, and one on the longest; returns the numbers."""
    loss = float(update(first))
    update(longest(batches))
    seconds = clock(update, batches, accelerator.device)
    tokens = sum(len(e.tokens) for batch in batches for e in batch)
    return {
        "tokens_per_second": tokens / seconds,
        "ms_per_step": 1000 * seconds / len(batches),
        "peak_memory_mib": peak_memory_mib(accelerator),
        "tokens": tokens,
        "first_loss": loss,
        "environment": environment(accelerator),
    }


def matrix_product_flops_per_second(config: GPT2Config, dtype: torch.dtype, device: torch.device) -> float:
    """Measures the machine: FLOP/s of MATRIX_ROWS rows times the four matrices of a block, in the fastest rounds."""
    c, flops, seconds = config.width, 0, 0.0
    products = PRODUCTS if device.type == "cpu" else PRODUCTS_OF_A_GPU
    for outputs, inputs in ((3 * c, c), (c, c), (4 * c, c), (c, 4 * c)):
        x = torch.randn(MATRIX_ROWS, inputs, device=device, dtype=dtype)
        weight = torch.randn(outputs, inputs, device=device, dtype=dtype)
        rounds = [clock(partial(F.linear, x), [weight] * products, device) for _ in range(ROUNDS)]
        flops += products * 2 * MATRIX_ROWS * outputs * inputs
        seconds += min(rounds)
    return flops / seconds


def report(numbers: dict[str, Any], file: Path | None) -> None:
    """Prints the numbers, and writes them into `file`."""
    for name, value in numbers.items():
        if isinstance(value, float):
            print(f"{name:<36}{value:>20,.3f}")
    if file is not None:
        write_json(file, numbers)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
