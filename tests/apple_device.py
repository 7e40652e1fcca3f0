"""A stand-in for Apple's GPU: a device that computes on the CPU and refuses float64, with the words of Apple's own."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "apple"
REFUSED = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"


class OnDevice(Tensor):
    """A tensor of the device, whose numbers are in `held`, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        if held.dtype == torch.float64:
            raise TypeError(REFUSED)
        form = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = Tensor._make_wrapper_subclass(cls, held.size(), device=f"{NAME}:0", **form)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, *args, **(kwargs or {}))

    # Of these torch asks the tensor itself.
    def tolist(self) -> list:
        return self.held.tolist()

    def __setitem__(self, index: Any, value: Any) -> None:
        self.held[index] = value.held if isinstance(value, OnDevice) else value


def compute(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Computes an operation; its results are on the device, unless another is asked for."""
    device = kwargs.get("device")
    words = {**kwargs, "device": torch.device("cpu")} if device is not None else kwargs
    inputs, words = tree_map(lambda x: x.held if isinstance(x, OnDevice) else x, (args, words))
    found = func(*inputs, **words)
    if device is not None and torch.device(device).type == "cpu":
        return found
    if func._schema.name.split("::")[1].split(".")[0].endswith("_") and isinstance(args[0], Tensor):
        return args[0]  # written in place
    return tree_map(lambda x: OnDevice(x) if isinstance(x, Tensor) else x, found)


def device() -> torch.device:
    """Registers the device, which a process can do once."""
    _setup_privateuseone_for_python_backend(NAME)
    torch.__future__.set_swap_module_params_on_conversion(True)  # optimizers know the parameters as they were before
    device.library = torch.library.Library("_", "IMPL")  # type: ignore[attr-defined]
    device.library.fallback(compute, "PrivateUse1")  # type: ignore[attr-defined]
    return torch.device(NAME, 0)
