"""The contract of an adapter, and what can be done with all adapters of a model at once.

Every parameter of an adapter outside `.linear` is trained, fixed factors are persistent buffers, and both are saved.
A fused matrix (queries, keys and values in one) counts as `parts` stacked outputs; `active` numbers those that get an
update of their own. Letters: N tokens, R rank, P active parts, W the frozen matrix, W' the adapted one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora.frozen import dense, product_of, shape, with_matrix
from lora.low_rank_linear import add_low_rank, low_rank_linear
from lora.quantised import QuantisedLinear
from lora.spec import INITS
from lora.spec import Spec as Spec


class Factors(NamedTuple):
    """An update in numbers: W' = W + scale * B^T A in the rows of each active part. With a `magnitude` (DoRA) each of
    these rows is then stretched to the length that it gives."""

    A: Tensor  # (P R, in)
    B: Tensor  # (P, R, out / parts)
    scale: float
    magnitude: Tensor | None = None  # (out,)

    def product(self) -> Tensor:
        """Returns scale * B^T A (P, out / parts, in), at least in fp32."""
        wide = torch.promote_types(self.B.dtype, torch.float32)
        active, rank, _ = self.B.shape
        return self.scale * self.B.to(wide).transpose(1, 2) @ self.A.to(wide).unflatten(0, (active, rank))


class LowRank(nn.Module):
    """The factors of P updates: A (P R, in) and B (P, R, out / parts). A factor that is not in `trains` is fixed."""

    A: Tensor
    B: Tensor

    def __init__(self, a: Tensor, b: Tensor, trains: str = "AB") -> None:
        super().__init__()
        for name, tensor in (("A", a), ("B", b)):
            if name in trains:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)


class Adapter(nn.Module):
    """A frozen layer and what trains beside it. A variant defines `add_factors`, which sets `low_rank`, and overrides
    what it does differently from LoRA."""

    linear: Any  # an nn.Linear, or another layer that frozen.py knows
    low_rank: LowRank
    strength = 1.0  # t: the layer computes W + t * (W' - W); it is not saved
    cast: tuple[Tensor, Tensor] | None = None  # `multiplied` in half precision, during a step (casting.py)

    def __init__(
        self,
        linear: nn.Module,
        spec: Spec,
        parts: int = 1,
        active: tuple[int, ...] = (0,),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        outputs = shape(linear)[0]
        assert outputs % parts == 0, f"{outputs} outputs do not split into {parts} parts"
        assert active == tuple(sorted(set(active))) and active and active[-1] < parts, f"parts {active} of {parts}"
        assert spec.rank >= 1, f"rank {spec.rank}"  # no upper bound: the report's class heads of 2 rows have rank 16
        self.linear = linear.requires_grad_(False)
        self.parts, self.active, self.scale, self.dropout = parts, active, spec.scale, spec.dropout
        # The tuple keeps the frozen matrix from being registered as one of ours to train.
        self._set_aside: tuple[nn.Module, ...] = ()
        with next(linear.parameters()).device:
            self.add_factors(spec, generator)

    @property
    def merged(self) -> bool:
        return bool(self._set_aside)

    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        """Adds what is trained, as parameters, and what is fixed, as persistent buffers."""
        raise NotImplementedError

    def adapted(self, x: Tensor) -> Tensor:
        """Returns the output of the layer with its adapter at strength 1: (N, in) -> (N, out)."""
        return self.with_low_rank(x)

    def factors(self) -> Factors:
        """Returns the whole update of the untouched frozen matrix, at strength 1."""
        return Factors(self.low_rank.A, self.low_rank.B, self.scale)

    def multiplied(self) -> tuple[Tensor, Tensor]:
        """Returns A and B as the layer multiplies by them."""
        return self.factors()[:2]

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return self.linear(x)
        if self.strength == 1:
            return self.adapted(x)
        y = self.linear(x)
        return y if self.strength == 0 else torch.lerp(y, self.adapted(x), self.strength)

    def with_low_rank(self, x: Tensor) -> Tensor:
        """Returns W x + bias, and in the active parts + scale * B^T A dropout(x): (N, in) -> (N, out)."""
        a, b = self.cast or self.multiplied()
        product = product_of(self.linear)
        if product is not None and not (self.training and self.dropout):
            return low_rank_linear(product, x, self.linear.weight, self.linear.bias, a, b, self.scale, self.active)
        dropped = F.dropout(x, self.dropout, self.training)
        return add_low_rank(self.linear(x), dropped, a, b, self.scale, self.active)

    def active_rows(self, matrix: Tensor) -> Tensor:
        """Copies the rows of each active part: (out, in) -> (P, out / parts, in)."""
        return matrix.unflatten(0, (self.parts, -1))[list(self.active)]

    @torch.no_grad()
    def update(self) -> Tensor:
        """Returns W' - W (out, in), at least in fp32."""
        factors = self.factors()
        change = factors.product()  # (P, out / parts, in)
        if factors.magnitude is not None:
            rows = self.active_rows(dense(self.linear))
            length = self.active_rows(factors.magnitude[:, None])  # (P, out / parts, 1)
            direction = rows + change
            change = length / row_lengths(direction) * direction - rows
        update = change.new_zeros(self.parts, *change.shape[1:])
        update[list(self.active)] = change
        return update.flatten(0, 1)

    def merged_weight(self) -> Tensor:
        """Returns the one matrix (out, in) that does the same as the layer with its adapter, at least in fp32."""
        return dense(self.linear) + self.strength * self.update()

    def merge(self) -> None:
        """Puts a layer with `merged_weight` in the frozen one's place; doing it twice changes nothing.

        The frozen layer itself is not touched: a matrix shared with another layer (a tied embedding) keeps its values.
        """
        if not self.merged:
            frozen = self.linear
            self.linear = with_matrix(frozen, self.merged_weight())
            self._set_aside = (frozen,)

    def unmerge(self) -> None:
        """Puts the frozen layer back, bit for bit."""
        if self.merged:
            (self.linear,) = self._set_aside
            self._set_aside = ()


