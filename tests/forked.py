"""A script in a process of its own that need not import what it uses again, which takes longer than a small run.

The processes are forked from a server that has imported tests/preloaded.py and run nothing. A script that finds
another copy of a part of the project, beside itself or on its PYTHONPATH, imports what it finds.
"""

import atexit
import gc
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import chdir
from functools import cache
from getpass import getuser
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import NoReturn

ROOT = Path(__file__).parent.parent
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.preloaded"])
outside = list[object]()  # addresses beyond this machine that were reached for


def keep_to_loopback() -> None:
    """A connection of this process to anywhere but this machine fails the test that tries it."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            outside.append(address)
            raise AssertionError(f"a test reached for the network: {address}")
        return connect(self, address)

    socket.socket.connect = guarded


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@cache
def start_server() -> None:
    """Starts the process that forks in the root folder, where it finds the project."""
    with chdir(ROOT):
        forkserver.ensure_running()


def forget_project_for(folders: Sequence[str]) -> None:
    """Makes a script import the project, whose modules the server has imported, where one of the folders that it
    searches is outside the checkout and has a part of another copy."""
    own = {path.name for path in ROOT.iterdir() if path.is_dir()}
    outside = [path for folder in folders if not (path := Path(ROOT, folder)).is_relative_to(ROOT)]
    if any((folder / name).is_dir() for folder in outside for name in own):
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]


def become(words: Sequence[str], env: Mapping[str, str], output: Path, largest_file: int | None) -> NoReturn:
    """What `python WORDS` does, with its output in two files. No file can grow beyond `largest_file` bytes."""
    gc.freeze()  # else each collection goes through all objects of the libraries, and copies their pages
    os.chdir(ROOT)
    keep_to_loopback()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in the background
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    os.environ.clear()
    os.environ.update(env)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    # The project is compiled once for all runs, outside the checkout.
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(gettempdir()) / f"pycache-of-{getuser()}")
    sys.argv, search = [*words], [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [str(Path(words[0]).parent), *search]
    forget_project_for(sys.path[: 1 + len(search)])
    status = 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ending:
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    if outside:  # the script may have swallowed the error
        print(f"the test reached for the network: {outside}", file=sys.stderr)
        status = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def start_forked(
    words: Sequence[object], output: Path, processes: int = 1, largest_file: int | None = None, **changed: str
) -> list[ForkServerProcess]:
    """The script in the root folder and a changed environment, in as many processes as torchrun would start.

    What a library reads of the environment while it is imported is as it was at the first call.
    """
    start_server()
    words, env = [*map(str, words)], os.environ | changed
    ranks: list[dict[str, str]] = [{}]
    if processes > 1:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        ranks = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    started = [_forks.Process(target=become, args=(words, env | rank, output, largest_file)) for rank in ranks]
    for process in started:
        process.start()
    return started


def run_forked(
    words: Sequence[object],
    timeout: float = 300,
    processes: int = 1,
    largest_file: int | None = None,
    **changed: str,
) -> subprocess.CompletedProcess[str]:
    """Like subprocess.run([sys.executable, *words]), with what it said as text. Where one of the processes fails, the
    others are ended."""
    with TemporaryDirectory() as output:
        started = start_forked(words, Path(output), processes, largest_file, **changed)
        deadline, status = time.monotonic() + timeout, 0
        while running := [process for process in started if process.exitcode is None]:
            ended = wait([process.sentinel for process in running], max(0, deadline - time.monotonic()))
            status = next((process.exitcode for process in started if process.exitcode), 0)
            if status or not ended:
                for process in running:
                    process.kill()
                    process.join()
            if not ended:
                raise subprocess.TimeoutExpired([*words], timeout)
        said = [(Path(output) / name).read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess([*words], status, *said)
