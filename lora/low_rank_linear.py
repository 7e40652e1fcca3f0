"""A linear layer and its low-rank updates as one operation, forward and backward.

It is written by hand, because autograd would keep and add one more (N, out) tensor for each of the two sums.
Letters: N tokens, R rank, P active parts of a fused matrix, W = out / parts columns each.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class LowRankLinear(torch.autograd.Function):
    """y = x weight^T + bias, and in the columns of each active part p + scale * x A_p^T B_p.

    x is kept for the backward pass only if A or the weight gets a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (N, in)
        weight: Tensor,  # (out, in)
        bias: Tensor | None,  # (out,)
        a: Tensor,  # (P R, in)
        b: Tensor,  # (P, R, W)
        scale: float,
        active: tuple[int, ...],
    ) -> Tensor:
        y = F.linear(x, weight, bias)  # (N, out)
        inner = F.linear(x, a).mul_(scale)  # (N, P R)
        for columns, thin, up in zip(_parts(y, active, b), inner.chunk(len(active), 1), b, strict=True):
            columns.addmm_(thin, up)  # (N, W)
        _, for_weight, _, for_a, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if for_weight or for_a else None, weight, a, b, inner)
        ctx.scale, ctx.active = scale, active
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, inner = ctx.saved_tensors
        parts = list(_parts(gradient, ctx.active, b))
        thin = torch.cat([part @ up.t() for part, up in zip(parts, b, strict=True)], 1).mul_(ctx.scale)  # (N, P R)
        for_b = torch.stack([h.t() @ part for h, part in zip(inner.chunk(len(parts), 1), parts, strict=True)])
        for_x = (gradient @ weight).addmm_(thin, a) if ctx.needs_input_grad[0] else None
        for_weight = gradient.t() @ x if ctx.needs_input_grad[1] else None
        for_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        for_a = thin.t() @ x if ctx.needs_input_grad[3] else None
        return for_x, for_weight, for_bias, for_a, for_b, None, None


def _parts(y: Tensor, active: tuple[int, ...], b: Tensor) -> list[Tensor]:
    """Returns the columns (N, W) of each active part."""
    width = b.shape[2]
    return [y[:, part * width : (part + 1) * width] for part in active]


def low_rank_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, active: tuple[int, ...]
) -> Tensor:
    """Applies `LowRankLinear`, (N, in) -> (N, out), in the precision of autocast where that is on."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        half = torch.get_autocast_dtype(kind)
        x, weight, a, b = x.to(half), weight.to(half), a.to(half), b.to(half)
        bias = None if bias is None else bias.to(half)
        with torch.autocast(kind, enabled=False):
            return LowRankLinear.apply(x, weight, bias, a, b, scale, active)
    return LowRankLinear.apply(x, weight, bias, a, b, scale, active)


def add_low_rank(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, active: tuple[int, ...]) -> Tensor:
    """Returns y (N, out) of any layer, and in the columns of each active part p + scale * x A_p^T B_p, by autograd."""
    columns = list(y.split(b.shape[2], 1))
    for part, thin, up in zip(active, F.linear(x, a).chunk(len(active), 1), b, strict=True):
        columns[part] = columns[part] + scale * (thin @ up)  # (N, W)
    return torch.cat(columns, 1)
