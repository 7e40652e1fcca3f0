"""What the processes of one run tell each other."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

T = TypeVar("T")


def from_main(accelerator: Accelerator, read: Callable[[], T]) -> T:
    """The value that `read` returns on the main process, on all processes: hosts need not share a disk."""
    content = [read() if accelerator.is_main_process else None]
    if accelerator.num_processes > 1:
        broadcast_object_list(content)
    return content[0]  # type: ignore[return-value]


def part(accelerator: Accelerator, *prepared: nn.Module) -> None:
    """Parts the processes, once none of them has anything left to tell another. `prepared` is trained no more.

    gloo's worker thread needs Python's lock to let go of the tensors of the last collective. At the end of the
    interpreter it gets none and crashes (pytorch issue 190489), so the group is destroyed before. Where DDP's reducer
    or its logger is the last to hold the group, the group is destroyed under that lock and waits for the thread for
    ever, so they go first.
    """
    accelerator.wait_for_everyone()
    for model in prepared:
        for name in ("reducer", "logger"):
            vars(model).pop(name, None)
    accelerator.state.destroy_process_group()


def check_same(accelerator: Accelerator, identity: dict[str, str]) -> None:
    """Raises ValueError when a process has read other data or weights: hosts have disks of their own."""
    if accelerator.num_processes > 1:
        everyone = gather_object([identity])
        differing = {name for other in everyone for name in identity if other[name] != everyone[0][name]}
        if differing:
            raise ValueError(f"the processes do not have the same {', '.join(sorted(differing))}; copy the files again")
