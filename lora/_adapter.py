"""The contract of an adapter, and what can be done with all adapters of a model at once.

Every parameter of an adapter outside `.linear` is trained; fixed factors are persistent buffers; both are saved.
A fused matrix (queries, keys and values in one) counts as `parts` stacked outputs; `active` names those with an update.
Letters: N tokens, R rank, P active parts.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# How the update is scaled, from (alpha, rank). `paper` is what the report's authors ran.
SCALINGS: dict[str, Callable[[float, int], float]] = {
    "standard": lambda alpha, rank: alpha / rank,  # Hu et al. 2021, section 4.1
    "rslora": lambda alpha, rank: alpha / math.sqrt(rank),  # Kalajdzievski 2023
    "paper": lambda alpha, rank: alpha,
}

# Half-width of the uniform distribution that A starts from, given (inputs, rank). The authors' A is stored transposed,
# so that kaiming_uniform_ took the rank for the number of inputs.
INITS: dict[str, Callable[[int, int], float]] = {
    "standard": lambda inputs, rank: 1 / math.sqrt(inputs),
    "paper": lambda inputs, rank: 1 / math.sqrt(rank),
}


@dataclass(frozen=True)
class Spec:
    """What all adapters of one model share. `rank` >= 1; `alpha` is divided as `scaling` says."""

    rank: int
    alpha: float = 16.0
    scaling: str = "standard"
    init: str = "standard"

    @property
    def scale(self) -> float:
        return SCALINGS[self.scaling](self.alpha, self.rank)


class Adapter(nn.Module):
    """A frozen linear layer and what trains beside it. A variant has `add_factors`, `adapted` and `merged_weight`."""

    scale: float

    def __init__(
        self,
        linear: nn.Linear,
        spec: Spec,
        parts: int = 1,
        active: tuple[int, ...] = (0,),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        assert linear.out_features % parts == 0, f"{linear.out_features} outputs do not split into {parts} parts"
        assert active == tuple(sorted(set(active))) and active and active[-1] < parts, f"parts {active} of {parts}"
        assert spec.rank >= 1, f"rank {spec.rank}"  # no upper bound: the report's class heads of 2 rows have rank 16
        self.linear = linear.requires_grad_(False)
        self.parts, self.active, self.scale = parts, active, spec.scale
        # In a tuple, else the frozen matrix would count as one of ours to train.
        self._set_aside: tuple[Tensor, ...] = ()
        with linear.weight.device:
            self.add_factors(spec, generator)

    @property
    def merged(self) -> bool:
        return bool(self._set_aside)

    def add_factors(self, spec: Spec, generator: torch.Generator | None) -> None:
        """Adds what is trained, as parameters, and what is fixed, as persistent buffers."""
        raise NotImplementedError

    def adapted(self, x: Tensor) -> Tensor:
        """What the layer with its adapter makes of x: (N, in) -> (N, out)."""
        raise NotImplementedError

    def merged_weight(self) -> Tensor:
        """(out, in): the one matrix that does the same as the layer with its adapter, computed in fp32."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if self.merged else self.adapted(x)

    def merge(self) -> None:
        """Puts `merged_weight` in the layer's place; doing it twice changes nothing.

        The frozen matrix itself is not touched: one shared with another layer (a tied embedding) keeps its values.
        """
        if not self.merged:
            frozen = self.linear.weight
            with torch.no_grad():
                self.linear.weight = nn.Parameter(self.merged_weight().to(frozen.dtype), requires_grad=False)
            self._set_aside = (frozen,)

    def unmerge(self) -> None:
        """Puts the frozen matrix back, bit for bit."""
        if self.merged:
            self.linear.weight = self._set_aside[0]
            self._set_aside = ()


class LowRank(nn.Module):
    """The factors of P updates side by side: A (P R, in), B (P, R, out / parts) and zero at first."""

    def __init__(self, inputs: int, outputs: int, active: int, rank: int, bound: float, g: torch.Generator | None):
        super().__init__()
        self.A = nn.Parameter(torch.empty(active * rank, inputs))
        self.B = nn.Parameter(torch.zeros(active, rank, outputs))
        with torch.no_grad():
            self.A.uniform_(-bound, bound, generator=g)

    def product(self) -> Tensor:
        """(P, out / parts, in) in fp32."""
        active, rank, _ = self.B.shape
        return self.B.float().transpose(1, 2) @ self.A.float().unflatten(0, (active, rank))


def adapters(model: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """(path, adapter) of every adapter in `model`."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Adapter))


def merge(model: nn.Module) -> None:
    for _, adapter in adapters(model):
        adapter.merge()


def unmerge(model: nn.Module) -> None:
    for _, adapter in adapters(model):
        adapter.unmerge()
