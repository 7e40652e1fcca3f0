"""Checks in less than eight minutes that one CUDA GPU computes what a CPU does, runs the scripts, and how fast it is.

    make gpu-check
    python benchmarks/gpu_check.py
    python benchmarks/gpu_check.py --only numbers runs

Each line says ok or FAIL, what was checked, its value and its limit; one without a limit is information. All of it,
with the versions, stands in the --json file, which can be sent with a report. Nothing is fetched: texts are bundled
mail and random tokens, weights gpt2-nano and random numbers. Every part is a process of its own, so that one that hangs
or crashes does not take the others with it. Exit status: 0 if no line says FAIL, 1 if one does, 2 without a GPU.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from training.flags.cli import run
from training.storage.files import write_json

if TYPE_CHECKING:
    import torch

    from _gpu import Line

Part = Literal["numbers", "runs", "memory", "speed"]
# The module and function of each part, and its seconds, the start of its process included. What a part leaves over is
# the next one's.
PARTS: dict[Part, tuple[str, str, float]] = {
    "numbers": ("_gpu_numbers", "checks", 110),
    "runs": ("_gpu_runs", "checks", 160),
    "memory": ("_gpu_cost", "memory_checks", 70),
    "speed": ("_gpu_cost", "speed_checks", 130),
}


@dataclass(frozen=True)
class Args:
    only: tuple[Part, ...] = ()
    """the parts to check; if none is given, all of them"""
    json: Path = Path("runs/gpu_check.json")
    """file for everything that was found"""
    alone: Part | None = None
    """check this part in this process, and write its lines into a new --json file, one a line"""

    def problems(self) -> list[str]:
        if self.alone is None or not self.json.exists():
            return []
        return [f"--json {self.json}: is there, and --alone would add lines to it; name a new file"]


def main(args: Args) -> None:
    import torch  # here, because it takes seconds

    if not torch.cuda.is_available():
        raise ValueError(
            f"no CUDA GPU: torch {torch.__version__} is built for CUDA {torch.version.cuda} and sees none; see "
            "docs/getting-started.md for drivers"
        )
    if args.alone:
        check_part(args.alone, torch.device("cuda"), args.json)
        return
    sys.exit(check_all(args.only or (*PARTS,), args.json, part_process))


def found_by(checks: Callable[..., Iterator["Line"]], device: "torch.device", folder: Path) -> Iterator["Line"]:
    """Yields the lines of a part; an error ends it with a line that fails, and is printed in full."""
    from _gpu import yes

    try:
        yield from checks(device, folder)
    except Exception as error:  # whatever a GPU may come up with
        traceback.print_exc()
        yield yes("this part reaches its end", False, f"{type(error).__name__}: {error}".splitlines()[0][:200])


def check_part(part: Part, device: "torch.device", lines: Path) -> None:
    """Prints each line, and adds it to a file at once, where it survives whatever comes later."""
    module, function, _ = PARTS[part]
    lines.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        for line in found_by(getattr(import_module(module), function), device, Path(folder)):
            print(line.shown(), flush=True)
            with lines.open("a") as file:
                file.write(json.dumps(line.entry()) + "\n")


def part_process(part: Part, lines: Path) -> list[str]:
    return [sys.executable, __file__, "--alone", part, "--json", str(lines)]


def ended(words: list[str], seconds: float) -> int:
    """Returns the exit status of a process, which is killed with all that it has started when its time is over, so that
    nothing computes beside the next part. Raises subprocess.TimeoutExpired then."""
    process = subprocess.Popen(words, start_new_session=True)
    try:
        return process.wait(seconds)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def check_all(parts: tuple[Part, ...], file: Path, words: Callable[[Part, Path], list[str]]) -> int:
    """Checks the parts one after the other, each within its time, and writes the file; returns the exit status."""
    import torch

    from _gpu import facts, yes

    known = facts(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print("\n".join(f"{name:<14}{value}" for name, value in known.items()), flush=True)
    found: dict[str, list[dict[str, Any]]] = {}
    begun = time.monotonic()
    deadline = begun
    for part in parts:
        deadline += PARTS[part][2]
        with TemporaryDirectory() as folder:
            lines = Path(folder) / "lines"
            try:
                status = ended(words(part, lines), deadline - time.monotonic())
                ending = yes(f"{part}: ends by itself", status == 0, f"exit status {status}")
            except subprocess.TimeoutExpired:
                ending = yes(f"{part}: ends by itself", False, "its time was over")
            print(ending.shown(), flush=True)
            text = lines.read_text() if lines.exists() else ""
            found[part] = [*map(json.loads, text.splitlines()), ending.entry()]
    failed = sum(not line["ok"] for lines in found.values() for line in lines)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"facts": known, "seconds": time.monotonic() - begun, "failed": failed, "parts": found})
    print(f"{failed} failed in {time.monotonic() - begun:.0f} s; everything is in {file}")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main, Args, __doc__)
