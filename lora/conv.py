"""LoRA on convolutions: one with R outputs and all other settings of the frozen layer, then a 1x1 one.

Together they are a low-rank update of the matrix of flattened kernels, (out, in * positions). No --method has it, since
GPT-2 has no convolution. Cost against the frozen layer: R * (in * positions + out) trained numbers.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lora.adapter import Adapter, LowRank, Spec, random_factors
from lora.frozen import CONVOLUTIONS


class ConvLoRA(Adapter):
    """Takes an nn.Conv1d or nn.Conv2d without groups, whose kernels are one matrix over all inputs.

    PEFT leaves the dilation out of the first convolution, so that its merged layer differs from the unmerged one.
    """

    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        assert type(self.linear) in CONVOLUTIONS, f"{type(self.linear).__name__} is neither Conv1d nor Conv2d"
        assert self.linear.groups == 1, f"groups={self.linear.groups}: LoRA needs a convolution of one group"
        assert self.parts == 1, "a convolution has no parts"
        self.low_rank = LowRank(*random_factors(self, spec, generator))

    def adapted(self, x: Tensor) -> Tensor:
        """(N, in, ...) -> (N, out, ...)"""
        frozen, a, b = self.linear, self.low_rank.A, self.low_rank.B[0].t()
        kernel = frozen.weight.shape[2:]
        dropped = F.dropout(x, self.dropout, self.training)
        thin = frozen._conv_forward(dropped, a.view(len(a), -1, *kernel), None)  # (N, R, ...)
        ones = [1] * len(kernel)
        wide = (F.conv1d if len(kernel) == 1 else F.conv2d)(thin, b.reshape(*b.shape, *ones))  # (N, out, ...)
        return frozen(x) + self.scale * wide
