"""What all tests share: no network, no cache outside the test's own folder, small models, two ways to run a script."""

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NamedTuple
from unittest.mock import patch

import pytest

gc.disable()  # until all tests are found: what is imported stays
ROOT = Path(__file__).parent.parent
DATA_DIR = Path(os.environ.get("DATA_DIR", ROOT / "data"))

# Read when the hub's libraries are imported, so it must be set before any of them is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["ACCELERATE_USE_CPU"] = "true"
# For every process that a test starts: sums of other numbers of threads differ in their last bits.
os.environ["OMP_NUM_THREADS"] = "1"
# Else each of those processes compiles the project again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import torch  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from forked import run_forked  # noqa: E402
from jsonschema import Draft202012Validator  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tokenizers.pre_tokenizers import ByteLevel  # noqa: E402
from transformers import GPT2Tokenizer as ByteLevelTokenizer  # noqa: E402

from gpt2_scratch.config import GPT2Config  # noqa: E402
from gpt2_scratch.model import LanguageModel, initialise  # noqa: E402
from gpt2_scratch.own_tokenizer import OwnTokenizer  # noqa: E402
from gpt2_scratch.pretrained import save_pretrained  # noqa: E402
from gpt2_scratch.sources import ASSETS  # noqa: E402
from gpt2_scratch.tokenizer import GPT2, MARKER  # noqa: E402
from training.flags.cli import before_stop  # noqa: E402
from training.flags.out_of_memory import fitting  # noqa: E402
from training.flags.scripts import load_script  # noqa: E402

torch.set_num_threads(1)  # two test processes on two cores

# The files that take longest, the longest first, so that two processes end together. --quick leaves them out.
LONGEST = (
    "test_cluster.py",
    "test_study.py",
    "test_memory.py",
    "test_quantised_runs.py",
    "test_reproduce_runs.py",
    "test_benchmarks.py",
    "test_reproduce.py",
    "test_distributed.py",
    "test_sharded_runs.py",
    "test_sharding.py",
    "test_network.py",
    "test_push_to_hub.py",
    "test_forgetting.py",
    "test_frozen_activations.py",
    "test_depth.py",
    "test_own_tokenizer.py",
    "test_playground.py",
    "test_dpo_runs.py",
    "test_score.py",
    "test_hub_runs.py",
    "test_printed.py",
    "test_peft.py",
    "test_predict.py",
    "test_kto_runs.py",
    "test_scripts.py",
    "test_pretrain.py",
    "test_help.py",
    "test_bad_input.py",
    "test_preference.py",
    "test_asking.py",
    "test_resume.py",
    "test_judge_script.py",
    "test_hub.py",
    "test_compute.py",
    "test_gpu_check.py",
    "test_merge.py",
    "test_start.py",
    "test_results.py",
    "test_trl.py",
    "test_digits.py",
    "test_tasks.py",
    "test_update.py",
    "test_intervals.py",
    "test_generate.py",
    "test_mutations.py",
    "test_dpo_benchmark.py",
    "test_trackers.py",
    "test_config_file.py",
    "test_last_word.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out the files that take longest")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True leaves a file out; None is no opinion."""
    return (config.getoption("--quick") and collection_path.name in LONGEST) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    gc.freeze()  # else each collection of garbage goes through all objects of the libraries
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _own_hub_cache(tmp_path_factory: pytest.TempPathFactory):
    """Nothing that a developer has cached can make a test pass."""
    os.environ["HF_HOME"] = str(tmp_path_factory.mktemp("hf"))
    import datasets

    datasets.config.HF_DATASETS_CACHE = Path(os.environ["HF_HOME"]) / "datasets"


@pytest.fixture(autouse=True)
def _one_thread():
    """A run that a test starts in this process may have chosen its number of threads."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _only_loopback():
    """A connection to anywhere but this machine fails the test that tries it."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address}")
        return connect(self, address)

    socket.socket.connect = guarded
    yield
    socket.socket.connect = connect


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


@pytest.fixture
def run_here():
    return run_in_process


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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 in HF format, small enough that a script's run is mostly its start."""
    folder = tmp_path_factory.mktemp("tiny")
    model = LanguageModel(GPT2Config(width=16, blocks=3, heads=2, context=512))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, folder, GPT2)
    return folder


@pytest.fixture(scope="session")
def few_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 whose own tokenizer is GPT-2's before its 501st merge. With GPT-2's 50,257 tokens, the logits of
    the general text take most of a small run."""
    folder = tmp_path_factory.mktemp("few")
    merges = [tuple(line.split()) for line in (ASSETS / "vocab.bpe").read_text().splitlines()[1:501]]
    tokens = [MARKER, *sorted(ByteLevel.alphabet()), *map("".join, merges)]
    read = ByteLevelTokenizer(vocab={token: id for id, token in enumerate(tokens)}, merges=merges)
    model = LanguageModel(GPT2Config(width=16, blocks=3, heads=2, context=512, vocabulary=len(tokens)))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, folder, OwnTokenizer(folder, read, None))
    return folder


@pytest.fixture(scope="session")
def mail_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "mails.jsonl", mails(60))


@pytest.fixture(scope="session")
def question_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "questions.jsonl", questions(60))


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
