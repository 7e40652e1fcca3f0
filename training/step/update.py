"""One optimizer step: gradients of a loss that is averaged over all micro-batches and processes exactly."""

import contextlib
import math
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from training.data.batches import Batch
from training.step.schedule import clip
from training.step.seeds import seed_dropout


def accumulate(
    accelerator: Accelerator,
    prepared: nn.Module,
    batches: Sequence[Batch],
    count: int,
    loss: Callable[[Batch], Tensor],
    place: tuple[int, int],
) -> float:
    """Adds up the gradients of sum(loss) / count; returns the sum of the loss over all processes.

    `count` is that of all micro-batches of all processes. Data parallelism averages over processes, hence the factor.
    `place` is (seed, step): dropout depends on it, the process and the micro-batch alone.
    """
    seed, step = place
    total = torch.zeros((), dtype=torch.float64)
    for i, batch in enumerate(batches):
        last = i == len(batches) - 1
        seed_dropout(seed, step, accelerator.process_index, i)
        with contextlib.nullcontext() if last else accelerator.no_sync(prepared):
            summed = loss(batch.to(accelerator.device)) * batch.weight
            accelerator.backward(summed * (accelerator.num_processes / count))
        total += summed.detach().cpu().double()
    return float(accelerator.reduce(total.to(accelerator.device), "sum"))


def apply_update(
    accelerator: Accelerator, model: nn.Module, optimizer: AcceleratedOptimizer, lr: float, max_norm: float | None
) -> float | None:
    """Clips and steps; the gradient norm before clipping, or None when an fp16 overflow made the step void.

    Raises ValueError when the gradient is not finite although nothing scaled it.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_ratio", 1.0)
    norm = clip(accelerator, model, max_norm)
    if accelerator.scaler is None and not math.isfinite(norm):
        raise ValueError(f"the gradient is {norm}: training diverged; lower --lr or warm up longer")
    optimizer.step()
    optimizer.zero_grad()
    return None if accelerator.optimizer_step_was_skipped else norm
