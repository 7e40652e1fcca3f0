"""DoRA (Liu et al. 2024, section 4): each row of W + scale * B A is stretched to a trained length m, at first W's own.

The length before that, ||W + scale * B A||, counts as a constant in the backward pass (section 4.3).
Cost against lora: `out` more trained numbers a matrix; W + scale * B A in fp32 once a forward pass, whatever the number
of tokens; one more (N, out) tensor kept for the backward pass, in all 1.1 times as much; 1.2 times the time (lora.py).
"""

import torch
from torch import Tensor, nn

from lora.adapter import Adapter, Factors, LowRank, Spec, random_factors, row_lengths
from lora.frozen import dense, shape

TITLE = "DoRA"
HELP = "the length of each row is trained apart"
COST = "3% more trained numbers, 20% more time, 10% more kept for the backward pass"


class DoRA(Adapter):
    """Dropout acts on the update's x alone; in the authors' code it reaches m's gradient too."""

    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        self.low_rank = LowRank(*random_factors(self, spec, generator))
        self.magnitude = nn.Parameter(self.active_rows(self._frozen_lengths()).flatten())  # (P * out / parts,)

    def adapted(self, x: Tensor) -> Tensor:
        ones = self.magnitude.new_ones(shape(self.linear)[0])
        stretch = self._in_place(self.magnitude / self._lengths(), ones)  # (out,)
        y = self.with_low_rank(x)  # (N, out)
        bias = self.linear.bias
        if bias is None:
            return (y * stretch).to(y.dtype)
        return torch.addcmul(bias * (1 - stretch), y, stretch).to(y.dtype)  # the bias, in y already, is not stretched

    def multiplied(self) -> tuple[Tensor, Tensor]:
        return self.low_rank.A, self.low_rank.B

    def factors(self) -> Factors:
        magnitude = self._in_place(self.magnitude, self._frozen_lengths().flatten())
        return Factors(self.low_rank.A, self.low_rank.B, self.scale, magnitude)

    def _frozen_lengths(self) -> Tensor:
        """Returns the length of each row of W (out, 1)."""
        return torch.linalg.vector_norm(dense(self.linear), dim=1, keepdim=True)

    @torch.no_grad()
    def _lengths(self) -> Tensor:
        """Returns the length of each active row of W + scale * B A (P * out / parts,)."""
        with torch.autocast(self.low_rank.A.device.type, enabled=False):
            rows = self.active_rows(dense(self.linear))
            rows += Factors(self.low_rank.A, self.low_rank.B, self.scale).product()
            return row_lengths(rows).flatten()

    def _in_place(self, numbers: Tensor, others: Tensor) -> Tensor:
        """Puts `numbers` (P * out / parts,) into the active parts of `others` (out,)."""
        parts = list(others.chunk(self.parts))
        for part, active in zip(self.active, numbers.chunk(len(self.active)), strict=True):
            parts[part] = active
        return torch.cat(parts)


ADAPTER = DoRA
