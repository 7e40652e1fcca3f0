"""Forks runs from a process that has imported the heavy libraries, so that none of the runs has to.

local.py starts `python -m workers.warm LIBRARIES`. It reads JSON lines from its standard input: a job (`id`, `log`,
`words`) is started at once, and null stops all that run. It writes a line to its standard output for every job that has
ended (`id`, `status`, `seconds`), and null when all have been stopped. When its input closes, which happens when its
parent dies too, it stops its runs and ends.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def become(words: Sequence[str], log: Path) -> NoReturn:
    """Runs the command in a forked child as `python` would, with its output in the log."""
    signal.set_wakeup_fd(-1)
    for name in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = 0
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
            os.dup2(file, number)
        sys.argv = [*words]
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # the parent's own code must not go on in a child
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Server:
    def __init__(self, answers: int) -> None:
        """`answers` is the descriptor that lines about ended jobs are written to."""
        self.answers = answers
        self.running = dict[int, tuple[int, float]]()  # of a process: the job's id and the time of its start

    def start(self, job: dict[str, object]) -> None:
        child = os.fork()
        if child == 0:
            os.close(self.answers)
            become([str(word) for word in job["words"]], Path(str(job["log"])))  # type: ignore[attr-defined]
        self.running[child] = int(str(job["id"])), time.monotonic()

    def stop(self) -> None:
        """Stops every run, as Ctrl-C would, and waits until all have ended."""
        for child in self.running:
            os.kill(child, signal.SIGINT)
        self.reap(wait=True)

    def reap(self, wait: bool = False) -> None:
        """Tells of the runs that have ended; waits for all of them if asked to."""
        while self.running:
            child, status = os.waitpid(-1, 0 if wait else os.WNOHANG)
            if child == 0:
                return
            if child in self.running:
                name, started = self.running.pop(child)
                done = {"id": name, "status": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}
                self.answer(done)

    def answer(self, line: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent has died, and its runs are being stopped
            os.write(self.answers, json.dumps(line).encode() + b"\n")


def serve(jobs: int, answers: int) -> None:
    """Serves until the descriptor `jobs` is closed at its other end."""
    ended, ends = os.pipe()  # the signal of an ended child arrives here, so that one `select` waits for it and for jobs
    for end in (ended, ends):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(ends, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a run that is stopped while it is forked sees it later
    server, read = Server(answers), b""
    while True:
        ready, _, _ = select.select([jobs, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
        if jobs in ready:
            chunk = os.read(jobs, 65536)
            if not chunk:
                break
            *lines, read = (read + chunk).split(b"\n")
            for job in map(json.loads, lines):
                if job is None:
                    server.stop()
                    server.answer(None)
                else:
                    server.start(job)
        server.reap()
    server.stop()


if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints while it is imported is no answer
    gc.disable()  # a fifth of the time is the search for garbage, and there is none
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # a search for garbage in a run leaves the libraries out, and does not copy their pages
    gc.enable()
    serve(0, answers)
