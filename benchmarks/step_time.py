"""Times our own training steps on real text, random weights: tokens a second, share of the machine's speed, memory.

    python benchmarks/step_time.py --task cls --method lora --model gpt2 --precision fp32 --batch-size 8 --steps 10
    python benchmarks/step_time.py --task ift --method full --batch-size 4 --no-mask-prompt --steps 20
    python benchmarks/step_time.py --task cls --last-blocks 4 --cache-frozen memory

Everything is put together as scripts/finetune_*.py do it. Also timed: our evaluation of the same batches, and the
matrix product that the machine's speed is read from. Tokens are real ones, FLOPs those that the update needs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from _flops import update_flops
from _work import CLASSES, PRECISIONS, Work, batches, pool
from training.flags.cli import refuse, run
from training.flags.common import MethodArgs, ModelArgs
from training.flags.compute import ComputeArgs

if TYPE_CHECKING:
    from training.data.batches import Encoded


@dataclass(frozen=True)
class Args:
    work: Work
    method: MethodArgs
    checkpoint_activations: bool = False
    """as in scripts/finetune_cls.py"""
    cache_frozen: Literal["memory"] | None = None
    """as in scripts/finetune_cls.py; the cache is filled before the clock starts, as in every epoch but the first"""
    json: Path | None = None
    """file for the numbers"""

    @property
    def compute(self) -> ComputeArgs:
        return ComputeArgs(
            mixed_precision=PRECISIONS[self.work.precision],
            checkpoint_activations=self.checkpoint_activations,
            cache_frozen=self.cache_frozen,
        )


def main(args: Args) -> None:
    work, method = args.work, args.method
    refuse(args.compute.problems_given(method, ModelArgs(), work.update, work.config))

    # Imported here because they take seconds: whatever can be refused without them has been.
    from _steps import Training, clock, clock_updates, matrix_product_flops_per_second, report, use_device
    from gpt2_scratch.precision import DTYPES

    use_device(work)
    examples = pool(work)
    training = Training(work, method, args.compute, train=examples)
    chosen = training.cached(batches(work, examples))
    accelerator, steps = training.accelerator, len(chosen)
    numbers = clock_updates(training.update, chosen, chosen[0], accelerator)
    step = numbers["ms_per_step"] / 1000

    training.evaluate(chosen[0])
    evaluation = clock(training.evaluate, chosen, accelerator.device) / steps
    speed = sum(flops(args, batch) for batch in chosen) / steps / step
    machine = matrix_product_flops_per_second(work.config, DTYPES[work.precision], accelerator.device)
    numbers |= {"evaluation_ms_per_step": 1000 * evaluation, "step_over_evaluation": step / evaluation}
    numbers |= {"flops_per_second": speed, "matrix_product_flops_per_second": machine}
    report(numbers | {"share_of_matrix_product": speed / machine}, args.json)


def flops(args: Args, batch: "list[Encoded]") -> int:
    """Counts the FLOPs of an update with `batch`."""
    config, classifies = args.work.config, args.work.task == "cls"
    head = (len(batch), len(CLASSES)) if classifies else (sum(e.count for e in batch), config.vocabulary)
    lengths = [len(e.tokens) for e in batch]
    return update_flops(config, args.method, lengths, head, classifies, args.cache_frozen is not None)


if __name__ == "__main__":
    run(main, Args, __doc__)
