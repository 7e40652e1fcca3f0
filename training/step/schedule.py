"""The learning rate as a pure function of the optimizer step, and clipping (report section 3.1.1, figure 2)."""

import math
from dataclasses import dataclass
from typing import Literal

from accelerate import Accelerator
from torch import nn

from training.flags.common import UpdateArgs


@dataclass(frozen=True)
class Schedule:
    """Linear from `init` to `peak` over `warmup` steps, `hold` steps there, then cosine to `minimum`, or constant.

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
        """Learning rate of optimizer step `step`, counted from 0."""
        if step < self.warmup:
            return self.init + (self.peak - self.init) * step / self.warmup
        if self.shape == "constant":
            return self.peak
        falling = self.warmup + self.hold  # the first step of the cosine
        progress = min(max(step - falling, 0) / max(self.steps - falling, 1), 1.0)
        return self.minimum + (self.peak - self.minimum) * 0.5 * (1 + math.cos(math.pi * progress))


def build_schedule(update: UpdateArgs, steps: int) -> Schedule:
    """Raises ValueError when the warmup is longer than the training."""
    if update.warmup_steps is not None and update.warmup_steps > steps:
        raise ValueError(f"--warmup-steps {update.warmup_steps}: longer than the training, which has {steps} steps")
    warmup = int(update.warmup_ratio * steps) if update.warmup_steps is None else update.warmup_steps
    assert update.lr is not None, "with_defaults has filled in the learning rate"
    return Schedule(steps, warmup, update.lr, update.lr_init, update.lr_min, update.schedule)


def clip(accelerator: Accelerator, model: nn.Module, max_norm: float | None) -> float:
    """Norm of all gradients before clipping; clips if `max_norm` is given. Once a step, with gradients synchronised."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return float(accelerator.clip_grad_norm_(trained, math.inf if max_norm is None else max_norm))
