"""Which precision something is computed in."""

import torch
from torch import Tensor

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
DTYPES = {"fp32": torch.float32, **HALF}


def at_least_fp32(x: Tensor) -> torch.dtype:
    """A softmax over many classes, or a sum over many blocks, is not computed in half precision."""
    return torch.promote_types(x.dtype, torch.float32)


def of_products(x: Tensor) -> torch.dtype:
    """That of a matrix product of `x`, which autocast may have a word in."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
