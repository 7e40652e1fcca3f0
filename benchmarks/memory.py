"""Compares the memory that --dry-run forecasts with what the run really takes, for many configurations, as a table.

    python benchmarks/memory.py
    python benchmarks/memory.py --alone --task cls --model gpt2-nano --method full --batch-size 8 --micro-batch-size 2

Each configuration is a process of its own: a fork of it forecasts, then it evaluates, trains and evaluates again. What
is measured on a CPU is its peak resident set, libraries and data included; "without them" leaves those out on both
sides. The table is of a CPU; with --alone a GPU's allocator can be measured too. Every measurement is a line in
--results; those that are there are not repeated.
"""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from _results import measure_once, read
from _work import PRECISIONS, Work, batches, pool
from training.flags.cli import at_least, refuse, run
from training.flags.common import MethodArgs, ModelArgs, UpdateArgs
from training.flags.compute import ComputeArgs

if TYPE_CHECKING:
    from training.data.batches import Encoded

MIB = 2**20
NANO, GPT2 = "--model gpt2-nano --steps 3", "--model gpt2 --steps 2"
LM_HEAD = "--lora-targets q k v attn-out mlp-in mlp-out lm-head"
ROWS = (
    f"{NANO} --task cls --batch-size 8 --max-length 512",
    f"{NANO} --task cls --batch-size 8 --micro-batch-size 2 --max-length 512",
    f"{NANO} --task cls --batch-size 1 --max-length 512",
    f"{NANO} --task cls --batch-size 4 --max-length 128",
    f"{NANO} --task cls --batch-size 8 --max-length 512 --last-blocks 2",
    f"{NANO} --task cls --batch-size 8 --max-length 512 --last-blocks 2 --cache-frozen memory",
    f"{NANO} --task cls --batch-size 8 --max-length 512 --checkpoint-activations",
    f"{NANO} --task cls --batch-size 4 --max-length 256 --precision bf16",
    f"{NANO} --task cls --batch-size 8 --max-length 512 --method full",
    f"{NANO} --task cls --batch-size 8 --micro-batch-size 2 --max-length 512 --method full",
    f"{NANO} --task cls --batch-size 4 --max-length 256 --method full --precision bf16",
    f"{NANO} --task cls --batch-size 8 --max-length 512 --method bitfit",
    f"{NANO} --task cls --batch-size 2 --max-length 256 --method bitfit --last-blocks 3",
    f"{NANO} --task cls --batch-size 8 --max-length 512 --method head",
    f"{NANO} --task ift --batch-size 8 --max-length 512",
    f"{NANO} --task ift --batch-size 2 --max-length 256",
    f"{NANO} --task ift --batch-size 8 --max-length 512 --no-mask-prompt --checkpoint-activations",
    f"{NANO} --task ift --batch-size 8 --max-length 256 {LM_HEAD}",
    f"{NANO} --task ift --batch-size 4 --max-length 256 --precision bf16",
    f"{NANO} --task ift --batch-size 8 --max-length 256 --method full",
    f"{NANO} --task ift --batch-size 1 --max-length 128 --method full",
    f"{NANO} --task ift --batch-size 4 --max-length 256 --method bitfit",
    f"{NANO} --task ift --batch-size 8 --max-length 512 --last-blocks 1 --cache-frozen memory",
    f"{GPT2} --task cls --batch-size 2 --max-length 256",
    f"{GPT2} --task cls --batch-size 4 --max-length 256 --last-blocks 4",
    f"{GPT2} --task cls --batch-size 4 --max-length 256 --checkpoint-activations",
    f"{GPT2} --task cls --batch-size 2 --max-length 256 --method full",
    f"{GPT2} --task cls --batch-size 2 --micro-batch-size 1 --max-length 256 --method full",
    f"{GPT2} --task cls --batch-size 2 --max-length 128 --method head",
    f"{GPT2} --task ift --batch-size 2 --max-length 128",
    f"{GPT2} --task ift --batch-size 2 --max-length 128 --method full",
    f"{GPT2} --task ift --batch-size 2 --max-length 128 {LM_HEAD}",
)
HEADER = "| configuration | forecast MiB | measured | ratio | without libraries and data: forecast | measured | ratio |"


@dataclass(frozen=True)
class Args:
    work: Work
    method: MethodArgs
    micro_batch_size: int | None = None
    """examples at a time; None: the whole batch"""
    checkpoint_activations: bool = False
    """as in scripts/finetune_cls.py"""
    cache_frozen: Literal["memory"] | None = None
    """as in scripts/finetune_cls.py"""
    weights: Path | None = None
    """folder with a base model of the size --model; None: random weights, made in memory"""
    base_bits: Literal[4, 8] | None = None
    """as in scripts/finetune_cls.py; needs --weights"""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """as in scripts/finetune_cls.py"""
    at_most: float | None = None
    """GiB; what is forecast to need more is not run; None: everything is run"""
    alone: bool = False
    """measure what the flags describe; without it all rows of the table are measured, whatever they say"""
    json: Path | None = None
    """file for the numbers of one configuration"""
    results: Path = Path("runs/memory.jsonl")
    """file that the table's measurements are added to"""

    @property
    def compute(self) -> ComputeArgs:
        return ComputeArgs(
            mixed_precision=PRECISIONS[self.work.precision],
            checkpoint_activations=self.checkpoint_activations,
            cache_frozen=self.cache_frozen,
        )

    @property
    def update(self) -> UpdateArgs:
        work = self.work
        micro = self.micro_batch_size or work.batch_size
        return UpdateArgs(
            batch_size=work.batch_size, micro_batch_size=micro, max_steps=work.steps, optimizer=self.optimizer
        )

    @property
    def model(self) -> ModelArgs:
        return ModelArgs(self.work.model, base_bits=self.base_bits)

    def problems(self) -> list[str]:
        found = at_least(self, 1, "micro_batch_size") + self.model.problems()
        if self.base_bits is not None and self.weights is None:
            found.append(f"--base-bits {self.base_bits}: needs --weights, as a model is quantised while it is read")
        return found


