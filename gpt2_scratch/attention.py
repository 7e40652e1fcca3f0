"""Causal self-attention over packed sequences: the only place that knows where one sequence ends and the next begins.

Letters as in model.py. Sequences lie back to back: lengths (3, 2) means that tokens 0-2 are the first, 3-4 the second.
"""

from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from gpt2_scratch.precision import HALF

# Tokens up to which the CPU kernel's backward pass is faster in fp32, casts included (bf16 at T=16: 0.46 against 0.07,
# 200: 2.7 against 1.7, 400: 5.8 against 5.9, 512: 8.0 against 10.0 ms; 12 heads of 64 on two cores with AMX).
BACKWARD_IN_FP32 = 384


class Sequences(NamedTuple):
    """Where each of the B packed sequences lies among the N tokens. Example: lengths (3, 2) without a past."""

    lengths: list[int]  # (B,)  3 2
    past: bool  # whether a cache already holds tokens in front of these
    longest: int  # 3, the past counted in
    rows: Tensor  # (N,)  0 0 0 1 1   which sequence a token belongs to
    positions: Tensor  # (N,)  0 1 2 0 1   its place in that sequence
    last: Tensor  # (B,)  2 4         index of each sequence's last token
    starts: Tensor  # (B + 1,)  0 3 5   index of each sequence's first token, and N; int32, as flash attention wants it


def sequences(lengths: Tensor, device: torch.device, past: Tensor | None = None) -> Sequences:
    """`lengths` (B,), all >= 1 -> layout on `device`; `past` (B,) counts tokens that a cache already holds."""
    lengths = lengths.cpu()
    ends = lengths.cumsum(0)
    rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    before = torch.zeros_like(lengths) if past is None else past.cpu()
    positions = torch.arange(len(rows)) + (before - ends + lengths)[rows]
    longest = int((before + lengths).max())
    starts = torch.cat([ends.new_zeros(1), ends]).int()
    on_device = (x.to(device) for x in (rows, positions, ends - 1, starts))
    return Sequences(lengths.tolist(), past is not None, longest, *on_device)


def fill_up(x: Tensor, where: Sequences, multiple: int, context: int) -> tuple[Tensor, Sequences]:
    """(N, C) -> (N', C) with N' a multiple of `multiple`: a sequence of zeros behind the others, or more than one when
    it does not fit the context (tokens)."""
    missing = -len(x) % multiple
    if missing == 0:
        return x, where
    more = [min(context, missing - start) for start in range(0, missing, context)]
    return torch.cat([x, x.new_zeros(missing, x.shape[1])]), sequences(torch.tensor(where.lengths + more), x.device)


class _EachAlone(torch.autograd.Function):
    """`attend` on a CPU without dropout: the kernel behind scaled_dot_product_attention, called once a sequence.

    By hand because autograd would copy every gradient twice on its way into the fused (N, 3, H, D).
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
    """One sequence (T, 3, H, D) -> q, k, v (1, H, T, D) each, without a copy."""
    return tuple(x.transpose(0, 1)[None] for x in qkv.unbind(1))


def attend(qkv: Tensor, where: Sequences, dropout: float = 0.0) -> Tensor:
    """Every token attends to itself and to what precedes it in its own sequence. qkv (N, 3, H, D) -> (N, H, D).

    On a CPU one call per sequence is faster than padded rows (T=512: 148 against 177 ms, mixed lengths 10 against 26 ms
    forward and backward); a GPU prefers one call: flash attention where it has it, else padded rows.
    """
    if dropout == 0 and qkv.device.type == "cpu":
        return _EachAlone.apply(qkv, where.lengths)
    if dropout == 0 and qkv.dtype in HALF.values() and has_flash_attention(qkv.device):
        from torch.nn.attention.varlen import varlen_attn  # here, because importing it takes a second

        q, k, v = qkv.unbind(1)
        bounds = (where.starts, where.starts, where.longest, where.longest)
        return cast(Tensor, varlen_attn(q, k, v, *bounds, window_size=(-1, 0)))  # this window is the causal mask
    return attend_padded(qkv, where, dropout)


@cache
def has_flash_attention(device: torch.device) -> bool:
    """Whether the GPU is an Ampere (sm80) or later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def attend_padded(qkv: Tensor, where: Sequences, dropout: float = 0.0) -> Tensor:
    """The same on rows padded on the right. A causal mask alone hides the padding: it comes after every real token."""
    q, k, v = (x.transpose(1, 2) for x in pad(qkv, where).unbind(2))  # (B, H, T, D)
    mixed = scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return mixed.transpose(1, 2)[where.rows, where.positions]


def attend_last(q: Tensor, k: Tensor, v: Tensor, where: Sequences, dropout: float = 0.0) -> Tensor:
    """Only the last token of each sequence asks. q (B, H, D), k and v (N, H, D) -> (B, H, D)."""
    keys, values = (pad(x, where).transpose(1, 2) for x in (k, v))  # (B, H, T, D)
    return attend_cached(q, keys, values, where.positions[where.last], dropout)


def attend_cached(q: Tensor, keys: Tensor, values: Tensor, position: Tensor, dropout: float = 0.0) -> Tensor:
    """One query a row at `position` (B,): it sees keys 0..position. q (B, H, D), keys and values (B, H, T, D)."""
    visible = torch.arange(keys.shape[2], device=q.device) <= position[:, None]  # (B, T)
    mixed = scaled_dot_product_attention(q.unsqueeze(2), keys, values, visible[:, None, None], dropout)  # (B, H, 1, D)
    return mixed.squeeze(2)


def pad(x: Tensor, where: Sequences) -> Tensor:
    """(N, ...) -> (B, T, ...), zeros behind each sequence."""
    rows = x.new_zeros(len(where.lengths), where.longest, *x.shape[1:])
    return rows.index_put((where.rows, where.positions), x)


class BlockCache:
    """Keys and values that one block has already computed, for generation; zeros (B, H, T, D) to begin with.

    Zeros, because a weight of 0 does not hide a NaN that memory happens to hold behind a shorter row.
    """

    def __init__(self, zeros: Tensor) -> None:
        self.keys, self.values = zeros, zeros.clone()

    def attend(self, qkv: Tensor, where: Sequences) -> Tensor:
        """Stores keys and values of qkv (N, 3, H, D), then attends: whole prompts at first, then one token a row."""
        q, k, v = qkv.unbind(1)
        self.keys[where.rows, :, where.positions] = k
        self.values[where.rows, :, where.positions] = v
        if not where.past:
            return attend(qkv, where)
        seen = slice(0, where.longest)
        return attend_cached(q, self.keys[:, :, seen], self.values[:, :, seen], where.positions)

    def keep(self, rows: Tensor) -> None:
        """Forgets all rows but these (indices)."""
        self.keys, self.values = self.keys[rows], self.values[rows]
