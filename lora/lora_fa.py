"""LoRA-FA (Zhang et al. 2023, section 3): LoRA whose random A stays fixed; only B trains.

Cost against lora: half the trained numbers of a square matrix; no gradient for A, 0.92 times the time (lora.py). The
layer's input need not be kept for the backward pass, which saves memory where nothing else keeps it; in this project's
GPT-2 the norms, GELU and attention in front of the matrices keep what they need to make it again.
"""

import torch
from torch import Tensor

from lora._adapter import Adapter, Factors, LowRank, Spec, random_factors


class LoRAFA(Adapter):
    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        self.low_rank = LowRank(*random_factors(self, spec, generator), trains="B")

    def adapted(self, x: Tensor) -> Tensor:
        return self.with_low_rank(x, self.low_rank.A, self.low_rank.B)

    def factors(self) -> Factors:
        return Factors(self.low_rank.A, self.low_rank.B, self.scale)


VARIANT = LoRAFA