def main(args: Args) -> None:
    if args.alone:
        measure(args)
        return
    for row in ROWS:
        measure_once({"row": row}, ["benchmarks/memory.py", "--alone", "--device", "cpu", *row.split()], args.results)
    found = {numbers["row"]: numbers for numbers in read(args.results)}
    print_table([found[row] for row in ROWS])


def in_a_fork(work: Callable[[], Any]) -> Any:
    """Returns what `work` returns, computed in a fork of this process, whose own memory stays as it was."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=lambda: there.send(work()))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError as error:
        raise ValueError("the forecast failed") from error
    finally:
        process.join()


def measure(args: Args) -> None:
    work, method = args.work, args.method
    refuse(args.compute.problems_given(method, args.model, args.update, work.config))

    # Imported here because they take seconds: whatever can be refused without them has been.
    from _steps import report, use_device
    from training.forecast.workload import resident
    from training.run.launch import start

    use_device(work)
    accelerator, _ = start(args.compute, Path("runs"), False)
    train = [example for batch in batches(work, pool(work)) for example in batch]
    if accelerator.device.type == "cuda":  # a fork of what has used CUDA cannot, and its allocator has no libraries
        base = 0
        forecast = forecast_parts(args, accelerator, train, base)
    else:
        base = resident(args.base_bits is not None or args.optimizer == "adamw8bit")
        forecast = in_a_fork(lambda: forecast_parts(args, accelerator, train, base))
    numbers = {name: count / MIB for name, count in forecast.items()}
    total, base_mib = sum(numbers.values()), base / MIB
    numbers |= {"forecast": total, "base": base_mib}
    if args.at_most is None or total <= 1024 * args.at_most:
        peak = measured_peak(args, train) / MIB
        numbers |= {"measured": peak, "ratio": total / peak}
        numbers["ratio_without_base"] = (total - base_mib) / (peak - base_mib)
    report(numbers, args.json)


def forecast_parts(args: Args, accelerator: Any, train: "list[Encoded]", base: int) -> dict[str, int]:
    from _work import CLASSES
    from training.forecast.memory import memory_of
    from training.forecast.workload import Workload
    from training.model.methods import apply_compute, apply_method, build_classifier, build_language_model

    base_model = None, args.work.config, args.model  # without weights
    classifies = args.work.task == "cls"
    model: Any = build_classifier(*base_model, len(CLASSES), 0) if classifies else build_language_model(*base_model)
    apply_method(model, args.method, 0)
    apply_compute(model, args.method.method, args.compute, accelerator.mixed_precision)
    known: dict[str, Any] = {"compute": args.compute, "from_file": args.weights is not None, "base": base}
    workload = Workload(model, args.update, accelerator, train, train, **known)
    return memory_of(workload, args.micro_batch_size or args.work.batch_size).parts


def measured_peak(args: Args, train: "list[Encoded]") -> int:
    """Returns, in bytes, the largest resident set from here on, or the peak of a GPU's allocator."""
    import torch

    from _steps import Training, read_model
    from training.data.batches import Plan, with_all_tokens_labelled
    from training.run.device import forget_peak
    from training.run.results import peak_memory_mib

    on_cpu = args.work.device == "cpu" or not torch.cuda.is_available()
    forget_peak(torch.device("cpu" if on_cpu else "cuda"))  # of reading the data
    model = read_model(args.work, args.weights, args.base_bits) if args.weights else None
    training = Training(args.work, args.method, args.compute, model, args.update)
    plan = Plan(train, args.update, 1)
    (train,) = training.cached([train])
    evaluated = [with_all_tokens_labelled(e) for e in train] if args.work.task == "ift" else train
    training.evaluate(evaluated)
    for step in range(2 * args.work.steps):  # twice: the second time optimizer states and gaps are there from the start
        (share,) = plan.at(step % args.work.steps)
        training.update_by([[train[i] for i in micro] for micro in share])
    training.evaluate(evaluated)
    return int(peak_memory_mib(training.accelerator) * MIB)


def print_table(rows: list[dict[str, Any]]) -> None:
    print(f"\n{HEADER}\n|{'---|' * (HEADER.count('|') - 1)}")
    for numbers in rows:
        without = [numbers[side] - numbers["base"] for side in ("forecast", "measured")]
        cells = [f"`{numbers['row']}`", f"{numbers['forecast']:,.0f}", f"{numbers['measured']:,.0f}"]
        cells += [
            f"{numbers['ratio']:.3f}",
            *(f"{mib:,.0f}" for mib in without),
            f"{numbers['ratio_without_base']:.3f}",
        ]
        print(f"| {' | '.join(cells)} |")
    for name in ("ratio", "ratio_without_base"):
        worst = max(rows, key=lambda numbers: abs(numbers[name] - 1))
        within = sum(abs(numbers[name] - 1) <= 0.1 for numbers in rows)
        print(f"\n{name}: {within} of {len(rows)} within 10%, the worst {worst[name]:.3f}: `{worst['row']}`")


if __name__ == "__main__":
    run(main, Args, __doc__)
