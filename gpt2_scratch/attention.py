"""Causal self-attention over packed sequences: the only place that knows where one sequence ends and the next begins.

Letters as in model.py. Sequences lie back to back: lengths (3, 2) means that tokens 0-2 are the first, 3-4 the second.
"""

from functools import cache
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from gpt2_scratch.precision import HALF
from gpt2_scratch.transfer import all_to_device

WIDEST = 256  # the widest head that flash attention takes

# Up to this many tokens the CPU kernel's backward pass is faster in fp32, casts included (bf16, fp32 at T=16: 0.46
# and 0.07 ms, 200: 2.7 and 1.7, 400: 5.8 and 5.9, 512: 8.0 and 10.0; 12 heads of 64 on two cores with AMX).
BACKWARD_IN_FP32 = 384


class Layout(NamedTuple):
    """How B sequences are packed into N tokens, and what is asked of them. Example: lengths (3, 2), nothing cached."""

    lengths: list[int]  # (B,)  3 2
    past: bool  # whether a cache already holds tokens in front of these
    longest: int  # 3, the past counted in
    last_only: bool  # whether only the final states of the last tokens are asked for
    rows: Tensor  # (N,)  0 0 0 1 1   which sequence a token belongs to
    positions: Tensor  # (N,)  0 1 2 0 1   its place in that sequence
    padded: Tensor  # (N,)  0 1 2 3 4   its index in B rows of the longest, one after the other
    last: Tensor  # (B,)  2 4         index of each sequence's last token
    starts: Tensor  # (B + 1,)  0 3 5   index of each sequence's first token, and N; int32, as flash attention wants it

    def asked(self, x: Tensor) -> Tensor:
        """Returns the rows of x (N, ...) that are asked for: all of them, or those of the last tokens (B, ...)."""
        return x.index_select(0, self.last) if self.last_only else x


def layout_of(lengths: Tensor, device: torch.device, past: Tensor | None = None, last_only: bool = False) -> Layout:
    """Returns the layout for `lengths` (B,), all >= 1; `past` (B,) counts tokens that a cache already holds. Both are
    best on the CPU, which would wait for a GPU that has them."""
    lengths = lengths.cpu()
    ends = lengths.cumsum(0)
    rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    cached = torch.zeros_like(lengths) if past is None else past.cpu()
    positions = torch.arange(len(rows)) + (cached - ends + lengths)[rows]
    longest = int((cached + lengths).max())
    starts = torch.cat([ends.new_zeros(1), ends])
    sent = all_to_device(device, rows, positions, rows * longest + positions, ends - 1, starts)
    rows, positions, padded, last, starts = sent
    return Layout(lengths.tolist(), past is not None, longest, last_only, rows, positions, padded, last, starts.int())


