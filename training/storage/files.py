"""Writes files that survive a kill and a full disk: each is written beside the old one, which it then replaces."""

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)  # None: torch and safetensors do not say why
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of some disks of a network
LOCK = ".lock"  # while a process works in a folder


class NoRoom(OSError):
    """The disk is full, or a quota or the largest size of a file is reached."""


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Makes an OSError raised inside say which file could not be written, that nothing is lost, and what to do."""
    try:
        yield
    except OSError as error:
        said = f"{path} could not be written ({error.strerror or error}); what was there before is intact"
        if error.errno in NO_ROOM:
            raise NoRoom(f"{said}; make room") from error
        raise OSError(said) from error


def beside(path: Path, ending: str) -> Path:
    """Returns the place of what is not yet, or no longer, at `path`: a hidden name, which is nobody's own file."""
    return path.with_name(f".{path.name}.{ending}")


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a new file, which takes the place of `path` only when it is whole on the disk."""
    new = beside(path, "new")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(new)
            with open(new, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Does the same for a folder: `write` fills a new one, which replaces the old."""
    new, old = beside(path, "new"), beside(path, "old")
    if old.exists() and not path.exists():  # killed between the two renames below
        old.rename(path)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with explained(path):
            new.mkdir(parents=True)
            write(new)
            if path.exists():
                path.rename(old)
            new.rename(path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def where_locks_are() -> Iterator[None]:
    """Goes on without the lock that is asked for inside where the disk has none."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


@contextlib.contextmanager
def alone(folder: Path, asked: str, who: str) -> Iterator[None]:
    """Makes the folder and keeps other processes out of it, where its disk has locks. Raises ValueError, which begins
    with the flag `asked` and names `who` is in there, or says why nothing can be written."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with where_locks_are():
            lock.acquire()
    except Timeout as error:
        raise ValueError(f"{asked} {folder}: {who} works in it; wait for it, or choose another folder") from error
    except OSError as error:
        raise ValueError(f"{asked} {folder}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        yield
    finally:
        if lock.is_locked:
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8."""
    replace_file(path, lambda new: new.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Writes strict JSON; a number in an object that is not finite is left out, like any missing measurement."""
    write_text(path, json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes each row as a line of JSON."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: _finite(v) for k, v in content.items() if not (isinstance(v, float) and not math.isfinite(v))}
    if isinstance(content, list | tuple):
        return [_finite(v) for v in content]
    return content


def save_tensors(path: Path, tensors: dict[str, "Tensor"]) -> None:
    """Saves tensors. Raises OSError when there is no room."""
    from gpt2_scratch.weights import write_tensors  # here and below: judge/ writes JSON and knows no torch

    write_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def load_tensors(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}); train again or copy it again") from error
