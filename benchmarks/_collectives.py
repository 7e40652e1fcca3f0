"""Counts the bytes of the collective operations of two processes; torchrun starts it for network.py."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import patch_environment
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import LanguageModel, initialise
from training.flags.method import MethodArgs
from training.flags.update import UpdateArgs
from training.model.methods import apply_method
from training.run.checkpoint import shared_state
from training.step.optimizers import build_optimizer
from training.step.processes import part
from training.step.sharding import is_sharded, prepare, whole_root
from training.storage.shards import save_shards

KINDS = {"allreduce": "all-reduce", "all_reduce": "all-reduce", "allgather": "all-gather", "all_gather": "all-gather"}
KINDS |= {"reduce_scatter": "reduce-scatter"}
SHAPE = GPT2Config(width=64, blocks=4, heads=4, context=64, vocabulary=1000)
SMALL = 100  # bytes: a norm, or a count


class Counted(TorchDispatchMode):
    """Adds up the bytes of the whole tensors that collective operations work on, by kind."""

    def __enter__(self) -> Any:
        self.bytes = dict.fromkeys(KINDS.values(), 0)
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "c10d" in func.namespace:
            sizes = [t.nbytes for t in tree_leaves((args, result)) if isinstance(t, torch.Tensor)]
            kind = next((found for name, found in KINDS.items() if name in func.__name__), None)
            if kind is not None and max(sizes) > SMALL:
                self.bytes[kind] += max(sizes)
        return result


def main(method: Any, folder: str) -> None:
    torch.set_num_threads(1)
    with patch_environment(accelerate_use_fsdp="false"):
        accelerator = Accelerator(cpu=True)
    model = LanguageModel(SHAPE)
    initialise(model, torch.Generator().manual_seed(0))
    apply_method(model, MethodArgs(method=method, lora_rank=16), 0)
    prepared = prepare(accelerator, model)
    optimizer = accelerator.prepare(build_optimizer(model, UpdateArgs()))
    tokens, lengths = torch.arange(32), torch.tensor([32])
    found = {}
    for name in ("first update", "update"):  # DDP arranges its buckets anew after the first
        with Counted() as counted:
            accelerator.backward(-prepared(tokens, lengths, tokens).sum())
            accelerator.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
        found[name] = counted.bytes
    with Counted() as counted, torch.no_grad(), whole_root(model):
        model(tokens, lengths, tokens)
    found["evaluation"] = counted.bytes
    with Counted() as counted:
        if is_sharded(model):
            save_shards(Path(folder) / "shards", shared_state(model, optimizer))
    found["checkpoint"] = counted.bytes
    if accelerator.is_main_process:
        (Path(folder) / "counted.json").write_text(json.dumps(found))
    part(accelerator, prepared)


if __name__ == "__main__":
    main(*sys.argv[1:])
