"""What several GPUs tell each other: the bytes of an update, an evaluation and a checkpoint, counted and on paper.

    python benchmarks/network.py

Two CPU processes train a small model, and the bytes of every collective operation that torch makes are counted beside
those that follow from the shapes alone. From the latter the second table is calculated, for GPT-2's sizes on 1 to 64
GPUs. There communication waits for computation and computation for communication, and of the computation the matrices
of the blocks alone are counted, without attention and the head: real shares are higher.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from _flags import above_zero, each_at_least, none_named
from _results import ROOT
from gpt2_scratch.config import SIZES, GPT2Config
from training.flags.cli import at_least, run
from training.flags.common import MethodArgs, ModelArgs

Engine = Literal["ddp", "fsdp2"]
METHODS: tuple[Literal["lora", "full"], ...] = ("lora", "full")
ENGINES: tuple[Engine, ...] = ("ddp", "fsdp2")


@dataclass(frozen=True)
class Args:
    models: tuple[str, ...] = ("gpt2-medium", "gpt2-xl")
    """sizes of GPT-2"""
    gpus: tuple[int, ...] = (1, 2, 4, 8, 16, 64)
    """numbers of GPUs, one micro-batch each per update"""
    nvlink: float = 300e9
    """bytes a second that a GPU sends over NVLink (A100: 600 GB/s in both directions together)"""
    ethernet: float = 1.25e9
    """bytes a second that a GPU sends over the network: 10 Gbit/s, one GPU a host"""
    tokens: int = 4096
    """tokens of a micro-batch"""
    flops: float = 125e12
    """operations a second of a GPU: 40% of the 312 teraflops of an A100 in bf16"""

    def problems(self) -> list[str]:
        found = none_named(self, "models") + each_at_least(self, 1, "gpus") + at_least(self, 1, "tokens")
        found += above_zero(self, "nvlink", "ethernet", "flops")
        unknown = [name for name in self.models if name not in SIZES]
        return found + [f"--models {' '.join(unknown)}: must be among {', '.join(SIZES)}"] * bool(unknown)


@dataclass(frozen=True)
class Shapes:
    """Bytes of a model's parameters; `trained` are gradients in fp32."""

    units: int  # attention and MLP of all blocks, as they are gathered
    root: int  # embeddings, norms, head
    trained: int

    def update(self, engine: Engine) -> dict[str, int]:
        """Returns the bytes of the whole tensors of an update with one micro-batch a GPU, by kind of operation."""
        if engine == "ddp":
            return {"all-reduce": self.trained, "all-gather": 0, "reduce-scatter": 0}
        return {"all-reduce": 0, "all-gather": 2 * self.units + self.root, "reduce-scatter": self.trained}

    def evaluation(self, engine: Engine) -> int:
        """Returns the bytes that are gathered for one batch."""
        return self.units + self.root if engine == "fsdp2" else 0


def shapes_of(config: GPT2Config, name: str, method: Literal["lora", "full"], half: bool) -> Shapes:
    """Returns the bytes of GPT-2 with LoRA of rank 16 or trained in full; `half`: its matrices travel in bf16."""
    from training.model.methods import apply_method, build_language_model
    from training.step.sharding import units_of

    model = build_language_model(None, config, ModelArgs(name))
    apply_method(model, MethodArgs(method=method, lora_rank=16), 0)
    units = [p for unit in units_of(model) for p in unit.parameters()]
    inside = {id(p) for p in units}
    root = sum(p.numel() for p in model.parameters() if id(p) not in inside)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)

    def halved(p: Any) -> bool:
        return half and (method == "full" or (p.dim() == 2 and not p.requires_grad))

    return Shapes(sum(p.numel() * (2 if halved(p) else 4) for p in units), 4 * root, 4 * trained)


def sent(operations: dict[str, int], gpus: int) -> float:
    """Returns the bytes that each GPU sends, in rings: an all-reduce is a reduce-scatter and an all-gather."""
    whole = 2 * operations["all-reduce"] + operations["all-gather"] + operations["reduce-scatter"]
    return whole * (gpus - 1) / gpus


def counted(method: str, engine: Engine) -> dict[str, dict[str, int]]:
    """Returns the bytes that two processes really handed to collective operations, by what they did."""
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": str(engine == "fsdp2").lower()}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        words += [str(ROOT / "benchmarks" / "_collectives.py"), method, folder]
        done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"two processes failed:\n{done.stderr[-2000:]}")
        return json.loads((Path(folder) / "counted.json").read_text())


def print_counted() -> None:
    from _collectives import SHAPE

    print("Two CPU processes (gloo), 4 blocks of width 64, fp32; kB, counted / from the shapes\n")
    print("| method | engine | all-reduce | all-gather | reduce-scatter | gathered per evaluation batch | checkpoint |")
    print("|---|---|---|---|---|---|---|")
    for method in METHODS:
        for engine in ENGINES:
            found, shapes = counted(method, engine), shapes_of(SHAPE, "gpt2-nano", method, half=False)
            pairs = [(found["update"][kind], n) for kind, n in shapes.update(engine).items()]
            pairs.append((found["evaluation"]["all-gather"], shapes.evaluation(engine)))
            cells = " | ".join(f"{a / 1e3:,.1f} / {b / 1e3:,.1f}" for a, b in pairs)
            print(f"| {method} | {engine} | {cells} | {sum(found['checkpoint'].values()) / 1e3:,.1f} |", flush=True)


def print_paper(args: Args) -> None:
    print("\nOn paper, bf16: GB that a GPU sends, and the share of an update's time that it computes.")
    print("Neither attention nor the head is counted, and nothing overlaps: real shares are higher.\n")
    print("| model | method | engine | GPUs | update | evaluation, a batch | NVLink | 10 Gbit/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.models:
        for method in METHODS:
            shapes = shapes_of(SIZES[name], name, method, half=True)
            matrices = 12 * SIZES[name].blocks * SIZES[name].width ** 2  # numbers in the blocks
            seconds = (6 if method == "full" else 4) * matrices * args.tokens / args.flops
            for engine in ENGINES:
                for gpus in args.gpus:
                    told = sent(shapes.update(engine), gpus)
                    shares = [seconds / (seconds + told / speed) for speed in (args.nvlink, args.ethernet)]
                    gathered = shapes.evaluation(engine) * (gpus - 1) / gpus
                    numbers = f"{told / 1e9:.3g} | {gathered / 1e9:.3g} | {shares[0]:.0%} | {shares[1]:.0%}"
                    print(f"| {name} | {method} | {engine} | {gpus} | {numbers} |")


def main(args: Args) -> None:
    print_counted()
    print_paper(args)


if __name__ == "__main__":
    run(main, Args, __doc__)
