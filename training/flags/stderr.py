"""Keeps a run from ending where nobody can read its messages: stderr is closed, or the disk of its log is full."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _lost() -> Iterator[None]:
    """Loses what cannot be written. A closed pipe is an error, since then nobody reads at all."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass


class Lenient:
    """A stream that loses what cannot be written."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with _lost():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _lost():
            self.stream.flush()


def be_lenient() -> None:
    """Replaces sys.stderr, which Python leaves out where it was closed (2>&-)."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open to the end
    if not isinstance(sys.stderr, Lenient):
        sys.stderr = Lenient(sys.stderr)  # type: ignore[assignment]