class _BySequence(torch.autograd.Function):
    """`attend` on a CPU without dropout: the kernel behind scaled_dot_product_attention is called for each sequence.

    The backward pass is written by hand, because autograd would copy every gradient twice into the fused (N, 3, H, D).
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, lengths: list[int]) -> Tensor:
        mixed = qkv.new_empty(len(qkv), *qkv.shape[2:])  # (N, H, D)
        normalisers = []
        for one, target in zip(qkv.split(lengths), mixed.split(lengths), strict=True):
            result, normaliser = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*_heads(one), 0.0, True)
            target.copy_(result[0].transpose(0, 1))  # (T, H, D)
            normalisers.append(normaliser)
        ctx.save_for_backward(qkv, mixed, *normalisers)
        ctx.lengths = lengths
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        qkv, mixed, *normalisers = ctx.saved_tensors
        for_qkv = torch.empty_like(qkv)
        parts = (x.split(ctx.lengths) for x in (gradient, mixed, qkv, for_qkv))
        for asked, result, one, target, normaliser in zip(*parts, normalisers, strict=True):
            if one.dtype in HALF.values() and len(one) <= BACKWARD_IN_FP32:
                asked, result, one = asked.float(), result.float(), one.float()
            asked, result = (x.transpose(0, 1)[None] for x in (asked, result))  # (1, H, T, D)
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                asked, *_heads(one), result, normaliser, 0.0, True
            )
            for slot, x in zip(target.unbind(1), found, strict=True):
                slot.copy_(x[0].transpose(0, 1))  # (T, H, D)
        return for_qkv, None


def _heads(qkv: Tensor) -> tuple[Tensor, ...]:
    """Splits one sequence (T, 3, H, D) into q, k, v (1, H, T, D) each, without a copy."""
    return tuple(x.transpose(0, 1)[None] for x in qkv.unbind(1))


def attend(qkv: Tensor, layout: Layout, dropout: float = 0.0) -> Tensor:
    """Lets every token attend to itself and to what precedes it in its own sequence: qkv (N, 3, H, D) -> (N, H, D), or
    the last tokens alone: (B, H, D).

    On a CPU one call for each sequence is faster than padded rows (T=512: 148 against 177 ms, mixed lengths: 10 against
    26 ms, forward and backward). A GPU prefers one call: flash attention where it has it, else padded rows.
    """
    if layout.last_only:
        return attend_last(qkv, layout, dropout)
    route = route_of(qkv.device, qkv.dtype, qkv.shape[-1], dropout)
    if route == "by sequence":
        return _BySequence.apply(qkv, layout.lengths)
    if route == "flash":
        return attend_flash(qkv, layout)
    return attend_padded(qkv, layout, dropout)


def route_of(
    device: torch.device, dtype: torch.dtype, width: int, dropout: float = 0.0
) -> Literal["by sequence", "flash", "padded"]:
    """Returns how `attend` computes for all tokens, of heads of this `width`; for the last tokens alone it always
    pads."""
    if dropout == 0 and device.type == "cpu":
        return "by sequence"
    takes_width = width % 8 == 0 and width <= WIDEST  # else the kernel refuses
    if dropout == 0 and takes_width and dtype in HALF.values() and has_flash_attention(device):
        return "flash"
    return "padded"


@cache
def has_flash_attention(device: torch.device) -> bool:
    """Whether the GPU is an Ampere (sm80) or later, and torch was built with flash attention."""
    built = torch.backends.cuda.is_flash_attention_available()
    return device.type == "cuda" and built and torch.cuda.get_device_capability(device) >= (8, 0)


def attend_flash(qkv: Tensor, layout: Layout) -> Tensor:
    """Does the same in one call of flash attention, on GPUs that have it and in half precision.

    This is the operation below torch.nn.attention.varlen: differentiated by torch itself, it spares each call two
    kernels that clear the state of a dropout that there is not.
    """
    bounds = (layout.starts, layout.starts, layout.longest, layout.longest)
    dropout, causal, shown_mask = 0.0, True, False
    found = torch.ops.aten._flash_attention_forward(*qkv.unbind(1), *bounds, dropout, causal, shown_mask)
    return cast(Tensor, found[0])


def attend_padded(qkv: Tensor, layout: Layout, dropout: float = 0.0) -> Tensor:
    """Does the same on rows padded on the right. The causal mask hides the padding, which follows every real token."""
    q, k, v = (x.transpose(1, 2) for x in pad(qkv, layout).unbind(2))  # (B, H, T, D)
    mixed = scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return mixed.transpose(1, 2).flatten(0, 1).index_select(0, layout.padded)


def attend_last(qkv: Tensor, layout: Layout, dropout: float = 0.0) -> Tensor:
    """Attends for the last token of each sequence alone: qkv (N, 3, H, D) -> (B, H, D)."""
    q, k, v = qkv.unbind(1)
    keys, values = (pad(x, layout).transpose(1, 2) for x in (k, v))  # (B, H, T, D)
    return attend_cached(q.index_select(0, layout.last), keys, values, layout.positions[layout.last], dropout)


def attend_cached(q: Tensor, keys: Tensor, values: Tensor, position: Tensor, dropout: float = 0.0) -> Tensor:
    """Lets a query of each sequence see the keys up to its `position` (B,): q (B, H, D), keys, values (B, H, T, D)."""
    visible = torch.arange(keys.shape[2], device=q.device) <= position[:, None]  # (B, T)
    mixed = scaled_dot_product_attention(q.unsqueeze(2), keys, values, visible[:, None, None], dropout)  # (B, H, 1, D)
    return mixed.squeeze(2)


def pad(x: Tensor, layout: Layout) -> Tensor:
    """Pads (N, ...) to (B, T, ...), with zeros after each sequence."""
    rows = x.new_zeros(len(layout.lengths) * layout.longest, *x.shape[1:])
    return rows.index_copy(0, layout.padded, x).unflatten(0, (-1, layout.longest))


class KVCache:
    """Keys and values that one block has already computed, for generation. It begins as `zeros` (B, H, T, D), because a
    weight of 0 would not hide a NaN that memory happens to hold after a shorter sequence."""

    def __init__(self, zeros: Tensor) -> None:
        self.keys, self.values = zeros, zeros.clone()

    def attend(self, qkv: Tensor, layout: Layout) -> Tensor:
        """Stores the keys and values of qkv (N, 3, H, D), then attends: first whole prompts, then one token of each."""
        q, k, v = qkv.unbind(1)
        self.keys[layout.rows, :, layout.positions] = k
        self.values[layout.rows, :, layout.positions] = v
        if not layout.past:
            return attend(qkv, layout)
        seen = slice(0, layout.longest)
        return attend_cached(q, self.keys[:, :, seen], self.values[:, :, seen], layout.positions)

    def keep(self, rows: Tensor) -> None:
        """Forgets all sequences but these (indices)."""
        self.keys, self.values = self.keys[rows], self.values[rows]
