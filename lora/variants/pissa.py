"""PiSSA (Meng et al. 2024, section 3): A and B start at the R largest singular values of W and their vectors.

Cost against lora: as many trained numbers; thin products of rank 2R, since the frozen matrix stays whole, 1.07 times
the time (lora.py); the singular values of each matrix at the start, 14 s for gpt2 and 70 s for gpt2-medium on one core.
"""

from torch import Tensor

from lora.difference import Difference, singular_factors

TITLE = "PiSSA"
HELP = "starts at the largest singular values"
COST = "7% more time, and before it a minute for gpt2-medium"
INITS = ("standard",)


class PiSSA(Difference):
    def piece(self, matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        return singular_factors(matrix, rank, self.scale)


ADAPTER = PiSSA
