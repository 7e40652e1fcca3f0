"""Log-probabilities of answers, under the model and under the reference, from which it must not move too far.

The reference is the model that training starts from. Where untrained adapters change nothing, it is the model without
them; its numbers can also be computed before anything is trained.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from gpt2_scratch.model import LanguageModel
from gpt2_scratch.transfer import to_device
from lora.quantised import QuantisedLinear
from training.data.batches import Encoded
from training.data.examples import Data
from training.data.pairs import Pair, PairBatch, RatedPair, texts_of
from training.evaluation.forgetting import adapters_at
from training.evaluation.inference import score_targets
from training.flags.compute import ComputeArgs
from training.flags.finetuning import FineTuneArgs
from training.model.methods import own_state
from training.step.losses import outputs_of, per_answer
from training.step.processes import from_main
from training.storage.content_cache import CachedFile, content_key

P = TypeVar("P", bound=Pair)
VERSION = 2  # raise it when answers are scored in another way, so that older files are no longer found


@contextmanager
def reference(model: LanguageModel, strength: float = 0.0) -> Iterator[None]:
    """Inside, `model` is as before training: without adapters, dropout and gradients. With `strength` 1 it keeps its
    adapters, which must not have been trained."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), adapters_at(model, strength):
            yield
    finally:
        model.train(was_training)


def reference_in(accelerator: Accelerator, model: LanguageModel, batch: PairBatch, cached: bool) -> Tensor:
    """Returns the reference's log-probabilities of a batch, (B, 2) or for rated answers (B,), from it if `cached`,
    else computed; on its device."""
    if cached or batch.weight == 0:
        return to_device(batch.reference, batch.tokens.device)
    with reference(model):
        return per_answer(outputs_of(accelerator, model, batch), batch)


def referenced(accelerator: Accelerator, model: LanguageModel, batch: PairBatch, cached: bool) -> PairBatch:
    """Returns the batch on the device, with the reference's log-probabilities. They are computed before the loss, while
    no activations are kept, and while no other batch needs the model as it is trained."""
    batch = batch.to(accelerator.device)
    return replace(batch, reference=reference_in(accelerator, model, batch, cached))


def answer_log_probabilities(model: LanguageModel, texts: Sequence[Encoded], accelerator: Accelerator) -> np.ndarray:
    """Returns the log-probability of each text's targets (n,), on all processes. No two texts may have the same id."""
    return np.array([-row.loss for row in score_targets(model, texts, accelerator)])


def score_pairs(model: LanguageModel, pairs: Sequence[Pair], accelerator: Accelerator) -> np.ndarray:
    """Returns the log-probabilities of the chosen and the rejected answer of each pair, (n, 2)."""
    return answer_log_probabilities(model, texts_of(pairs), accelerator).reshape(-1, 2)


def with_reference(model: LanguageModel, pairs: Sequence[P], accelerator: Accelerator) -> list[P]:
    """Returns the pairs with the log-probabilities of `model` without its adapters. Nothing is kept on the disk."""
    with reference(model):
        found = score_pairs(model, pairs, accelerator).tolist()
    return [replace(pair, reference=(a, b)) for pair, (a, b) in zip(pairs, found, strict=True)]


def reference_point(
    model: LanguageModel, examples: Sequence[RatedPair], accelerator: Accelerator, cached: bool
) -> float:
    """Returns z0 of KTO for the examples of one step: how far the model is from its reference, max(0, the mean of
    log pi - log pi_ref) over their prompts with answers to other prompts (Ethayarajh et al. 2024, section 4.1).

    It belongs to the whole step and is computed on all processes before the gradients, without dropout, so that an
    update does not depend on how its examples are dealt out. TRL takes the mean over one micro-batch of each process,
    so that each accumulated micro-batch has a z0 of its own, and the update changes with their size.
    """
    texts = [e.texts[1] for e in examples]
    found = answer_log_probabilities(model, texts, accelerator)
    if cached:
        known = np.array([e.reference[1] for e in examples if e.reference])
    else:
        with reference(model):
            known = answer_log_probabilities(model, texts, accelerator)
    return max(0.0, float((found - known).mean()))


