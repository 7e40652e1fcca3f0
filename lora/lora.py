"""LoRA (Hu et al. 2021, section 4.1): y = W x + scale * B A x, B zero at first: training starts at the base.

Cost against the frozen layer: R * (in + out) trained numbers a matrix, two thin products forward and four backward.
With dropout, or beside a quantised layer, autograd adds up (N, out) tensors; measured as below, dropout costs 1.35
times the time and 1.2 times what is kept for the backward pass.

The times of all variants are of a forward and backward pass of gpt2-nano at 1,024 tokens, rank 16, fp32, one thread,
taken in turns; each is the median ratio to plain LoRA.
"""

import torch
from torch import Tensor

from lora._adapter import Adapter, Factors, LowRank, Spec, random_factors
from lora._difference import singular_factors
from lora._frozen import dense


class LoRA(Adapter):
    """On a fused matrix each active part has an A and a B of its own, as if it stood alone."""

    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        """Init `loftq` (Li et al. 2023, one step of algorithm 1) needs the matrix `original` from before `linear` was
        quantised, and starts at the best that rank R can do to make up for the difference."""
        if spec.init == "loftq":
            assert self.original is not None, "loftq needs the original matrix"
            error = self.active_rows(self.original.float() - dense(self.linear))
            a, b = zip(*(singular_factors(rows, spec.rank, self.scale) for rows in error), strict=True)
            self.low_rank = LowRank(torch.cat(a), torch.stack(b))
        else:
            self.low_rank = LowRank(*random_factors(self, spec, generator))

    def adapted(self, x: Tensor) -> Tensor:
        return self.with_low_rank(x, self.low_rank.A, self.low_rank.B)

    def factors(self) -> Factors:
        return Factors(self.low_rank.A, self.low_rank.B, self.scale)


VARIANT = LoRA
