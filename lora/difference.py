"""Adapters whose factors start at a piece of the frozen matrix: the update is scale * (B A - B0 A0).

Other libraries take that piece out of the frozen matrix. Here the matrix stays as it is, so that other layers can share
it and the adapter fits every copy of it.
"""

import torch
from torch import Tensor

from lora.adapter import Adapter, Factors, LowRank, Spec
from lora.frozen import dense


class Difference(Adapter):
    """A variant defines `piece`. Dropout acts on the update's x, so that with it too training starts at the base."""

    def piece(self, matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Returns the factors (R, in) and (R, out / parts) at which a part with `matrix` (out / parts, in) starts."""
        raise NotImplementedError

    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        a, b = zip(*(self.piece(rows, spec.rank) for rows in self.active_rows(dense(self.linear))), strict=True)
        self.low_rank = LowRank(torch.cat(a), torch.stack(b))
        self.initial = LowRank(torch.cat(a), torch.stack(b), trains="")

    def factors(self) -> Factors:
        """Factors of rank 2R: B A - B0 A0 = B (A - A0) + (B - B0) A0, exactly zero before anything has been trained."""
        now, start, active = self.low_rank, self.initial, len(self.active)
        a, a0 = (x.unflatten(0, (active, -1)) for x in (now.A, start.A))  # (P, R, in)
        return Factors(
            torch.cat([a - a0, a0], 1).flatten(0, 1), torch.cat([now.B, now.B - start.B], 1), self.scale
        )  # (2 P R, in), (P, 2R, out / parts)


def singular_factors(matrix: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """Returns A (R, in) and B (R, out) whose scale * B^T A approximates `matrix` (out, in) best at rank R.

    R is at most the number of singular values. Each factor holds the root of the singular values.
    """
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    root = (s[:rank, None] / scale).sqrt()  # (R, 1)
    return root * vh[:rank], root * u[:, :rank].t()
