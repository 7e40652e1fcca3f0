"""What can be read off a GPU, in one place; every function works on a CPU too, so that it can be tested there."""

import math
import platform
import shutil
import subprocess
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

LIBRARIES = ("accelerate", "transformers", "peft", "bitsandbytes", "numpy")
SYNCHRONISES = "called a synchronizing CUDA operation"  # what torch's debug mode warns of


class Line(NamedTuple):
    """What a check has found: a value and the range that it must lie in. Without a range it is information."""

    name: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.low <= self.value <= self.high  # NaN is not

    def shown(self) -> str:
        limits = [f">= {self.low:g}"] * math.isfinite(self.low) + [f"<= {self.high:g}"] * math.isfinite(self.high)
        cells = f"{'ok' if self.ok else 'FAIL':<5}{self.name:<58}{self.value:>11.4g}  {' and '.join(limits) or '-'}"
        return f"{cells}  ({self.note})" if self.note else cells

    def entry(self) -> dict[str, Any]:
        """Returns what stands in the file: neither limits that are none nor an infinite value, as JSON has none."""
        known = {name: x for name, x in self._asdict().items() if x not in (math.inf, -math.inf, "")}
        return known | {"ok": self.ok}


def comparable(error: float) -> float:
    """Returns an error that `max` can compare: NaN, of which no comparison holds, counts as infinite."""
    return error if math.isfinite(error) else math.inf


def yes(name: str, value: bool, note: str = "") -> Line:
    """Returns a line for what must hold."""
    return Line(name, float(value), 1, 1, note)


def is_modern(device: torch.device) -> bool:
    """Whether it is a GPU of the Ampere generation or later, which has flash attention and bf16."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def facts(device: torch.device) -> dict[str, Any]:
    """Returns the machine and the versions."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    if device.type == "cuda":
        known = torch.cuda.get_device_properties(device)
        found |= {"gpu": known.name, "capability": f"{known.major}.{known.minor}", "mib": known.total_memory // 2**20}
    if smi := shutil.which("nvidia-smi"):
        words = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
        told = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        found["driver"] = told.split("\n")[0]
    return found


def syncs(step: Callable[[], object], device: torch.device) -> int:
    """Counts how often `step` makes the CPU wait for the GPU, as far as torch knows; on a CPU never."""
    if device.type != "cuda":
        step()
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum(SYNCHRONISES in str(one.message) for one in told)


class Kernels(NamedTuple):
    number: int
    seconds: float  # in which at least one ran


def kernels(step: Callable[[], object], device: torch.device) -> Kernels:
    """Counts what `step` runs on the device, copies included; on a CPU torch's operations, those within others too.

    Spans that torch only names, such as an optimizer's step, stand among the kernels and are none.
    """
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        step()
        if on_gpu:
            torch.cuda.synchronize(device)
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    ran = [e for e in seen.events() if e.device_type == kind and not e.is_user_annotation]
    spans = sorted((e.time_range.start, e.time_range.end) for e in ran)
    busy, until = 0.0, -math.inf
    for start, end in spans:  # microseconds
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return Kernels(len(spans), busy / 1e6)
