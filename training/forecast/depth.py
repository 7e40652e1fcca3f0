"""Tells what a deep model makes from what a shallow one makes: blocks of a kind do the same one after the other, so the
events of one (meter.py) are repeated for those that the shallow model lacks."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain, groupby
from typing import Any

from torch import nn

from training.forecast.meter import Event, Made

FEW, MIDDLE = 5, 2  # blocks of each kind in a shallow model, and the place of the one that is repeated


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


class Uneven(Exception):
    """The blocks of a kind do not do the same, each after the other."""


def _rows_of(events: Sequence[Event], place: int, times: int) -> dict[Made, list[Made]]:
    """Returns for each tensor of block `place` and its neighbours the tensor that each block has in its place: block
    `place` - 1, `place`, the `times` that are new, and the next one. Raises Uneven where the three differ."""
    made = [event.tensor for event in events if event.action == "make"]
    columns = [[tensor for tensor in made if tensor.block == block] for block in (place - 1, place, place + 1)]
    first, *others = [[(tensor.kind, tensor.size, tensor.copies) for tensor in column] for column in columns]
    if any(other != first for other in others):
        raise Uneven
    found: dict[Made, list[Made]] = {}
    for before, tensor, after in zip(*columns, strict=True):
        row = [before, tensor, *(replace(tensor) for _ in range(times)), after]
        found |= dict.fromkeys((before, tensor, after), row)
    return found


def repeated(events: Sequence[Event], place: int, times: int) -> Iterator[Event]:
    """Yields the events of a model that has `times` blocks more, which do what block `place` does; the blocks keep
    their numbers. Raises Uneven where its neighbours do something else, or tensors are freed by blocks further away.

    What is done from the last block to the first, as in the backward pass, is repeated in that order.
    """
    rows, before = _rows_of(events, place, times), None

    def of_copy(event: Event, copy: int) -> Event:
        """The event as the block that is number `copy` of the repeated ones has it."""
        owner = event.tensor.block
        if owner is None or event.tensor not in rows:
            raise Uneven
        return event._replace(tensor=rows[event.tensor][owner - place + 1 + copy])

    def of_other(event: Event) -> Event:
        if event.block is None or event.tensor.block != place:
            return event
        if abs(event.block - place) != 1:
            raise Uneven
        return of_copy(event, times if event.block > place else 0)

    for running, group in groupby(events, lambda event: event.place):
        if running == place:
            here, order = [*group], range(times + 1)
            for copy in reversed(order) if before == place + 1 else order:
                yield from (of_copy(event, copy) for event in here)
        else:
            yield from map(of_other, group)
        before = before if running is None else running


def deep(model: Any, recorded: Callable[[Any], list[list[Event]]]) -> list[list[Event]]:
    """Returns the events of `model`, part by part, from those `recorded` of a model with fewer blocks where there are
    many of a kind that do the same. A part that comes twice is the same list twice."""
    runs = runs_of(model)
    long = [i for i, run in enumerate(runs) if run > FEW]
    if not long:
        return recorded(model)
    depths = [min(run, FEW) for run in runs]
    parts = recorded(with_depths(model, runs, depths))
    found = {id(events): events for events in parts}
    try:
        for i in reversed(long):
            place, times = sum(depths[:i]) + MIDDLE, runs[i] - FEW
            found = {part: [*repeated(events, place, times)] for part, events in found.items()}
    except Uneven:
        return recorded(model)
    return [found[id(events)] for events in parts]
