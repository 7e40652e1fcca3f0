"""Runs jobs on this machine, in forks of one child process that has imported the libraries.

That process is a child because it must set the number of threads before anything heavy is imported, and because threads
of the caller would not survive a fork.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterable, Sequence
from functools import cached_property
from itertools import count
from typing import Any, Self

from training.run.cores import free_bytes, usable_cores
from workers.job import Done, Job, Workers

HEAVY = ["torch", "accelerate", "transformers", "datasets", "evaluate", "sklearn.metrics", "scipy.stats", "tiktoken"]
HEAVY += ["safetensors.torch", "torch.utils.tensorboard", "torch._dynamo", "matplotlib.figure", "tyro"]
HEAVY += ["matplotlib.backends.backend_agg"]


def gpu_mib(what: str = "total", visible: str | None = None) -> list[float]:
    """Returns the memory of each NVIDIA GPU here, or what of it is `free`; `visible` limits them as
    CUDA_VISIBLE_DEVICES does."""
    if not (smi := shutil.which("nvidia-smi")):
        return []
    words = [smi, f"--query-gpu=memory.{what}", "--format=csv,noheader,nounits"]
    if visible is not None and visible.strip() in ("", "-1"):
        return []
    words += [f"--id={visible}"] if visible else []
    told = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return [float(line) for line in told.split() if line.isdigit()]


def free_mib() -> float:
    """Returns the free memory of the first GPU, which all jobs share, or of the machine where there is none."""
    return next(iter(gpu_mib("free", os.environ.get("CUDA_VISIBLE_DEVICES"))), free_bytes() / 2**20)


def fitting(memory_mib: float, threads: int = 1) -> int:
    """Returns how many jobs of that forecast fit into the free memory at a time, at most one for `threads` cores."""
    cores = usable_cores()
    fits = free_mib() / memory_mib if memory_mib else cores
    return max(1, min(int(fits), cores // threads))


class Local:
    def __init__(self, workers: int, threads: int, libraries: Sequence[str] = HEAVY) -> None:
        if not hasattr(os, "fork"):
            raise ValueError(
                "many runs are made in forks of one process, which Windows lacks; use WSL 2, or make each run"
            )
        self.count, self.threads, self.libraries = workers, threads, libraries
        self.read = b""

    @cached_property
    def server(self) -> subprocess.Popen[bytes]:
        """Starts with the first job, since imports take seconds."""
        # Asked in another way, whether there is a GPU would make it unusable in forks.
        env = os.environ | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        env |= {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        words, pipe = [sys.executable, "-m", "workers.warm", *self.libraries], subprocess.PIPE
        # A group of its own, so that Ctrl-C in a terminal reaches the runs once, through this process.
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, env=env, process_group=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        if "server" not in vars(self):
            return
        assert self.server.stdin and self.server.stdout
        try:
            with contextlib.suppress(BrokenPipeError):
                self.server.stdin.close()
            self.server.wait()
        finally:  # after another Ctrl-C, or where the server has been killed, its group has members left
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
            self.server.stdout.close()

    def run(self, jobs: Iterable[Job | None], on_one: bool = False) -> Generator[Done, None, None]:
        coming, numbers, running = iter(jobs), count(), dict[int, Job]()
        try:
            while True:
                while len(running) < self.count and (job := next(coming, None)):
                    running[number := next(numbers)] = job
                    self._tell({"id": number, "log": str(job.log), "words": job.words})
                if not running:
                    return
                told = self._answer()
                yield Done(running.pop(told["id"]), told["status"], told["seconds"])
        finally:
            if running and self.server.poll() is None:
                self._tell(None)
                while self._answer() is not None:
                    pass

    def _tell(self, message: object) -> None:
        assert self.server.stdin
        with contextlib.suppress(BrokenPipeError):  # `_answer` says what has happened
            self.server.stdin.write(json.dumps(message).encode() + b"\n")
            self.server.stdin.flush()

    def _answer(self) -> Any:
        """Waits for the next line of the server. Raises ChildProcessError when it has died.

        Wakes every second, because an interrupt that comes from Ray waits for Python to make a step.
        """
        assert self.server.stdout
        while b"\n" not in self.read:
            if select.select([self.server.stdout], [], [], 1)[0]:
                chunk = os.read(self.server.stdout.fileno(), 65536)
                if not chunk:
                    status = self.server.wait()
                    fewer = "; memory may have run out: give fewer --workers or JOBS" * (status == -signal.SIGKILL)
                    ended = f"the process that starts the runs ended with status {status}{fewer}"
                    raise ChildProcessError(f"{ended}; the same command goes on where it was")
                self.read += chunk
        line, _, self.read = self.read.partition(b"\n")
        return json.loads(line)


def local(workers: int, threads: int = 1) -> Workers:
    """Runs up to `workers` jobs at a time on this machine, each with so many threads."""
    return Local(workers, threads)
