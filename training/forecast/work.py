"""What a run asks of one device, as the forecast of its memory sees it (memory.py)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from gpt2_scratch.model import Classifier, Hidden, LanguageModel
from training.data.batches import Batch, Encoded, collate
from training.data.pairs import Pair, collate_pairs, texts_of
from training.evaluation.forgetting import General
from training.flags.common import UpdateArgs
from training.flags.compute import ComputeArgs
from training.model.frozen_activations import Contents, contents
from training.step.losses import loss_of


@dataclass(frozen=True, eq=False)
class Work:
    """What a run asks of one device. `model` before `prepare`, with or without storage, ready to train otherwise."""

    model: Classifier | LanguageModel
    update: UpdateArgs
    accelerator: Accelerator
    train: Sequence[Any]  # texts (Encoded) or pairs of them (Pair)
    held_out: Sequence[Encoded]
    base: int  # bytes, `resident()` before there was a model; 0 where nothing is forecast
    compute: ComputeArgs = ComputeArgs()
    prompts: Sequence[list[int]] = ()  # that are answered
    new_tokens: int = 0
    from_file: bool = False  # whether the base model is read from one
    general: General = General()  # text that forgetting is measured on
    whole_model: bool = False  # whether the best weights are saved as a model, with all that is frozen
    loss: Callable[[Accelerator, Any, Any], Tensor] = loss_of

    @cached_property
    def prefix(self) -> Contents | None:
        """What the prefix cache will hold, where there is one."""
        wanted = self.compute.cache_frozen is not None
        return contents(self.model, self.texts, self.accelerator.mixed_precision) if wanted else None

    @property
    def texts(self) -> list[Encoded]:
        """All that are read, one by one: an example may be a pair of them."""
        return texts_of([*self.train, *self.held_out])

    def batch(self, examples: Sequence[Any], device: torch.device) -> Batch:
        """As training has it, but with zeros in place of what the prefix cache will hold."""
        pairs = bool(examples) and isinstance(examples[0], Pair)
        batch = replace(collate_pairs(examples) if pairs else collate(examples), hidden=None).to(device)
        held = self.prefix
        if held is None:
            return batch
        rows = len(examples) if held.last_only else len(batch.tokens)
        states = torch.zeros(rows, held.width, dtype=held.dtype, device=device)
        return replace(batch, hidden=Hidden(states, held.blocks))

    @property
    def on_cpu(self) -> bool:
        return self.accelerator.device.type == "cpu"
