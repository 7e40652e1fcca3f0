"""Records the tensors that operations make and free: they run on torch's fake tensors, which have a shape but no
numbers and no memory.

What a kernel allocates and frees by itself is not seen.
"""

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt2_scratch.linear import LINE
from lora.quantised import QuantisedLinear

END = 0  # the token that ends a text generated on fake tensors
CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
ALIGNMENT = {"cpu": 64, "cuda": 512}  # bytes, of torch's allocators
# Operations of bitsandbytes that on a CPU consist of torch's, each of which makes a tensor.
IN_PARTS = ("bitsandbytes::optimizer_update", "bitsandbytes::quantize_4bit", "bitsandbytes::int8_vectorwise_quant")
# Operations on lists, such as an optimizer's: what is at one place of each belongs together.
OF_LISTS = ("aten::_foreach", "aten::_fused")
CODES = (torch.uint8, torch.int8)  # the types of quantised numbers, and of nothing else in a model


@dataclass(eq=False, slots=True)
class Made:
    """A tensor: its kind, the bytes of a copy, and how many copies are made. It is of the block that it was made in,
    else of the one whose tensors it was made from or that it serves first; of none where there are several."""

    kind: str
    size: int
    copies: int
    block: int | None


class Event(NamedTuple):
    """A tensor is made, freed, or kept: once, as another kind. `block` is the one that runs meanwhile, if any does."""

    action: Literal["make", "free", "keep"]
    tensor: Made
    block: int | None
    kind: str = ""

    @property
    def place(self) -> int | None:
        """The block that the event belongs to."""
        return self.tensor.block if self.block is None else self.block


class Meter(TorchDispatchMode):
    """Records all tensors that operations make, when each is made and when it is freed.

    Floating-point and quantised tensors are fake; integers, on which shapes depend, are computed.
    """

    def __init__(self, vocabulary: int, alignment: int, heard: Callable[[Event], None] | None = None) -> None:
        super().__init__()
        self.heard = heard  # is told of each event while what made it is there
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.vocabulary, self.alignment = vocabulary, alignment
        self.kind = "activations"  # the kind of the tensors made now
        self.copies = 1  # how many threads make such tensors at the same time
        self.block: int | None = None  # the one that runs
        self.events: list[Event] = []
        self.known: dict[int, Made] = {}  # by storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):  # two calls in three
            return args[0].fake_device
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = self._run(func, args, kwargs or {}, given)
        fresh = [x for x in tree_leaves(made) if isinstance(x, Tensor) and self._is_new(x)]
        blocks = self._blocks_of(func, args, given, len(fresh))
        for tensor, block in zip(fresh, blocks, strict=True):
            self._count(tensor, block)
        return made

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        fake = self.fake.__torch_dispatch__  # called, since to enter the mode for each operation takes a third longer
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

    def _is_new(self, tensor: Tensor) -> bool:
        return tensor.device.type != "meta" and tensor.untyped_storage()._cdata not in self.known

    def _block_of(self, given: Sequence[Tensor], block: int | None) -> int | None:
        """Returns the block of what is made from `given` tensors: the one that runs, else the one that they, or the
        weights among them, are of, if that is one. Other tensors that are of none yet become its own."""
        known = [self.known.get(tensor.untyped_storage()._cdata) for tensor in given]
        made = [tensor for tensor in known if tensor is not None]
        if block is None:
            owned = [tensor for tensor in made if tensor.block is not None]
            weights = [tensor for tensor in owned if tensor.kind.endswith("weights")]
            blocks = {tensor.block for tensor in weights or owned}
            block = blocks.pop() if len(blocks) == 1 else None
        for tensor in made:
            if tensor.block is None and not tensor.kind.endswith("weights"):
                tensor.block = block
        return block

    def _blocks_of(self, func: Any, args: Any, given: list[Tensor], count: int) -> list[int | None]:
        """Returns the blocks of the `count` tensors that an operation makes."""
        if self.block is None and func.name().startswith(OF_LISTS):
            rows = zip_longest(*(x for x in args if isinstance(x, list)))
            blocks = [self._block_of([x for x in row if isinstance(x, Tensor)], None) for row in rows]
            return blocks if len(blocks) == count else [None] * count
        return [self._block_of(given, self.block)] * count

    def _count(self, tensor: Tensor, block: int | None) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self.known:  # an operation may return a tensor and views of it
            return
        logits = tensor.dim() == 2 and self.vocabulary <= tensor.shape[1] < self.vocabulary + LINE
        size = -(-storage.nbytes() // self.alignment) * self.alignment
        made = Made("logits" if logits else self.kind, size, self.copies, block)
        self.known[storage._cdata] = made
        self._add(Event("make", made, self.block))
        weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, place: int) -> None:
        self._add(Event("free", self.known.pop(place), self.block))

    def _add(self, event: Event) -> None:
        self.events.append(event)
        if self.heard:
            self.heard(event)

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
        self._add(Event("keep", self.known[tensor.untyped_storage()._cdata], self.block, kind))

    def enter(self, block: int | None) -> None:
        """What is made and freed from here on is of `block`, until another one is entered."""
        self.block = block

    def shapes_of(self, model: Any, device: torch.device) -> Any:
        """Returns a copy of `model` in fake tensors on `device`; shared tensors stay shared."""
        codes = {id(p) for m in model.modules() if isinstance(m, QuantisedLinear) for p in m.stored()}
        tensors = [t for t in [*model.parameters(), *model.buffers()] if id(t) not in codes]
        block_of = {id(x): i for i, b in enumerate(model.transformer.h) for x in (*b.parameters(), *b.buffers())}
        made: dict[int, Any] = {}
        for dtype in (torch.float32, None):  # read as fp32, then converted where it is held in half precision
            for tensor in tensors:
                if dtype is None and tensor.dtype == made[id(tensor)].dtype:
                    continue
                self.enter(block_of.get(id(tensor)))
                with self.counting("trained weights" if tensor.requires_grad else "frozen weights"):
                    fake = torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device=device)
                trained = tensor.requires_grad
                made[id(tensor)] = nn.Parameter(fake, trained) if isinstance(tensor, nn.Parameter) else fake
        fakes = [x for x in made.values() if x.requires_grad]
        built = copy.deepcopy(model, made | dict.fromkeys(codes))
        with self.counting("frozen weights"):
            for i, block in enumerate(built.transformer.h):
                self.enter(i)
                for layer in block.modules():
                    if isinstance(layer, QuantisedLinear):
                        layer.store(torch.empty(layer.out_features, layer.in_features, device=device))
        self.enter(None)
        for parameter in fakes:
            parameter.register_post_accumulate_grad_hook(lambda p: self.keep(p.grad, "gradients"))
        return built