def pair_loss_as_forecast(
    loss: Callable[..., Tensor], cached: bool, accelerator: Accelerator, model: LanguageModel, batch: PairBatch
) -> Tensor:
    """Returns the `loss` of a batch for a forecast, with all that a step computes."""
    return loss(accelerator, model, referenced(accelerator, model, batch, cached))


def rated_loss_as_forecast(
    loss: Callable[..., Tensor], cached: bool, accelerator: Accelerator, model: LanguageModel, batch: PairBatch
) -> Tensor:
    """Returns the `loss` of a batch for a forecast, which has no step: in `reference_point`, the batch's own answers
    stand in for others, at the same cost."""
    batch = referenced(accelerator, model, batch, cached)
    with reference(model, strength=1.0):
        point = (per_answer(outputs_of(accelerator, model, batch), batch) - batch.reference).mean()
    return loss(accelerator, model, point, batch)


def _digest(text: Encoded) -> bytes:
    """Returns the hash of the tokens that are read and the targets that are scored."""
    assert isinstance(text.labels, np.ndarray)
    return hashlib.sha256(text.tokens.tobytes() + text.labels.tobytes()).digest()


def _adapters_digest(model: LanguageModel) -> str:
    found = hashlib.sha256()
    for tensor in own_state(model).values():
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()


def with_cached_reference(
    accelerator: Accelerator,
    model: LanguageModel,
    compute: ComputeArgs,
    base: str,
    parts: Sequence[Sequence[P]],
    strength: float = 0.0,
) -> list[list[P]]:
    """Returns the pairs with the reference's log-probabilities, from the file if it exists, else computed and written.

    Nothing may have been trained or loaded into `model` yet. `base` is the hash of its frozen weights. `strength` is 1
    where its adapters are part of the reference; the file then depends on them too. Raises OSError when the file cannot
    be written.
    """
    distinct = {_digest(text): text for part in parts for text in texts_of(part)}
    texts = {digest: distinct[digest] for digest in sorted(distinct)}
    bits = {m.bits for m in model.modules() if isinstance(m, QuantisedLinear)}
    config = replace(model.config, dropout=0.0)
    precision = f"{accelerator.mixed_precision}{'+tf32' if compute.tf32 else ''}, base bits {bits or 32}"
    key = content_key((VERSION, base + _adapters_digest(model) * (strength > 0), config, precision), texts)
    file = CachedFile(compute.cache_dir, key, "reference", 8 * len(texts))  # fp64
    found = from_main(accelerator, file.numbers)
    if accelerator.is_main_process:
        print(f"reference  {len(texts):,} texts, {file.path}{'' if found is None else ', found'}", flush=True)
    if found is None:
        with reference(model, strength):
            found = answer_log_probabilities(model, list(texts.values()), accelerator)
        if accelerator.is_main_process:
            file.write([found.data])
    known = dict(zip(texts, found.tolist(), strict=True))
    return [[replace(p, reference=tuple(known[_digest(text)] for text in p.texts)) for p in part] for part in parts]


def with_references(
    accelerator: Accelerator, model: LanguageModel, args: FineTuneArgs, base: str, data: Data[P], cached: bool
) -> Data[P]:
    """Returns `data` with the reference's log-probabilities; nothing may have been trained or loaded into `model` yet.

    `base` is the hash of all frozen weights. Without `cached`, those of training pairs are computed during training.
    """
    if cached:
        strength = 0.0 if args.method.starts_at_frozen else 1.0
        return data.with_parts(with_cached_reference(accelerator, model, args.compute, base, data.parts, strength))
    held_out = (with_reference(model, part, accelerator) for part in (data.validation, data.test))
    return data.with_parts([data.train, *held_out])
