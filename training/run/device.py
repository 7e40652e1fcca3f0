"""What a run computes on: it is printed before training, with advice where another flag would serve it better."""

import contextlib
from pathlib import Path

import torch
from accelerate import Accelerator

from gpt2_scratch.attention import route_of
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.precision import HALF
from training.run.results import device_name

ATTENTION = {"by sequence": "attention by sequence", "flash": "flash attention", "padded": "padded attention"}


def forget_peak(device: torch.device) -> None:
    """Starts the peak memory anew: the allocator's, or on Linux that of this process (man 5 proc)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/clear_refs").write_text("5")


def advice(capability: tuple[int, int], precision: str, tf32: bool) -> str | None:
    """Returns what would serve a GPU of this compute capability better than `precision` (no, bf16 or fp16)."""
    has_bf16, has_fp16 = capability >= (8, 0), capability >= (7, 0)  # in its matrix units
    if precision == "bf16" and not has_bf16:
        return "this GPU has no bf16, which torch emulates slowly: use --mixed-precision fp16"
    if precision == "no" and has_bf16 and not tf32:
        return "fp32 without TF32 leaves most of this GPU idle: use --mixed-precision bf16, or at least --tf32"
    if precision == "no" and has_fp16 and not has_bf16:
        return "fp32 leaves most of this GPU idle: use --mixed-precision fp16"
    return None


def device_lines(accelerator: Accelerator, config: GPT2Config) -> list[str]:
    """Returns a line with device, precision, attention and processes, and one of advice for a GPU."""
    device, precision, tf32 = accelerator.device, accelerator.mixed_precision, torch.backends.cuda.matmul.allow_tf32
    width = config.width // config.heads
    route = ATTENTION[route_of(device, HALF.get(precision, torch.float32), width, config.dropout)]
    shown = ("fp32" + ", TF32" * tf32 * (device.type == "cuda")) if precision == "no" else precision
    count, threads = accelerator.num_processes, torch.get_num_threads()
    work = f"{count} process{'es' * (count > 1)}"
    if device.type == "cpu":
        work += f" with {threads} thread{'s' * (threads > 1)}"
    lines = [f"device     {device_name(device)}; {shown}; {route}; {work}"]
    if device.type == "cuda" and (told := advice(torch.cuda.get_device_capability(device), precision, tf32)):
        lines.append(f"note       {told}")
    return lines
