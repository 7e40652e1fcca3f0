"""Measures forgetting: the loss on a fixed general text before and after training.

`before` is the loss of the model that training starts from, so that a model without training has lost exactly nothing:
the base as it is held (--base-bits), whose loss is kept for later runs, or with --lora-init loftq the base with its
adapters, which alone change something before they are trained. Every interval is over pieces of the text, and that of
the difference pairs them. On what LoRA and full fine-tuning forget: Biderman et al. 2024, "LoRA Learns Less and Forgets
Less".
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from evidence.intervals import bootstrap_ratio
from gpt2_scratch.model import Classifier, LanguageModel, Model
from gpt2_scratch.pretrained import read_weight, without_storage
from lora.adapter import set_strength
from training.data.examples import Data
from training.data.general import General
from training.evaluation.inference import score_targets
from training.flags.finetuning import FineTuneArgs
from training.step.processes import from_main
from training.step.sharding import is_sharded, whole_root
from training.storage.content_cache import CachedFile, content_key

VERSION = 1  # raise it when the base computes something else, so that older files are no longer found
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def language_model_in(model: Model, head: Tensor | None = None) -> LanguageModel:
    """Returns `model`, or a language model that shares a classifier's transformer, with the LM head `head` (V, C), or
    the token embedding if that is None."""
    if isinstance(model, LanguageModel):
        return model
    inside = without_storage(LanguageModel, replace(model.config, tied_head=head is None))
    inside.transformer = model.transformer
    if head is not None:
        inside.lm_head.weight = nn.Parameter(head, requires_grad=False)
    inside.tie()
    return inside.train(model.training)


@contextmanager
def adapters_at(model: Model, strength: float) -> Iterator[None]:
    """Scales the adapters by `strength` inside. A class head stays as trained, since the task needs it."""
    scaled = model.transformer if isinstance(model, Classifier) else model
    set_strength(scaled, strength)
    try:
        yield
    finally:
        set_strength(scaled, 1.0)


def general_losses(model: Model, general: General, accelerator: Accelerator, strength: float = 1.0) -> list[float]:
    """Returns the loss in nats, summed over each piece, on all processes."""
    head = None
    if general.head is not None and isinstance(model, Classifier):
        head = read_weight(general.head, "lm_head.weight").to(accelerator.device)
    with accelerator.autocast(), adapters_at(model, strength), whole_root(model):
        rows = score_targets(language_model_in(model, head), general.pieces, accelerator)
    return [row.loss for row in rows]


def _base_file(model: Model, data: Data[Any], accelerator: Accelerator, args: FineTuneArgs, base: str) -> CachedFile:
    """Returns the file of the base's losses (fp64), named by all that can change a bit of them."""
    general, device = data.general, accelerator.device
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    half = [name for name, p in model.named_parameters() if p.dtype in (torch.float16, torch.bfloat16)]
    facts = (
        *(VERSION, torch.__version__, device.type, processor, torch.get_num_threads(), accelerator.num_processes),
        *(base, args.model.base_bits, replace(data.inputs.config, dropout=0.0), general.sha256),
        *(accelerator.mixed_precision, half, is_sharded(model), args.compute.tf32, args.compute.deterministic),
    )
    return CachedFile(args.compute.cache_dir, content_key(facts), "general", 8 * len(general.pieces))


def losses_at_start(
    model: Model, data: Data[Any], accelerator: Accelerator, args: FineTuneArgs, base: str
) -> list[float]:
    """Returns the losses of the pieces before the training, on all processes: the base's from --cache-dir, if an
    earlier run left them there. `base` is the hash of all frozen weights."""
    general = data.general
    if not general.pieces or not args.method.starts_at_frozen:
        return general_losses(model, general, accelerator)
    file = _base_file(model, data, accelerator, args, base)
    known = from_main(accelerator, file.numbers)
    if known is not None:
        return list(known.tolist())
    found = general_losses(model, general, accelerator, strength=0.0)
    if accelerator.is_main_process:
        with suppress(OSError):  # the next run computes them again
            file.write([np.array(found).data])
    return found


def forgetting(
    model: Model, general: General, accelerator: Accelerator, before: list[float], task_metric: Callable[[], float]
) -> dict[str, Any] | None:
    """Returns the entry of results.json; None when nothing is measured.

    `before`: losses of the pieces before training; `task_metric` evaluates `model` as it is then, for the curve.
    """
    if not general.pieces:
        return None
    was, now, counts = np.array(before), np.array(general_losses(model, general, accelerator)), general.counts
    tokens = int(counts.sum())
    found: dict[str, Any] = {"source": general.source, "tokens": tokens, "sha256": general.sha256}
    for name, losses in (("before", was), ("after", now), ("difference", now - was)):
        found[name] = bootstrap_ratio(losses, counts).entry()
    # Stored so that runs can be averaged piece by piece.
    found["pieces"] = {"tokens": counts.tolist(), "before": was.round(4).tolist(), "after": now.round(4).tolist()}
    if general.curve:
        found["curve"] = []
        for strength in STRENGTHS:
            with adapters_at(model, strength):
                metric = task_metric()
            loss = float(np.sum(general_losses(model, general, accelerator, strength))) / tokens
            found["curve"].append({"strength": strength, "metric": metric, "general_loss": loss})
    return found
