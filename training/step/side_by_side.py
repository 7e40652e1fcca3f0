"""Computes batches side by side on a CPU, each on a thread of its own.

One batch on all threads ends every operation when the slowest thread does, and waits for it by spinning: where another
program has one of two cores, most of the time is lost. Batches on threads of their own never wait for each other.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lora.adapter import adapters

B = TypeVar("B")
R = TypeVar("R")
LARGE = 0.25  # of the parameters are trained: gradients are large
AHEAD = 2  # batches for each thread that are begun before the first one's result is taken: one may have a busy core


@cache
def _pool(threads: int, each: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(each,))


def at_a_time(accelerator: Accelerator) -> int:
    """Returns how many batches can be computed at a time: on a CPU that one process has, one on each thread."""
    alone = accelerator.device.type == "cpu" and accelerator.num_processes == 1
    return torch.get_num_threads() if alone else 1


def has_large_gradients(model: nn.Module) -> bool:
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad) > LARGE * sum(p.numel() for p in parameters)


def updates_at_a_time(accelerator: Accelerator, model: nn.Module) -> int:
    """Returns how many micro-batches of an update can be computed at a time.

    It is one if the model draws random numbers (dropout, a shortened softmax), for which torch has one generator, and
    no more than two if gradients are large, since every micro-batch has its own.
    """
    threads, modules = at_a_time(accelerator), [*model.modules()]
    draws = any((isinstance(m, nn.Dropout) and m.p > 0) or getattr(m, "draws", False) for m in modules)
    if threads == 1 or draws or any(adapter.dropout > 0 for _, adapter in adapters(model)):
        return 1
    return min(threads, 2) if has_large_gradients(model) else threads


def side_by_side(compute: Callable[[B], R], batches: Sequence[B], threads: int) -> Iterator[R]:
    """Yields compute(batch) for each batch, in order, with gradients and autocast as they are here."""
    at_once = min(threads, len(batches))
    if at_once < 2:
        yield from map(compute, batches)
        return
    keeps_graph = torch.is_grad_enabled()
    half, casts = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    def run(batch: B) -> R:
        with torch.set_grad_enabled(keeps_graph), torch.autocast("cpu", half, enabled=casts):
            return compute(batch)

    pool, before = _pool(at_once, threads // at_once), torch.get_num_threads()
    waiting, futures = deque(batches), deque[Future[R]]()

    def submit(count: int) -> None:
        futures.extend(pool.submit(run, waiting.popleft()) for _ in range(min(count, len(waiting))))

    torch.set_num_threads(1)  # of this thread: others would wait for a core, spinning, when it adds gradients
    submit(AHEAD * at_once)
    try:
        while futures:
            yield futures.popleft().result()  # kept no longer, since gradients may be large
            submit(1)
    finally:
        torch.set_num_threads(before)
        for future in futures:
            future.cancel()


def add_gradients(trained: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Adds a gradient to that of each parameter; None: there is none."""
    for parameter, gradient in zip(trained, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def gradients_side_by_side(
    loss: Callable[[B], Tensor], batches: Sequence[B], trained: Sequence[nn.Parameter], scale: float, threads: int
) -> Tensor:
    """Adds the gradients of scale * the sum of `loss` over the batches, in their order; returns that sum, in fp64."""

    def compute(batch: B) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        summed = loss(batch)
        return summed.detach().cpu().double(), torch.autograd.grad(summed * scale, trained, allow_unused=True)

    total = torch.zeros((), dtype=torch.float64)
    for summed, gradients in side_by_side(compute, batches, threads):
        total += summed
        add_gradients(trained, gradients)
    return total
