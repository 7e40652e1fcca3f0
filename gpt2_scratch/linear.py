"""A linear layer whose product a CPU computes, in fp32, in the order that suits its shape.

MKL does two things slowly. The figures are GFLOP/s on two cores of an AMD EPYC with AVX2.

- Few rows, such as the next token of each text in generation, are shared badly among threads. With tokens as columns
  the rows are the many outputs: 153 instead of 113 for 32 tokens, 768 inputs and 2,304 outputs. MKL wants columns that
  fill cache lines. A single token, or a matrix that is small, gains nothing (32 tokens, 192 inputs: half the speed).
- Of very many outputs, such as GPT-2's 50,257 logits, an odd number, no row but the first begins on a cache line. Rows
  that are longer by up to 15 numbers do, and blocks of the matrix stay in the cache: 160 instead of 91 for 256 tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

FEW = 128  # tokens
LARGE = 2**20  # numbers of a matrix
WIDE = 8192  # outputs
BLOCK, LEAST = 2**20, 1024  # numbers of a matrix that are multiplied at a time, and outputs at least
LINE = 16  # numbers of fp32 in a cache line


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight, self.bias)

    @staticmethod
    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Returns F.linear(x, weight, bias): (N, in) -> (N, out), in memory of any layout."""
        plain = x.device.type == "cpu" and x.ndim == 2 and x.dtype == weight.dtype == torch.float32
        if plain and not torch.is_autocast_enabled("cpu"):
            few = 1 < len(x) <= FEW and weight.numel() >= LARGE
            if few and torch.get_num_threads() > 1 and not torch.is_grad_enabled():
                return _tokens_as_columns(x, weight, bias)
            if len(weight) > WIDE:
                return _InBlocks.apply(x, weight, bias)
        return F.linear(x, weight, bias)


def with_gaps(y: Tensor) -> Tensor:
    """Returns the rows (N, out) of a product together with what lies between them in memory: (N, out or more)."""
    return y.as_strided((len(y), y.stride(0)), y.stride()) if y.stride(0) > y.shape[1] else y


def _tokens_as_columns(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    count = len(x) if len(x) <= LINE // 2 else _whole_lines(len(x))
    columns = F.pad(x, (0, 0, 0, count - len(x))).t()  # (in, count)
    y = x.new_empty(len(weight), count)
    for part, rows in _blocks(weight):
        torch.mm(rows, columns, out=y[part])
    if bias is not None:
        y += bias[:, None]
    y.as_strided_((len(x), len(weight)), (1, count))
    return y if len(weight) > WIDE else y.contiguous()  # which attention needs, and is little


class _InBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        apart = _whole_lines(len(weight))
        # In place, since autograd takes no view for a result that is overwritten.
        y = x.new_empty(len(x), apart).as_strided_((len(x), len(weight)), (apart, 1))
        for part, rows in _blocks(weight):
            torch.mm(x, rows.t(), out=y[:, part])
        if bias is not None:
            y += bias
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x = gradient @ weight if ctx.needs_input_grad[0] else None
        for_weight = gradient.t() @ x if ctx.needs_input_grad[1] else None
        return for_x, for_weight, gradient.sum(0) if ctx.needs_input_grad[2] else None


def _blocks(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields blocks of rows of `weight`, with their place."""
    size = _whole_lines(max(BLOCK // weight.shape[1], LEAST))
    for start in range(0, len(weight), size):
        part = slice(start, start + size)
        yield part, weight[part]


def _whole_lines(count: int) -> int:
    return -(-count // LINE) * LINE
