"""Measures peak memory of full fine-tuning, LoRA, and LoRA on a base in 8 and 4 bits, for every size of GPT-2.

    python benchmarks/quantised.py
    python benchmarks/quantised.py --sizes gpt2 gpt2-medium

Random weights are written to --folder once and read from there as a run reads them. Each cell is a run of
benchmarks/memory.py in a process of its own, on the CPU; one that is forecast not to fit in --at-most is not run. Every
measurement is a line in --results; those that are there are not repeated.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _results import measure_once, read
from gpt2_scratch.config import SIZES
from training.flags.cli import run

METHODS = {
    "full": "--method full",
    "LoRA": "--method lora",
    "LoRA, 8-bit base": "--method lora --base-bits 8",
    "LoRA, 4-bit base": "--method lora --base-bits 4",
}
WORK = "--task cls --batch-size 1 --max-length 128 --steps 2"


@dataclass(frozen=True)
class Args:
    sizes: tuple[str, ...] = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
    """sizes of GPT-2, one row each"""
    folder: Path = Path("runs/random-weights")
    """where random weights are kept: up to 6.2 GiB a size"""
    at_most: float = 24.0
    """GiB that the machine has"""
    results: Path = Path("runs/quantised.jsonl")
    """file that the measurements are added to"""

    def problems(self) -> list[str]:
        unknown = [size for size in self.sizes if size not in SIZES]
        return [f"--sizes {' '.join(unknown)}: must be among {', '.join(SIZES)}"] if unknown else []


def main(args: Args) -> None:
    def holds(numbers: dict[str, Any]) -> bool:
        """What did not fit may do so by now, as on another machine."""
        return "measured" in numbers or numbers["forecast"] > 1024 * args.at_most

    for size in args.sizes:
        weights = args.folder / size
        if not (weights / "model.safetensors").exists():
            write_random_weights(size, weights)
        for name, flags in METHODS.items():
            words = f"--alone --device cpu {WORK} --model {size} {flags} --at-most {args.at_most}".split()
            words = ["benchmarks/memory.py", *words, "--weights", str(weights)]
            measure_once({"size": size, "method": name}, words, args.results, holds)
    found = {(numbers["size"], numbers["method"]): numbers for numbers in read(args.results)}
    print(f"\nPeak resident set in MiB (forecast in brackets); `{WORK}`, fp32, AdamW\n")
    print(f"| model | {' | '.join(METHODS)} |\n|{'---|' * (1 + len(METHODS))}")
    for size in args.sizes:
        print(f"| {size} | {' | '.join(cell(found[size, name]) for name in METHODS)} |")


def cell(numbers: dict[str, Any]) -> str:
    if "measured" not in numbers:
        return f"does not fit ({numbers['forecast']:,.0f})"
    return f"{numbers['measured']:,.0f} ({numbers['forecast']:,.0f})"


def write_random_weights(size: str, folder: Path) -> None:
    """Writes a folder in Hugging Face's format. No model is built, since that would hold the weights twice."""
    import torch
    from safetensors.torch import save_file

    from gpt2_scratch.model import LanguageModel
    from gpt2_scratch.pretrained import TRANSPOSED, without_storage
    from training.storage.files import replace_file

    generator, state = torch.Generator().manual_seed(0), {}
    for name, parameter in without_storage(LanguageModel, SIZES[size]).named_parameters():
        shape = parameter.shape[::-1] if name.endswith(TRANSPOSED) else parameter.shape
        state[name] = torch.ones(shape) if "ln_" in name else torch.empty(shape).normal_(0.0, 0.02, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "model.safetensors", lambda new: save_file(state, new, metadata={"format": "pt"}))


if __name__ == "__main__":
    run(main, Args, __doc__)
