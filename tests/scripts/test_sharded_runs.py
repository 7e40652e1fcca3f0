"""FSDP2 on two CPU processes: the same as one process, killed and resumed on another number of them, or refused."""

import json

import pytest
from accelerate.commands import launch as accelerate_launch
from forked import free_port, run_forked
from helpers import ROOT, command, results_of, run_in_process, run_script, weights_of
from test_commands import load_script
from test_resume import kill_at_a_random_moment

from gpt2_scratch.config import GPT2Config
from training.flags.cli import problems_in
from training.flags.command_line import parse

STEPS = 20
SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # what `accelerate launch` sets for fsdp2.yaml


def flags_for(script, few_tokens, data, *more):
    flags = ["--data", data, "--model", few_tokens, "--max-steps", STEPS, "--batch-size", 8, "--micro-batch-size", 2]
    flags += ["--eval-every", 4, "--save-every", 3, "--test-examples", 9, "--val-examples", 7, *more]
    return flags + (["--new-tokens", 6] if script == "finetune_ift" else [])


def assert_same(folder, reference, *, processes):
    """Updates of one process in fp32, to the tolerance of sums in another order."""
    results, expected = results_of(folder), results_of(reference)
    assert results["environment"]["processes"] == processes
    assert results["best_step"] == expected["best_step"]
    for point, other in zip(results["curve"], expected["curve"], strict=True):
        assert point == pytest.approx(other, rel=1e-4)
    for name in ("before", "val", "test"):
        metric = "loss" if "loss" in expected[name] else "text_perplexity"
        assert results[name][metric] == pytest.approx(expected[name][metric], rel=1e-4)
    ours, theirs = weights_of(folder), weights_of(reference)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert float((tensor - theirs[name]).abs().max()) <= 1e-5 * max(float(theirs[name].abs().max()), 1e-3), name


def test_two_processes_that_share_the_weights_do_the_same_as_one_and_three_go_on_after_a_kill(
    few_tokens, question_file, tmp_path, monkeypatch
):
    flags = flags_for("finetune_ift", few_tokens, question_file, "--optimizer", "sgd-momentum", "--lr", 0.02)
    flags += ["--method", "full", "--max-grad-norm", 0.05]
    one = run_in_process("finetune_ift", *flags, "--output-dir", tmp_path / "one")
    for name, value in SHARDED.items():
        monkeypatch.setenv(name, value)
    two = run_script("finetune_ift", *flags, "--output-dir", tmp_path / "two", processes=2)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert_same(tmp_path / "two", tmp_path / "one", processes=2)
    assert not (tmp_path / "two" / "checkpoint").exists()

    broken = [*flags, "--output-dir", tmp_path / "three"]
    kill_at_a_random_moment("finetune_ift", 2, broken, tmp_path / "three", seed=str(tmp_path))
    resumed = run_script("finetune_ift", *broken, "--resume", processes=3)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(tmp_path / "three", tmp_path / "one", processes=3)
    texts = [(tmp_path / name / "generations.jsonl").read_text() for name in ("one", "two", "three")]
    answers = [[json.loads(line)["response"] for line in text.splitlines()] for text in texts]
    assert answers[0] == answers[1] == answers[2]


def test_the_launch_configuration_shares_adapters_and_their_base(few_tokens, mail_file, tmp_path):
    """The test is measured later, of the weights that were kept; without sharding they are refused."""
    flags = flags_for("finetune_cls", few_tokens, mail_file, "--optimizer", "sgd", "--lr", 0.2)
    flags += ["--forgetting-data", ROOT / "README.md", "--forgetting-tokens", 1000]
    one = run_in_process("finetune_cls", *flags, "--output-dir", tmp_path / "one")
    flags += ["--output-dir", tmp_path / "two"]
    config = ["--config_file", ROOT / "accelerate_configs" / "fsdp2.yaml", "--mixed_precision", "no"]
    words = [*config, "--main_process_port", free_port(), *command("finetune_cls", *flags, "--score", "validation")[1:]]
    two = run_forked([accelerate_launch.__file__, *words])
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stdout + two.stderr
    assert {path.name for path in (tmp_path / "two" / "checkpoint").iterdir()} == {"state.pt", "best"}
    refused = run_script("finetune_cls", *flags, "--resume", processes=2)
    assert refused.returncode == 2 and "made with another sharding and another processes" in refused.stderr
    tested = run_script("finetune_cls", *flags, "--resume", processes=2, **SHARDED)
    assert tested.returncode == 0, tested.stderr
    assert_same(tmp_path / "two", tmp_path / "one", processes=2)
    assert results_of(tmp_path / "two")["environment"]["sharding"] == "fsdp2"


@pytest.mark.parametrize(
    ("changed", "flags", "wanted"),
    [
        ({"FSDP_VERSION": "1"}, [], "only fsdp_version: 2"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, [], "FSDP_OFFLOAD_PARAMS=true"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, [], "--checkpoint-activations"),
        ({"WORLD_SIZE": "1"}, [], "--num_processes"),
        ({}, ["--mixed-precision", "fp16"], "use bf16"),
        ({}, ["--base-bits", "4"], "--base-bits 4"),
        ({}, ["--optimizer", "adamw8bit"], "use adamw"),
        ({}, ["--micro-batch-size", "auto"], "give a number"),
        ({}, ["--cache-frozen", "disk", "--last-blocks", "1"], "--cache-frozen disk"),
    ],
)
def test_what_was_never_tried_with_sharded_weights_is_refused(
    changed, flags, wanted, monkeypatch, tiny_model, mail_file
):
    for name, value in (SHARDED | {"WORLD_SIZE": "2"} | changed).items():
        monkeypatch.setenv(name, value)
    script = load_script("finetune_cls")
    args = parse(script.Args, ["--data", str(mail_file), *flags])
    (problem,) = problems_in(args, config=GPT2Config())
    assert wanted in problem and len(problem) <= 300


def test_a_script_that_cannot_share_its_weights_is_refused(monkeypatch):
    for name, value in (SHARDED | {"WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    (problem,) = parse(load_script("pretrain").Args, ["--data", "x"]).speed.problems()
    assert "accelerate_configs/ddp.yaml" in problem
