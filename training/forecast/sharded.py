"""Forecasts the memory of each card when several share the weights (training/step/sharding.py).

What is shared is divided by the number of cards. What is whole on each is counted from the shapes: the root
(embeddings, norms, head) from forward to backward, and of the largest unit, attention or MLP, what is on its way.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from gpt2_scratch.model import LanguageModel
from gpt2_scratch.precision import HALF
from training.forecast.memory import tensors_of
from training.forecast.workload import Workload
from training.step.sharding import units_of

CARDS = (1, 2, 4, 8)
# Copies of the largest unit at the peak of the backward pass: its weights, those of the next and the buffer that they
# arrive in; the gradients of its own and, in fp32, the buffer that they leave in, with that of the unit before.
WEIGHTS_OF_A_UNIT, GRADIENTS_SENT = 3, 2


def _bytes(parameters: Sequence[nn.Parameter], itemsize: int | None = None) -> int:
    return sum(p.numel() * (itemsize or p.itemsize) for p in parameters)


def whole_on_each(workload: Workload, running: int) -> int:
    """Returns the bytes at the peak that are not divided, with those of activations, of which there are `running`."""
    model, half = workload.model, HALF.get(workload.accelerator.mixed_precision)
    units = [list(unit.parameters()) for unit in units_of(model)]
    inside = {id(p) for unit in units for p in unit}
    root = [p for p in model.parameters() if id(p) not in inside]

    def on_its_way(unit: list[nn.Parameter]) -> int:
        computed = half.itemsize if half is not None and len({p.dtype for p in unit}) == 1 else None
        trained = [p for p in unit if p.requires_grad]
        gradients = _bytes(trained, computed) + GRADIENTS_SENT * _bytes(trained)
        return WEIGHTS_OF_A_UNIT * _bytes(unit, computed) + gradients

    of_root = _bytes([p for p in root if p.requires_grad])
    early = of_root if isinstance(model, LanguageModel) else 0  # an LM head has its gradient after the forward pass
    return _bytes(root) + max(running + early + max(map(on_its_way, units)), 2 * of_root)


def card_bytes(workload: Workload, micro_batch_size: int) -> dict[int, int]:
    """Returns the bytes of tensors on each card by the number of cards; one card shares nothing."""
    twice = replace(workload.update, batch_size=2 * micro_batch_size * workload.accelerator.num_processes)
    parts = tensors_of(replace(workload, update=twice), micro_batch_size).parts  # gradients are there at the peak
    parameters = list(workload.model.parameters())
    trained = _bytes([p for p in parameters if p.requires_grad])
    shared = _bytes(parameters) + trained + parts["optimizer"]
    running = parts["activations"] + parts["logits"]
    each = whole_on_each(workload, running)
    return {cards: shared // cards + (each if cards > 1 else running) for cards in CARDS}
