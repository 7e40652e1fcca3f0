"""Tells running out of memory from other errors, and says what to do about it. Nothing heavy is imported."""

import errno
from collections.abc import Callable, Collection

UNLOADED = "failed to map segment from shared object"  # as glibc's loader says it of a library
SIGNS = (
    UNLOADED,
    "out of memory",  # torch.OutOfMemoryError, and CUDA's own error
    "CUBLAS_STATUS_ALLOC_FAILED",  # no room for the workspace of cuBLAS
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # the same on Windows
)
fitting: list[Callable[[], int | None]] = []  # of a training: the largest smaller micro-batch that should fit, or 0


def ran_out(error: BaseException) -> bool:
    """Returns whether a device, or the machine itself, had no more memory to give."""
    if isinstance(error, OSError | ImportError):
        return UNLOADED in str(error) or getattr(error, "errno", None) == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


def _forecast() -> int | None:
    try:
        return fitting[-1]() if fitting else None
    except Exception:  # the forecast itself needs some memory, which there may no longer be
        return None


def remedy(error: BaseException, flags: Collection[str]) -> str:
    """Returns the message for an error that `ran_out`, with the remedies among the `flags` of the script."""
    place, found = "the GPU" if "CUDA" in str(error) or "CUBLAS" in str(error) else "this machine", []
    if UNLOADED in str(error):
        return f"out of memory on {place}: its libraries do not fit; allow more (ulimit -v), or end other programs"
    size = _forecast()
    if size:
        found.append(f"use --micro-batch-size {size}, the largest smaller one that is forecast to fit")
    elif size is None and "micro-batch-size" in flags:
        found.append("use a smaller --micro-batch-size")
    if "checkpoint-activations" in flags:
        found.append("add --checkpoint-activations")
    if "base-bits" in flags:
        found.append("start again with --base-bits 4")
    return f"out of memory on {place}: {', or '.join(found or ['use a smaller model, or shorter texts'])}"
