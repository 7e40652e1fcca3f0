"""How much memory a run needs: its own code, run on tensors that have a shape but no numbers.

Nothing is modelled by a formula. Evaluation, generation and updates run as they will, on the tensors of meter.py; every
one that they make is counted while it lives. That takes seconds for any size of model, and no memory.
"""

import ctypes
import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import import_module
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gpt2_scratch.attention import sequences
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import ROWS, Sampling, generate
from gpt2_scratch.model import Classifier, Hidden, LanguageModel
from gpt2_scratch.pretrained import hf_state, without_storage
from lora import QuantisedLinear, merge, unmerge
from training.args import ModelArgs, UpdateArgs
from training.batches import Batch, Encoded, Plan, collate, inference_plan, with_all_tokens_labelled
from training.compute_args import ComputeArgs
from training.forgetting import General, adapters_at, language_model_in
from training.inference import TOKENS_PER_BATCH
from training.losses import class_loss, token_loss
from training.meter import ALIGNMENT, Heap, Meter
from training.methods import quantised_matrices
from training.optimizers import build_optimizer
from training.prefix import Contents, contents

MIB = 2**20
# What a peak consists of, in the order of the table.
PARTS = ("frozen weights", "trained weights", "gradients", "optimizer", "activations", "logits", "prefix cache")
GAPS, BASE, FILE = "allocator's gaps", "libraries and data", "mapped weight file"
LATER = ("torch._dynamo", "evaluate", "sklearn.metrics", "torch.utils.tensorboard", "matplotlib.pyplot")
# A CPU's kernels compile themselves and keep buffers: measured on updates of one text of 16 tokens.
KERNELS = 20 * MIB


@dataclass(frozen=True, eq=False)
class Work:
    """What a run asks of one device. `model` before `prepare`, with or without storage, ready to train otherwise."""

    model: Classifier | LanguageModel
    update: UpdateArgs
    accelerator: Accelerator
    train: Sequence[Encoded]
    held_out: Sequence[Encoded]
    base: int  # bytes, `resident()` before there was a model; 0 where nothing is forecast
    compute: ComputeArgs = ComputeArgs()
    prompts: Sequence[list[int]] = ()  # that are answered
    new_tokens: int = 0
    from_file: bool = False  # whether the base model is read from one
    general: General = General()  # text that forgetting is measured on
    whole_model: bool = False  # whether the best weights are saved as a model, with all that is frozen

    @cached_property
    def prefix(self) -> Contents | None:
        """What the prefix cache will hold, where there is one."""
        examples = [*self.train, *self.held_out]
        wanted = self.compute.cache_prefix is not None
        return contents(self.model, examples, self.accelerator.mixed_precision) if wanted else None

    def batch(self, examples: Sequence[Encoded], device: torch.device) -> Batch:
        """As training has it, but with zeros in place of what the prefix cache will hold."""
        batch = collate([replace(e, hidden=None) for e in examples]).to(device)
        held = self.prefix
        if held is None:
            return batch
        rows = len(examples) if held.last_only else len(batch.tokens)
        states = torch.zeros(rows, held.width, dtype=held.dtype, device=device)
        return replace(batch, hidden=Hidden(states, held.blocks))

    @property
    def on_cpu(self) -> bool:
        return self.accelerator.device.type == "cpu"


@dataclass(frozen=True)
class Forecast:
    """Bytes at the moment of the peak, by PARTS and on a CPU also GAPS, FILE and BASE."""

    parts: dict[str, int]

    @property
    def peak(self) -> int:
        return sum(self.parts.values())


def use_bitsandbytes() -> None:
    """A library's first work costs memory too, and makes tables, which must not be fake."""
    for bits in (4, 8):
        QuantisedLinear(64, 64, None, bits).store(torch.zeros(64, 64))


def resident(quantises: bool = False) -> int:
    """Bytes that this process has of the machine's memory, once what it no longer uses is given back.

    Imports first what a run imports on its way (every optimizer torch's compiler, for one), since that stays.
    """
    for name in LATER:
        import_module(name)
    if quantises:
        use_bitsandbytes()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
    return psutil.Process().memory_info().rss


def model_without_weights(kind: Any, config: GPT2Config, model: ModelArgs, *head: Any) -> Any:
    """What training.methods builds, without memory: for a dry run, which may be of a model that does not fit."""
    built = without_storage(kind, replace(config, dropout=model.dropout), *head)
    if model.untie_head and config.tied_head:
        built.untie()
    for name, put in quantised_matrices(built, model.base_bits).items():
        with torch.device("meta"):
            put(built.get_parameter(name))
    return built


