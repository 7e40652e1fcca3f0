"""Flags of the optimizer and its steps. Nothing heavy is imported."""

import math
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

from training.flags.cli import at_least, changed_flags, flag
from training.flags.fields import AsPublished, Rare

# Default epochs give at least so many updates. Measured on 320 tickets in five classes, the commonest 40% (gpt2-nano,
# seeds 0 and 1, default rates, accuracy of 40 test tickets, LoRA and full): 80 updates 0.43 0.40 and
# 0.80 0.73; 120 updates 0.68 0.55 and 1.00 0.95; 200 updates 1.00 0.95 and 1.00 1.00.
FEWEST_UPDATES = 200
MOST_EPOCHS, MOST_UPDATES = 1e6, 10**9  # more is a slip, and would need memory for its plan alone


def needs_bitsandbytes(asked: str) -> list[str]:
    if find_spec("bitsandbytes") is None:
        return [f'{asked}: needs bitsandbytes; pip install "bitsandbytes>=0.50.2,<0.51"']
    return []


@dataclass(frozen=True)
class UpdateArgs:
    """How it is trained"""

    epochs: float | None = None
    """passes over the training examples; None: the method's default. Fractions are allowed. The default
    (docs/methods.md) is raised to as many as 200 updates take; preferences have no such floor"""
    max_steps: int | None = None
    """optimizer steps in all; overrules --epochs"""
    batch_size: int = 8
    """examples per optimizer step, over all processes"""
    micro_batch_size: int | Literal["auto"] | None = None
    """examples that a GPU, or a thread of a CPU, holds at a time; auto: as many as fit; None: at most 8"""
    optimizer: Rare[Literal["adamw", "adamw8bit", "paged-adamw8bit", "sgd", "sgd-momentum"]] = "adamw"
    """adamw8bit: states in 8 bits, by bitsandbytes; paged-adamw8bit: on a CUDA GPU they also move to the machine's
    memory when room is short; sgd-momentum uses 0.9 unless --momentum says otherwise"""
    momentum: Rare[float] = 0.9
    """momentum of sgd-momentum"""
    lr: float | None = None
    """peak learning rate; None: the method's default. The defaults are in docs/methods.md"""
    lr_init: Rare[float] = 0.0
    """learning rate at the first warmup step"""
    lr_min: Rare[float] = 0.0
    """learning rate at the end of the cosine"""
    schedule: Rare[Literal["cosine", "constant"]] = "cosine"
    """course of the learning rate after the warmup"""
    warmup_ratio: Rare[float] = 0.05
    """share of the steps that warm up"""
    warmup_steps: Rare[int | None] = None
    """steps that warm up; overrides --warmup-ratio"""
    max_grad_norm: Rare[float | None] = 1.0
    """clip the norm of all gradients together to this; None: no clipping"""
    clip_after_warmup: AsPublished[bool] = False
    """do not clip during the warmup (as the report's authors did)"""
    weight_decay: Rare[float] = 0.01
    """weight decay of the matrices, decoupled in adamw"""
    decay_all: AsPublished[bool] = False
    """apply weight decay to biases, norms and embeddings too"""
    drop_last: AsPublished[bool] = False
    """drop the last batch of an epoch when it is short"""
    seed: int = 0
    """seed of initialisation, order, dropout and sampling"""

    def with_defaults(
        self, lr_at_width_192: float, epochs: float, width: int, examples: int, fewest: int = FEWEST_UPDATES
    ) -> "UpdateArgs":
        """Returns a copy with the defaults filled in.

        Adam's step for a matrix should shrink with its width (Yang et al. 2022, table 8), so the default learning rate
        does. Little data gets more than the default `epochs`: as many as make the `fewest` updates.
        """
        open_lr = lr_at_width_192 * 192 / width if self.lr is None else self.lr
        enough = math.ceil(fewest / max(self.steps_per_epoch(examples), 1))
        open_epochs = max(epochs, float(enough)) if self.epochs is None and self.max_steps is None else self.epochs
        return replace(self, lr=open_lr, epochs=open_epochs)

    def notes(self, steps: int, fewest: int = FEWEST_UPDATES) -> list[str]:
        """Returns what a user should know, before training, of flags that overrule others and a length that is too
        short."""
        found = []
        if self.warmup_steps is not None and "warmup_ratio" in changed_flags(self):
            found.append(f"--warmup-steps {self.warmup_steps} overrules --warmup-ratio {self.warmup_ratio:g}")
        if self.warmup(steps) == 0:
            idle = {"lr_init", "clip_after_warmup"} | ({"warmup_ratio"} if self.warmup_steps is None else set())
            given = [name for name, value in changed_flags(self).items() if name in idle and value]
            found += [f"{flag(name)} changes nothing, since none of {steps:,} updates warms up" for name in given]
        if self.epochs is not None and self.max_steps is not None:
            found.append(f"--max-steps {self.max_steps} overrules --epochs {self.epochs:g}")
        elif self.epochs is not None and steps < fewest:
            found.append(
                f"--epochs {self.epochs:g} gives {steps:,} updates; with fewer than {fewest} a method can look "
                "worse than it is: leave --epochs out, or give more"
            )
        return found

    def warmup(self, steps: int) -> int:
        """Returns how many of the optimizer steps warm up."""
        asked = self.warmup_ratio * steps
        return int(round(asked, 6)) if self.warmup_steps is None else self.warmup_steps  # 0.29 * 100 is below 29

    def clip_at(self, step: int, warmup: int) -> float | None:
        """Returns the largest gradient norm allowed in this step; None allows any."""
        return None if self.clip_after_warmup and step < warmup else self.max_grad_norm

    def steps(self, examples: int) -> int:
        """Returns the number of optimizer steps. Raises ValueError for none, or for more than MOST_UPDATES."""
        per_epoch = self.steps_per_epoch(examples)
        if per_epoch == 0:
            raise ValueError(f"--drop-last: leaves nothing of {examples} examples at --batch-size {self.batch_size}")
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None, "with_defaults has filled in one of the two"
        wanted = max(1, math.ceil(round(self.epochs * per_epoch, 6)))
        if wanted > MOST_UPDATES:
            raise ValueError(
                f"--epochs {self.epochs:g}: gives {wanted:,} updates; at most {MOST_UPDATES:,} are allowed"
            )
        return wanted

    def steps_per_epoch(self, examples: int) -> int:
        return examples // self.batch_size if self.drop_last else -(-examples // self.batch_size)

    def problems(self) -> list[str]:
        found = at_least(self, 1, "max_steps", "batch_size")
        found += at_least(self, 1, "micro_batch_size") if isinstance(self.micro_batch_size, int) else []
        found += at_least(self, 0, "lr_init", "lr_min", "warmup_steps", "weight_decay", "seed")
        for name in ("epochs", "lr", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                remedy = "; None does not clip" if name == "max_grad_norm" else ""
                found.append(f"{flag(name)} {value}: must be above 0 and finite{remedy}")
        if self.epochs is not None and MOST_EPOCHS < self.epochs < math.inf:
            found.append(f"--epochs {self.epochs:g}: must be at most {MOST_EPOCHS:,.0f}")
        if self.max_steps is not None and self.max_steps > MOST_UPDATES:
            found.append(f"--max-steps {self.max_steps}: must be at most {MOST_UPDATES:,}")
        if not 0 <= self.warmup_ratio <= 1:
            found.append(f"--warmup-ratio {self.warmup_ratio}: must be 0 to 1")
        if "8bit" in self.optimizer:
            found += needs_bitsandbytes(f"--optimizer {self.optimizer}")
        if "adamw" not in self.optimizer and self.lr is None:
            found.append(f"--optimizer {self.optimizer}: needs --lr, the default learning rates are Adam's")
        if not 0 <= self.momentum < 1:
            found.append(f"--momentum {self.momentum}: must be at least 0 and below 1")
        elif "momentum" in changed_flags(self) and self.optimizer != "sgd-momentum":
            found.append(f"--momentum {self.momentum}: is for --optimizer sgd-momentum; leave it out")
        if "lr_min" in changed_flags(self) and self.schedule == "constant":
            found.append(f"--lr-min {self.lr_min}: --schedule constant does not fall; leave it out")
        return found
