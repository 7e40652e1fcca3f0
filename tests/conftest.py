"""What all tests share: no network, no cache outside the test's own folder, one thread, small models and data.

What is imported here is imported by the process that distributes the tests too; the rest is in helpers.py.
"""

import gc
import os
import shutil
import socket
from pathlib import Path
from tempfile import mkdtemp

import pytest
from forked import keep_to_loopback, outside

gc.disable()  # until all tests are found: what is imported stays

# Read when the hub's libraries are imported, so it must be set before any of them is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
# Nothing that a developer has cached can make a test pass; each process of pytest-xdist has a folder of its own.
HF_HOME = os.environ["HF_HOME"] = mkdtemp(prefix="hf-home-")
for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE", "HF_TOKEN_PATH", "HF_TOKEN"):
    os.environ.pop(name, None)
# Requests to this machine would go through them.
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
os.environ["ACCELERATE_USE_CPU"] = "true"
# For every process that a test starts: sums of other numbers of threads differ in their last bits.
os.environ["OMP_NUM_THREADS"] = "1"
# Else each of those processes compiles the project again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The files that take longest, the longest first, so that two processes end together. --quick leaves them out.
LONGEST = (
    "test_study.py",
    "test_cluster.py",
    "test_memory.py",
    "test_sharded_runs.py",
    "test_depth.py",
    "test_reproduce.py",
    "test_dpo_runs.py",
    "test_asking.py",
    "test_quantised_runs.py",
    "test_resume.py",
    "test_answers.py",
    "test_hub_runs.py",
    "test_tasks.py",
    "test_hub.py",
    "test_distributed.py",
    "test_forgetting.py",
    "test_kto_runs.py",
    "test_frozen_activations.py",
    "test_judge_script.py",
    "test_last_word.py",
    "test_benchmarks.py",
    "test_peft.py",
    "test_preference.py",
    "test_merge.py",
    "test_predict.py",
    "test_reproduce_runs.py",
    "test_generate_script.py",
    "test_gpu_check.py",
    "test_push_to_hub.py",
    "test_score.py",
    "test_playground.py",
    "test_scripts.py",
    "test_printed.py",
    "test_pretrain.py",
    "test_own_tokenizer.py",
    "test_update.py",
    "test_trl.py",
    "test_compute.py",
    "test_page.py",
    "test_sharding.py",
    "test_report.py",
    "test_digits.py",
    "test_bad_input.py",
    "test_start.py",
    "test_apple.py",
    "test_local.py",
    "test_help.py",
    "test_command_line.py",
    "test_methods_table.py",
    "test_life.py",
    "test_out_of_memory.py",
    "test_quantised.py",
    "test_notes.py",
    "test_intervals.py",
    "test_operator_counts.py",
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


def pytest_unconfigure() -> None:
    shutil.rmtree(HF_HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _own_hub_cache():
    from huggingface_hub import constants

    for path in (constants.HF_HUB_CACHE, constants.HF_TOKEN_PATH):
        assert Path(path).is_relative_to(HF_HOME), "huggingface_hub was imported before HF_HOME was set"


@pytest.fixture(scope="session", autouse=True)
def _two_processes_on_two_cores():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """A run that a test starts in this process may have chosen its number of threads."""
    import torch

    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_notes():
    """A note is said once in a process, which otherwise has one run."""
    from training.flags.cli import note

    note.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def _only_loopback():
    connect = socket.socket.connect
    keep_to_loopback()
    yield
    socket.socket.connect = connect


@pytest.fixture(autouse=True)
def _nothing_outside():
    """The code under test may swallow the error that a connection gets."""
    yield
    reached = [*outside]
    outside.clear()
    assert reached == [], "the test reached for the network"


@pytest.fixture
def run_here():
    from helpers import run_in_process

    return run_in_process


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def few_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers import save_with_few_tokens

    return save_with_few_tokens(tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="session")
def mail_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers import mails, write_rows

    return write_rows(tmp_path_factory.mktemp("data") / "mails.jsonl", mails(60))


@pytest.fixture(scope="session")
def question_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers import questions, write_rows

    return write_rows(tmp_path_factory.mktemp("data") / "questions.jsonl", questions(60))
