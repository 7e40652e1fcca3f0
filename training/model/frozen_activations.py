"""The frozen-activation cache: the frozen blocks below the first trained one are computed once for each text.

Their activations depend on nothing that trains, so they serve every epoch, and on disk every seed, method, process and
later run. Texts lie back to back, longest first, in the order in which they are computed.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from gpt2_scratch.attention import layout_of
from gpt2_scratch.model import Classifier, Hidden, Model
from gpt2_scratch.precision import HALF
from lora.quantised import QuantisedLinear
from training.data.batches import TOKENS_PER_BATCH, Encoded, inference_plan
from training.data.examples import CacheFacts, Data
from training.data.pairs import texts_of, with_texts
from training.flags.cli import refuse
from training.flags.compute import ComputeArgs
from training.storage.content_cache import CachedFile, content_key

VERSION = 1  # raise it when blocks compute something else, so that older files are no longer found
MIB = 2**20


def frozen_blocks(model: Model) -> int:
    """Returns how many blocks lie below the first trained parameter: 0 if an embedding trains, L if all are frozen."""
    transformer = model.transformer
    for done, module in enumerate([transformer.wte, transformer.wpe, *transformer.h], start=-2):
        if any(p.requires_grad for p in module.parameters()):
            return max(done, 0)
    return len(transformer.h)


def _digest(text: np.ndarray) -> bytes:
    return hashlib.sha256(text.tobytes()).digest()


@dataclass(frozen=True)
class Contents:
    """The content of a cache: for each text a row of C numbers per token, or with `last_only` for its last token."""

    texts: dict[bytes, np.ndarray]  # token ids by their hash, without duplicates, longest first
    blocks: int
    last_only: bool
    width: int
    dtype: torch.dtype

    @property
    def rows(self) -> list[int]:
        return [1 if self.last_only else len(text) for text in self.texts.values()]

    @property
    def shape(self) -> tuple[int, int]:
        return sum(self.rows), self.width

    @property
    def size(self) -> int:
        """The size in bytes."""
        return sum(self.rows) * self.width * self.dtype.itemsize

    def hidden_in(self, held: Tensor) -> dict[bytes, Hidden]:
        """Maps each text's hash to its view of `held` (rows, C)."""
        views = zip(self.texts, accumulate(self.rows, initial=0), self.rows, strict=False)
        return {digest: Hidden(held[start : start + rows], self.blocks) for digest, start, rows in views}


def contents(model: Model, examples: Sequence[Encoded], precision: str) -> Contents:
    """Returns what a cache for `examples` would hold; computes nothing."""
    distinct = {_digest(e.tokens): e.tokens for e in examples}
    texts = dict(sorted(distinct.items(), key=lambda item: (-len(item[1]), item[0])))
    blocks, width = frozen_blocks(model), model.config.width
    last_only = isinstance(model, Classifier) and blocks == model.config.blocks
    return Contents(texts, blocks, last_only, width, HALF.get(precision, torch.float32))


def cache_key(held: Contents, model: Model, base: str, precision: str, base_bits: int = 32) -> str:
    """Returns a key of all that the content depends on; neither the order of examples nor what trains is part of it.

    `base` is the hash of the weight file, and `base_bits` are the bits of a frozen weight.
    """
    config = model.config
    facts = VERSION, base, base_bits, precision, config.heads, config.layer_norm_epsilon, held.blocks, held.last_only
    return content_key(facts, held.texts)


def _states(model: Model, accelerator: Accelerator, held: Contents, shown: bool) -> Iterator[Tensor]:
    """Yields the hidden states (rows, C) of one batch of texts after another. Raises ValueError for an overflow."""
    texts = list(held.texts.values())
    (plan,) = inference_plan([len(text) for text in texts], TOKENS_PER_BATCH, 1)
    for batch in tqdm(plan, "frozen blocks", leave=False, disable=not shown):
        tokens = torch.from_numpy(np.concatenate([texts[i] for i in batch]).astype(np.int64)).to(accelerator.device)
        lengths = torch.tensor([len(texts[i]) for i in batch])
        layout = layout_of(lengths, accelerator.device, last_only=held.last_only)
        with torch.no_grad(), accelerator.autocast():
            states = model.transformer.first_blocks(tokens, layout, held.blocks).states
        states = states.to(held.dtype).cpu()
        if not torch.isfinite(states).all():
            raise ValueError(f"--cache-frozen: hidden states overflow in {held.dtype}; use bf16, or leave it out")
        yield states


