"""FSDP2: each process holds a share of every matrix, and gathers those of half a block while it computes with them.

torch's `fully_shard` is called here directly. Accelerate's own wrapping does nothing on gloo, where it trains as DDP
without a word, and replaces autocast by a precision of whole blocks; it launches the processes and does all else.

A pass through the model is a collective: all processes must make the same number of passes in the same order. Outside
of a pass and of `whole_root` every parameter is a DTensor, this process's share of it.

torch's modules for it are imported in `shard`: they take half a second, which scripts that do not train are spared.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gpt2_scratch.model import Model
from gpt2_scratch.precision import HALF
from training.data.batches import collate
from training.flags.sharding import launched_sharded
from training.step.losses import outputs_of
from training.step.processes import check_same


def prepare(accelerator: Accelerator, model: Model) -> Any:
    """Returns `model` ready to train, on this process's device: as it is, in DDP, or sharded if the launcher says so.

    Build the optimizer afterwards: sharding replaces the parameters.
    """
    shapes = str([(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()])
    check_same(accelerator, {"data (its classes) or base": shapes})  # else what follows fails or waits for ever
    if launched_sharded():
        shard(accelerator, model)
    prepared = accelerator.prepare_model(model, evaluation_mode=True)  # device and autocast, and no DDP of its own
    if not launched_sharded():
        return prepared if accelerator.num_processes == 1 else _in_ddp(prepared)
    with torch.no_grad():
        outputs_of(accelerator, model, collate([]).to(accelerator.device))  # the first to run forward becomes the root
    _as_unit(model).reshard()
    return prepared


def _in_ddp(model: nn.Module) -> DistributedDataParallel:
    """Returns the model in DDP. Gradients lie in the buckets that are sent. Without `device_ids`, lengths and labels
    stay on the host, which reads them. Buffers are sent once, since no step changes them."""
    prepared = DistributedDataParallel(model, gradient_as_bucket_view=True)
    prepared.broadcast_buffers = False
    return prepared


def units_of(model: Model) -> list[nn.Module]:
    """Returns the modules that are gathered one at a time: attention and MLP of each block."""
    return [block.get_submodule(name) for block in model.transformer.h for name in ("attn", "mlp")]


def shard(accelerator: Accelerator, model: Model) -> None:
    """Shards attention and MLP of each block, and the rest (embeddings, norms, head) as one unit, over all processes.

    Weights of one precision are gathered in that of the computation: autocast would else keep a copy in half precision
    of each whole matrix from forward to backward. Where there are two, frozen matrices are already in half precision.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import Shard

    processes, half = accelerator.num_processes, HALF.get(accelerator.mixed_precision)
    mesh = init_device_mesh(accelerator.device.type, (processes,))

    def placement(parameter: nn.Parameter) -> Shard | None:
        """Splits B factors (P, R, out / parts) by columns, since P is 1 or 3; None: by rows."""
        return Shard(2) if parameter.dim() == 3 and parameter.shape[2] % processes == 0 else None

    for unit in units_of(model):
        computed = half if len({p.dtype for p in unit.parameters()}) == 1 else None
        policy = MixedPrecisionPolicy(computed, reduce_dtype=computed and torch.float32, cast_forward_inputs=False)
        fully_shard(unit, mesh=mesh, mp_policy=policy, shard_placement_fn=placement)
    fully_shard(model, mesh=mesh, shard_placement_fn=placement)


def _as_unit(module: nn.Module) -> Any:
    """Returns `module` if `fully_shard` has made it a unit, else None."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # `shard` imports it
    return module if fsdp and isinstance(module, fsdp.FSDPModule) else None


def is_sharded(model: nn.Module) -> bool:
    """Returns whether a pass through `model`, or through the blocks in it, is a collective."""
    return any(_as_unit(module) is not None for module in model.modules())


@contextmanager
def whole_root(model: nn.Module) -> Iterator[None]:
    """Inside, a sharded `model` has its embeddings and its head, so that others than its forward can use them."""
    unit = _as_unit(model)
    if unit is None:
        yield
        return
    unit.unshard()
    try:
        yield
    finally:
        unit.reshard()


def pass_through(accelerator: Accelerator, model: Model, times: int) -> None:
    """Takes part in `times` passes that other processes make through a sharded `model`."""
    for _ in range(times if is_sharded(model) else 0):
        outputs_of(accelerator, model, collate([]).to(accelerator.device))


@contextmanager
def generating(accelerator: Accelerator, model: Any) -> Iterator[None]:
    """Lets the processes generate texts of different lengths with a sharded `model`: inside, before each pass, they
    tell each other whether they still write, and at the end each takes part until all have ended."""
    if not is_sharded(model):
        yield
        return

    def written_by(writes: bool) -> bool:
        count = torch.tensor(int(writes), device=accelerator.device)
        return bool(accelerator.reduce(count, "sum"))

    def next_logits(*inputs: Any) -> torch.Tensor:
        written_by(True)
        return type(model).next_logits(model, *inputs)

    with whole_root(model):
        model.next_logits = next_logits
        try:
            yield
        finally:
            del model.next_logits
        while written_by(False):
            pass_through(accelerator, model, 1)


def gather(accelerator: Accelerator, model: nn.Module) -> None:
    """Makes a sharded `model`, which computes no more, whole again on the main process, in the CPU's memory."""
    if not is_sharded(model):
        return
    from torch.distributed.tensor import DTensor

    found = dict[int, nn.Parameter]()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                if id(parameter) not in found:
                    whole = parameter.full_tensor().detach()
                    kept = whole.cpu() if accelerator.is_main_process else whole.new_empty(0)
                    found[id(parameter)] = nn.Parameter(kept, parameter.requires_grad)
                module.register_parameter(name, found[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):  # sharding has moved them to the device
            setattr(module, name, buffer.cpu())
