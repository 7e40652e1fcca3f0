"""Adding a size of GPT-2 takes one line in SIZES: it is then a choice of every command that takes one."""

import pytest
from accelerate.state import AcceleratorState
from conftest import results_of
from test_commands import load_script

from gpt2_scratch.config import SIZES, GPT2Config


@pytest.fixture
def pretrain(monkeypatch, run_here):
    monkeypatch.setitem(SIZES, "gpt2-pico", GPT2Config(width=16, blocks=1, heads=2, vocabulary=50257, context=64))
    AcceleratorState._reset_state(reset_partial_state=True)
    script = load_script("pretrain")
    yield lambda *flags: run_here(script, *flags)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_an_added_size_is_offered_and_trained(pretrain, tmp_path):
    assert "gpt2-pico" in pretrain("--help")[1]
    (tmp_path / "text.txt").write_text("\n\n".join(f"Line {i} of a short text." for i in range(200)))
    (tmp_path / "more.txt").write_text("Another document, held out.")
    flags = ["--data", tmp_path / "text.txt", tmp_path / "more.txt", "--tokens", 600, "--batch-tokens", 128]
    status, _, err = pretrain(*flags, "--size", "gpt2-pico", "--max-length", 64, "--output-dir", tmp_path / "run")
    assert status == 0, err
    results = results_of(tmp_path / "run")
    assert results["args"]["size"] == "gpt2-pico" and results["parameters"]["total"] < 10**6


def test_a_size_that_is_none_is_refused_with_those_that_are(pretrain, tmp_path):
    status, _, err = pretrain("--data", tmp_path, "--tokens", 1, "--size", "gpt2-huge")
    assert status == 2 and "gpt2-pico" in err and "Traceback" not in err