def has_room_for_blocks() -> bool:
    """Whether there is glibc, and no limit on addresses (`ulimit -v`) that blocks for the forecast would use up."""
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


class Rehearsal:
    """A run on fake tensors, part by part."""

    def __init__(self, work: Work) -> None:
        # Accelerate calls it cpu:0 where there are several processes, which torch does not take for the same.
        device = torch.device("cpu") if work.on_cpu else work.accelerator.device
        self.work, self.device = work, device
        self.strength = 0.5 if work.general.curve else 1.0  # of evaluations: between base and adapter both are needed
        self.heap = Heap() if work.on_cpu and has_room_for_blocks() else None
        if any(isinstance(m, QuantisedLinear) for m in work.model.modules()):
            use_bitsandbytes()
        self.meter = Meter(work.model.config.vocabulary, self.heap, ALIGNMENT.get(device.type, 512))
        with self.meter:
            self.model = self.meter.shapes_of(work.model, device)
            self.trained = [p for p in self.model.parameters() if p.requires_grad]
            self.optimizer = build_optimizer(self.model, work.update, scaled=work.accelerator.scaler is not None)
            if work.accelerator.num_processes > 1:  # DistributedDataParallel's buckets
                with self.meter.counting("gradients"):
                    self.buckets = [torch.empty_like(p) for p in self.trained]

    def fill_prefix(self, examples: Sequence[Encoded]) -> None:
        """What training.prefix does with its first batch."""
        held = self.work.prefix
        if held is None:
            return
        with self.meter, torch.no_grad(), self.work.accelerator.autocast():
            if self.work.on_cpu and self.work.compute.cache_prefix == "memory":
                with self.meter.counting("prefix cache"):
                    self.cache = torch.empty(held.shape, dtype=held.dtype)
            batch = collate([replace(e, hidden=None) for e in examples]).to(self.device)
            where = sequences(batch.lengths, self.device)
            self.model.transformer.prefix(batch.tokens, where, held.blocks, last_only=held.last_only)

    def evaluate(self, examples: Sequence[Encoded]) -> None:
        self.model.eval()
        with self.meter, torch.no_grad(), adapters_at(self.model, self.strength):
            outputs_of(self.work.accelerator, self.model, self.work.batch(examples, self.device))
        self.model.train()

    def read_general(self, examples: Sequence[Encoded]) -> None:
        """What training.forgetting does with a batch: no prefix, and for a classifier the head of the vocabulary."""
        batch, head, config = collate(examples), None, self.model.config
        self.model.eval()
        strength = adapters_at(self.model, self.strength)
        with self.meter, torch.no_grad(), strength, self.work.accelerator.autocast():
            batch = batch.to(self.device)
            if self.work.general.head is not None and isinstance(self.model, Classifier):
                with self.meter.counting("frozen weights"):
                    mapped = torch.empty(config.vocabulary, config.width, device=self.device)
                    head = mapped.clone()
                    del mapped
            language_model_in(self.model, head)(batch.tokens, batch.lengths, batch.labels)
        self.model.train()

    def answer(self, prompts: list[list[int]]) -> None:
        with self.meter, self.work.accelerator.autocast():
            merge(self.model, dequantise=False)
            generate(self.model, prompts, self.work.new_tokens, Sampling())
            unmerge(self.model)

    def update(self, micro_batches: Sequence[Sequence[Encoded]]) -> None:
        with self.meter:
            for examples in micro_batches:
                loss_of(self.work.accelerator, self.model, self.work.batch(examples, self.device)).backward()
            nn.utils.clip_grad_norm_(self.trained, 1.0)
            with self.meter.counting("optimizer"):
                self.optimizer.step()
            self.optimizer.zero_grad()

    def save(self) -> None:
        """What a whole model is written from; an adapter is written as it is."""
        if self.work.whole_model:
            with self.meter:
                hf_state(self.model)

    def mapped_file(self, touched: int) -> int:
        """Bytes of the weight file, of which one tensor at a time is mapped, that come on top of `touched`.

        The base is read when there is nothing but its weights yet, the embedding first of all; a saved model when the
        heap is as large as ever.
        """
        parameters, config = list(self.work.model.parameters()), self.work.model.config
        if self.work.whole_model:
            return 4 * max(p.numel() for p in parameters)
        weights = sum(p.numel() * (4 if p.is_floating_point() else 1) for p in parameters)  # read as fp32
        second = 4 * config.width * max(config.context, 4 * config.width)  # after the embedding, the largest
        return max(0, weights + second - touched) if self.work.from_file else 0

    def forecast(self) -> Forecast:
        parts = {kind: self.meter.at_peak[kind] for kind in PARTS}
        if self.work.on_cpu:
            touched = self.heap.peak if self.heap else sum(parts.values())
            parts[GAPS] = touched - sum(parts.values())
            parts[FILE] = self.mapped_file(touched)
            parts[BASE] = self.work.base + KERNELS
        return Forecast(parts)


