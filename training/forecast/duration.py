"""How long a run takes on this device: some of its real work is done and timed, and what is left is in proportion.

The weights need not be there: numbers drawn at random cost the same. Nothing is kept of it and nothing is written.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psutil
import torch
from torch import nn

from gpt2_scratch.generate import ROWS, Sampling, generate
from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.tokenizer import Vocabulary
from lora.adapter import merge, unmerge
from lora.quantised import QuantisedLinear
from training.data.batches import TOKENS_PER_BATCH, Encoded, Plan, inference_plan, with_all_tokens_labelled
from training.evaluation.forgetting import STRENGTHS, language_model_in
from training.forecast.meter import END as SELDOM
from training.forecast.work import Work
from training.run.record import Intervals
from training.step.losses import outputs_of
from training.step.optimizers import build_optimizer

ENOUGH = 8.0  # seconds for one kind of work
MOST = 12  # updates that are timed
END = 4.0  # seconds for intervals, pictures and results, whatever the run; measured on two cores
PIECE = 2**25  # bytes that are written to see how fast the disk is


def age() -> float:
    """Seconds since this process began."""
    return time.time() - psutil.Process().create_time()


@dataclass(frozen=True)
class Evaluations:
    """What is evaluated: the examples watched while training, and those before or after it, as often as they are."""

    due: Intervals
    watched: Sequence[Encoded]
    once: Sequence[Encoded]
    so_far: float = field(default_factory=age)  # seconds for what a run does before it comes to its model


def give_numbers(model: nn.Module, device: torch.device) -> None:
    """Storage with random numbers for every tensor that has none; what is shared stays shared."""
    given: dict[int, nn.Parameter] = {}

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        return (torch.randn(tensor.shape, device=device) * 0.02).to(tensor.dtype)

    for module in model.modules():
        if isinstance(module, QuantisedLinear):
            module.store(torch.randn(module.out_features, module.in_features, device=device) * 0.02)
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                if id(parameter) not in given:
                    given[id(parameter)] = nn.Parameter(drawn(parameter), requires_grad=parameter.requires_grad)
                module._parameters[name] = given[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = drawn(buffer)
    model.to(device)


def timed(device: torch.device, act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def mean_time(device: torch.device, acts: Iterator[tuple[float, Callable[[], object]]]) -> tuple[float, float]:
    """(seconds of the first act beyond what it would take later, seconds for one unit of size). `acts`: (size, act)."""
    size, act = next(acts)
    first, spent, done = timed(device, act), 0.0, 0.0
    for later, act in acts:
        if first > 2 * ENOUGH or (done and first + spent > ENOUGH):
            break
        spent += timed(device, act)
        done += later
    if not done:
        return 0.0, first / size
    return max(first - spent / done * size, 0.0), spent / done


class Stopwatch:
    """Times the kinds of work that a run consists of."""

    def __init__(self, work: Work) -> None:
        self.work, self.device, self.model = work, work.accelerator.device, work.model
        give_numbers(self.model, self.device)
        self.optimizer = build_optimizer(self.model, work.update, work.accelerator.scaler is not None)

    def updates(self, steps: int) -> tuple[float, float]:
        """(seconds of starting, of `steps` updates)."""
        work, trained = self.work, [p for p in self.model.parameters() if p.requires_grad]
        plan = Plan(work.train, work.update, work.accelerator.num_processes)

        def update(micro_batches: list[list[int]]) -> None:
            for micro in micro_batches:
                batch = work.batch([work.train[i] for i in micro], self.device)
                work.loss(work.accelerator, self.model, batch).backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()

        def chosen() -> Iterator[tuple[float, Callable[[], object]]]:
            for i in range(MOST + 1):
                share = plan.at(i * steps // (MOST + 1))[0]
                yield sum(plan.lengths[i] for micro in share for i in micro), partial(update, share)

        self.model.train()
        starting, a_token = mean_time(self.device, chosen())
        mean_length = sum(plan.lengths) / len(plan.lengths)
        return starting, a_token * mean_length * plan.examples_in(steps) / work.accelerator.num_processes

    @torch.no_grad()
    def evaluation(self, examples: Sequence[Encoded], model: Any = None) -> float:
        """Seconds for one evaluation of all examples."""
        if not examples:
            return 0.0
        lengths, processes = [len(e.tokens) for e in examples], self.work.accelerator.num_processes
        batches = inference_plan(lengths, TOKENS_PER_BATCH, processes)[0]
        spread = [batches[i * len(batches) // 4] for i in range(4)] if len(batches) > 4 else batches
        model = model or self.model

        def read(chosen: list[int]) -> None:
            batch = self.work.batch([examples[i] for i in chosen], self.device)
            outputs_of(self.work.accelerator, model, batch).float().cpu()

        model.eval()
        acts = ((sum(lengths[i] for i in batch), partial(read, batch)) for batch in [*spread, spread[-1]])
        return mean_time(self.device, acts)[1] * sum(lengths) / processes

    def general_text(self) -> float:
        """Seconds for the loss on the general text, before and after, and at all strengths where they are asked for."""
        general = self.work.general
        if not general.pieces:
            return 0.0
        lm = language_model_in(self.model) if isinstance(self.model, Classifier) else self.model
        work, self.work = self.work, replace(self.work, compute=replace(self.work.compute, cache_frozen=None))
        once, self.work = self.evaluation(general.pieces, lm), work
        return once * (2 + len(STRENGTHS) * general.curve)

    @torch.no_grad()
    def answers(self, longest_reference: int) -> float:
        """Seconds for answers before training, which rarely end by themselves, and after it, when they mostly do."""
        work = self.work
        if not work.prompts or not work.new_tokens or not isinstance(self.model, LanguageModel):
            return 0.0
        prompts = sorted(work.prompts, key=len)
        middle = max((len(prompts) - ROWS) // 2, 0)
        some, few = prompts[middle : middle + ROWS], min(4, work.new_tokens)
        model = self.model

        def write(count: int) -> None:
            with work.accelerator.autocast():
                generate(model, some, Vocabulary(model.config.vocabulary, SELDOM), count, Sampling())

        merge(model, dequantise=False)
        write(1)
        short, more = timed(self.device, lambda: write(few)), timed(self.device, lambda: write(3 * few))
        unmerge(model)
        a_token = max(more - short, 0.0) / (2 * few)
        reading = max(short - few * a_token, 0.0)
        batches = math.ceil(len(prompts) / len(some) / work.accelerator.num_processes)
        both = work.new_tokens + min(longest_reference, work.new_tokens)
        return batches * (2 * reading + both * a_token)

    def saving(self, due: Intervals) -> float:
        """Seconds for checkpoints, and for the best weights at every second evaluation, by the speed of the disk."""
        trained = 4 * sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        best = 4 * sum(p.numel() for p in self.model.parameters()) if self.work.whole_model else trained
        wanted = 3 * trained * math.ceil(due.steps / due.save) + best * (1 + math.ceil(due.steps / due.evaluate) / 2)
        with tempfile.TemporaryFile() as file:

            def write() -> None:
                file.write(os.urandom(PIECE))
                file.flush()
                os.fsync(file.fileno())

            return timed(torch.device("cpu"), write) * wanted / PIECE


def seconds_of(work: Work, evaluations: Evaluations) -> dict[str, float]:
    """Seconds of a run by kind of work."""
    lm, due = isinstance(work.model, LanguageModel), evaluations.due
    watch = Stopwatch(work)
    starting, updates = watch.updates(due.steps)
    times = math.ceil(due.steps / due.evaluate)
    once = [with_all_tokens_labelled(e) for e in evaluations.once] if lm else evaluations.once
    curve = len(STRENGTHS) * work.general.curve
    watched = watch.evaluation(evaluations.watched)
    reference = max((len(e.tokens) - e.response_from for e in evaluations.once), default=0)
    return {
        "start and end": evaluations.so_far + starting + END,
        f"{due.steps:,} updates": updates,
        f"{times:,} evaluations": watched * times,
        "before and after": watch.evaluation(once) + watched * curve,
        "general text": watch.general_text(),
        "answers": watch.answers(reference),
        "checkpoints": watch.saving(due),
    }


def print_seconds(work: Work, evaluations: Evaluations, micro_batch_size: int | None) -> None:
    """The time of a run as a table, unless it would not fit into memory (None). On the main process."""
    if not work.accelerator.is_main_process:
        return
    if micro_batch_size is None:
        print("time of a run: not measured, since it does not fit into memory")
        return
    found = seconds_of(replace(work, update=replace(work.update, micro_batch_size=micro_batch_size)), evaluations)
    print(f"time of a run on {work.accelerator.device}, in seconds, from a few updates and evaluations timed just now")
    for name, seconds in found.items():
        if seconds:
            print(f"  {name:<24}{seconds:>12,.1f}")
    print(f"  {'in all':<24}{sum(found.values()):>12,.1f}")
