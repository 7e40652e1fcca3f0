"""Counts the tensors that are alive: operations run on torch's fake tensors, which have a shape but no numbers and no
memory.

On a CPU, a process takes from the machine what its allocator ever touched, which is more than what was alive at once: a
freed block serves the next tensor only if that one fits. Hence each fake tensor gets a real block that nobody writes
to, so that the gaps are the allocator's own. What a kernel allocates and frees by itself is not seen.
"""

import copy
import ctypes
import os
import weakref
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt2_scratch.linear import LINE
from lora.quantised import QuantisedLinear
from training.run.launch import LARGEST_KEPT

PAGE = 4096
END = 0  # the token that ends a text generated on fake tensors
CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
ALIGNMENT = {"cpu": 64, "cuda": 512}  # bytes, of torch's allocators
# Operations of bitsandbytes that on a CPU consist of torch's, each of which makes a tensor.
IN_PARTS = ("bitsandbytes::optimizer_update", "bitsandbytes::quantize_4bit", "bitsandbytes::int8_vectorwise_quant")
CODES = (torch.uint8, torch.int8)  # the types of quantised numbers, and of nothing else in a model


class Heap:
    """Counts the pages that blocks take in glibc's heap; the blocks are allocated, and never written to.

    Touched pages stay, except those of blocks too large for the heap (training/run/launch.py), which come and go.
    """

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None)
        self.libc.free.argtypes = [ctypes.c_void_p]
        self.libc.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
        self.starts: list[int] = []  # of the touched ranges of addresses, disjoint and in order
        self.ends: list[int] = []
        self.apart = 0  # bytes of blocks that are too large, or could not be allocated

    def take(self, size: int) -> int | None:
        """Allocates a block and returns its address; None for one that is counted in `apart`."""
        address = self._block(size) if size < LARGEST_KEPT else None
        if address is None:
            self.apart += -(-size // PAGE) * PAGE
        return address

    def _block(self, size: int) -> int | None:
        address = ctypes.c_void_p()
        if self.libc.posix_memalign(ctypes.byref(address), ALIGNMENT["cpu"], size) != 0 or address.value is None:
            return None
        self._touch(address.value // PAGE * PAGE, -(-(address.value + size) // PAGE) * PAGE)
        return address.value

    def give(self, address: int | None, size: int) -> None:
        if address is None:
            self.apart -= -(-size // PAGE) * PAGE
        else:
            self.libc.free(address)

    def _touch(self, start: int, end: int) -> None:
        first, beyond = bisect_left(self.ends, start), bisect_right(self.starts, end)
        if first < beyond:
            start, end = min(start, self.starts[first]), max(end, self.ends[beyond - 1])
        self.starts[first:beyond], self.ends[first:beyond] = [start], [end]

    @property
    def touched(self) -> int:
        """The bytes that the process has from the system."""
        return sum(self.ends) - sum(self.starts) + self.apart


def can_take_blocks() -> bool:
    """Returns whether there is glibc, and no limit on addresses (`ulimit -v`), which the blocks would use up."""
    if os.name != "posix" or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


@dataclass
class Stage:
    """A part of a run: the bytes of tensors by kind when they were most, and the most that the heap had touched."""

    parts: Counter[str] = field(default_factory=Counter)
    touched: int = 0


def largest(stages: Iterable[Stage]) -> Counter[str]:
    """Returns the bytes of tensors by kind when they are most."""
    return max((stage.parts for stage in stages), key=Counter.total)


class Counted(NamedTuple):
    """A tensor: its kind, the bytes of a copy, how many copies there are, and their blocks of the heap."""

    kind: str
    size: int
    copies: int
    blocks: list[int | None]


class Meter(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, from when each is made until it is freed.

    Floating-point and quantised tensors are fake; integers, on which shapes depend, are computed.
    """

    def __init__(self, vocabulary: int, heap: Heap | None, alignment: int) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.vocabulary, self.heap, self.alignment = vocabulary, heap, alignment
        self.kind = "activations"  # the kind of the tensors made now
        self.live: Counter[str] = Counter()
        self.copies = 1  # how many threads make such tensors at the same time
        self.stages = [Stage()]  # the last one goes on
        self.known: dict[int, Counted] = {}  # by storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = self._run(func, args, kwargs or {})
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return made

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        fake = self.fake.__torch_dispatch__  # called, since to enter the mode for each operation takes a third longer
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if any(isinstance(x, FakeTensor) for x in given):
            if func is torch.ops.aten._local_scalar_dense.default:  # a number is read: all generated texts end
                return 0.0 if given[0].is_floating_point() else END
            if given[0].device.type == "cpu" and func.name().startswith(IN_PARTS):
                with self:
                    return func.redispatch(CPU, *args, **kwargs)
            return fake(func, (), args, kwargs)
        if not given:  # made without other tensors
            made = fake(func, (), args, kwargs)
            if isinstance(made, Tensor) and (made.is_floating_point() or made.dtype in CODES):
                return made
        return func(*args, **kwargs)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self.known or tensor.device.type == "meta":
            return
        logits = tensor.dim() == 2 and self.vocabulary <= tensor.shape[1] < self.vocabulary + LINE
        kind = "logits" if logits else self.kind
        size = -(-storage.nbytes() // self.alignment) * self.alignment
        blocks = [self.heap.take(size) for _ in range(self.copies)] if self.heap and size else []
        self.known[place] = Counted(kind, size, self.copies, blocks)
        weakref.finalize(storage, self._forget, place)
        self.live[kind] += size * self.copies
        stage = self.stages[-1]
        if self.live.total() > stage.parts.total():
            stage.parts = self.live.copy()
        if self.heap:
            stage.touched = max(stage.touched, self.heap.touched)

    def begin_stage(self) -> None:
        self.stages.append(Stage(self.live.copy(), self.heap.touched if self.heap else 0))

    def _forget(self, place: int) -> None:
        kind, size, copies, blocks = self.known.pop(place)
        self.live[kind] -= size * copies
        self._give(blocks, size)

    def _give(self, blocks: list[int | None], size: int) -> None:
        for block in blocks:
            assert self.heap is not None
            self.heap.give(block, size)

    @contextmanager
    def counting(self, kind: str) -> Iterator[None]:
        before, self.kind = self.kind, kind
        yield
        self.kind = before

    @contextmanager
    def side_by_side(self, copies: int) -> Iterator[None]:
        """Counts what is made as often as there are threads that make it: in the worst case all are at their peak."""
        before, self.copies = self.copies, copies
        yield
        self.copies = before

    def keep(self, tensor: Tensor, kind: str) -> None:
        """Counts as `kind`, and once, a tensor that was counted as another kind when it was made."""
        place = tensor.untyped_storage()._cdata
        before, size, copies, blocks = self.known[place]
        self.known[place] = Counted(kind, size, 1, blocks[:1])
        self._give(blocks[1:], size)
        self.live[before] -= size * copies
        self.live[kind] += size

    def shapes_of(self, model: Any, device: torch.device) -> Any:
        """Returns a copy of `model` in fake tensors on `device`; shared tensors stay shared."""
        codes = {id(p) for m in model.modules() if isinstance(m, QuantisedLinear) for p in m.stored()}
        tensors = [t for t in [*model.parameters(), *model.buffers()] if id(t) not in codes]
        made: dict[int, Any] = {}
        for dtype in (torch.float32, None):  # read as fp32, then converted where it is held in half precision
            for tensor in tensors:
                if dtype is None and tensor.dtype == made[id(tensor)].dtype:
                    continue
                with self.counting("trained weights" if tensor.requires_grad else "frozen weights"):
                    fake = torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device=device)
                trained = tensor.requires_grad
                made[id(tensor)] = nn.Parameter(fake, trained) if isinstance(tensor, nn.Parameter) else fake
        fakes = [x for x in made.values() if x.requires_grad]
        built = copy.deepcopy(model, made | dict.fromkeys(codes))
        with self.counting("frozen weights"):
            for layer in built.modules():
                if isinstance(layer, QuantisedLinear):
                    layer.store(torch.empty(layer.out_features, layer.in_features, device=device))
        for parameter in fakes:
            parameter.register_post_accumulate_grad_hook(lambda p: self.keep(p.grad, "gradients"))
        return built
