"""LoftQ (Li et al. 2023, one step of algorithm 1): factors that make up for what quantisation rounded off."""

import torch
from torch import Tensor

from lora.adapter import Adapter, LowRank
from lora.difference import singular_factors
from lora.frozen import dense


def start_at_rounding_error(adapter: Adapter, original: Tensor) -> None:
    """Puts factors into a new `adapter` whose update is the best approximation, of its rank, of `original` (out, in)
    minus the frozen matrix; `original` is that matrix before it was quantised."""
    rank, frozen = adapter.low_rank.B.shape[1], dense(adapter.linear)
    error = adapter.active_rows(original.to(frozen) - frozen)
    a, b = zip(*(singular_factors(rows, rank, adapter.scale) for rows in error), strict=True)
    adapter.low_rank = LowRank(torch.cat(a), torch.stack(b))
