"""Running out of memory is one message with a remedy that fits, and the run goes on with it."""

import copy
import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, results_of, weights_of
from test_commands import load_script

from training.flags import cli, out_of_memory
from training.flags.out_of_memory import ran_out, remedy

VAST = 2**60  # bytes


def raised(act):
    with pytest.raises(Exception) as found:  # whatever it is: that is the question
        act()
    return found.value


def fails_on_cuda():
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 14 GiB"
    )


def fails_in_cublas():
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def fails_in_the_system():
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize(
    ("act", "place"),
    [
        (lambda: torch.empty(VAST, dtype=torch.uint8), "this machine"),
        (lambda: np.empty(VAST, np.uint8), "this machine"),
        (fails_on_cuda, "the GPU"),
        (fails_in_cublas, "the GPU"),
        (fails_in_the_system, "this machine"),
    ],
)
def test_every_allocator_that_fails_is_recognised(act, place, monkeypatch):
    monkeypatch.setattr(out_of_memory, "fitting", [])
    error = raised(act)
    assert ran_out(error)
    assert remedy(error, ("base-bits",)) == f"out of memory on {place}: start again with --base-bits 4"


def fails_to_find_a_package():
    import absent  # noqa: F401


@pytest.mark.parametrize(
    "act",
    [
        lambda: torch.ones(2) @ torch.ones(3),
        lambda: int("x"),
        lambda: {}["memory"],
        fails_to_find_a_package,
        lambda: os.stat("absent"),
    ],
)
def test_other_errors_are_not_taken_for_it(act):
    assert not ran_out(raised(act))


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (3, "use --micro-batch-size 3, the largest smaller one that is forecast to fit, or add --checkpoint-"),
        (0, "this machine: add --checkpoint-activations"),
    ],
)
def test_the_forecast_names_the_micro_batch(size, told, monkeypatch):
    monkeypatch.setattr(out_of_memory, "fitting", [lambda: size])
    assert told in remedy(MemoryError(), ("micro-batch-size", "checkpoint-activations", "base-bits"))


@pytest.mark.parametrize("forecast", [lambda: len(np.empty(VAST, np.uint8)), lambda: copy.copy(8, 9), lambda: None])
def test_a_forecast_that_fails_for_want_of_memory_too_or_is_none_names_none(forecast, monkeypatch):
    monkeypatch.setattr(out_of_memory, "fitting", [forecast])
    assert (
        remedy(MemoryError(), ("micro-batch-size",))
        == "out of memory on this machine: use a smaller --micro-batch-size"
    )


def test_a_run_without_memory_stops_with_the_remedy_and_goes_on_with_it(
    run_here, tiny_model, mail_file, tmp_path, monkeypatch
):
    """The fourth update asks torch's allocator for more than there is."""
    import training.loop

    script, plain, calls = load_script("finetune_cls"), training.loop.class_loss, []

    def class_loss(logits, labels):
        calls.append(len(labels))
        return plain(logits if len(calls) < 7 else torch.empty(VAST), labels)

    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 6, "--batch-size", 8, "--lr", 1e-2]
    flags += ["--optimizer", "sgd", "--save-every", 1, "--eval-every", 6, "--micro-batch-size"]
    status, _, said = run_here(script, *flags, 4, "--output-dir", tmp_path / "whole")
    assert status == 0, said

    monkeypatch.setattr(training.loop, "class_loss", class_loss)
    status, _, said = run_here(script, *flags, 4, "--output-dir", tmp_path / "run")
    assert status == 2 and "Traceback" not in said
    message = said[said.index("error: ") :].strip()
    assert message.startswith("error: out of memory on this machine: use --micro-batch-size 3, the largest smaller")
    assert "--checkpoint-activations" in message and "--resume" in message and len(message) <= 300

    monkeypatch.setattr(training.loop, "class_loss", plain)
    status, _, said = run_here(script, *flags, 3, "--output-dir", tmp_path / "run", "--resume")
    assert status == 0, said
    assert results_of(tmp_path / "run")["micro_batch"] == {"asked": 3, "used": 3}
    for name, tensor in weights_of(tmp_path / "whole").items():
        assert (weights_of(tmp_path / "run")[name] - tensor).abs().max() <= 1e-5 * max(tensor.abs().max(), 1), name


def test_a_process_that_alone_has_no_memory_left_says_so_after_a_silence(monkeypatch, capsys):
    """The first process, which speaks at once, would by then have been ended together with this one."""
    waited = []
    monkeypatch.setattr(cli, "before_stop", [])
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit, match="2"):
        cli.stop("out of memory on the GPU", 2)
    assert waited == [cli.SILENCE] and capsys.readouterr().err.endswith("error: out of memory on the GPU\n")


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is Linux's")
def test_libraries_that_find_no_room_are_told(mail_file, tiny_model):
    words = [sys.executable, "scripts/finetune_cls.py", "--data", mail_file, "--model", tiny_model]
    limited = ["bash", "-c", 'ulimit -v 500000 && exec "$@"', "limited", *map(str, words)]
    done = subprocess.run(limited, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: out of memory on this machine: its libraries do not fit; allow more (ulimit -v)" in done.stderr
