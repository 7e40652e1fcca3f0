"""The precision in which something is computed."""

import torch
from torch import Tensor

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
DTYPES = {"fp32": torch.float32, **HALF}


def at_least_fp32(x: Tensor) -> torch.dtype:
    """Returns the precision of what must not be computed in half: a softmax over many classes, a sum over blocks."""
    return torch.promote_types(x.dtype, torch.float32)


def of_products(x: Tensor) -> torch.dtype:
    """Returns the precision of a matrix product of `x`: that of autocast where it is on, else that of `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
