"""LoRA (Hu et al. 2021, section 4.1): y = W x + scale * B A x, B zero at first: training starts at the base.

Cost against the frozen layer: R * (in + out) trained numbers a matrix, two thin products forward and four backward.
With dropout, or beside a quantised layer, autograd adds up (N, out) tensors; dropout takes 1.35 times the time and
keeps 1.2 times as much for the backward pass.

All costs of variants were measured on a forward and backward pass of gpt2-nano at 1,024 tokens, rank 16, fp32, one
thread, the variants in turns; each is the median ratio to this one.
"""

import torch

from lora.adapter import Adapter, LowRank, Spec, random_factors

TITLE = "LoRA"
HELP = "adapters of low rank beside frozen matrices"
INITS = ("standard", "paper", "loftq")


class LoRA(Adapter):
    """On a fused matrix each active part has an A and a B of its own, as if it stood alone."""

    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        self.low_rank = LowRank(*random_factors(self, spec, generator))


ADAPTER = LoRA
