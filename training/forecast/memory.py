"""Forecasts the memory of a run by running its own code on tensors that have a shape but no numbers.

Evaluation, generation and updates run as in training, on the tensors of meter.py, and every tensor that they make is
counted while it lives (replay.py). That takes seconds and no memory; of a deep model few blocks are run (depth.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gpt2_scratch.attention import layout_of
from gpt2_scratch.generate import ROWS, Sampling, generate
from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.pretrained import hf_state
from gpt2_scratch.tokenizer import Vocabulary
from lora.adapter import merge, unmerge
from training.data.batches import TOKENS_PER_BATCH, Encoded, Plan, collate, inference_plan, with_all_tokens_labelled
from training.evaluation.forgetting import adapters_at, language_model_in
from training.flags.sharding import launched_sharded
from training.forecast.depth import deep
from training.forecast.meter import END, Event, Meter
from training.forecast.replay import ALIGNMENT, Heap, Replay, can_take_blocks, replayed
from training.forecast.workload import Workload, use_bitsandbytes
from training.step.losses import outputs_of
from training.step.optimizers import build_optimizer
from training.step.side_by_side import add_gradients, at_a_time

MIB = 2**20
# What a peak consists of, in the order of the table.
WEIGHTS = ("frozen weights", "trained weights", "gradients", "optimizer")
PARTS = (*WEIGHTS, "activations", "logits", "frozen activations")
GAPS, BASE, FILE = "allocator's gaps", "libraries and data", "mapped weight file"
# A CPU's kernels compile themselves and keep buffers, by precision. Measured on a Xeon with AMX, classification and
# instructions, gpt2-nano: 28 to 36 MiB in fp32; in bf16, where each shape has a kernel of its own, 110 to 145, of which
# not all is there at the peak.
KERNELS = {"no": 30 * MIB, "bf16": 100 * MIB}
LOOKED_AT = 200_000  # updates; by then every text has met enough others in a batch


@dataclass(frozen=True)
class Memory:
    """The bytes at the peak by PARTS, and on a CPU also by GAPS, FILE and BASE."""

    parts: dict[str, int]

    @property
    def peak(self) -> int:
        return sum(self.parts.values())


class DryRun:
    """A run on fake tensors, part by part: its tensors are recorded (meter.py), and nothing is computed."""

    def __init__(self, workload: Workload, heard: Callable[[Event], None] | None = None) -> None:
        # With several processes Accelerate calls it cpu:0, which is another device to torch.
        device = torch.device("cpu") if workload.on_cpu else workload.accelerator.device
        self.workload, self.device = workload, device
        self.strength = 0.5 if workload.general.curve else 1.0  # between base and adapter, evaluation needs both
        if workload.quantises:
            use_bitsandbytes()
        self.meter = Meter(workload.model.config.vocabulary, ALIGNMENT.get(device.type, 512), heard)
        with self.meter:
            self.model = self.meter.shapes_of(workload.model, device)
            self.trained = [p for p in self.model.parameters() if p.requires_grad]
            self.optimizer = build_optimizer(self.model, workload.update, workload.accelerator.scaler is not None)
            if workload.accelerator.num_processes > 1 and not launched_sharded():  # DistributedDataParallel's buckets
                with self.meter.counting("gradients"):
                    self.buckets = [torch.empty_like(p) for p in self.trained]
        self._follow_blocks()

    def _follow_blocks(self) -> None:
        """Has the meter know which block runs, forward and backward. What happens between two blocks, such as that the
        input of the last one is freed, is of the first of them."""

        def follow(block: nn.Module, i: int) -> None:
            def from_here(output: Tensor) -> None:
                if output.requires_grad:
                    output.register_hook(lambda _: self.meter.enter(i))

            block.register_forward_pre_hook(lambda *_: self.meter.enter(i))
            block.register_forward_hook(lambda _, __, output: from_here(output))

        for i, block in enumerate(self.model.transformer.h):
            follow(block, i)
        self.model.transformer.ln_f.register_forward_pre_hook(lambda *_: self.meter.enter(None))

    @contextmanager
    def _part(self) -> Iterator[None]:
        with self.meter:
            yield
        self.meter.enter(None)

    def fill_cache(self) -> None:
        """Does what training/model/frozen_activations.py does with its first batch."""
        held = self.workload.frozen
        if held is None:
            return
        (examples, *_), _ = evaluation_batches(self.workload.texts, 1)
        with torch.no_grad(), self.workload.accelerator.autocast(), self._part():  # no block runs when autocast ends
            if self.workload.on_cpu and self.workload.compute.cache_frozen == "memory":
                with self.meter.counting("frozen activations"):
                    self.cache = torch.empty(held.shape, dtype=held.dtype)
            batch = collate([replace(e, hidden=None) for e in examples]).to(self.device)
            layout = layout_of(batch.lengths, self.device, last_only=held.last_only)
            self.model.transformer.first_blocks(batch.tokens, layout, held.blocks)

    def evaluate(self, examples: Sequence[Encoded], at_once: int = 1) -> None:
        self.model.eval()
        strength, threads = adapters_at(self.model, self.strength), self.meter.side_by_side(at_once)
        with self._part(), torch.no_grad(), strength, threads:
            outputs_of(self.workload.accelerator, self.model, self.workload.batch(examples, self.device))
        self.model.train()

    def read_general(self, examples: Sequence[Encoded], at_once: int = 1) -> None:
        """Does what training/evaluation/forgetting.py does with a batch, without a cache and with the LM head."""
        batch, head, config = collate(examples), None, self.model.config
        self.model.eval()
        strength = adapters_at(self.model, self.strength)
        with self._part(), torch.no_grad(), strength, self.workload.accelerator.autocast():
            batch = batch.to(self.device)
            if self.workload.general.head is not None and isinstance(self.model, Classifier):
                with self.meter.counting("frozen weights"):
                    mapped = torch.empty(config.vocabulary, config.width, device=self.device)
                    head = mapped.clone()
                    del mapped
            with self.meter.side_by_side(at_once):
                language_model_in(self.model, head)(batch.tokens, batch.lengths, batch.labels)
        self.model.train()

    def answer(self, prompts: list[list[int]]) -> None:
        vocabulary = Vocabulary(self.model.config.vocabulary, END)
        with self._part(), self.workload.accelerator.autocast():
            merge(self.model, dequantise=False)
            generate(self.model, prompts, vocabulary, self.workload.new_tokens, Sampling())
            unmerge(self.model)

    def update(self, micro_batches: Sequence[Sequence[Encoded]]) -> None:
        workload = self.workload
        with self._part():
            for start in range(0, len(micro_batches), workload.at_a_time):
                together = micro_batches[start : start + workload.at_a_time]
                with self.meter.side_by_side(len(together)):
                    self._add_gradients(together[0], alone=len(micro_batches) == 1 or workload.at_a_time == 1)
            nn.utils.clip_grad_norm_(self.trained, 1.0)
            with self.meter.counting("optimizer"):
                self.optimizer.step()
            self.optimizer.zero_grad()

    def _add_gradients(self, micro_batch: Sequence[Encoded], alone: bool) -> None:
        """Does what training/step/side_by_side.py does with micro-batches, or with one that is `alone` in its step."""
        workload = self.workload
        loss = workload.loss(workload.accelerator, self.model, workload.batch(micro_batch, self.device))
        if alone:
            loss.backward()
            self.meter.enter(None)
            return
        gradients = torch.autograd.grad(loss, self.trained, allow_unused=True)
        self.meter.enter(None)
        del loss
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            if gradient is not None and parameter.grad is None:
                self.meter.keep(gradient, "gradients")
        add_gradients(self.trained, gradients)

    def save(self) -> None:
        """Makes the tensors that a whole model is written from; an adapter is written as it is."""
        if self.workload.whole_model:
            with self._part():
                hf_state(self.model)


def mapped_file(workload: Workload, touched: int) -> int:
    """Returns the bytes of the weight file, mapped one tensor at a time, that come on top of `touched`.

    The base is read before there are other tensors, embedding first; a saved model, when the heap is largest.
    """
    parameters, config = list(workload.model.parameters()), workload.model.config
    if workload.whole_model:
        return 4 * max(p.numel() for p in parameters)
    weights = sum(p.numel() * (4 if p.is_floating_point() else 1) for p in parameters)  # read as fp32
    second = 4 * config.width * max(config.context, 4 * config.width)  # after the embedding, the largest
    return max(0, weights + second - touched) if workload.from_file else 0


def peak_of(workload: Workload, parts: Sequence[Sequence[Event]], heap: Heap | None = None, beside: int = 0) -> Memory:
    """Returns the memory at the peak, and on a CPU what is not tensors: the gaps of a `heap`, with `beside` bytes of
    them that a replay lacks."""
    replay = replayed(parts, heap)
    found = {kind: replay.largest[kind] for kind in PARTS}
    if workload.on_cpu:
        touched = replay.touched + beside if heap else sum(found.values())
        found[GAPS] = touched - sum(found.values())
        found[FILE] = mapped_file(workload, touched)
        found[BASE] = workload.libraries + KERNELS[workload.accelerator.mixed_precision]
    return Memory(found)


@cache
def worst_micro_batches(workload: Workload, micro_batch_size: int) -> tuple[list[list[Encoded]], list[Encoded], int]:
    """Returns the micro-batches of the training with the most tokens, with the most rows times the longest row, and
    with the most targets (they may be one), then an average one, and how many make up a step on one process."""
    train, steps = workload.train, min(workload.update.steps(len(workload.train)), LOOKED_AT)
    update = replace(workload.update, micro_batch_size=micro_batch_size)
    plan = Plan(train, update, workload.accelerator.num_processes)
    measures = [
        lambda micro: sum(plan.lengths[i] for i in micro),
        lambda micro: len(micro) * max(plan.lengths[i] for i in micro),
        lambda micro: sum(train[i].count for i in micro),
    ]
    everything = {tuple(micro) for step in range(steps) for share in plan.at(step) for micro in share if micro}
    ranked = sorted(everything, key=lambda micro: (measures[0](micro), micro))
    chosen = {max(reversed(ranked), key=measure) for measure in measures}  # of equals the one with the most tokens
    accumulated = max(len(share) for share in plan.at(0))
    worst = [[train[i] for i in micro] for micro in sorted(chosen)]
    return worst, [train[i] for i in ranked[len(ranked) // 2]], accumulated


def evaluation_batches(
    examples: Sequence[Encoded], processes: int, threads: int = 1
) -> tuple[list[list[Encoded]], int]:
    """Returns the evaluation batch with the most tokens, and the one with the fewest, which fits into other gaps, and
    how many batches are computed at a time."""
    lengths = [len(e.tokens) for e in examples]
    plan = inference_plan(lengths, TOKENS_PER_BATCH // threads, processes)
    batches = sorted((batch for share in plan for batch in share), key=lambda batch: -sum(lengths[i] for i in batch))
    chosen = [[examples[i] for i in batch] for batch in (*batches[:1], *batches[1:][-1:])]
    return chosen, min(threads, max(map(len, plan)))


def parts_of(
    workload: Workload,
    model: Any,
    micro_batch_size: int,
    gaps: bool,
    heard: Callable[[Event], None] | None = None,
) -> list[list[Event]]:
    """Records the run, which trains `model`, part by part; `heard` is told of each event at once. With `gaps` the run
    has all that it does twice, which fills the heap as a run does, and also what is less, but fits into other gaps.

    A part that comes twice is recorded once: it frees all that it makes.
    """
    worst, average, accumulated = worst_micro_batches(workload, micro_batch_size)
    setting = workload.accelerator.num_processes, at_a_time(workload.accelerator)
    evaluated, at_once = evaluation_batches(workload.held_out, *setting)
    if isinstance(model, LanguageModel):
        evaluated = [[with_all_tokens_labelled(e) for e in batch] for batch in evaluated]
    general, read_at_once = evaluation_batches(workload.general.pieces, *setting)
    prompts = sorted(workload.prompts, key=len)[-ROWS:]
    times = min(accumulated, max(workload.at_a_time, 2))  # from the second micro-batch on there are gradients
    if not gaps:  # for which alone the smallest batch counts
        evaluated, general = evaluated[:1], general[:1]

    dry_run = DryRun(replace(workload, model=model), heard)
    dry_run.fill_cache()
    begin = [*dry_run.meter.events]

    def recorded(part: Callable[..., None], *given: Any) -> list[Event]:
        first = len(dry_run.meter.events)
        part(*given)
        return dry_run.meter.events[first:]

    scored = [recorded(dry_run.evaluate, batch, at_once) for batch in evaluated]
    scored += [recorded(dry_run.read_general, batch, read_at_once) for batch in general]
    scored += [recorded(dry_run.answer, prompts)] if prompts and workload.new_tokens else []
    first = recorded(dry_run.update, [average] * (times if gaps else 1))  # makes the states that stand beside the rest
    trained = [recorded(dry_run.update, [micro] * times) for micro in worst] + [recorded(dry_run.save)]
    return [begin, *scored, first, *trained, *scored, *trained] if gaps else [begin, first, *scored, *trained]


@cache
def tensors_of(workload: Workload, micro_batch_size: int) -> Memory:
    """Returns the memory of the run without the gaps of a CPU's allocator; this takes seconds, once."""

    def recorded(model: Any) -> list[list[Event]]:
        return parts_of(workload, model, micro_batch_size, gaps=False)

    return peak_of(workload, deep(workload.model, recorded))


@cache
def memory_of(workload: Workload, micro_batch_size: int) -> Memory:
    """Returns the memory of the run with micro-batches of this size; this takes seconds, once.

    On a CPU small things that live between tensors keep gaps open. The code of a run makes them here too, a replay does
    not: so the recorded model takes its blocks from the heap while it runs as well, and of the gaps that its replay
    lacks each block of `workload` gets its share.
    """
    if not (workload.on_cpu and can_take_blocks()):
        return tensors_of(workload, micro_batch_size)
    beside = 0

    def recorded(model: Any) -> list[list[Event]]:
        nonlocal beside
        live = Replay(Heap())
        parts = parts_of(workload, model, micro_batch_size, True, live.play_one)
        live.end()
        once = {id(events): events for events in parts}.values()
        lacking = max(live.touched - replayed(once, Heap()).touched, 0)
        beside = lacking * len(workload.model.transformer.h) // len(model.transformer.h)
        return parts

    parts = deep(workload.model, recorded)
    return peak_of(workload, parts, Heap(), beside)
