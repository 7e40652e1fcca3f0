"""What an adapter has to know of its frozen layer: the matrix that it multiplies by, and how to replace that.

A convolution counts as the matrix of its flattened kernels: in = channels of the input * positions of the kernel.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora.quantised import QuantisedLinear

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def product_of(layer: Any) -> Product | None:
    """Returns how a layer computes from x, its weight and its bias, if it is linear and nothing more, so that a fused
    kernel may take these: F.linear, or what another kind of nn.Linear has as its `product`."""
    if type(layer) is nn.Linear:
        return F.linear
    return getattr(layer, "product", None) if isinstance(layer, nn.Linear) else None


def has_own_matrix(layer: Any) -> bool:
    """Whether `weight` is what the layer multiplies by."""
    return type(layer) in CONVOLUTIONS or product_of(layer) is not None


def shape(layer: Any) -> tuple[int, int]:
    """Returns (out, in) of the matrix."""
    if isinstance(layer, (nn.Linear, QuantisedLinear)):
        return layer.out_features, layer.in_features
    return len(layer.weight), layer.weight[0].numel()


def dense(layer: Any) -> Tensor:
    """Copies the matrix (out, in) that the layer multiplies by, at least in fp32."""
    if isinstance(layer, QuantisedLinear):
        return layer.matrix(torch.float32)
    assert has_own_matrix(layer), type(layer)
    weight = layer.weight.detach().flatten(1)
    return weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)


def with_matrix(layer: Any, matrix: Tensor) -> Any:
    """Returns a layer with the same bias that multiplies by `matrix` (out, in); the given one stays as it is."""
    if has_own_matrix(layer):
        new, matrix = copy.copy(layer), matrix.view_as(layer.weight).to(layer.weight.dtype)
        new._parameters = dict(layer._parameters)
    else:
        new = nn.Linear(matrix.shape[1], matrix.shape[0], device="meta")
        new.bias = layer.bias
    new.weight = nn.Parameter(matrix, requires_grad=False)
    return new
