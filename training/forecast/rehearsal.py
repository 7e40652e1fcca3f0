"""A run on fake tensors, part by part: what it would make is counted (meter.py), and nothing is computed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from gpt2_scratch.attention import sequences
from gpt2_scratch.generate import Sampling, generate
from gpt2_scratch.model import Classifier
from gpt2_scratch.pretrained import hf_state
from gpt2_scratch.tokenizer import Vocabulary
from lora.adapter import merge, unmerge
from lora.quantised import QuantisedLinear
from training.data.batches import Encoded, collate
from training.evaluation.forgetting import adapters_at, language_model_in
from training.forecast.meter import ALIGNMENT, END, Heap, Meter, has_room_for_blocks
from training.forecast.work import Work
from training.step.losses import outputs_of
from training.step.optimizers import build_optimizer

MIB = 2**20
# What a peak consists of, in the order of the table.
PARTS = ("frozen weights", "trained weights", "gradients", "optimizer", "activations", "logits", "frozen activations")
GAPS, BASE, FILE = "allocator's gaps", "libraries and data", "mapped weight file"
# A CPU's kernels compile themselves and keep buffers, by precision. Measured on a Xeon with AMX, classification and
# instructions, gpt2-nano: 28 to 36 MiB in fp32; in bf16, where each shape has a kernel of its own, 110 to 145, of which
# not all is there at the peak.
KERNELS = {"no": 30 * MIB, "bf16": 100 * MIB}


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
        """What training.model.frozen_activations does with its first batch."""
        held = self.work.prefix
        if held is None:
            return
        with self.meter, torch.no_grad(), self.work.accelerator.autocast():
            if self.work.on_cpu and self.work.compute.cache_frozen == "memory":
                with self.meter.counting("frozen activations"):
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
        """What training.evaluation.forgetting does with a batch: no prefix; a classifier gets the head of the
        vocabulary."""
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
            generate(
                self.model, prompts, Vocabulary(self.model.config.vocabulary, END), self.work.new_tokens, Sampling()
            )
            unmerge(self.model)

    def update(self, micro_batches: Sequence[Sequence[Encoded]]) -> None:
        with self.meter:
            for examples in micro_batches:
                self.work.loss(self.work.accelerator, self.model, self.work.batch(examples, self.device)).backward()
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
            parts[BASE] = self.work.base + KERNELS[self.work.accelerator.mixed_precision]
        return Forecast(parts)
