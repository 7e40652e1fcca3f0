"""OLoRA (Büyükakyüz 2024, section 3): W = Q R; B starts at the first columns of Q, which are orthonormal, and A at
the first rows of R.

Cost against lora: as many trained numbers; thin products of rank 2R, since the frozen matrix stays whole, 1.07 times
the time (lora.py); a QR decomposition of each matrix at the start, 3 s for gpt2 and 16 s for gpt2-medium on one core.
"""

import torch
from torch import Tensor

from lora.difference import Difference

TITLE = "OLoRA"
HELP = "starts at a QR decomposition"
COST = "7% more time"
INITS = ("standard",)


class OLoRA(Difference):
    """As in the paper and PEFT, scale * B A is what is taken out of W, whatever the scale."""

    def piece(self, matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        q, r = torch.linalg.qr(matrix)
        return r[:rank], q[:, :rank].t()


ADAPTER = OLoRA
