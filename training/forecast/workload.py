"""Describes the work of a run on one device for its forecast."""

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor

from gpt2_scratch.model import Hidden, Model
from lora.quantised import QuantisedLinear
from training.data.batches import Batch, Encoded
from training.data.examples import Data
from training.data.general import General
from training.data.pairs import collate_examples, texts_of
from training.flags.common import UpdateArgs
from training.flags.compute import ComputeArgs
from training.flags.finetuning import FineTuneArgs
from training.model.frozen_activations import Contents, contents
from training.step.losses import loss_of
from training.step.side_by_side import updates_at_a_time

LATER = ["torch._dynamo", "evaluate", "sklearn.metrics", "torch.utils.tensorboard", "matplotlib.figure"]
LATER += ["matplotlib.backends.backend_agg"]


def use_bitsandbytes() -> None:
    """Uses the library once: that costs memory, and makes tables, which must not be fake."""
    for bits in (4, 8):
        QuantisedLinear(64, 64, None, bits).store(torch.zeros(64, 64))


def resident(quantises: bool = False) -> int:
    """Returns the resident bytes of this process, once it has given back what it no longer uses.

    First imports what a run imports on its way (every optimizer imports torch's compiler), since that stays.
    """
    for name in LATER:
        import_module(name)
    if quantises:
        use_bitsandbytes()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
    return psutil.Process().memory_info().rss


@dataclass(frozen=True, eq=False)
class Workload:
    """The work of a run on one device. An example is a text (Encoded) or two of them (Pair)."""

    model: Model  # ready to train and not yet prepared, with or without weights
    update: UpdateArgs
    accelerator: Accelerator
    train: Sequence[Any]
    validation: Sequence[Any] = ()
    test: Sequence[Any] = ()
    compute: ComputeArgs = ComputeArgs()
    general: General = General()  # text that forgetting is measured on
    prompts: Sequence[list[int]] = ()  # to be answered
    new_tokens: int = 0
    whole_model: bool = False  # whether the best weights are saved as a whole model
    from_file: bool = True  # whether the base model is read from a file
    loss: Callable[[Accelerator, Any, Any], Tensor] = loss_of
    tests_base: bool = True  # whether the test examples are scored before the training too
    base: int | None = None  # bytes of the process before its model; None: measured when needed

    @cached_property
    def frozen(self) -> Contents | None:
        """What the frozen-activation cache will hold, if there is one."""
        wanted = self.compute.cache_frozen is not None
        return contents(self.model, self.texts, self.accelerator.mixed_precision) if wanted else None

    @property
    def held_out(self) -> list[Encoded]:
        return texts_of([*self.validation, *self.test])

    @property
    def texts(self) -> list[Encoded]:
        """All texts that are read, with both of each pair."""
        return [*texts_of(self.train), *self.held_out]

    @property
    def quantises(self) -> bool:
        return "8bit" in self.update.optimizer or any(isinstance(m, QuantisedLinear) for m in self.model.modules())

    @cached_property
    def libraries(self) -> int:
        """The bytes of the process without its model, which may already be loaded."""
        if self.base is not None:
            return self.base
        tensors = [t for t in [*self.model.parameters(), *self.model.buffers()] if t.device.type == "cpu"]
        storages = {s._cdata: s.nbytes() for s in (t.untyped_storage() for t in tensors)}
        return resident(self.quantises) - sum(storages.values())

    @cached_property
    def at_a_time(self) -> int:
        """The number of micro-batches that are computed at a time."""
        return updates_at_a_time(self.accelerator, self.model)

    @property
    def on_cpu(self) -> bool:
        return self.accelerator.device.type == "cpu"

    def batch(self, examples: Sequence[Any], device: torch.device) -> Batch:
        """Makes the training batch of `examples`, with zeros in place of what the cache will hold."""
        batch = replace(collate_examples(examples), hidden=None).to(device)
        held = self.frozen
        if held is None:
            return batch
        rows = len(examples) if held.last_only else len(batch.tokens)
        states = torch.zeros(rows, held.width, dtype=held.dtype, device=device)
        return replace(batch, hidden=Hidden(states, held.blocks))


def workload_of(
    args: FineTuneArgs, update: UpdateArgs, accelerator: Accelerator, model: Model, data: Data[Any], **more: Any
) -> Workload:
    """Returns the work of a fine-tuning run on one device; `more`: further fields of Workload."""
    whole = args.method.method == "full"
    return Workload(
        model,
        update,
        accelerator,
        *data.parts,
        args.compute,
        data.general,
        whole_model=whole,
        tests_base=data.tests_base,
        **more,
    )
