"""LoRA (Hu et al. 2021, section 4.1): y = W x + scale * B A x, B zero at first: training starts at the base.

Cost against the frozen layer: R * (in + out) trained numbers a matrix, two thin products forward and four backward.
"""

import torch
from torch import Tensor

from lora._adapter import INITS, Adapter, LowRank, Spec
from lora._low_rank_linear import low_rank_linear


class LoRA(Adapter):
    """On a fused matrix each active part has an A and a B of its own, as if it stood alone."""

    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        inputs, outputs = self.linear.in_features, self.linear.out_features // self.parts
        bound = INITS[spec.init](inputs, spec.rank)
        self.low_rank = LowRank(inputs, outputs, len(self.active), spec.rank, bound, generator)

    def adapted(self, x: Tensor) -> Tensor:
        frozen, low_rank = self.linear, self.low_rank
        return low_rank_linear(x, frozen.weight, frozen.bias, low_rank.A, low_rank.B, self.scale, self.active)

    def merged_weight(self) -> Tensor:
        merged = self.linear.weight.detach().float().clone().unflatten(0, (self.parts, -1))  # (parts, out / parts, in)
        merged[list(self.active)] += self.scale * self.low_rank.product().detach()
        return merged.flatten(0, 1)


VARIANT = LoRA
