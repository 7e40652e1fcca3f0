"""Keeps replies.jsonl: every reply that was paid for, one per line, synced to the disk as soon as it arrives."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from training.flags.cli import flag
from training.storage.files import where_locks_are

Key = tuple[Any, ...]
REPLIES = "replies.jsonl"
KEY = ("item", "repeat", "order", "prompt_sha256", "model")


def read_replies(path: Path) -> tuple[dict[Key, dict[str, Any]], int]:
    """Returns the replies by question, and how many bytes are whole lines; a last line torn by a kill is left out.
    Raises ValueError for another line that is not a reply."""
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    found: dict[Key, dict[str, Any]] = {}
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
        try:
            reply = json.loads(line)
            found[tuple(reply[name] for name in KEY)] = reply
            reply["value"], reply["missing"], reply["settings"].get
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: line {number} is not a reply; move the file away or mend it") from error
    return found, whole


def other_settings(replies: Iterable[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[str]:
    """Lists the flags with which stored replies were asked differently, since their mean would mix two judges."""
    differing = {
        (name, str(reply["settings"].get(name)), str(value))
        for reply in replies
        for name, value in settings.items()
        if reply["settings"].get(name) != value
    }
    return [
        f"{flag(name)} {now}: stored replies to these questions were asked with {then}; choose another --output-dir"
        for name, then, now in sorted(differing)
    ]


class Store:
    """The replies in a file, by question. Only one process may have it open.

    Raises ValueError for a line that is not a reply or a file that another process works on, OSError for a full disk. A
    last line that was torn by a kill is dropped: its reply never counted as stored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(path.with_name(f".{path.name}.lock"))  # released by the system when the process is killed
        try:
            with where_locks_are():
                self.lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"{path}: another process is asking for these replies; wait for it or stop it") from error
        self.file = open(path, "a+b", buffering=0)  # noqa: SIM115 (open as long as the run)
        try:
            self.replies, whole = read_replies(path)
        except ValueError:
            self.close()
            raise
        if whole < self.file.seek(0, os.SEEK_END):
            self.file.truncate(whole)

    def add(self, reply: dict[str, Any]) -> None:
        """Returns once the line is on the disk. Raises OSError, with the file as it was, if there is no room."""
        text = json.dumps(reply, ensure_ascii=False)
        line = text.encode(errors="backslashreplace") + b"\n"  # half a character, \ud83d, reads back the same
        size = self.file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self.file.write(rest) :]
            os.fsync(self.file.fileno())
        except OSError as error:
            self.file.truncate(size)
            raise OSError(
                f"{self.path} could not be written ({error.strerror}); the replies before are in it. "
                "Make room; the same command then goes on from there"
            ) from error
        self.replies[tuple(reply[name] for name in KEY)] = reply

    def close(self) -> None:
        self.file.close()
        self.lock.release()