def _in_memory(held: Contents, states: Iterator[Tensor]) -> Tensor:
    whole, done = torch.empty(held.shape, dtype=held.dtype), 0
    for part in states:
        whole[done : done + len(part)] = part
        done += len(part)
    return whole


def _on_disk(file: CachedFile, held: Contents, states: Iterator[Tensor]) -> Tensor:
    """Completes the file, and returns it mapped into memory."""
    file.write(part.view(torch.uint8).numpy().data for part in states)
    # Shared, because a private mapping larger than the memory is refused; nobody writes into it.
    path, size = str(file.path), held.shape[0] * held.width
    return torch.from_file(path, shared=True, size=size, dtype=held.dtype).view(held.shape)


def _misfit(compute: ComputeArgs, held: Contents, file: CachedFile | None) -> str | None:
    """Returns why the cache cannot be made, or None."""
    asked = f"--cache-frozen {compute.cache_frozen}:"
    if held.blocks == 0:
        return f"{asked} no block is frozen below the first that trains; add --last-blocks n, or leave it out"
    if file is None:
        copies, free = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), psutil.virtual_memory().available
        needed, where = held.size * copies, f"free for {copies} copies (one a process)" if copies > 1 else "free"
        remedy = "use --cache-frozen disk, --mixed-precision bf16, fewer or shorter texts"
    elif file.complete:
        return None
    else:
        (needed, free), where = file.space(), f"free in --cache-dir {compute.cache_dir}"
        remedy = "make room, name another --cache-dir, use --mixed-precision bf16, fewer or shorter texts"
    if needed <= free:
        return None
    return f"{asked} needs {needed / MIB:,.0f} MiB, {free / MIB:,.0f} MiB are {where}; {remedy}"


def with_frozen_activations(
    accelerator: Accelerator, model: Model, compute: ComputeArgs, base: str, parts: Sequence[Sequence[Encoded]]
) -> tuple[list[list[Encoded]], CacheFacts]:
    """Returns the examples with their hidden states, found on the disk or computed.

    `base` is the hash of the weight file. Raises ValueError on all processes, before anything is computed or written,
    when nothing is frozen or the cache does not fit, and OSError when writing it fails.
    """
    precision = accelerator.mixed_precision + ("+tf32" if compute.tf32 else "")
    held = contents(model, [e for part in parts for e in part], accelerator.mixed_precision)
    bits = {m.bits for m in model.modules() if isinstance(m, QuantisedLinear)}  # the same in all blocks
    file = None
    if compute.cache_frozen == "disk":
        key = cache_key(held, model, base, precision, *bits)
        file = CachedFile(compute.cache_dir, key, "hidden", held.size)
    built, where = file is None or not file.complete, "memory" if file is None else str(file.path)
    if accelerator.is_main_process:
        print(f"frozen     {held.blocks} of {model.config.blocks} blocks, {len(held.texts):,} texts, ", end="")
        print(f"{held.size / MIB:,.1f} MiB in {where}{'' if built else ', found'}", flush=True)
    misfit = _misfit(compute, held, file)
    # All processes decide together, or one would take the memory that another is about to count.
    refuse([p for p in (gather_object([misfit]) if accelerator.num_processes > 1 else [misfit]) if p][:1])

    started, was_training = time.perf_counter(), model.training
    states = _states(model.eval(), accelerator, held, shown=file is not None or accelerator.is_main_process)
    try:
        hidden = held.hidden_in(_in_memory(held, states) if file is None else _on_disk(file, held, states))
    finally:
        model.train(was_training)
    facts = CacheFacts(where, held.blocks, len(held.texts), held.size, built, time.perf_counter() - started)
    return [[replace(e, hidden=hidden[_digest(e.tokens)]) for e in part] for part in parts], facts


def cached(accelerator: Accelerator, model: Model, compute: ComputeArgs, base: str, data: Data[Any]) -> Data[Any]:
    """Returns `data` with the hidden states of its texts. Raises the errors of `with_frozen_activations`."""
    texts, facts = with_frozen_activations(accelerator, model, compute, base, [texts_of(part) for part in data.parts])
    return data.with_parts([with_texts(part, of) for part, of in zip(data.parts, texts, strict=True)], facts)
