"""Forecasts how long a run takes on this device: some of its work is done and timed, and the rest is extrapolated.

The weights are not needed: random numbers cost the same. Nothing is kept, and only a temporary file is written.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
from training.data.pairs import texts_of
from training.evaluation.forgetting import STRENGTHS, language_model_in
from training.forecast.meter import END as SELDOM
from training.forecast.workload import Workload
from training.run.record import Intervals
from training.step.losses import outputs_of
from training.step.optimizers import build_optimizer
from training.step.side_by_side import at_a_time, gradients_side_by_side, side_by_side

ENOUGH = 8.0  # seconds for one kind of work
MOST = 12  # updates that are timed
END = 4.0  # seconds for intervals, pictures and results, whatever the run; measured on two cores
PIECE = 2**25  # bytes that are written to see how fast the disk is


def age() -> float:
    """Returns the seconds since this process began."""
    return time.time() - psutil.Process().create_time()


def give_numbers(model: nn.Module, device: torch.device) -> None:
    """Fills every tensor without storage with random numbers; shared tensors stay shared."""
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
    """Returns the seconds that the first of `acts` (size, act) takes beyond its share, and those for a unit of size."""
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

    def __init__(self, workload: Workload) -> None:
        self.workload, self.device, self.model = workload, workload.accelerator.device, workload.model
        give_numbers(self.model, self.device)
        self.optimizer = build_optimizer(self.model, workload.update, workload.accelerator.scaler is not None)

    def updates(self, steps: int) -> tuple[float, float]:
        """Returns the seconds for the start, and those for `steps` updates."""
        workload, trained = self.workload, [p for p in self.model.parameters() if p.requires_grad]
        plan = Plan(workload.train, workload.update, workload.accelerator.num_processes)

        def update(micro_batches: list[list[int]]) -> None:
            batches = [workload.batch([workload.train[i] for i in micro], self.device) for micro in micro_batches]
            loss = partial(workload.loss, workload.accelerator, self.model)
            gradients_side_by_side(loss, batches, trained, 1.0, workload.at_a_time)
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
        return starting, a_token * mean_length * plan.examples_in(steps) / workload.accelerator.num_processes

    @torch.no_grad()
    def evaluation(self, examples: Sequence[Encoded], model: Any = None) -> float:
        """Returns the seconds for one evaluation of all examples."""
        if not examples:
            return 0.0
        lengths, processes = [len(e.tokens) for e in examples], self.workload.accelerator.num_processes
        threads = at_a_time(self.workload.accelerator)
        batches = inference_plan(lengths, TOKENS_PER_BATCH // threads, processes)[0]
        rounds = [batches[i : i + threads] for i in range(0, len(batches), threads)]
        spread = [rounds[i * len(rounds) // 4] for i in range(4)] if len(rounds) > 4 else rounds
        model = model or self.model

        def read(chosen: list[int]) -> None:
            batch = self.workload.batch([examples[i] for i in chosen], self.device)
            outputs_of(self.workload.accelerator, model, batch).float().cpu()

        def read_all(some: list[list[int]]) -> None:
            for _ in side_by_side(read, some, threads):
                pass

        model.eval()
        acts = (
            (sum(lengths[i] for one in some for i in one), partial(read_all, some)) for some in [*spread, spread[-1]]
        )
        return mean_time(self.device, acts)[1] * sum(lengths) / processes

    def general_text(self) -> float:
        """Returns the seconds for the loss on the general text, before and after, and at each strength of the curve."""
        general = self.workload.general
        if not general.pieces:
            return 0.0
        lm = language_model_in(self.model) if isinstance(self.model, Classifier) else self.model
        workload, uncached = self.workload, replace(self.workload.compute, cache_frozen=None)
        self.workload = replace(workload, compute=uncached)
        once, self.workload = self.evaluation(general.pieces, lm), workload
        return once * (2 + len(STRENGTHS) * general.curve)

    @torch.no_grad()
    def answers(self, longest_reference: int) -> float:
        """Returns the seconds for answers before training, which rarely end early, and after it, when most do."""
        workload = self.workload
        if not workload.prompts or not workload.new_tokens or not isinstance(self.model, LanguageModel):
            return 0.0
        prompts = sorted(workload.prompts, key=len)
        middle = max((len(prompts) - ROWS) // 2, 0)
        some, few = prompts[middle : middle + ROWS], min(4, workload.new_tokens)
        model = self.model

        def write(count: int) -> None:
            with workload.accelerator.autocast():
                generate(model, some, Vocabulary(model.config.vocabulary, SELDOM), count, Sampling())

        merge(model, dequantise=False)
        write(1)
        short, more = timed(self.device, lambda: write(few)), timed(self.device, lambda: write(3 * few))
        unmerge(model)
        a_token = max(more - short, 0.0) / (2 * few)
        reading = max(short - few * a_token, 0.0)
        batches = math.ceil(len(prompts) / len(some) / workload.accelerator.num_processes)
        both = workload.new_tokens + min(longest_reference, workload.new_tokens)
        return batches * (2 * reading + both * a_token)

    def saving(self, due: Intervals) -> float:
        """Returns the seconds for checkpoints, and for the best weights at every second evaluation, on this disk."""
        trained = 4 * sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        best = 4 * sum(p.numel() for p in self.model.parameters()) if self.workload.whole_model else trained
        wanted = 3 * trained * math.ceil(due.steps / due.save) + best * (1 + math.ceil(due.steps / due.evaluate) / 2)
        with tempfile.TemporaryFile() as file:

            def write() -> None:
                file.write(os.urandom(PIECE))
                file.flush()
                os.fsync(file.fileno())

            return timed(torch.device("cpu"), write) * wanted / PIECE


def seconds_of(workload: Workload, due: Intervals, watched: Sequence[Any], so_far: float) -> dict[str, float]:
    """Returns the seconds of a run by kind of work; `so_far` have passed already."""
    lm, watch = isinstance(workload.model, LanguageModel), Stopwatch(workload)
    starting, updates = watch.updates(due.steps)
    times = math.ceil(due.steps / due.evaluate)
    test, validation = texts_of(workload.test), texts_of(workload.validation)
    evaluated = [*test * (1 + workload.tests_base), *validation]
    once = [with_all_tokens_labelled(e) for e in evaluated] if lm else evaluated
    curve = len(STRENGTHS) * workload.general.curve
    seconds = watch.evaluation(texts_of(watched))
    reference = max((len(e.tokens) - e.response_from for e in evaluated), default=0)
    return {
        "start and end": so_far + starting + END,
        f"{due.steps:,} updates": updates,
        f"{times:,} evaluations": seconds * times,
        "before and after": watch.evaluation(once) + seconds * curve,
        "general text": watch.general_text(),
        "answers": watch.answers(reference),
        "checkpoints": watch.saving(due),
    }
