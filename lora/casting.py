"""Casts the factors of all adapters in one operation, and their gradients in another.

A GPU launches a kernel for each operation, and one by one these are four for each adapter: a quarter of all kernels of
a step in half precision.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora.adapter import adapters


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtype = tensors[0].dtype
        found = _cast(tensors, dtype)
        fixed = [x for x, wanted in zip(found, ctx.needs_input_grad[1:], strict=True) if not wanted]
        ctx.mark_non_differentiable(*fixed)
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(_cast([x for x in gradients if x is not None], ctx.dtype))
        return None, *(None if x is None else next(found) for x in gradients)


def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    found = [torch.empty_like(x, dtype=dtype) for x in tensors]
    torch._foreach_copy_(found, list(tensors))
    return found


@contextlib.contextmanager
def factors_cast_to(dtype: torch.dtype | None, model: nn.Module) -> Iterator[None]:
    """Within, every adapter of `model` multiplies by factors that are already in `dtype`; None changes nothing. For one
    forward pass and its backward pass, between which no factor may change."""
    found = [adapter for _, adapter in adapters(model)] if dtype is not None else []
    if found:
        halves = _Cast.apply(dtype, *(x for adapter in found for x in adapter.multiplied()))
        for adapter, a, b in zip(found, halves[::2], halves[1::2], strict=True):
            adapter.cast = a, b
    try:
        yield
    finally:
        for adapter in found:
            adapter.cast = None
