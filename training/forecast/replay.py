"""Counts what recorded tensors take: their bytes, and on a CPU what the process takes from the machine for them.

That is what the allocator ever touched, which is more than what was alive at once: a freed block serves the next tensor
only if that one fits. Hence each tensor gets a real block that nobody writes to: the gaps are the allocator's own.
"""

import ctypes
import os
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable

from training.forecast.meter import Event, Made
from training.run.launch import LARGEST_KEPT

PAGE = 4096
ALIGNMENT = {"cpu": 64, "cuda": 512}  # bytes, of torch's allocators


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
        self.touched = 0  # bytes that the process has from the system

    def take(self, size: int) -> int | None:
        """Allocates a block and returns its address; None for one that is not in the heap."""
        address = self._block(size) if size < LARGEST_KEPT else None
        if address is None:
            self.touched += -(-size // PAGE) * PAGE
        return address

    def _block(self, size: int) -> int | None:
        address = ctypes.c_void_p()
        if self.libc.posix_memalign(ctypes.byref(address), ALIGNMENT["cpu"], size) != 0 or address.value is None:
            return None
        self._touch(address.value // PAGE * PAGE, -(-(address.value + size) // PAGE) * PAGE)
        return address.value

    def give(self, address: int | None, size: int) -> None:
        if address is None:
            self.touched -= -(-size // PAGE) * PAGE
        else:
            self.libc.free(address)

    def _touch(self, start: int, end: int) -> None:
        first, beyond = bisect_left(self.ends, start), bisect_right(self.starts, end)
        if first < beyond:
            start, end = min(start, self.starts[first]), max(end, self.ends[beyond - 1])
        self.touched += end - start + sum(self.starts[first:beyond]) - sum(self.ends[first:beyond])
        self.starts[first:beyond], self.ends[first:beyond] = [start], [end]


def can_take_blocks() -> bool:
    """Returns whether there is glibc, and no limit on addresses (`ulimit -v`), which the blocks would use up."""
    if os.name != "posix" or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


class Replay:
    """Counts the tensors of events that are played one after the other: the bytes by kind that are `live`, those that
    were when they were most (`largest`), and the most that the heap, if there is one, has touched."""

    def __init__(self, heap: Heap | None = None) -> None:
        self.heap, self.touched = heap, 0
        self.live, self.largest = Counter[str](), Counter[str]()
        self.held: dict[Made, tuple[str, list[int | None]]] = {}  # kind, and the block of each copy in the heap

    def play(self, events: Iterable[Event]) -> None:
        for event in events:
            self.play_one(event)

    def play_one(self, event: Event) -> None:
        action, tensor, _, kind = event
        if action == "make":
            self._hold(tensor, tensor.kind, [self._take(tensor.size) for _ in range(tensor.copies)])
            return
        before, blocks = self.held.pop(tensor, ("", []))  # nothing is left after the end
        self.live[before] -= tensor.size * len(blocks)
        left = blocks[:1] if action == "keep" else []
        self._give(tensor.size, blocks[len(left) :])
        if left:
            self._hold(tensor, kind, left)

    def _hold(self, tensor: Made, kind: str, blocks: list[int | None]) -> None:
        self.held[tensor] = kind, blocks
        self.live[kind] += tensor.size * len(blocks)
        if self.live.total() > self.largest.total():
            self.largest = self.live.copy()
        if self.heap:
            self.touched = max(self.touched, self.heap.touched)

    def _take(self, size: int) -> int | None:
        return self.heap.take(size) if self.heap and size else None

    def _give(self, size: int, blocks: Iterable[int | None]) -> None:
        for block in blocks:
            if self.heap and size:
                self.heap.give(block, size)

    def end(self) -> None:
        """Gives back the blocks of all that is left."""
        for tensor, (_, blocks) in self.held.items():
            self._give(tensor.size, blocks)
        self.held.clear()


def replayed(parts: Iterable[Iterable[Event]], heap: Heap | None = None) -> Replay:
    """Returns the replay of all parts, which has given back its blocks."""
    replay = Replay(heap)
    for events in parts:
        replay.play(events)
    replay.end()
    return replay
