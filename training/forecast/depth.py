"""Forecasts a deep model from shallow ones: what one block more takes, every further block of its kind takes too."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, chain, groupby
from typing import Any

from torch import nn

from training.forecast.meter import Stage

FEW, MORE = 4, 2  # blocks of each kind in a shallow model, and those that another one has more
LAST = 3  # blocks at the end whose backward pass is a stage of its own; those at the start are at least one


def _kind(block: nn.Module) -> tuple[Any, ...]:
    tensors = chain(block.named_parameters(), block.named_buffers())
    layers = ((name, type(layer)) for name, layer in block.named_modules())
    return (*layers, *((name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors))


def runs_of(model: Any) -> list[int]:
    """Returns the lengths of the runs of blocks of one kind: 8 4 where the last 4 of 12 train."""
    return [len(list(blocks)) for _, blocks in groupby(model.transformer.h, _kind)]


def with_depths(model: Any, runs: Sequence[int], depths: Sequence[int]) -> Any:
    """Returns a model that has the first `depths` blocks of each run, and all tensors, in common with `model`."""
    firsts = accumulate(runs, initial=0)
    kept = [i for first, depth in zip(firsts, depths, strict=False) for i in range(first, first + depth)]
    shallow, transformer = copy.copy(model), copy.copy(model.transformer)
    blocks = nn.ModuleList(transformer.h[i] for i in kept)
    transformer._modules = transformer._modules | {"h": blocks}
    shallow._modules = shallow._modules | {"transformer": transformer}
    shallow.config = transformer.config = replace(model.config, blocks=len(kept))
    return shallow


def _depths(model: Any) -> tuple[list[int], list[int], list[int]]:
    """Returns the runs of `model`, their lengths in a shallow one, and the places of those that are shorter there."""
    runs = runs_of(model)
    long = [i for i, run in enumerate(runs) if run > FEW + MORE]
    return runs, [FEW if i in long else run for i, run in enumerate(runs)], long


def _is_less_work(runs: list[int], depths: list[int], long: list[int]) -> bool:
    return (1 + len(long)) * sum(depths) + MORE * len(long) < sum(runs)


def is_deep(model: Any) -> bool:
    """Returns whether the shallow models have fewer blocks together than `model`."""
    return _is_less_work(*_depths(model))


def deep(model: Any, measured: Callable[[Any], list[Stage]]) -> list[Stage]:
    """Returns the stages of `model`, from those `measured` of models with fewer blocks if that is less work."""
    runs, depths, long = _depths(model)
    if not _is_less_work(runs, depths, long):
        return measured(model)
    few = measured(with_depths(model, runs, depths))
    found = [replace(stage, parts=stage.parts.copy()) for stage in few]
    for i in long:
        more = measured(with_depths(model, runs, [depth + MORE * (at == i) for at, depth in enumerate(depths)]))
        times = (runs[i] - FEW) / MORE
        for stage, one, other in zip(found, few, more, strict=True):
            stage.touched += round(times * (other.touched - one.touched))
            for kind, size in other.parts.items():
                stage.parts[kind] += round(times * (size - one.parts[kind]))
    return found
