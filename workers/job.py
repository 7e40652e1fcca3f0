"""A job is a command that leaves a run folder. An engine runs many; the caller decides what a failure means."""

import shlex
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, Self

LINES = 20  # of the log that are shown after a failure


class Job(NamedTuple):
    """`folder` is that of the run, which has results.json once the run is finished. `words` are the script and its
    flags as they follow `python`, with --output-dir and --resume. `memory_mib` forecasts its peak; 0: unknown."""

    folder: Path
    words: tuple[str, ...]
    memory_mib: float = 0.0

    @property
    def log(self) -> Path:
        return self.folder.with_name(self.folder.name + ".log")


class Done(NamedTuple):
    """`status` is the exit status, negative for the signal that ended the process."""

    job: Job
    status: int
    seconds: float


class Workers(Protocol):
    """Leaving the context stops all processes. `count` jobs run at a time."""

    count: int

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None: ...

    def run(self, jobs: Iterable[Job | None], on_one: bool = False) -> Generator[Done, None, None]:
        """Starts the jobs in order and yields them in the order in which they finish, failed ones too. With `on_one`
        they go to the one machine that all go to of whom that is asked, if it is free, so that times can be compared.

        The next job is asked for when there is room for it; None says that there is none before another one has ended.
        Whoever leaves the iterator early stops the jobs that still run, as Ctrl-C would: they keep their checkpoints.
        """
        ...


def failure_text(job: Job, status: int) -> str:
    """Returns the end of the log, with the command, and the signal that ended it, in the last line."""
    ended = f"ended by signal {-status}" if status < 0 else "failed"
    tail = job.log.read_text(errors="replace").splitlines()[-LINES:] if job.log.exists() else []
    return "\n".join([*tail, f"{ended}: python {shlex.join(job.words)} (log: {job.log})"])
