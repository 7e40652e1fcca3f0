"""What the processes of one run tell each other."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

T = TypeVar("T")


def from_main(accelerator: Accelerator, read: Callable[[], T]) -> T:
    """The value that `read` returns on the main process, on all processes: hosts need not share a disk."""
    content = [read() if accelerator.is_main_process else None]
    if accelerator.num_processes > 1:
        broadcast_object_list(content)
    return content[0]  # type: ignore[return-value]


def check_same(accelerator: Accelerator, identity: dict[str, str]) -> None:
    """Raises ValueError when a process has read other data or weights: hosts have disks of their own."""
    if accelerator.num_processes > 1:
        everyone = gather_object([identity])
        differing = {name for other in everyone for name in identity if other[name] != everyone[0][name]}
        if differing:
            raise ValueError(f"the processes do not have the same {', '.join(sorted(differing))}; copy the files again")
