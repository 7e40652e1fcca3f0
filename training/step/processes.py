"""Communication between the processes of one run."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list, gather_object, recursively_apply
from torch import Tensor, nn

T = TypeVar("T")


def from_main(accelerator: Accelerator, read: Callable[[], T]) -> T:
    """Returns on all processes what `read` returns on the main process: hosts need not share a disk.

    Tensors in it travel one at a time, and arrive in the CPU's memory. Pickled together they would all be on every GPU
    at once, and those that come from a GPU would stay on the first GPU of each host.
    """
    content = read() if accelerator.is_main_process else None
    if accelerator.num_processes == 1:
        return content  # type: ignore[return-value]
    shapes = [recursively_apply(lambda tensor: tensor.to("meta"), content)]
    broadcast_object_list(shapes)

    def travel(tensor: Tensor) -> Tensor:
        arrives = tensor.is_meta
        moved = torch.empty(tensor.shape, dtype=tensor.dtype) if arrives else tensor.detach()
        broadcast(moved := moved.to(accelerator.device).contiguous())
        return moved.cpu() if arrives else tensor

    return recursively_apply(travel, content if accelerator.is_main_process else shapes[0])


def part(accelerator: Accelerator, *prepared: nn.Module) -> None:
    """Parts the processes, once all of them have got here. `prepared` is trained no more.

    gloo's worker thread needs Python's lock to release the tensors of the last collective. At the end of the
    interpreter it cannot get it and crashes (pytorch issue 190489), so the group is destroyed before. If DDP's reducer
    or logger were the last to hold the group, it would be destroyed under that lock and wait for the thread forever, so
    they go first.
    """
    accelerator.wait_for_everyone()
    for model in prepared:
        for name in ("reducer", "logger"):
            vars(model).pop(name, None)
    accelerator.state.destroy_process_group()


def check_same(accelerator: Accelerator, identity: dict[str, str]) -> None:
    """Raises ValueError when a process has read other data or weights, since hosts have disks of their own."""
    if accelerator.num_processes > 1:
        everyone = gather_object([identity])
        differing = {name for other in everyone for name in identity if other[name] != everyone[0][name]}
        if differing:
            raise ValueError(f"the processes do not have the same {', '.join(sorted(differing))}; copy the files again")


def check_seen(accelerator: Accelerator, folder: Path) -> None:
    """Raises ValueError on all processes when one does not see the folder that it has to save its share in."""
    accelerator.wait_for_everyone()
    if not all(gather_object([folder.is_dir()])):
        raise ValueError(f"--output-dir {folder}: with FSDP it must be on a disk that all hosts share")
