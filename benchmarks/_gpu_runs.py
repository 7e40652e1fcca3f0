"""Whether the scripts run on a device: in half precision, quantised, with a cache, killed and resumed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from _gpu import Line, comparable, is_modern, yes
from _results import ROOT
from training.storage.run_folder import RESULTS, STATE


class Process(Protocol):
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


class Sizes(NamedTuple):
    """Flags that all runs have, and how a process is started, with its output in a file; a test has others of both."""

    common: tuple[str, ...]
    cls: tuple[str, ...]
    ift: tuple[str, ...]
    half: str  # precision of the classifiers
    scaled: str  # of the instructions
    start: Callable[[list[str], Path], Process]


def start(words: list[str], log: Path) -> Process:
    with log.open("a") as file:
        return subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def questions(path: Path) -> Path:
    """Writes instructions that are learnt in a few steps."""
    rows = [
        {"instruction": f"Count to {i % 9 + 1}.", "response": " ".join(map(str, range(1, i % 9 + 2)))}
        for i in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def usual(device: torch.device, folder: Path) -> Sizes:
    common = "--model gpt2-nano --max-steps 40 --batch-size 8 --eval-every 40 --save-every 2 --report-to none"
    cls = "--dataset spamassassin --train-examples 320 --val-examples 40 --test-examples 40 --max-length 256"
    ift = f"--data {questions(folder / 'questions.jsonl')} --new-tokens 8"
    shared, mail, asked = (tuple(text.split()) for text in (f"{common} --forgetting-tokens 4096", cls, ift))
    return Sizes(shared, mail, asked, "bf16" if is_modern(device) else "fp16", "fp16", start)


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def finished(name: str, words: Sequence[str], folder: Path, sizes: Sizes) -> Line:
    """Makes a run in `folder` and returns its exit status, with its last words if it fails."""
    log = folder.with_suffix(".log")
    status = sizes.start([*words, "--output-dir", str(folder)], log).wait()
    return Line(f"run, {name}: exit status", status, 0, 0, last_line(log) if status else "")


def killed(words: Sequence[str], folder: Path, sizes: Sizes) -> bool:
    """Starts a run, kills it after its first checkpoint, and returns whether it was still running then."""
    process = sizes.start([*words, "--output-dir", str(folder)], folder.with_suffix(".log"))
    while process.poll() is None and not (folder / STATE).exists():
        time.sleep(0.01)
    running = process.poll() is None
    process.kill()
    process.wait()
    return running and not (folder / RESULTS).exists()


def largest_difference(one: Path, other: Path) -> float:
    """Returns the largest difference of the training losses of two runs, over the loss."""
    curves = [json.loads((folder / RESULTS).read_text())["curve"] for folder in (one, other)]
    return max(comparable(abs(a["train_loss"] / b["train_loss"] - 1)) for a, b in zip(*curves, strict=True))


def commands(sizes: Sizes) -> dict[str, list[str]]:
    """Returns what is run, by name; the first one is also killed and resumed."""
    cls = ["scripts/finetune_cls.py", *sizes.common, *sizes.cls, "--mixed-precision", sizes.half]
    ift = ["scripts/finetune_ift.py", *sizes.common, *sizes.ift, "--mixed-precision", sizes.scaled]
    cached = ["--last-blocks", "2", "--cache-frozen", "memory", "--micro-batch-size", "auto"]
    return {
        f"cls {sizes.half}": cls,
        f"ift {sizes.scaled}": ift,
        "4-bit base, paged 8-bit optimizer": [*cls, "--base-bits", "4", "--optimizer", "paged-adamw8bit"],
        "cached blocks, micro-batch auto": [*cls, *cached],
    }


def resumed(words: Sequence[str], folder: Path, whole: Path, sizes: Sizes) -> Iterator[Line]:
    """Kills a run, resumes it, and compares it with the same run that is `whole`."""
    yield yes("run, killed: after its first checkpoint, before its end", killed(words, folder, sizes))
    ending = finished("resumed", [*words, "--resume"], folder, sizes)
    yield ending
    if ending.ok:
        yield Line("run, resumed: loss against that of a whole run", largest_difference(folder, whole), high=1e-3)


def runs(sizes: Sizes, folder: Path) -> Iterator[Line]:
    for i, (name, words) in enumerate(commands(sizes).items()):
        line = finished(name, words, folder / f"run{i}", sizes)
        yield line
        if i == 0 and line.ok:
            yield from resumed(words, folder / "killed", folder / "run0", sizes)


def checks(device: torch.device, folder: Path) -> Iterator[Line]:
    yield from runs(usual(device, folder), folder)
