"""Copies from the host to a GPU that the host does not wait for."""

import torch
from torch import Tensor

HAVE_FLOAT64 = ("cpu", "cuda", "meta")


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Returns `x` on `device`. A GPU copies it from pinned memory, which torch reuses only after that. Where there
    is no float64, as on Apple's, float32 arrives."""
    if (x.device.type, device.type) == ("cpu", "cuda"):
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device, x.dtype if x.dtype != torch.float64 or device.type in HAVE_FLOAT64 else torch.float32)


def all_to_device(device: torch.device, *numbers: Tensor) -> tuple[Tensor, ...]:
    """Returns several rows of whole numbers, (n,) each, on `device`, in a single copy."""
    return to_device(torch.cat(numbers), device).split([len(x) for x in numbers])