def outputs_of(accelerator: Accelerator, model: Classifier | LanguageModel, batch: Batch) -> Tensor:
    """Class logits (B, n), or log-probabilities of the labelled tokens (M,), in the run's precision."""
    with accelerator.autocast():
        if isinstance(model, Classifier):
            return model(batch.tokens, batch.lengths, batch.hidden)
        return model(batch.tokens, batch.lengths, batch.labels, batch.hidden)


def loss_of(accelerator: Accelerator, model: Classifier | LanguageModel, batch: Batch) -> Tensor:
    outputs = outputs_of(accelerator, model, batch)
    return class_loss(outputs, batch.labels)[0] if isinstance(model, Classifier) else token_loss(outputs)[0]


def worst_micro_batches(work: Work, micro_batch_size: int) -> tuple[list[list[Encoded]], list[Encoded], int]:
    """Of all micro-batches of the training: those with most tokens, rows times the longest, or targets (which may be
    the same one), an average one, and how many make up a step on one process."""
    train, steps = work.train, work.update.steps(len(work.train))
    update = replace(work.update, micro_batch_size=micro_batch_size)
    plan = Plan(train, update, work.accelerator.num_processes)
    measures = [
        lambda micro: sum(plan.lengths[i] for i in micro),
        lambda micro: len(micro) * max(plan.lengths[i] for i in micro),
        lambda micro: sum(train[i].count for i in micro),
    ]
    everything = {tuple(micro) for step in range(steps) for share in plan.at(step) for micro in share if micro}
    ranked = sorted(everything, key=lambda micro: (measures[0](micro), micro))
    chosen = {max(reversed(ranked), key=measure) for measure in measures}  # of equals the one with most tokens
    accumulated = max(len(share) for share in plan.at(0))
    worst = [[train[i] for i in micro] for micro in sorted(chosen)]
    return worst, [train[i] for i in ranked[len(ranked) // 2]], accumulated


def evaluation_batches(examples: Sequence[Encoded], processes: int) -> list[list[Encoded]]:
    """The evaluation's batch with the most tokens, and its last one, which fits into the gaps of others differently."""
    lengths = [len(e.tokens) for e in examples]
    batches = [batch for share in inference_plan(lengths, TOKENS_PER_BATCH, processes) for batch in share]
    batches.sort(key=lambda batch: -sum(lengths[i] for i in batch))
    return [[examples[i] for i in batch] for batch in (*batches[:1], *batches[1:][-1:])]


@cache
def forecast(work: Work, micro_batch_size: int) -> Forecast:
    """What the run needs with so many examples at a time; takes seconds, once."""
    worst, average, accumulated = worst_micro_batches(work, micro_batch_size)
    evaluated = evaluation_batches(work.held_out, work.accelerator.num_processes)
    if isinstance(work.model, LanguageModel):
        evaluated = [[with_all_tokens_labelled(e) for e in batch] for batch in evaluated]
    general = evaluation_batches(work.general.pieces, work.accelerator.num_processes)
    prompts = sorted(work.prompts, key=len)[-ROWS:]
    twice = min(accumulated, 2)  # from the second micro-batch on there are gradients

    rehearsal = Rehearsal(work)
    rehearsal.fill_prefix(evaluation_batches([*work.train, *work.held_out], 1)[0])
    for step in range(2):
        for batch in evaluated:
            rehearsal.evaluate(batch)
        for batch in general:
            rehearsal.read_general(batch)
        if prompts and work.new_tokens:
            rehearsal.answer(prompts)
        for micro in (average, *worst) if step == 0 else worst:
            rehearsal.update([micro] * twice)
        rehearsal.save()
    found = rehearsal.forecast()
    del rehearsal
    gc.collect()  # its blocks of the heap
    return found
