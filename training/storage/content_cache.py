"""Files in folders named by a hash of all that the content depends on, written once for every later run."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from training.storage.files import beside, replace_file, where_locks_are
from training.storage.run_folder import nearest


def content_key(facts: tuple[Any, ...], digests: Iterable[bytes] = ()) -> str:
    """Returns 128 bits of the sha256 of `facts` and the digests."""
    return hashlib.sha256(repr(facts).encode() + b"".join(digests)).hexdigest()[:32]


@dataclass(frozen=True)
class CachedFile:
    """A file of `size` bytes in `folder`, the value of --cache-dir."""

    folder: Path
    key: str
    name: str
    size: int

    @property
    def path(self) -> Path:
        return self.folder / self.key / self.name

    @property
    def complete(self) -> bool:
        """Whether the file has its full size; one of another size counts as none, and is written again."""
        return self.path.is_file() and self.path.stat().st_size == self.size

    def numbers(self) -> np.ndarray | None:
        """Returns the content, if it is there, as numbers in fp64."""
        return np.fromfile(self.path) if self.complete else None

    def space(self) -> tuple[int, int]:
        """Returns the bytes needed for the file and those free; what a killed run left is written over."""
        left = beside(self.path, "new")
        return self.size - (left.stat().st_size if left.exists() else 0), shutil.disk_usage(nearest(self.path)).free

    def write(self, chunks: Iterable[Any]) -> None:
        """Writes `chunks` (bytes or buffers) one after the other, unless the file is complete.

        The process that comes first writes, and all others wait for it, even for hours. When the disk is full, it
        raises OSError and leaves no part of the file.
        """

        def fill(new: Path) -> None:
            with open(new, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path.with_name("lock"))  # the system releases it when the process is killed
            with where_locks_are():
                lock.acquire()
            try:
                if self.complete:
                    return
                place = self.path if lock.is_locked else self.path.with_name(f"{self.name}.{os.getpid()}")
                replace_file(place, fill)  # without locks each process fills a file of its own
                os.replace(place, self.path)
            finally:
                lock.release()
        except OSError as error:
            raise OSError(f"--cache-dir {self.folder}: {error}") from error
