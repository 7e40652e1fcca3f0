"""One optimizer step: its learning rate, its gradients, clipping (report section 3.1.1, figure 2).

The learning rate is a pure function of the step; the loss is averaged exactly over all micro-batches and processes.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from gpt2_scratch.precision import HALF
from lora.casting import factors_cast_to
from training.data.batches import Batch
from training.flags.common import UpdateArgs
from training.step.seeds import seed_dropout
from training.step.sharding import is_sharded
from training.step.side_by_side import gradients_side_by_side, updates_at_a_time


@dataclass(frozen=True)
class Schedule:
    """Rises from `init` to `peak` in `warmup` steps, holds for `hold`, then falls as a cosine to `minimum`, or stays.

    Example, 10 steps with 2 of warmup: step 0 runs at init, 1 halfway, 2 at the peak, 9 just above the minimum.
    """

    steps: int
    warmup: int
    peak: float
    init: float = 0.0
    minimum: float = 0.0
    shape: Literal["cosine", "constant"] = "cosine"
    hold: int = 0

    def lr_at(self, step: int) -> float:
        """Returns the learning rate of optimizer step `step`, counted from 0."""
        if step < self.warmup:
            return self.init + (self.peak - self.init) * step / self.warmup
        if self.shape == "constant":
            return self.peak
        falling = self.warmup + self.hold  # the first step of the cosine
        progress = min(max(step - falling, 0) / max(self.steps - falling, 1), 1.0)
        return self.minimum + (self.peak - self.minimum) * 0.5 * (1 + math.cos(math.pi * progress))


def build_schedule(update: UpdateArgs, steps: int) -> Schedule:
    """Builds the schedule of the flags. Raises ValueError when the warmup is longer than the training or all of
    it at a learning rate of 0, or the end of the cosine above its peak."""
    if update.warmup_steps is not None and update.warmup_steps > steps:
        raise ValueError(f"--warmup-steps {update.warmup_steps}: longer than the training, which has {steps} steps")
    warmup = update.warmup(steps)
    assert update.lr is not None, "with_defaults has filled in the learning rate"
    if update.lr_min > update.lr:
        raise ValueError(f"--lr-min {update.lr_min:g}: is above the peak, --lr {update.lr:g}; give less")
    if steps == warmup == 1 and update.lr_init == 0:
        given = f"ratio {update.warmup_ratio:g}" if update.warmup_steps is None else "steps 1"
        raise ValueError(f"--warmup-{given}: the only update runs at --lr-init 0 and trains nothing; leave it out")
    return Schedule(steps, warmup, update.lr, update.lr_init, update.lr_min, update.schedule)


def clip(accelerator: Accelerator, model: nn.Module, max_norm: float | None) -> float:
    """Clips the synchronised gradients to `max_norm`, if given, and returns their norm before."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return float(accelerator.clip_grad_norm_(trained, math.inf if max_norm is None else max_norm))


def accumulate(
    accelerator: Accelerator,
    prepared: nn.Module,
    batches: Sequence[Batch],
    count: int,
    loss: Callable[[Batch], Tensor],
    place: tuple[int, int],
) -> Tensor:
    """Adds up the gradients of sum(loss) / count; returns the sum of the loss over all processes (), in fp64. Whoever
    reads it waits for a GPU.

    `count` covers all micro-batches of all processes. Data parallelism averages over processes, hence the factor.
    `place` is (seed, step): dropout depends on it, the process and the micro-batch alone. A CPU computes several
    micro-batches at a time, which gives the same numbers as one after the other on one thread.
    """
    if len(batches) > 1 and (threads := updates_at_a_time(accelerator, prepared)) > 1:
        trained = [p for p in prepared.parameters() if p.requires_grad]
        return gradients_side_by_side(loss, batches, trained, 1 / count, threads)
    # Sharded factors are whole in their layer's own pass alone.
    half = None if is_sharded(prepared) else HALF.get(accelerator.mixed_precision)
    seed, step = place
    place_of_total = accelerator.device if accelerator.device.type == "cuda" else torch.device("cpu")
    total = torch.zeros((), dtype=torch.float64, device=place_of_total)  # not every other device has float64
    for i, batch in enumerate(batches):
        last = i == len(batches) - 1
        seed_dropout(seed, step, accelerator.process_index, i)
        synchronised = contextlib.nullcontext() if last else accelerator.no_sync(prepared)
        with synchronised, factors_cast_to(half, prepared):
            summed = loss(batch.to(accelerator.device))
            accelerator.backward(summed * (batch.weight * accelerator.num_processes / count))
        total.add_(summed.detach().to(total.device), alpha=batch.weight)
    return total if accelerator.num_processes == 1 else accelerator.reduce(total.to(accelerator.device), "sum")


def diverged(what: str, value: float) -> ValueError:
    """Returns the error of a training of which a number is no longer finite."""
    return ValueError(f"{what} is {value}: training diverged; lower --lr or warm up longer")


def apply_update(
    accelerator: Accelerator, model: nn.Module, optimizer: AcceleratedOptimizer, lr: float, max_norm: float | None
) -> float | None:
    """Clips and steps; returns the gradient norm before clipping, or None when an fp16 overflow made the step void.

    Raises ValueError when the gradient is not finite although nothing scaled it.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_ratio", 1.0)
    norm = clip(accelerator, model, max_norm)
    if accelerator.scaler is None and not math.isfinite(norm):
        raise diverged("the gradient", norm)
    optimizer.step()
    optimizer.zero_grad()
    return None if accelerator.optimizer_step_was_skipped else norm
