"""A script in a process of its own that need not import the libraries again, which takes longer than a small run.

The processes are forked from a server that has the libraries and nothing of the project.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

ROOT = Path(__file__).parent.parent
LIBRARIES = ["torch", "accelerate", "transformers", "datasets", "evaluate", "sklearn.metrics", "scipy.stats", "tyro"]
LIBRARIES += ["tiktoken", "safetensors.torch", "torch.utils.tensorboard", "torch._dynamo", "matplotlib.pyplot"]

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(LIBRARIES)


def become(words: Sequence[str], env: Mapping[str, str], output: Path) -> NoReturn:
    """What `python WORDS` does, with its output in two files."""
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(env)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv, sys.path[0] = [*words], str(Path(words[0]).parent)
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
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_forked(words: Sequence[object], timeout: float = 300, **changed: str) -> subprocess.CompletedProcess[str]:
    """Like subprocess.run([sys.executable, *words]) in the root folder and a changed environment, with what it said as
    text. What a library reads of the environment while it is imported is as it was at the first call."""
    words = [*map(str, words)]
    with TemporaryDirectory() as output:
        process = _forks.Process(target=become, args=(words, os.environ | changed, Path(output)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        said = [(Path(output) / name).read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess(words, process.exitcode, *said)
