"""Saves and loads what several processes hold together, through torch.distributed.checkpoint, for any number of them.

All processes call these functions, with the same names in `state`, and must see the same folder.
"""

from pathlib import Path
from typing import Any

from training.storage.files import beside, explained, replace_folder


def save_shards(folder: Path, state: dict[str, Any]) -> None:
    """Lets each process write its shares of the DTensors in `state`, and one of them what all have, to a new folder,
    which takes the place of `folder` when it is whole. Raises OSError when there is no room."""
    from torch import distributed
    from torch.distributed.checkpoint import save
    from torch.distributed.checkpoint.api import CheckpointException

    def write(new: Path) -> None:
        distributed.barrier()  # until the folder is there
        try:
            save(state, checkpoint_id=new)
        except CheckpointException as error:
            (reason, _), *_ = error.failures.values()
            raise reason if isinstance(reason, OSError) else OSError(str(reason)) from error

    if distributed.get_rank() == 0:
        replace_folder(folder, write)
    else:
        with explained(folder):
            write(beside(folder, "new"))
    distributed.barrier()


def load_shards(folder: Path, state: dict[str, Any]) -> None:
    """Fills the tensors of `state` from `folder`, whose writers may have been fewer or more.

    Raises ValueError if it is damaged.
    """
    from torch.distributed.checkpoint import load
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        load(state, checkpoint_id=folder)
    except CheckpointException as error:
        (reason, _), *_ = error.failures.values()
        raise ValueError(f"--resume: {folder} is damaged ({reason}); start again with --overwrite") from error
