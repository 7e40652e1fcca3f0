"""Resolves --micro-batch-size: how many examples a GPU, or a thread of a CPU, holds at a time.

The number changes no update: which examples make up a step depends on --batch-size alone (training/data/batches.py).
"""

import gc
import math
import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import torch
from accelerate.utils import gather_object

from training.data.batches import Encoded
from training.flags import out_of_memory
from training.flags.common import UpdateArgs
from training.forecast.memory import MIB, memory_of, worst_micro_batches
from training.forecast.workload import Workload
from training.run.checkpoint import saved_flag
from training.run.cores import free_bytes
from training.run.device import forget_peak
from training.step.processes import from_main
from training.step.sharding import is_sharded
from training.step.side_by_side import gradients_side_by_side, has_large_gradients

SHARE = 0.9  # of the free memory that a forecast may use, since it is right to within a tenth
DEFAULT = 8  # examples
TOKENS_PER_THREAD = 512  # on average; more make a CPU no faster, and take memory
REMEDY = "add --checkpoint-activations, --mixed-precision bf16 or --last-blocks n, or lower --max-length"


def free_memory(device: torch.device) -> int:
    """Returns the bytes of free memory for each process on this machine."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return free_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def available(device: torch.device) -> int:
    """Returns the bytes that this process may use in all, with those that it already has."""
    free = free_memory(device)  # before what is held, which it makes smaller
    held = torch.cuda.memory_reserved(device) if device.type == "cuda" else psutil.Process().memory_info().rss
    return held + int(SHARE * free)


def sizes(update: UpdateArgs, processes: int) -> list[int]:
    """Returns the micro-batch sizes that divide a process's work differently, largest first: 5 3 2 1 of 5 examples."""
    share = -(-update.batch_size // processes)
    return sorted({-(-share // count) for count in range(1, share + 1)}, reverse=True)


def largest_forecast(workload: Workload, most: int, below: float = math.inf) -> int:
    """Returns the largest micro-batch `below` a size whose forecast stays within `most` bytes; 0 when there is none."""
    candidates = [size for size in sizes(workload.update, workload.accelerator.num_processes) if size < below]

    def fits(size: int) -> bool:
        return memory_of(workload, size).peak <= most

    if candidates and fits(candidates[0]):  # the usual case
        return candidates[0]
    place = bisect_left(candidates, True, lo=1, key=fits)
    return candidates[place] if place < len(candidates) else 0


def attempt(workload: Workload, micro_batches: Sequence[Sequence[Encoded]], reserve: int) -> bool:
    """Returns whether the device holds gradients and activations of these micro-batches beside `reserve` bytes.

    No gradient is left; the random state and the mode of the model stay as they were.
    """
    model, device, was_training = workload.model, workload.accelerator.device, workload.model.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            kept = torch.empty(reserve, dtype=torch.uint8, device=device)
            model.to(device).train()
            batches = [workload.batch(examples, device) for examples in micro_batches]
            trained = [p for p in model.parameters() if p.requires_grad]
            loss = partial(workload.loss, workload.accelerator, model)
            gradients_side_by_side(loss, batches, trained, 1.0, workload.at_a_time)
            del kept
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory.ran_out(error):
                raise
            return False
        finally:
            model.zero_grad(set_to_none=True)
            model.train(was_training)
    return True


def largest_held(workload: Workload) -> int:
    """Returns the largest micro-batch that should fit, halved until it really does; 0 when not even 1 does."""
    size = largest_forecast(workload, available(workload.accelerator.device))
    while size:
        worst, _, accumulated = worst_micro_batches(workload, size)
        states = memory_of(workload, size).parts["optimizer"]
        buckets = sum(p.nbytes for p in workload.model.parameters() if p.requires_grad)
        reserve = states + (buckets if workload.accelerator.num_processes > 1 else 0)
        times = min(accumulated, max(workload.at_a_time, 2))
        held = attempt(workload, [micro for micro in worst for _ in range(times)], reserve)
        gc.collect()  # what a failed attempt left
        if held:
            break
        size //= 2
    return size


def usual_size(workload: Workload) -> int:
    """Returns the micro-batch size that is taken if none is asked for.

    Threads that share an update get the same number of micro-batches: one each, or more of about TOKENS_PER_THREAD
    tokens if gradients are small.
    """
    threads, most = workload.at_a_time, DEFAULT
    if threads == 1:
        return most
    if not has_large_gradients(workload.model):
        mean_length = sum(len(e.tokens) for e in workload.train) / len(workload.train)
        most = min(max(int(TOKENS_PER_THREAD / mean_length), 1), most)
    rounds = -(-workload.update.batch_size // (threads * most))
    return -(-workload.update.batch_size // (threads * rounds))


def automatic_size(workload: Workload) -> int:
    """Returns what --micro-batch-size auto stands for. Raises ValueError when a process does not hold one example."""
    accelerator, size = workload.accelerator, largest_held(workload)
    size = min(gather_object([size])) if accelerator.num_processes > 1 else size
    if size == 0:
        needed, there = (n / MIB for n in (memory_of(workload, 1).peak, available(accelerator.device)))
        raise ValueError(
            f"--micro-batch-size auto: one example needs {needed:,.0f} MiB, {there:,.0f} MiB are available; {REMEDY}"
        )
    forget_peak(accelerator.device)  # that of the trials
    if accelerator.is_main_process:
        print(f"memory     micro-batches of {size} (--micro-batch-size auto)", flush=True)
    return size


def resolve_micro_batch(workload: Workload, resumed: Path | None = None) -> UpdateArgs:
    """Returns the update with a number for --micro-batch-size: of auto what all processes hold, of None the usual one,
    and of a stopped run, in the folder `resumed`, what it had. From here on, a message that memory ran out names a
    smaller number.

    Raises ValueError on all processes when one does not hold a single example.
    """
    accelerator = workload.accelerator

    def known() -> int | str | None:
        given = workload.update.micro_batch_size
        return given if isinstance(given, int) or resumed is None else saved_flag(resumed, "micro_batch_size")

    size = from_main(accelerator, known)  # another host may lack the folder, and what it says of the run
    if not isinstance(size, int):
        size = automatic_size(workload) if size == "auto" else usual_size(workload)

    def smaller() -> int | None:
        known = not is_sharded(workload.model)  # no forecast of what is sharded by now
        return largest_forecast(workload, available(accelerator.device), below=size) if known else None

    out_of_memory.fitting[:] = [smaller]
    return replace(workload.update, micro_batch_size=size)
