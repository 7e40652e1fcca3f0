"""Times the same update as step_time.py in transformers and PEFT, on the same examples.

    python benchmarks/peft_time.py --task cls --method lora --model gpt2 --precision fp32 --form default
    python benchmarks/peft_time.py --task ift --method full --batch-size 4 --no-mask-prompt --form grouped

What differs from step_time.py is said in _peer.py.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from _work import Work, batches, in_random_order, pool
from training.flags.cli import refuse, run
from training.flags.common import BLOCK_TARGETS, MethodArgs


@dataclass(frozen=True)
class Args:
    work: Work
    method: MethodArgs
    form: Literal["default", "grouped"] = "grouped"
    """default: batches in random order; grouped: the batches of step_time.py, of similar length"""
    json: Path | None = None
    """file for the numbers"""


def main(args: Args) -> None:
    method = args.method
    problems = []
    if method.method not in ("lora", "full") or method.last_blocks is not None:
        problems.append("--method and --last-blocks: the comparison is of lora and full, in all blocks")
    if not set(BLOCK_TARGETS) <= set(method.lora_targets) or method.lora_scaling != "standard":
        problems.append("--lora-targets and --lora-scaling: the comparison is of all block matrices at alpha/r")
    refuse(problems)

    # Imported here because they take seconds: whatever can be refused without them has been.
    from _peer import PeerTraining
    from _steps import clock_updates, report, use_device

    use_device(args.work)
    grouped = batches(args.work, pool(args.work))
    chosen = grouped if args.form == "grouped" else in_random_order(grouped)
    peer = PeerTraining(args.work, method)
    numbers = clock_updates(peer.update, chosen, grouped[0], peer.accelerator)
    report(numbers | {"peft": version("peft")}, args.json)


if __name__ == "__main__":
    run(main, Args, __doc__)
