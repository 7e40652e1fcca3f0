"""Cheap functions whose result the backward pass computes again, instead of finding it kept."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from gpt2_scratch.precision import of_products


def recomputed(cheap: Callable[[Tensor], Tensor], x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
    """layer(cheap(x)), in the precision of autocast. What `layer` would keep of cheap(x) is made from `x` once more.

    `x` has to be kept for its own gradient anyway. A compiler decides for itself what it keeps.
    """
    y = cheap(x)
    y = y.to(of_products(y))  # here, because it is this tensor then that `layer` keeps
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return layer(y)
    source, result = x.detach(), _place(y)

    def again() -> Tensor:
        with torch.no_grad():
            return cheap(source).to(result[-1])

    def pack(kept: Tensor) -> Tensor | Callable[[], Tensor]:
        return again if _place(kept) == result else kept

    def unpack(kept: Any) -> Tensor:
        return kept if isinstance(kept, Tensor) else kept()

    with saved_tensors_hooks(pack, unpack):
        return layer(y)


def _place(x: Tensor) -> tuple[int, torch.Size, torch.dtype]:
    return x.untyped_storage()._cdata, x.shape, x.dtype  # unlike data_ptr, also of a tensor without memory
