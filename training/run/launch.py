"""Starts the accelerator, and checks what a launcher can get wrong."""

import ctypes
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import patch_environment

from training.flags.cli import note
from training.flags.compute import SpeedArgs, truth
from training.run.threads import choose_threads, set_by_launcher
from training.step.processes import from_main

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
LARGEST_KEPT = 32 * 2**20  # bytes; glibc takes no more


def keep_freed_memory() -> None:
    """Makes glibc keep the memory of freed tensors of up to 32 MiB for new ones, which would else wait for fresh pages.

    On a CPU this is 5% faster (LoRA on 124M). Larger tensors still go back at once, since it is chance whether the
    next one of that size finds a gap in the heap. New threads share that heap: what they free in one of their own would
    serve no other. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)  # fixed, since glibc's own moves with what is freed
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_ARENA_MAX, 1)


def be_deterministic() -> None:
    """Lets torch take only algorithms that sum in a fixed order, and raise an error where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True)


def check_launched(accelerator: Accelerator) -> None:
    """Raises ValueError for processes that do not see each other, since all of them would write the same files, and for
    more of them than there are GPUs. Notes where a launcher starts one instead of the several that it was asked for."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise ValueError(
            f"{launched} processes were launched but do not see each other; without GPUs set ACCELERATE_USE_CPU=true"
        )
    if "WORLD_SIZE" not in os.environ and set_by_launcher("MASTER_ADDR"):  # which is of no use to a single process
        note(
            "accelerate launch was asked for several processes, and starts one: a CPU has several with "
            "ACCELERATE_USE_CPU=true and accelerate_configs/ddp.yaml (docs/several-gpus.md)"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if accelerator.device.type != "cuda":
        return
    if not (there := torch.cuda.device_count()):
        raise ValueError("a GPU is asked for, but torch sees none; unset ACCELERATE_TORCH_DEVICE to use the CPU")
    if here > there:
        raise ValueError(
            f"{here} processes were launched for {there} GPU{'s' * (there > 1)}; add --num_processes {there}"
        )


def check_gpu(accelerator: Accelerator) -> None:
    """Raises ValueError where a launcher asks for half precision, as its configurations for GPUs do, and none is seen.
    The run would take the CPU, in silence."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "").lower()
    wants_cpu = truth(os.environ.get("ACCELERATE_USE_CPU", "no"))
    if asked in ("bf16", "fp16") and accelerator.device.type == "cpu" and not wants_cpu:
        raise ValueError(
            f"ACCELERATE_MIXED_PRECISION={asked}: launched for a GPU, but torch sees none (is the driver too old?); "
            "to use the CPU, launch with --cpu or accelerate_configs/cpu.yaml"
        )


def start(compute: SpeedArgs, folder: Path, resuming: bool) -> tuple[Accelerator, bool]:
    """Returns the accelerator, and whether to resume, which the main process decides from its disk.

    Raises ValueError for processes that do not see each other, and for a GPU or fp16 where there is no GPU.
    """
    keep_freed_memory()
    choose_threads()
    precision = compute.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "").lower() or "no"
    with patch_environment(accelerate_use_fsdp="false"):  # training/step/sharding.py shards
        accelerator = Accelerator(mixed_precision=precision, project_dir=str(folder))
    torch.backends.cuda.matmul.allow_tf32 = compute.tf32  # after Accelerator, which may set it too
    if compute.tf32 and accelerator.device.type != "cuda":
        note("--tf32 changes nothing, since this device is no CUDA GPU")
    if compute.deterministic:
        be_deterministic()
    check_launched(accelerator)
    check_gpu(accelerator)
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("--mixed-precision fp16: needs a GPU (a CPU would silently compute in fp32); use no or bf16")
    return accelerator, from_main(accelerator, lambda: resuming)
