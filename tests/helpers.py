"""What tests run, write and read: scripts in this process or another one, small models, rows, what a run has left."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
from accelerate.state import AcceleratorState
from forked import run_forked, start_forked
from jsonschema import Draft202012Validator
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2Tokenizer as ByteLevelTokenizer

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.own_tokenizer import OwnTokenizer
from gpt2_scratch.pretrained import save_pretrained
from gpt2_scratch.sources import ASSETS
from gpt2_scratch.tokenizer import GPT2, MARKER
from training.flags.cli import before_stop
from training.flags.out_of_memory import fitting
from training.flags.scripts import load_script

ROOT = Path(__file__).parent.parent
DATA_DIR = Path(os.environ.get("DATA_DIR") or ROOT / "data")


def real_data(name: str) -> Path:
    """A file of the real data sets, or the test is skipped."""
    path = DATA_DIR / name
    if not path.exists():
        pytest.skip(f"{name} is not in DATA_DIR ({DATA_DIR})")
    return path


@cache
def own_cache() -> "TemporaryDirectory[str]":
    return TemporaryDirectory()


def words_of(script: str, flags: Sequence[object]) -> list[str]:
    """The flags, and for a script of fine-tuning where general text is read: for seconds, where a test asks, and not
    from the user's cache. --resume alone has the flags of its run."""
    words = [*map(str, flags)]
    if not script.startswith("finetune") or ("--resume" in words and not {"--data", "--dataset"} & {*words}):
        return words
    if not any(word.startswith("--forgetting") for word in words):
        return [*words, "--forgetting-data", "none"]
    return words if "--cache-dir" in words else [*words, "--cache-dir", own_cache().name]


def command(script: str, *flags: object) -> list[str]:
    """scripts/<script>.py as a user calls it, but for general text."""
    return [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *words_of(script, flags)]


def run_script(
    script: str,
    *flags: object,
    env: dict[str, str] | None = None,
    timeout: float = 300,
    processes: int = 1,
    **changed: str,
):
    """Runs the script in a `changed` environment; returns the finished process with its text. With an `env`, libraries
    are imported in it, which takes seconds."""
    words = command(script, *flags)
    if env is None:
        return run_forked(words[1:], timeout, processes, **changed)
    settings = os.environ | env
    return subprocess.run(words, capture_output=True, text=True, env=settings, timeout=timeout, cwd=ROOT, check=False)


class Ended(NamedTuple):
    """A script that ran in this process, with the names of a finished process."""

    returncode: int
    stdout: str
    stderr: str


def run_in_process(script: str | ModuleType, *flags: object, **changed: str) -> Ended:
    """Runs a script, named or loaded, in this process, in a `changed` environment, with an accelerator of its own."""
    loaded = load_script(ROOT / "scripts" / f"{script}.py") if isinstance(script, str) else script
    out, err, status = StringIO(), StringIO(), 0
    path = Path(loaded.__file__ or "")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        with (
            patch.object(sys, "argv", [path.name, *words_of(path.stem, flags)]),
            patch.dict(os.environ, changed),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            loaded.run(loaded.main, loaded.Args, loaded.__doc__)
    except SystemExit as stopped:
        status = stopped.code
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.set_num_threads(1)
        before_stop.clear()
        fitting.clear()
    return Ended(status, out.getvalue(), err.getvalue())


def kill_at_a_random_moment(
    script: str,
    processes: int,
    flags: Sequence[object],
    folder: Path,
    seed: int | None = None,
    most: int = 6,
    **changed: str,
) -> None:
    """Starts the run, lets it save one to `most` checkpoints, and kills all of its processes a moment later. A run that
    had ended by then begins again in a cleared folder."""
    seed = random.randrange(2**32) if seed is None else seed
    print(f"killed at the moments of seed {seed}")  # shown where the test fails later
    rng, state = random.Random(seed), folder / "checkpoint" / "state.pt"
    for _ in range(5):
        wanted, deadline, seen = rng.randint(1, most), time.monotonic() + 120, set[int]()
        with TemporaryDirectory() as output:
            ranks = start_forked(command(script, *flags)[1:], Path(output), processes, **changed)
            while len(seen) < wanted and all(rank.exitcode is None for rank in ranks) and time.monotonic() < deadline:
                with suppress(FileNotFoundError):
                    seen.add(state.stat().st_mtime_ns)
                time.sleep(0.001)
            time.sleep(rng.random() * 0.03)
            failed = any(rank.exitcode for rank in ranks)
            for rank in ranks:
                rank.kill()
            for rank in ranks:
                rank.join()
            said = (Path(output) / "err").read_text()
        assert not failed, f"seed {seed}: {said}"
        if not (folder / "results.json").exists():  # looked for when none of the processes can write it any more
            assert state.exists(), f"seed {seed}: no checkpoint: {said}"
            return
        shutil.rmtree(folder)
    pytest.fail(f"seed {seed}: the run had ended each time before it was killed")


TEXTS = ["cheap pills, buy now", "meeting moved to noon", "you have won a prize", "see the attached report"]


def write_rows(path: Path, rows: list[dict]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def mails(count: int) -> list[dict]:
    """Texts of different lengths in two classes that a word tells apart."""
    return [
        {"text": f"{i}: " + " ".join([TEXTS[i % 4]] * (1 + i * 7 % 5)), "label": ("spam", "ham")[i % 2]}
        for i in range(count)
    ]


def questions(count: int) -> list[dict]:
    return [
        {"instruction": f"Count to {i}" + " please" * (i % 3), "response": " ".join(map(str, range(i % 9 + 1)))}
        for i in range(count)
    ]


def save_tiny(folder: Path) -> Path:
    """A random GPT-2 in HF format, small enough that a script's run is mostly its start."""
    model = LanguageModel(GPT2Config(width=16, blocks=3, heads=2, context=512))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, folder, GPT2)
    return folder


def save_with_few_tokens(folder: Path) -> Path:
    """A random GPT-2 whose own tokenizer is GPT-2's before its 501st merge. With GPT-2's 50,257 tokens, the logits of
    the general text take most of a small run."""
    merges = [tuple(line.split()) for line in (ASSETS / "vocab.bpe").read_text().splitlines()[1:501]]
    tokens = [MARKER, *sorted(ByteLevel.alphabet()), *map("".join, merges)]
    read = ByteLevelTokenizer(vocab={token: id for id, token in enumerate(tokens)}, merges=merges)
    model = LanguageModel(GPT2Config(width=16, blocks=3, heads=2, context=512, vocabulary=len(tokens)))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, folder, OwnTokenizer(folder, read, None))
    return folder


@cache
def results_schema() -> Draft202012Validator:
    return Draft202012Validator(json.loads((ROOT / "docs" / "results.schema.json").read_text()))


def results_of(folder: Path) -> dict:
    """results.json of a run, which its schema describes."""
    results = json.loads((folder / "results.json").read_text())
    results_schema().validate(results)
    return results


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The saved weights of a run, adapter or whole model."""
    (path,) = [*folder.glob("adapter/*.safetensors"), *folder.glob("model/*.safetensors")]
    return load_file(path)
