"""Compares our update with that of transformers and PEFT on the same examples, in alternating processes, as a table.

    python benchmarks/against_peft.py
    python benchmarks/against_peft.py --rows cls-lora-fp32-grouped generate-nano --alternations 3

Every measurement is a line in --results; those that are there are not repeated, so that an interrupted table goes on
where it was. The table is printed from that file, with the commands below it: each can be run alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from _results import measure_once, read
from _rows import OTHER_ROWS, find_row, row_names
from _table import print_tables
from training.flags.cli import at_least, run

SIDES = ("peer", "ours")


@dataclass(frozen=True)
class Args:
    rows: tuple[str, ...] = ()
    """names such as cls-lora-fp32-grouped; if none is given, all that this machine has the hardware for"""
    model: tuple[str, ...] = ()
    """sizes of the training rows; if none is given, gpt2, with a GPU gpt2-medium and gpt2-large"""
    steps: int = 10
    """steps per measurement"""
    alternations: int = 2
    """measurements of each side, in turns"""
    device: Literal["cpu", "cuda"] | None = None
    """None: a GPU where there is one"""
    results: Path = Path("runs/against_peft.jsonl")
    """file that the measurements are added to"""

    def problems(self) -> list[str]:
        return at_least(self, 1, "steps", "alternations")


def main(args: Args) -> None:
    device = args.device or ("cuda" if has_gpu() else "cpu")
    names = args.rows or usual_rows(device)
    sizes = args.model or (("gpt2-medium", "gpt2-large") if device == "cuda" else ("gpt2",))
    rows = list(dict.fromkeys(find_row(name, size, args.steps) for size in sizes for name in names))
    for row in rows:
        for turn in range(args.alternations):
            for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                identity = {"row": row.name, "side": side, "command": row.command(side, device), "turn": turn}
                measure_once(identity, row.words(side, device), args.results)
    found = [numbers for numbers in read(args.results) if numbers["turn"] < args.alternations]
    print_tables(rows, found, device)


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def usual_rows(device: str) -> tuple[str, ...]:
    if device == "cuda":
        return (*row_names(("bf16", "fp16")), "generate-124m")
    if half_precision_in_hardware():
        return (*row_names(("fp32", "bf16")), *OTHER_ROWS)
    print(
        "left out: rows in bf16, since this processor has neither avx512_bf16 nor amx_bf16; --rows asks for them anyway"
    )
    return (*row_names(("fp32",)), *OTHER_ROWS)


def half_precision_in_hardware() -> bool:
    try:
        known = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in known or "amx_bf16" in known


if __name__ == "__main__":
    run(main, Args, __doc__)
