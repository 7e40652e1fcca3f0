"""Saves memory by computing results again in the backward pass: cheap functions always, whole blocks on request."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from gpt2_scratch.precision import of_products

PositionWise = Callable[[Tensor], Tensor]
_in_checkpoint = ContextVar("_in_checkpoint", default=False)


def recomputed(cheap: PositionWise, x: Tensor, layer: PositionWise) -> Tensor:
    """Returns layer(cheap(x)), in the precision of autocast. Instead of cheap(x), which `layer` would keep for the
    backward pass, x is kept, which the gradient of `cheap` needs anyway."""
    if _in_checkpoint.get():  # nothing inside is kept
        return layer(cheap(x))
    y = cheap(x)
    y = y.to(of_products(y))  # here, so that this is the tensor that `layer` keeps
    if not torch.is_grad_enabled():
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


def checkpointed(block: nn.Module, x: Tensor, *others: Any) -> Tensor:
    """Returns block(x, ...) and keeps only the inputs: the backward pass computes the block once more."""

    def run(*inputs: Any) -> Tensor:
        token = _in_checkpoint.set(True)
        try:
            return block(*inputs)
        finally:
            _in_checkpoint.reset(token)

    trains = x.requires_grad or any(p.requires_grad for p in block.parameters())
    if not (trains and torch.is_grad_enabled()):
        return block(x, *others)
    return checkpoint(run, x, *others, use_reentrant=False)
