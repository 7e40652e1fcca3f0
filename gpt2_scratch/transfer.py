"""Copies from the host to a GPU that the host does not wait for."""

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Returns `x` on `device`. A GPU copies it from pinned memory, which torch reuses only after that."""
    if (x.device.type, device.type) == ("cpu", "cuda"):
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def all_to_device(device: torch.device, *numbers: Tensor) -> tuple[Tensor, ...]:
    """Returns several rows of whole numbers, (n,) each, on `device`, in a single copy."""
    return to_device(torch.cat(numbers), device).split([len(x) for x in numbers])
