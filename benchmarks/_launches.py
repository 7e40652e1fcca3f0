"""Counts the kernels that a GPU would be asked for, and how often the host would wait for it. No GPU is needed.

Fake tensors, which have a shape but no numbers, stand for those on the GPU, and real ones for those of the host. All
above the kernels is what runs on a GPU: autograd, autocast and its cache, clipping, the optimizer. An operation counts
as one kernel unless it only allocates or views memory. Autocast keeps the CPU's list of operations, which spares
transformers' GELU the casts that a GPU adds.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt2_scratch.attention import Layout, attend_flash, attend_last, attend_padded

Route = Literal["flash", "padded"]  # of attention on a GPU: with and without variable-length flash attention
NO_KERNEL = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view")


def tensors_in(*values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


class Launches(TorchDispatchMode):
    """Counts `kernels` by name, `waits` of the host, and `copies` to the GPU."""

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake, self.on_host, self.copies = fake, False, 0
        self.kernels, self.waits = Counter[str](), Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tensors_in(args, kwargs)
        if self.on_host or (given and not any(isinstance(x, FakeTensor) for x in given)) or func.namespace == "prim":
            return func(*args, **kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        if name == "_local_scalar_dense":
            self.waits[name] += 1
            return given[0].is_floating_point()  # a norm is 1; no mask is all ones, where lengths differ
        if name not in NO_KERNEL and _writes(func):
            self.kernels[name] += 1
        with self.fake:
            return func(*args, **kwargs or {})


def _writes(func: Any) -> bool:
    """Whether an operation writes numbers, into new memory or into an argument."""
    return any(x.alias_info is None or x.alias_info.is_write for x in func._schema.returns) or not func._schema.returns


class Transfers(TorchFunctionMode):
    """Makes a tensor of the host fake when it is sent to the GPU, and real on its way back, for which the host waits.
    What is made without a device is made on the host."""

    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self.launches = launches

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, launches = kwargs or {}, self.launches
        on_device = any(isinstance(x, FakeTensor) for x in tensors_in(args, kwargs))
        if func is Tensor.to and not on_device and any(isinstance(x, torch.device) for x in (*args, *kwargs.values())):
            launches.copies += 1
            return launches.fake.from_tensor(args[0])
        returns = func is Tensor.cpu and on_device
        before, launches.on_host = launches.on_host, returns or (not on_device and kwargs.get("device") is None)
        try:
            if returns:
                launches.waits["cpu"] += 1
                return torch.zeros(args[0].shape, dtype=args[0].dtype)
            return func(*args, **kwargs)
        finally:
            launches.on_host = before


@contextmanager
def as_on_a_gpu(route: Route) -> Iterator[FakeTensorMode]:
    """Within, our attention takes a GPU's `route`, and gradients are clipped together. Models and optimizers are built
    in the mode that it gives, on which nothing needs to be moved to a device."""

    def attend(qkv: Tensor, layout: Layout, dropout: float = 0.0) -> Tensor:
        if layout.last_only:
            return attend_last(qkv, layout, dropout)
        return attend_padded(qkv, layout, dropout) if route == "padded" else attend_flash(qkv, layout)

    with ExitStack() as changes:
        changes.enter_context(patch("gpt2_scratch.model.attend", attend))
        changes.enter_context(patch("torch.nn.utils.clip_grad._has_foreach_support", lambda tensors, device: True))
        changes.enter_context(patch("torch.get_num_threads", lambda: 1))  # a CPU's threads take a micro-batch each
        changes.enter_context(patch.object(nn.Module, "to", lambda model, *_, **__: model))
        yield FakeTensorMode(allow_non_fake_inputs=True)
