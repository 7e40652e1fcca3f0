"""A frozen linear layer that stores its matrix in 4 or 8 bits, as bitsandbytes does.

4 bits are NF4 in blocks of 64, whose scales are quantised in turn (Dettmers et al. 2023, "QLoRA", section 3). 8 bits
have one scale for each row (Dettmers et al. 2022, "LLM.int8()", section 2.1). The matrix is made again at every use and
dropped, so that training, evaluation and a merged model compute with the same one. bitsandbytes' own layers do not do
that: Linear8bitLt rounds activations too, on a CPU in evaluation alone, and Linear4bit packs the matrix anew when it
evaluates on a CPU with AVX512-BF16, after which gradients are lost and merging gives wrong weights.
"""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BLOCK, SCALE_BLOCK = 64, 256  # weights that share a scale, scales that share one
PIECE = 2**18  # numbers of a matrix that exist at one time on a CPU
FROM_INT8 = 7.874015718698502e-3  # 1/127 as bitsandbytes has it


def load_bitsandbytes() -> Any:
    """Imports the library, which takes seconds, without its warnings of parts that nothing here needs."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes


class QuantisedLinear(nn.Module):
    """y = W x + b with W (out, in) in 4 or 8 `bits`. Its tensors have shapes but no numbers before `store`."""

    bias: nn.Parameter | None
    codes: Tensor
    scales: Tensor

    def __init__(self, inputs: int, outputs: int, bias: nn.Parameter | None, bits: int) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bits, self.bias = inputs, outputs, bits, bias
        count = inputs * outputs
        blocks = -(-count // BLOCK)
        if bits == 4:
            self._hold(
                codes=torch.empty((count + 1) // 2, 1, dtype=torch.uint8),  # two a byte
                scales=torch.empty(blocks, dtype=torch.uint8),
                offset=torch.empty(()),  # mean of the scales
                scale_scales=torch.empty(-(-blocks // SCALE_BLOCK)),
                scale_values=torch.empty(256),  # what the codes of scales stand for
            )
        else:
            self._hold(codes=torch.empty(outputs, inputs, dtype=torch.int8), scales=torch.empty(outputs))

    def _hold(self, **tensors: Tensor) -> None:
        """Sets parameters rather than buffers, which data parallelism sends at every step unless told otherwise."""
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor, requires_grad=False))

    def stored(self) -> list[nn.Parameter]:
        """Returns the tensors that hold W."""
        return [p for p in self._parameters.values() if p is not None and p is not self.bias]

    def _rows(self, device: torch.device) -> Iterator[slice]:
        """Cuts W into pieces of whole blocks. They are small on a CPU, where whole matrices, freed between tensors that
        stay, would leave gaps in the memory, not all of which are filled again."""
        few = BLOCK * max(1, PIECE // (BLOCK * self.in_features))
        step = few if device.type == "cpu" else self.out_features
        return (slice(i, min(i + step, self.out_features)) for i in range(0, self.out_features, step))

    def _within(self, rows: slice, size: int) -> slice:
        """Returns where the entries for `rows` of W begin and end, if each entry stands for `size` numbers."""
        return slice(rows.start * self.in_features // size, -(-rows.stop * self.in_features // size))

    def store(self, weight: Tensor) -> None:
        """Quantises `weight` (out, in)."""
        (self._store4 if self.bits == 4 else self._store8)(weight, load_bitsandbytes().functional)

    def _store4(self, weight: Tensor, functional: Any) -> None:
        codes, parts = torch.empty((weight.numel() + 1) // 2, 1, dtype=torch.uint8, device=weight.device), []
        for rows in self._rows(weight.device):
            piece = weight[rows].float().contiguous()
            codes[self._within(rows, 2)], state = functional.quantize_4bit(piece, blocksize=BLOCK, quant_type="nf4")
            parts.append(state.absmax)
        scales = torch.cat(parts)
        offset = scales.mean()
        scale_codes, state = functional.quantize_blockwise(scales - offset, blocksize=SCALE_BLOCK)
        self._hold(codes=codes, scales=scale_codes, offset=offset, scale_scales=state.absmax, scale_values=state.code)

    def _store8(self, weight: Tensor, functional: Any) -> None:
        codes, scales = torch.empty(weight.shape, dtype=torch.int8, device=weight.device), []
        for rows in self._rows(weight.device):
            codes[rows], scale, _ = functional.int8_vectorwise_quant(weight[rows].half().contiguous())
            scales.append(scale)
        self._hold(codes=codes, scales=torch.cat(scales))

    def pieces(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Makes W piece by piece: bit for bit what bitsandbytes dequantises, rounded to `dtype`."""
        every = self._rows(self.codes.device)
        if self.bits == 8:
            for rows in every:
                yield rows, self.codes[rows].float().mul_(self.scales[rows, None]).mul_(FROM_INT8).to(dtype)
            return
        functional = load_bitsandbytes().functional
        scales = functional.dequantize_blockwise(
            self.scales, absmax=self.scale_scales, code=self.scale_values, blocksize=SCALE_BLOCK
        ).add_(self.offset)
        for rows in every:
            state = functional.QuantState(
                absmax=scales[self._within(rows, BLOCK)],
                shape=torch.Size((rows.stop - rows.start, self.in_features)),
                dtype=dtype,
                blocksize=BLOCK,
                quant_type="nf4",
            )
            yield rows, functional.dequantize_4bit(self.codes[self._within(rows, 2)], state)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """Returns a copy of W (out, in)."""
        whole = torch.empty(self.out_features, self.in_features, dtype=dtype, device=self.codes.device)
        for rows, piece in self.pieces(dtype):
            whole[rows] = piece
        return whole

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out), in the precision of autocast where that is on."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast(kind, enabled=False):
            return _Product.apply(x.to(dtype), bias, self)


class _Product(torch.autograd.Function):
    """The product with W, which keeps nothing: autograd would keep every layer's matrix until the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        y = x.new_empty(len(x), layer.out_features)
        for rows, piece in layer.pieces(x.dtype):
            torch.mm(x, piece.t(), out=y[:, rows])
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layer, for_x = ctx.layer, None
        if ctx.needs_input_grad[0]:
            for_x = gradient.new_zeros(len(gradient), layer.in_features)
            for rows, piece in layer.pieces(gradient.dtype):
                for_x.addmm_(gradient[:, rows], piece)
        return for_x, gradient.sum(0) if ctx.needs_input_grad[1] else None, None


def dequantise(model: nn.Module) -> None:
    """Replaces every quantised layer by a plain fp32 one with the same matrix."""
    for path, layer in list(model.named_modules()):
        if isinstance(layer, QuantisedLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
            plain.weight = nn.Parameter(layer.matrix(torch.float32), requires_grad=False)
            plain.register_parameter("bias", layer.bias)
            model.set_submodule(path, plain)
