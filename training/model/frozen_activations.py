"""The frozen-prefix cache: what the frozen blocks below the first trained one make of each text, computed once.

It depends on nothing that trains, so it serves every epoch, and on disk every seed, method, process and later run.
Texts lie back to back, longest first, which is also the order in which they are computed: nothing is written twice.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from gpt2_scratch.attention import sequences
from gpt2_scratch.model import Classifier, Hidden, LanguageModel
from gpt2_scratch.precision import HALF
from lora.quantised import QuantisedLinear
from training.data.batches import TOKENS_PER_BATCH, Encoded, inference_plan
from training.flags.cli import refuse
from training.flags.compute import ComputeArgs
from training.storage.files import replace_file
from training.storage.run_folder import nearest

VERSION = 1  # to be raised when blocks compute something else: older files are then not found any more
MIB = 2**20


def frozen_blocks(model: LanguageModel | Classifier) -> int:
    """Blocks below the first parameter that trains: 0 when an embedding does, L when all of them are frozen."""
    transformer = model.transformer
    for done, module in enumerate([transformer.wte, transformer.wpe, *transformer.h], start=-2):
        if any(p.requires_grad for p in module.parameters()):
            return max(done, 0)
    return len(transformer.h)


def _digest(text: np.ndarray) -> bytes:
    return hashlib.sha256(text.tobytes()).digest()


@dataclass(frozen=True)
class Contents:
    """What a cache holds: for each text a row of C numbers a token, or `last_only` one row of its last token."""

    texts: dict[bytes, np.ndarray]  # token ids by their hash, no text twice, longest first
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
        """Bytes."""
        return sum(self.rows) * self.width * self.dtype.itemsize

    def hidden_in(self, held: Tensor) -> dict[bytes, Hidden]:
        """`held` (rows, C) -> views of it by the hash of the text."""
        views = zip(self.texts, accumulate(self.rows, initial=0), self.rows, strict=False)
        return {digest: Hidden(held[start : start + rows], self.blocks) for digest, start, rows in views}


def contents(model: LanguageModel | Classifier, examples: Sequence[Encoded], precision: str) -> Contents:
    """What a cache for `examples` would hold; changes and computes nothing."""
    distinct = {_digest(e.tokens): e.tokens for e in examples}
    texts = dict(sorted(distinct.items(), key=lambda item: (-len(item[1]), item[0])))
    blocks, width = frozen_blocks(model), model.config.width
    last_only = isinstance(model, Classifier) and blocks == model.config.blocks
    return Contents(texts, blocks, last_only, width, HALF.get(precision, torch.float32))


def cache_key(held: Contents, model: LanguageModel | Classifier, base: str, precision: str, base_bits: int = 32) -> str:
    """sha256 (128 bits of it) of all that the content depends on; the order of the examples and what trains do not.

    `base` is the hash of the weight file, to which heads and epsilon belong; `base_bits` those of a frozen weight.
    """
    config = model.config
    facts = VERSION, base, base_bits, precision, config.heads, config.layer_norm_epsilon, held.blocks, held.last_only
    return hashlib.sha256(repr(facts).encode() + b"".join(held.texts)).hexdigest()[:32]


def _states(
    model: LanguageModel | Classifier, accelerator: Accelerator, held: Contents, shown: bool
) -> Iterator[Tensor]:
    """Hidden states (rows, C) of a batch of texts at a time, in their order. Raises ValueError for an overflow."""
    texts = list(held.texts.values())
    (plan,) = inference_plan([len(text) for text in texts], TOKENS_PER_BATCH, 1)
    for batch in tqdm(plan, "frozen blocks", leave=False, disable=not shown):
        tokens = torch.from_numpy(np.concatenate([texts[i] for i in batch]).astype(np.int64)).to(accelerator.device)
        where = sequences(torch.tensor([len(texts[i]) for i in batch]), accelerator.device)
        with torch.no_grad(), accelerator.autocast():
            states = model.transformer.prefix(tokens, where, held.blocks, last_only=held.last_only).states
        states = states.to(held.dtype).cpu()
        if not torch.isfinite(states).all():
            raise ValueError(f"--cache-prefix: hidden states overflow in {held.dtype}; use bf16, or leave it out")
        yield states


def _in_memory(held: Contents, states: Iterator[Tensor]) -> Tensor:
    whole, done = torch.empty(held.shape, dtype=held.dtype), 0
    for part in states:
        whole[done : done + len(part)] = part
        done += len(part)
    return whole


def _complete(path: Path, held: Contents) -> bool:
    """A file of the wrong size is as good as none: its content follows from its name, so it can be made again."""
    return path.is_file() and path.stat().st_size == held.size


def _on_disk(path: Path, held: Contents, states: Iterator[Tensor]) -> Tensor:
    """The file mapped into memory. Whoever comes first writes it, all others wait, be it for hours."""

    def write(new: Path) -> None:
        with open(new, "wb") as file:
            for part in states:
                file.write(part.view(torch.uint8).numpy().data)

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name("lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel gives it back when a process is killed
        if not _complete(path, held):
            replace_file(path, write)
    # Shared, because a private mapping is refused when it is larger than the memory; nobody writes into it.
    return torch.from_file(str(path), shared=True, size=held.shape[0] * held.width, dtype=held.dtype).view(held.shape)


def _misfit(compute: ComputeArgs, held: Contents, path: Path | None) -> str | None:
    """Why the cache cannot be, if it cannot."""
    asked = f"--cache-prefix {compute.cache_prefix}:"
    if held.blocks == 0:
        return f"{asked} no block is frozen below the first that trains; add --last-blocks n, or leave it out"
    if path is None:
        copies, free = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), psutil.virtual_memory().available
        needed, where = held.size * copies, f"free for {copies} copies (one a process)" if copies > 1 else "free"
        remedy = "use --cache-prefix disk, --mixed-precision bf16, fewer or shorter texts"
    else:
        if _complete(path, held):
            return None
        unfinished = path.with_name(path.name + ".new")  # of a run that was killed, to be written over
        needed = held.size - (unfinished.stat().st_size if unfinished.exists() else 0)
        free, where = shutil.disk_usage(nearest(path)).free, f"free in --cache-dir {compute.cache_dir}"
        remedy = "make room, name another --cache-dir, use --mixed-precision bf16, fewer or shorter texts"
    if needed <= free:
        return None
    return f"{asked} needs {needed / MIB:,.0f} MiB, {free / MIB:,.0f} MiB are {where}; {remedy}"


def _hold(accelerator: Accelerator, model: LanguageModel | Classifier, held: Contents, path: Path | None) -> Tensor:
    """Hidden states (rows, C) of all texts, from the file where there is one, else computed."""
    was_training = model.training
    states = _states(model.eval(), accelerator, held, shown=path is not None or accelerator.is_main_process)
    try:
        return _in_memory(held, states) if path is None else _on_disk(path, held, states)
    finally:
        model.train(was_training)


def attach_prefix(
    accelerator: Accelerator,
    model: LanguageModel | Classifier,
    compute: ComputeArgs,
    base: str,
    parts: Sequence[Sequence[Encoded]],
) -> tuple[list[list[Encoded]], dict[str, Any] | None]:
    """The same examples with their hidden states, and the facts of the cache; as they are without --cache-prefix.

    `base` is the hash of the weight file. Raises ValueError on all processes, before anything is computed or written,
    when nothing is frozen or the cache does not fit; OSError when it cannot be written after all.
    """
    if compute.cache_prefix is None:
        return [list(part) for part in parts], None
    precision = accelerator.mixed_precision + ("+tf32" if compute.tf32 else "")
    held = contents(model, [e for part in parts for e in part], accelerator.mixed_precision)
    bits = {m.bits for m in model.modules() if isinstance(m, QuantisedLinear)}  # the same in all blocks
    on_disk, key = compute.cache_prefix == "disk", cache_key(held, model, base, precision, *bits)
    path = compute.cache_dir / key / "hidden" if on_disk else None
    built, where = path is None or not _complete(path, held), str(path or "memory")
    if accelerator.is_main_process:
        print(f"prefix     {held.blocks} of {model.config.blocks} blocks, {len(held.texts):,} texts, ", end="")
        print(f"{held.size / MIB:,.1f} MiB in {where}{'' if built else ', found'}", flush=True)
    misfit = _misfit(compute, held, path)
    # All at once: a process that is ahead would else take the memory that another is about to count.
    refuse([p for p in (gather_object([misfit]) if accelerator.num_processes > 1 else [misfit]) if p][:1])

    started = time.perf_counter()
    try:
        hidden = held.hidden_in(_hold(accelerator, model, held, path))
    except OSError as error:
        raise OSError(f"--cache-dir {compute.cache_dir}: {error}") from error
    facts = {"where": where, "blocks": held.blocks, "texts": len(held.texts), "bytes": held.size, "built": built}
    facts["seconds"] = time.perf_counter() - started
    return [[replace(e, hidden=hidden[_digest(e.tokens)]) for e in part] for part in parts], facts
