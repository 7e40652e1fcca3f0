"""Whether a device computes what the CPU computes in fp32: attention, gradients, overflow, memory that runs out."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradScalerKwargs
from torch import Tensor, nn

from _gpu import Line, comparable, is_modern, yes
from _work import random_examples
from gpt2_scratch.attention import Layout, attend, attend_padded, layout_of, route_of
from gpt2_scratch.config import SIZES, GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, Model, initialise
from gpt2_scratch.precision import DTYPES, HALF
from training.data.batches import Batch, Encoded, collate
from training.flags.common import MethodArgs, UpdateArgs
from training.flags.compute import SpeedArgs
from training.flags.method import Method
from training.flags.out_of_memory import ran_out
from training.forecast.micro_batch import attempt
from training.forecast.workload import Workload
from training.model.methods import apply_compute, apply_method
from training.run.launch import be_deterministic
from training.step.losses import class_loss, token_loss
from training.step.losses import loss_of as run_loss
from training.step.optimizers import build_optimizer
from training.step.seeds import generator
from training.step.update import accumulate, apply_update

METHODS: tuple[Method, ...] = ("lora", "dora", "pissa", "lora-fa", "bitfit", "full")
ATTENTION = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 4e-3}  # largest error over the largest value
GRADIENTS = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 5e-3}  # norm of the error over the norm
SCALE = 2.0**10  # of the loss, without which small gradients are lost in fp16
Task = Literal["cls", "ift"]


class Sizes(NamedTuple):
    """How much the checks compute; a test takes less."""

    config: GPT2Config = SIZES["gpt2-nano"]
    lengths: tuple[int, ...] = (512, 1, 37, 384)
    methods: tuple[Method, ...] = METHODS
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")


def plain_attention(qkv: Tensor, layout: Layout) -> Tensor:
    """Computes attention by its formula, one sequence after the other: (N, 3, H, D) -> (N, H, D)."""
    found = []
    for one in qkv.split(layout.lengths):
        q, k, v = one.transpose(0, 2).unbind(1)  # (H, T, D)
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        future = torch.ones(len(one), len(one), dtype=torch.bool).triu(1)
        found.append((scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(found)


def with_gradient(act: Callable[[Tensor, Layout], Tensor], qkv: Tensor, layout: Layout, weights: Tensor) -> Tensor:
    """Returns the result of attention, and the gradient of its sum weighted by `weights` (N, H, D), in one row."""
    qkv = qkv.detach().requires_grad_()
    mixed = act(qkv, layout)
    mixed.backward(weights)
    assert qkv.grad is not None
    return torch.cat([mixed.detach().flatten(), qkv.grad.flatten()])


def attention(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """Compares attention as it is chosen, and padded, with its formula in fp32; each is computed twice."""
    shape = sum(sizes.lengths), 3, sizes.config.heads, sizes.config.width // sizes.config.heads
    drawn, lengths = torch.randn(shape, generator=generator(0)), torch.tensor(sizes.lengths)
    for precision in sizes.precisions:
        qkv = drawn.to(DTYPES[precision])
        weights = qkv[:, 0].flip(0)  # any numbers
        wanted = with_gradient(plain_attention, qkv.float(), layout_of(lengths, torch.device("cpu")), weights.float())
        chosen = route_of(device, qkv.dtype, shape[-1])
        for name, act in {chosen: attend, "padded": attend_padded}.items():
            inputs = qkv.to(device), layout_of(lengths, device), weights.to(device)
            found, again = with_gradient(act, *inputs), with_gradient(act, *inputs)
            error = float((found.cpu().float() - wanted).abs().max() / wanted.abs().max())
            yield Line(f"attention, {name}, {precision}: error", error, high=ATTENTION[precision])
            yield Line(f"attention, {name}, {precision}: repeats bit for bit", float(torch.equal(found, again)))


def route(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """Says which attention is taken."""
    chosen = route_of(device, torch.bfloat16, sizes.config.width // sizes.config.heads)
    yield yes(f"attention in bf16: {chosen}", (chosen == "flash") == is_modern(device))


def build(task: Task, method: Method, config: GPT2Config) -> Model:
    """Returns a random model about to train, with adapters that have left their start, where some gradients are 0."""
    model: Model = Classifier(config, 2) if task == "cls" else LanguageModel(config)
    initialise(model, generator(0))
    apply_method(model, MethodArgs(method), 0)
    with torch.no_grad():
        for i, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator(i)))
    return model


def loss_of(model: Any, batch: Batch, device: torch.device, precision: str) -> Tensor:
    with torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
        if isinstance(model, Classifier):
            return class_loss(model(batch.tokens, batch.lengths), batch.labels)[0]
        return token_loss(model(batch.tokens, batch.lengths, batch.labels))[0]


def gradient(model: Model, texts: Sequence[Encoded], device: torch.device, precision: str) -> Tensor:
    """Returns all gradients of a copy of `model` in one row, in fp32 on the CPU."""
    model, batch = deepcopy(model).to(device), collate(texts).to(device)
    (loss_of(model, batch, device, precision) * SCALE).backward()
    return torch.cat([p.grad.float().cpu().flatten() / SCALE for p in model.parameters() if p.grad is not None])


def gradients(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """Compares the gradients of every method with those of the CPU in fp32, and names the method that is furthest."""
    for task in ("cls", "ift"):
        texts, worst = random_examples(task, sizes.lengths, sizes.config.vocabulary), dict[str, tuple[float, str]]()
        for method in sizes.methods:
            model = build(task, method, sizes.config)
            wanted = gradient(model, texts, torch.device("cpu"), "fp32")
            for precision in sizes.precisions:
                held = deepcopy(model)
                apply_compute(held, method, SpeedArgs(), precision if precision in HALF else "no")
                error = gradient(held, texts, device, precision) - wanted
                found = comparable(float(error.norm() / wanted.norm())), method
                worst[precision] = max(worst.get(precision, found), found)
        for precision, (value, method) in worst.items():
            yield Line(f"gradients, {task}, {precision}: error", value, high=GRADIENTS[precision], note=method)


@contextmanager
def deterministic() -> Iterator[None]:
    """Makes so for a while what --deterministic makes so for a run."""
    be_deterministic()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def repeats(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """Computes gradients twice: the bits must be the same where torch is told to be deterministic."""
    precision = "bf16" if "bf16" in sizes.precisions else "fp32"
    for task in ("cls", "ift"):
        model, texts = build(task, "lora", sizes.config), random_examples(task, sizes.lengths, sizes.config.vocabulary)

        def same(model: Model = model, texts: list[Encoded] = texts) -> bool:
            return torch.equal(*(gradient(model, texts, device, precision) for _ in range(2)))

        yield Line(f"gradients, {task}, {precision}: repeat bit for bit", float(same()))
        with deterministic():
            yield yes(f"gradients, {task}, {precision}, deterministic: repeat bit for bit", same())


def scaling(device: torch.device, scale: float) -> Accelerator:
    """Returns the accelerator of a run in fp16 that begins at this loss scale; on a CPU, where Accelerate scales
    nothing, one with a scaler of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    if device.type == "cuda":
        return Accelerator(mixed_precision="fp16", kwargs_handlers=[GradScalerKwargs(init_scale=scale)])
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler(device.type, init_scale=scale)  # type: ignore[assignment]
    return accelerator


