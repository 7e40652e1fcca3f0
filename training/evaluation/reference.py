"""Log-probabilities of answers: under the model as it is, and under the reference that it must not leave too far.

The reference is the model that training starts from: the one without its adapters where these start at nothing, or
numbers that were computed before anything was trained.
"""

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from gpt2_scratch.model import LanguageModel
from lora.quantised import QuantisedLinear
from training.data.batches import Encoded
from training.data.pairs import Pair, PairBatch, texts_of
from training.evaluation.forgetting import adapters_at
from training.evaluation.inference import score_targets
from training.flags.compute import ComputeArgs
from training.model.methods import own_state
from training.step.losses import outputs_of, per_answer
from training.step.processes import from_main
from training.storage.files import load_tensors, replace_file, save_tensors

VERSION = 1  # to be raised when answers are scored in another way: older files are then not found any more
NAME = "log_probabilities"


@contextmanager
def reference(model: LanguageModel, strength: float = 0.0) -> Iterator[None]:
    """Inside, `model` is what it was before training: no adapters, no dropout, no gradients. `strength` 1: with its
    adapters, which must not have been trained."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), adapters_at(model, strength):
            yield
    finally:
        model.train(was_training)


def reference_in(accelerator: Accelerator, model: LanguageModel, batch: PairBatch, cached: bool) -> Tensor:
    """(B, 2) for one batch: what is kept with it, or else computed; on the batch's device."""
    if cached or batch.weight == 0:
        return batch.reference.to(batch.tokens.device)
    with reference(model):
        return per_answer(outputs_of(accelerator, model, batch), batch)


def score_texts(model: LanguageModel, texts: Sequence[Encoded], accelerator: Accelerator) -> np.ndarray:
    """Log-probability of the targets of each text (n,), on all processes; no two texts may have the same id."""
    return np.array([-row.loss for row in score_targets(model, texts, accelerator)])


def score_pairs(model: LanguageModel, pairs: Sequence[Pair], accelerator: Accelerator) -> np.ndarray:
    """(n, 2): of the chosen and of the rejected answer of each pair."""
    return score_texts(model, texts_of(pairs), accelerator).reshape(-1, 2)


def with_reference(model: LanguageModel, pairs: Sequence[Pair], accelerator: Accelerator) -> list[Pair]:
    """The same pairs with the numbers of `model` without its adapters, nothing kept on the disk."""
    with reference(model):
        found = score_pairs(model, pairs, accelerator).tolist()
    return [replace(pair, reference=(a, b)) for pair, (a, b) in zip(pairs, found, strict=True)]


def _digest(text: Encoded) -> bytes:
    """Of what is read and what is scored."""
    assert isinstance(text.labels, np.ndarray)
    return hashlib.sha256(text.tokens.tobytes() + text.labels.tobytes()).digest()


def _adapters_digest(model: LanguageModel) -> str:
    found = hashlib.sha256()
    for tensor in own_state(model).values():
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()


def reference_file(compute: ComputeArgs, texts: dict[bytes, Encoded], base: str, precision: str) -> Path:
    """Named by all that the numbers depend on: how texts were split and how the model is trained do not count."""
    facts = VERSION, base, precision
    name = hashlib.sha256(repr(facts).encode() + b"".join(texts)).hexdigest()[:32]
    return compute.cache_dir / f"reference-{name}.safetensors"


def with_cached_reference(
    accelerator: Accelerator,
    model: LanguageModel,
    compute: ComputeArgs,
    base: str,
    parts: Sequence[Sequence[Pair]],
    strength: float = 0.0,
) -> list[list[Pair]]:
    """The same pairs with the reference's numbers, from the file where there is one, else computed and written.

    `model`: before anything is trained or loaded into it; `base`: hash of its frozen weights; `strength`: 1 where its
    adapters are part of the reference, on which the file then depends too. Raises OSError when the file cannot be
    written.
    """
    distinct = {_digest(text): text for part in parts for text in texts_of(part)}
    texts = {digest: distinct[digest] for digest in sorted(distinct)}
    bits = {m.bits for m in model.modules() if isinstance(m, QuantisedLinear)}
    precision = f"{accelerator.mixed_precision}{'+tf32' if compute.tf32 else ''}, base bits {bits or 32}"
    path = reference_file(compute, texts, base + _adapters_digest(model) * (strength > 0), precision)
    found = from_main(accelerator, lambda: _read(path, len(texts)))
    if accelerator.is_main_process:
        print(f"reference  {len(texts):,} texts, {path}{'' if found is None else ', found'}", flush=True)
    if found is None:
        with reference(model, strength):
            found = score_texts(model, list(texts.values()), accelerator).tolist()
        if accelerator.is_main_process:
            _write(path, found)
    known = dict(zip(texts, found, strict=True))
    return [
        [replace(p, reference=(known[_digest(p.chosen)], known[_digest(p.rejected)])) for p in part] for part in parts
    ]


def _read(path: Path, count: int) -> list[float] | None:
    """A damaged file is as good as none: its content follows from its name, so it can be made again."""
    try:
        kept = load_tensors(path)[NAME].tolist()
    except (ValueError, KeyError):
        return None
    return kept if len(kept) == count else None


def _write(path: Path, values: list[float]) -> None:
    kept = {NAME: torch.tensor(values, dtype=torch.float64)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name("lock"), "w") as lock:  # two runs may come to write the same file
            fcntl.flock(lock, fcntl.LOCK_EX)
            replace_file(path, lambda new: save_tensors(new, kept))
    except OSError as error:
        raise OSError(f"--cache-dir {path.parent}: {error}") from error
