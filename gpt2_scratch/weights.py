"""Reads and writes the tensors of a base in Hugging Face's format: one file or several, safetensors' or torch's."""

import hashlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt2_scratch.sources import WEIGHTS, refuse_pointer, shards

AGAIN = "copy or download it again"


def has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHTS)


def weight_files(folder: Path) -> list[Path]:
    """Returns the file or files with the weights. Raises ValueError if there is none, or one of several is missing."""
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ValueError(f"{folder} holds no weights ({WEIGHTS[0]}, {WEIGHTS[2]} or an index of several)")
    names = shards(found) or [found.name]
    if lost := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(f"{folder}: {lost[0]} is missing, one of {len(lost)} of {len(names)} weight files; {AGAIN}")
    for name in names:
        refuse_pointer(folder / name)
    return [folder / name for name in names]


@cache
def weights_hash(folder: Path) -> str:
    """Returns the identity of a base model, whatever its name: sha256 of its weight file, or of several files' sums."""
    sums = []
    for path in weight_files(folder):
        with open(path, "rb") as file:
            sums.append(hashlib.file_digest(file, "sha256").hexdigest())
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def _pickled(path: Path) -> Mapping[str, Tensor]:
    """Reads what torch.save wrote, without running code from the file. Raises ValueError for anything else."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} cannot be read as weights: it holds a whole pickled model or other code, which is not run; save "
            "the model with transformers' save_pretrained, or torch.save(model.state_dict(), ...)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as weights: it is damaged or not torch's; {AGAIN}") from error
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"{path} holds no table of tensors; save the model with transformers' save_pretrained")
    return found


def _keys_of(path: Path) -> list[str]:
    if path.suffix != ".safetensors":
        return list(_pickled(path))
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); {AGAIN}") from error


def keys(folder: Path) -> dict[str, Path]:
    """Returns each tensor's name and file, `wte.weight` first, so that a tied head can be compared with it."""
    found = {key: path for path in weight_files(folder) for key in _keys_of(path)}
    return dict(sorted(found.items(), key=lambda item: (not item[0].endswith("wte.weight"), item[1], item[0])))


def tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yields (key, tensor) of all weights, in the order of `keys`.

    A safetensors file is mapped anew for each tensor: what was read of a mapped one stays in memory until it is closed.
    """
    held: tuple[Path | None, Mapping[str, Tensor]] = None, {}
    for key, path in keys(folder).items():
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensor = file.get_tensor(key)
        else:
            held = held if held[0] == path else (path, _pickled(path))
            tensor = held[1][key]
        yield key, tensor


def read_tensor(folder: Path, *names: str) -> Tensor:
    """Returns the tensor with the first of `names` that the weights have. Raises ValueError when they have none."""
    known = keys(folder)
    name = next((name for name in names if name in known), None)
    if name is None:
        raise ValueError(f"the weights in {folder} have no {names[0]}")
    if known[name].suffix != ".safetensors":
        return _pickled(known[name])[name]
    with safe_open(known[name], "pt") as file:
        return file.get_tensor(name)


def write_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
    """Writes safetensors, with the mode that any new file gets here. Raises OSError when the disk is full."""
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(state, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)  # safetensors writes a private file
