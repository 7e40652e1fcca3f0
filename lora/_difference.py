"""Factors that start at a piece of the frozen matrix, and count by how far they have come from there.

Elsewhere that piece is taken out of the frozen matrix: here the matrix stays as it is, for others to share and to put
the adapter beside any copy of it, and the update is scale * (B A - B0 A0).
"""

import torch
from torch import Tensor

from lora._adapter import Adapter, Factors, LowRank, Spec
from lora._frozen import dense


class Difference(Adapter):
    """A variant has `piece`. Dropout acts on the x of the update, so that training starts at the base with it too."""

    def piece(self, matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """The factors that a part with this `matrix` (out / parts, in) starts from: (R, in), (R, out / parts)."""
        raise NotImplementedError

    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        a, b = zip(*(self.piece(rows, spec.rank) for rows in self.active_rows(dense(self.linear))), strict=True)
        self.low_rank = LowRank(torch.cat(a), torch.stack(b))
        self.initial = LowRank(torch.cat(a), torch.stack(b), trains="")

    def adapted(self, x: Tensor) -> Tensor:
        return self.with_low_rank(x, *self.factors()[:2])

    def factors(self) -> Factors:
        """Rank 2R: B A - B0 A0 = B (A - A0) + (B - B0) A0, which is zero exactly when nothing has been trained."""
        now, start, active = self.low_rank, self.initial, len(self.active)
        a, a0 = (x.unflatten(0, (active, -1)) for x in (now.A, start.A))  # (P, R, in)
        return Factors(
            torch.cat([a - a0, a0], 1).flatten(0, 1), torch.cat([now.B, now.B - start.B], 1), self.scale
        )  # (2 P R, in), (P, 2R, out / parts)


def singular_factors(matrix: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """A (R, in) and B (R, out) with scale * B^T A the best approximation of `matrix` (out, in) that rank R allows.

    R is at most the number of singular values. Each factor has the root of the singular values in it.
    """
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    root = (s[:rank, None] / scale).sqrt()  # (R, 1)
    return root * vh[:rank], root * u[:, :rank].t()
