"""What a node of a Ray cluster does: it makes a run in a folder of its own and sends that back.

Files that the words name go to a node once, and stay there under a hash of their content.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import ray

from training.storage.run_folder import CONFIG, STATE
from workers.job import Job, Workers
from workers.local import gpu_mib, local

ROOT = Path(__file__).resolve().parent.parent
CODE = ("gpt2_scratch", "lora", "tasks", "training", "evidence", "workers", "scripts")  # what a run is made of
LIBRARIES = ("torch", "numpy", "accelerate")
# Flags with files, and the type that they have in results.json and checkpoints before they are written as text.
FILES = {"--data": Path, "--start-from": Path, "--model": str, "--forgetting-data": str}
NAMING = (".json", ".jsonl", ".yaml", ".md")  # files of a run folder that may name paths
INTERRUPTED = 130

Contents = dict[str, bytes]  # by relative path


def contents(folder: Path) -> Contents:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def write_contents(folder: Path, files: Contents) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


class Sent(NamedTuple):
    """A file or folder called `name`. `key` is a hash of it, `files` the references to its files."""

    name: str
    key: str
    files: dict[str, Any]

    def placed(self) -> Path:
        """Returns its path on this node, where the first run that needs it writes it."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpt2-lora-bench"
        if not (cache / self.key).exists():
            cache.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(dir=cache))
            write_contents(new, {name: ray.get(content) for name, content in self.files.items()})
            with contextlib.suppress(OSError):  # another run has just written it
                new.rename(cache / self.key)
            shutil.rmtree(new, ignore_errors=True)
        return cache / self.key / self.name


def sent(path: Path) -> Sent:
    files = contents(path) if path.is_dir() else {"": path.read_bytes()}
    files = {str(Path(path.name, relative)): content for relative, content in files.items()}
    digests = {relative: hashlib.sha256(content).hexdigest() for relative, content in files.items()}
    key = hashlib.sha256(repr(digests).encode()).hexdigest()[:32]
    return Sent(path.name, key, {relative: ray.put(content) for relative, content in files.items()})


class Task(NamedTuple):
    """`files` are those that the words name, by the word; `data` is the file of the dataset in $DATA_DIR."""

    words: tuple[str, ...]
    files: dict[str, Sent]
    data: Sent | None
    before: Any  # a reference to the contents of the unfinished run folder
    threads: int


class Outcome(NamedTuple):
    status: int
    seconds: float
    log: str
    files: Contents


def values(words: Sequence[str], names: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yields index, flag and value of the words that are values of these flags; `--flag=value` is one word."""
    name = ""
    for i, word in enumerate(words):
        value = word
        if word.startswith("--"):
            name, _, value = word.partition("=")
            name = name.replace("_", "-")
        if name in names and value:
            yield i, name, value


def replaced(words: Sequence[str], new: Mapping[int, str]) -> list[str]:
    """Replaces the values of words by index."""
    return [
        (f"{word.partition('=')[0]}={new[i]}" if word.startswith("--") else new[i]) if i in new else word
        for i, word in enumerate(words)
    ]


def rename_in_state(folder: Path, names: Mapping[str, str]) -> None:
    """Replaces paths in the flags of a checkpoint, which a resumed run compares with its own."""
    path = folder / STATE
    if names and path.exists():
        import torch

        state = torch.load(path, map_location="cpu", weights_only=True)
        for flag, value in state["flags"].items():
            if isinstance(value, list):
                state["flags"][flag] = [names.get(one, one) for one in value]
            elif isinstance(value, str):
                state["flags"][flag] = names.get(value, value)
        torch.save(state, path)


_warm = dict[tuple[str | None, ...], Workers]()  # the engine of this process of Ray, kept for its next task


def warm(threads: int) -> Workers:
    """Returns an engine for one run at a time, in this environment."""
    needs = str(threads), *map(os.environ.get, ("DATA_DIR", "CUDA_VISIBLE_DEVICES"))
    if needs not in _warm:
        cool()
        _warm[needs] = local(1, threads)
    return _warm[needs]


def cool() -> None:
    """Ends the engine, and what still runs of it."""
    for engine in _warm.values():
        engine.__exit__(None, None, None)
    _warm.clear()


def work(task: Task) -> Outcome:
    """Makes the run in a folder of its own. When the task is cancelled, the run is stopped as by Ctrl-C."""
    with tempfile.TemporaryDirectory() as place:
        new, names = dict[int, str](), dict[str, str]()  # paths here, by index of the word; their names there
        for i, flag, value in values(task.words, list(FILES)):
            if value in task.files:
                new[i] = str(task.files[value].placed())
                names[new[i]] = str(FILES[flag](value))
        ((i, _, value),) = values(task.words, ["--output-dir"])
        folder = Path(place, Path(value).name)
        new[i], there = str(folder), str(Path(value))
        if task.before is not None:
            write_contents(folder, ray.get(task.before))
            (folder / CONFIG).unlink(missing_ok=True)  # it has the paths of another machine, and is written again
            rename_in_state(folder, {name: path for path, name in names.items()})
        os.environ["DATA_DIR"] = str(task.data.placed().parent) if task.data else os.devnull
        os.chdir(ROOT)
        job, started, status = Job(folder, tuple(replaced(task.words, new))), time.monotonic(), INTERRUPTED
        try:
            for done in warm(task.threads).run([job]):
                status = done.status
        except ChildProcessError:
            cool()
            raise
        except KeyboardInterrupt:
            pass  # what the run has saved is kept
        seconds = time.monotonic() - started
        rename_in_state(folder, names)
        files, log = contents(folder), job.log.read_text(errors="replace") if job.log.exists() else ""
        for path, name in (names | {str(folder): there}).items():
            log = log.replace(path, name)
            for file, content in files.items():
                if file.endswith(NAMING):
                    files[file] = content.replace(path.encode(), name.encode())
        return Outcome(status, seconds, log, files)


class Node(NamedTuple):
    """`gpu_mib` is the memory of its smallest GPU, 0 where none is found."""

    code: str
    libraries: dict[str, str]
    gpu_mib: float

    def difference(self, here: "Node") -> str:
        """Says in what a node differs from this machine, nothing if runs are the same on both."""
        both = {name: (version, here.libraries[name]) for name, version in self.libraries.items()}
        found = [f"{name} {there} (here {ours})" for name, (there, ours) in both.items() if there != ours]
        return ", ".join([*found, *["another version of this project"] * (self.code != here.code)])


def files_of_code() -> list[Path]:
    """Returns the files of this project that a run depends on, bundled data and weights too."""
    found = (path for name in CODE for path in (ROOT / name).rglob("*") if path.is_file())
    left_out = (".", "__pycache__")  # what editors, tools and Python leave
    return sorted(path for path in found if not any(part.startswith(left_out) for part in path.relative_to(ROOT).parts))


def describe() -> Node:
    code = hashlib.sha256()
    for path in files_of_code():
        code.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    libraries = {name: metadata.version(name).split("+")[0] for name in LIBRARIES}
    return Node(code.hexdigest(), libraries, min(gpu_mib(), default=0.0))