def overflow(device: torch.device, sizes: Sizes, scale: float = 2.0**60) -> Iterator[Line]:
    """Trains at a loss scale that overflows: steps are void and change no weight until the scale has shrunk."""
    accelerator, texts = scaling(device, scale), random_examples("cls", (9, 3), sizes.config.vocabulary)
    model = build("cls", "lora", sizes.config).to(device)
    prepared, optimizer = accelerator.prepare(model, build_optimizer(model, UpdateArgs(), scaled=True))
    before, skipped, norm = nn.utils.parameters_to_vector(model.parameters()).clone(), 0, None
    untouched = True

    def loss(batch: Batch) -> Tensor:
        return run_loss(accelerator, prepared, batch)

    while norm is None and skipped < 200:
        untouched &= torch.equal(nn.utils.parameters_to_vector(model.parameters()), before)
        accumulate(accelerator, prepared, [collate(texts)], len(texts), loss, (0, 0))
        norm = apply_update(accelerator, model, optimizer, 1e-3, 1.0)
        skipped += norm is None
    moved = not torch.equal(nn.utils.parameters_to_vector(model.parameters()), before)
    yield Line("overflow in fp16: void steps", skipped, 1, 199)
    yield yes("overflow in fp16: weights change after them, not before", untouched and moved and norm is not None)


def memory(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """Asks for more memory than there is: the error is known, and a trial of a micro-batch survives it."""
    try:
        torch.empty(2**60, dtype=torch.uint8, device=device)
        known = False
    except (MemoryError, RuntimeError) as error:
        known = ran_out(error)
    yield yes("out of memory: the error is recognised", known)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator, texts = Accelerator(cpu=device.type == "cpu"), random_examples("cls", (9, 3), sizes.config.vocabulary)
    model = build("cls", "lora", sizes.config).to(device)
    workload = Workload(model, UpdateArgs(), accelerator, texts)
    held = [attempt(workload, [texts], reserve) for reserve in (2**60, 0)]
    yield yes("out of memory: a trial fails, and the next one succeeds", held == [False, True])


def checks(device: torch.device, folder: Path) -> Iterator[Line]:
    """Makes all of these checks; `folder` is for files, of which there are none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts, for `repeats`
    torch.backends.cuda.matmul.allow_tf32 = False  # NVIDIA's containers switch it on; the scripts set it at their start
    for check in (route, attention, gradients, repeats, overflow, memory):
        yield from check(device, Sizes())
