"""A linear layer and its low-rank updates as one operation, forward and backward.

It is written by hand, because autograd would keep and add one more (N, out) tensor for each of the two sums.
Letters: N tokens, R rank, P active parts of a fused matrix, W = out / parts columns each.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lora.frozen import Product


class LowRankLinear(torch.autograd.Function):
    """y = x weight^T + bias, and in the columns of each active part p + scale * x A_p^T B_p.

    x is kept for the backward pass only if A or the weight gets a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        product: Product,  # of x, weight and bias
        x: Tensor,  # (N, in)
        weight: Tensor,  # (out, in)
        bias: Tensor | None,  # (out,)
        a: Tensor,  # (P R, in)
        b: Tensor,  # (P, R, W)
        scale: float,
        active: tuple[int, ...],
    ) -> Tensor:
        y = product(x, weight, bias)  # (N, out)
        inner = F.linear(x, a)  # (N, P R)
        columns, thin = _parts(y, b.shape[2]), _parts(inner, b.shape[1])
        for place, part in _runs(active):
            columns[part].baddbmm_(thin[place], b[place], alpha=scale)
        _, _, for_weight, _, for_a, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if for_weight or for_a else None, weight, a, b, inner)
        ctx.scale, ctx.active = scale, active
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, inner = ctx.saved_tensors
        thin, for_b = torch.empty_like(inner), torch.empty_like(b)
        columns, kept, for_kept = _parts(gradient, b.shape[2]), _parts(inner, b.shape[1]), _parts(thin, b.shape[1])
        for place, part in _runs(ctx.active):
            for_kept[place].baddbmm_(columns[part], b[place].mT, beta=0, alpha=ctx.scale)
            for_b[place].baddbmm_(kept[place].mT, columns[part], beta=0, alpha=ctx.scale)
        for_x = (gradient @ weight).addmm_(thin, a) if ctx.needs_input_grad[1] else None
        for_weight = gradient.t() @ x if ctx.needs_input_grad[2] else None
        for_bias = gradient.sum(0) if ctx.needs_input_grad[3] else None
        for_a = thin.t() @ x if ctx.needs_input_grad[4] else None
        return None, for_x, for_weight, for_bias, for_a, for_b, None, None


def _parts(x: Tensor, width: int) -> Tensor:
    """Views `x` (N, parts * width) as (parts, N, width)."""
    return x.view(len(x), x.shape[1] // width, width).transpose(0, 1)


@cache
def _runs(active: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Returns runs of adjacent parts, each for one batched product: its places in `active`, and its parts. Example:
    (0, 2) are two runs, places 0:1 and 1:2, parts 0:1 and 2:3."""
    starts = [i for i in range(len(active)) if i == 0 or active[i] != active[i - 1] + 1]
    ends = [*starts[1:], len(active)]
    return [(slice(i, j), slice(active[i], active[i] + j - i)) for i, j in zip(starts, ends, strict=True)]


def low_rank_linear(
    product: Product,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    scale: float,
    active: tuple[int, ...],
) -> Tensor:
    """Applies `LowRankLinear`, (N, in) -> (N, out), in the precision of autocast where that is on."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        half = torch.get_autocast_dtype(kind)
        x, weight, a, b = x.to(half), weight.to(half), a.to(half), b.to(half)
        bias = None if bias is None else bias.to(half)
        with torch.autocast(kind, enabled=False):
            return LowRankLinear.apply(product, x, weight, bias, a, b, scale, active)
    return LowRankLinear.apply(product, x, weight, bias, a, b, scale, active)


def add_low_rank(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, active: tuple[int, ...]) -> Tensor:
    """Returns y (N, out) of any layer, and in the columns of each active part p + scale * x A_p^T B_p, by autograd."""
    columns = list(y.split(b.shape[2], 1))
    for part, thin, up in zip(active, F.linear(x, a).chunk(len(active), 1), b, strict=True):
        columns[part] = columns[part] + scale * (thin @ up)  # (N, W)
    return torch.cat(columns, 1)
