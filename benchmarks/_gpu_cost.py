"""What training costs on a device: memory beside its forecast, and an update beside that of transformers and PEFT."""

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.state import AcceleratorState

from _gpu import Line, is_modern, kernels, syncs
from _peer import PeerTraining
from _steps import Training, clock, longest
from _table import LOSS_TOLERANCE
from _work import PRECISIONS, Work, random_examples
from memory import Args, forecast_parts, measured_peak
from training.data.batches import Encoded
from training.flags.common import MethodArgs
from training.flags.compute import ComputeArgs
from training.forecast.workload import resident
from training.run.launch import start

# Work, method, examples at a time, and whether activations are computed twice.
Setting = tuple[Work, str, int, bool]


class Sizes(NamedTuple):
    """What is measured; a test takes less."""

    memory: tuple[Setting, ...]
    peers: tuple[Work, ...]
    longest: int = 400  # tokens


def usual(device: torch.device) -> Sizes:
    half: Any = "bf16" if is_modern(device) else "fp16"
    cls, ift = (Work(task, "gpt2", half, batch_size=8, steps=2) for task in ("cls", "ift"))
    full = Work("cls", "gpt2", "fp32", batch_size=8, steps=2)
    memory: tuple[Setting, ...] = ((cls, "lora", 8, False), (cls, "lora", 8, True), (cls, "lora", 2, False))
    memory += ((full, "full", 8, False), (ift, "lora", 8, False), (ift, "full", 8, False))
    return Sizes(memory, tuple(Work(task, "gpt2-medium", half, batch_size=8, steps=20) for task in ("cls", "ift")))


def batches(work: Work, most: int) -> list[list[Encoded]]:
    """Returns the batches of the steps, of at most so many random tokens a text, each of texts of similar length, and
    two more."""
    count = (work.steps + 2) * work.batch_size
    lengths = np.sort(np.random.default_rng(0).integers(most // 8, most + 1, count)).tolist()
    texts = random_examples(work.task, lengths, work.config.vocabulary)
    grouped = [texts[i : i + work.batch_size] for i in range(0, count, work.batch_size)]
    return [grouped[i] for i in np.random.default_rng(1).permutation(len(grouped))]


def forget() -> None:
    """Frees what an earlier model left, and lets the next one have another precision."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    AcceleratorState._reset_state(reset_partial_state=True)


def forecast(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """Compares the peak that is forecast with that of the allocator; on a CPU, with that of the process."""
    for work, method, micro, twice in sizes.memory:
        forget()
        args = Args(work, MethodArgs(method), micro, twice)
        train = [text for batch in batches(work, sizes.longest)[: work.steps] for text in batch]
        accelerator, _ = start(args.compute, Path("runs"), False)
        parts = forecast_parts(args, accelerator, train, resident() if device.type == "cpu" else 0)
        value = sum(parts.values()) / measured_peak(args, train)
        name = f"{work.task} {method} {work.precision}, {micro} at a time{', checkpointed' * twice}"
        yield Line(f"memory, {name}: forecast / peak", value, 0.9, 1.1)


def turns(steps: dict[str, Callable[[Any], Any]], chosen: Sequence[Any], device: torch.device) -> dict[str, float]:
    """Returns the milliseconds of each side's steps on all batches; the sides take turns, half of the batches each."""
    half, spent = len(chosen) // 2, dict.fromkeys(steps, 0.0)
    for part, sides in ((chosen[:half], [*steps]), (chosen[half:], [*steps][::-1])):
        for side in sides:
            spent[side] += clock(steps[side], part, device)
    return {side: 1000 * seconds / len(chosen) for side, seconds in spent.items()}


def compared(work: Work, device: torch.device, most: int) -> Iterator[Line]:
    """Times updates of LoRA against transformers and PEFT, and looks at what one update of each runs."""
    first, second, *chosen = grouped = batches(work, most)
    compute, train = ComputeArgs(mixed_precision=PRECISIONS[work.precision]), [e for batch in grouped for e in batch]
    ours, theirs = Training(work, MethodArgs(), compute, train=train), PeerTraining(work, MethodArgs())
    steps: dict[str, Callable[[Any], Any]] = {"ours": ours.update, "PEFT": theirs.update}
    losses = {side: float(step(first)) for side, step in steps.items()}
    for step in steps.values():
        step(longest(chosen))
    name, took = f"{work.task} {work.model} {work.precision}", turns(steps, chosen, device)
    same = abs(losses["ours"] / losses["PEFT"] - 1)
    yield Line(f"{name}: first loss against PEFT's", same, high=LOSS_TOLERANCE[work.precision])
    yield Line(f"{name}: speed over PEFT's", took["PEFT"] / took["ours"])
    for side, step in steps.items():
        once = partial(step, second)
        ran, alone, waits = kernels(once, device), clock(step, [second], device), syncs(once, device)
        yield Line(f"{name}, {side}: ms a step", took[side])
        yield Line(f"{name}, {side}: kernels a step", ran.number)
        yield Line(f"{name}, {side}: waits for the GPU a step", waits)
        yield Line(f"{name}, {side}: share of the time that the GPU is busy", ran.seconds / alone)


def peer(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    for work in sizes.peers:
        forget()
        yield from compared(work, device, sizes.longest)  # whose models are gone when the next ones are built


def memory_checks(device: torch.device, folder: Path) -> Iterator[Line]:
    yield from forecast(device, usual(device))


def speed_checks(device: torch.device, folder: Path) -> Iterator[Line]:
    yield from peer(device, usual(device))