def row_lengths(rows: Tensor) -> Tensor:
    """Returns the lengths (..., 1) of rows (..., in), never quite 0, so that a row of zeros can be divided by it."""
    return torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def random_factors(adapter: Adapter, spec: Spec, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Returns A (P R, in), drawn as `spec.init` says, and B (P, R, out / parts) of zeros: the update starts at zero."""
    outputs, inputs = shape(adapter.linear)
    bound, active = INITS[spec.init](inputs, spec.rank), len(adapter.active)
    a = torch.empty(active * spec.rank, inputs).uniform_(-bound, bound, generator=generator)
    return a, torch.zeros(active, spec.rank, outputs // adapter.parts)


def adapters(model: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """Returns (path, adapter) of every adapter in `model`."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Adapter))


def b_factors(model: nn.Module) -> list[nn.Parameter]:
    """Returns the trained B of every adapter in `model`, to which LoRA+ gives a higher learning rate."""
    return [b for _, adapter in adapters(model) if isinstance(b := adapter.low_rank.B, nn.Parameter)]


def set_strength(model: nn.Module, strength: float) -> None:
    """Sets how much every adapter in `model` counts: at 0 the layers are the frozen ones exactly, at 1 as trained."""
    for _, adapter in adapters(model):
        assert not adapter.merged, "unmerge first: a merged matrix keeps the strength that it was merged with"
        adapter.strength = strength


def merge(model: nn.Module, dequantise: bool = True) -> None:
    """Merges every adapter in `model`; with `dequantise` also those of quantised layers, which become plain ones."""
    for _, adapter in adapters(model):
        if dequantise or not isinstance(adapter.linear, QuantisedLinear):
            adapter.merge()


def unmerge(model: nn.Module) -> None:
    for _, adapter in adapters(model):
        adapter.unmerge()
