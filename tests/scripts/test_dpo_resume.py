"""A run of finetune_dpo that is killed and resumed ends like one that never was, on one process and on two."""

import pytest
import torch
from conftest import results_of, run_script, weights_of
from test_dpo_runs import pair_file as pair_file
from test_resume import kill_at_a_random_moment


@pytest.mark.parametrize(
    ("processes", "flags"),
    [(1, ["--method", "full", "--dropout", 0.2]), (2, ["--lora-targets", "q", "lm-head", "--lora-dropout", 0.2])],
    ids=["full, cached", "two processes, lora, adapter off"],
)
def test_a_killed_and_resumed_run_ends_bit_for_bit_like_an_unbroken_one(
    processes, flags, tiny_model, pair_file, tmp_path
):
    flags = ["--data", pair_file, "--model", tiny_model, "--cache-dir", tmp_path / "cache", *flags]
    flags += ["--max-steps", 24, "--batch-size", 5, "--micro-batch-size", 2, "--lr", 1e-3, "--save-every", 3]
    unbroken = run_script("finetune_dpo", *flags, "--output-dir", tmp_path / "a", processes=processes)
    assert unbroken.returncode == 0, unbroken.stderr
    broken = [*flags, "--output-dir", tmp_path / "b"]
    kill_at_a_random_moment("finetune_dpo", processes, broken, tmp_path / "b", seed=str(processes))
    resumed = run_script("finetune_dpo", *broken, "--resume", processes=processes)
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = weights_of(tmp_path / "b"), weights_of(tmp_path / "a")
    assert ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    a, b = results_of(tmp_path / "a"), results_of(tmp_path / "b")
    assert all(a[name] == b[name] for name in ("curve", "before", "val", "test", "best_step", "data"))
    assert (tmp_path / "a" / "predictions.jsonl").read_text() == (tmp_path / "b" / "predictions.jsonl").read_text()
