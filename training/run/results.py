"""Writes results.json for other programs: what was run, where, and what came out."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator

from training.data.examples import CacheFacts
from training.flags.sharding import launched_sharded
from training.storage.files import LOCK, write_json
from training.storage.run_folder import RESULTS, SCHEMA, STATE

LIBRARIES = ("torch", "accelerate", "transformers", "datasets", "tiktoken", "scikit-learn", "numpy")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of results.json in order (docs/results.schema.json). None: not measured."""

    script: str  # the script that wrote it
    schema: int = SCHEMA
    model: dict[str, Any]
    data: Any  # DataFacts, or CorpusFacts of pretraining
    parameters: dict[str, Any]
    before: dict[str, Any] | None = None
    val: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    forgetting: dict[str, Any] | None = None
    notes: list[str] | None = None
    best_step: int
    seconds: dict[str, float]
    tokens_per_second: float | None = None
    peak_memory_mib: float
    overflows: int | None = None
    micro_batch: dict[str, Any] | None = None
    frozen_activations: CacheFacts | None = None
    reference: dict[str, Any] | None = None
    args: dict[str, Any]
    environment: dict[str, Any]
    files: list[str] | None = None
    curve: list[dict[str, Any]]


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """Returns what produced the numbers, as far as it is known."""
    found = {
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": {name: v for name in LIBRARIES if (v := _version(name)) is not None},
        "device": device_name(accelerator.device),
        "threads": torch.get_num_threads(),
        "precision": accelerator.mixed_precision,
        "processes": accelerator.num_processes,
        "sharding": "fsdp2" if launched_sharded() else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def peak_memory_mib(accelerator: Accelerator) -> float:
    """Returns the allocator's peak (CUDA), or the peak resident set of this process (CPU, Apple's GPU)."""
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated(accelerator.device) / 2**20
    return peak_resident() / 2**20


def peak_resident() -> int:
    """Returns the peak resident set of this process in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    with contextlib.suppress(OSError, IndexError):  # not Linux
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 2**10
    import resource  # its peak starts from the parent's memory at the fork

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 2**10  # kibibytes elsewhere


def write_results(folder: Path, results: Results, keep_checkpoint: bool = False) -> None:
    """Writes results.json last of all files, in one step, since it marks a finished run, and deletes the checkpoint
    unless something is left to be measured. What is None was not measured and is left out."""
    files = sorted({path.name for path in folder.iterdir()} - {STATE.parent.name, RESULTS, LOCK})
    found = asdict(replace(results, files=[*files, RESULTS]))
    write_json(folder / RESULTS, _present(found | {"data": _present(found["data"])}))
    if not keep_checkpoint:
        shutil.rmtree(folder / STATE.parent, ignore_errors=True)


def _present(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the content without what is None."""
    return {name: value for name, value in content.items() if value is not None}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Returns the commit of the project, with + when files differ from it; None outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit = git("rev-parse", "HEAD")
        return commit and commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except FileNotFoundError:  # no git on this machine
        return None


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, its GPU" if device.type == "mps" else cpu_name()


def cpu_name() -> str:
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # not Linux
        named = re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = named[1].strip() if named else model
    return f"{model}, {os.cpu_count()} cores"
