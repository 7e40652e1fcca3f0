"""Keeps a run from ending where nobody can read its messages: stderr is closed, or the disk of its log is full."""

import os
import sys
from typing import Any


class Lenient:
    """A stream that loses what cannot be written. A closed pipe is an error, since then nobody reads at all."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except BrokenPipeError:
            raise
        except OSError:
            pass
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            pass


def be_lenient() -> None:
    """Replaces sys.stderr, which Python leaves out where it was closed (2>&-)."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open to the end
    if not isinstance(sys.stderr, Lenient):
        sys.stderr = Lenient(sys.stderr)  # type: ignore[assignment]
