"""--score validation leaves the test for later, --train-on all leaves none, --train-embedding adds one matrix."""

import json

import pytest
import torch
from helpers import results_of, run_in_process, run_script, weights_of

from training.storage.files import load_tensors


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


SAME = ("before", "val", "test", "forgetting", "curve", "best_step", "parameters", "data", "notes", "files")


def flags_for(script, data, model, *others):
    flags = ["--data", data, "--model", model, "--max-steps", 6, "--eval-every", 2, "--lr", 1e-2]
    flags += ["--forgetting-data", "bundled", "--forgetting-tokens", 64] + (
        ["--new-tokens", 4] if script == "finetune_ift" else []
    )
    return [*flags, *others]


@pytest.fixture(scope="module")
def plain(tiny_model, mail_file, tmp_path_factory):
    """The results of a run without any other flags."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    done = run_in_process("finetune_cls", *flags_for("finetune_cls", mail_file, tiny_model), "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    return results_of(folder)


@pytest.mark.parametrize(
    ("script", "others"),
    [
        ("finetune_cls", ["--method", "lora"]),
        ("finetune_cls", ["--method", "full", "--keep", "last"]),
        ("finetune_ift", ["--method", "lora", "--train-embedding"]),
        ("finetune_ift", ["--method", "full"]),
    ],
)
def test_a_run_that_is_scored_later_is_the_run_that_is_scored_at_once(
    script, others, tiny_model, mail_file, question_file, tmp_path
):
    data = mail_file if script == "finetune_cls" else question_file
    flags = flags_for(script, data, tiny_model, *others)
    at_once = run_in_process(script, *flags, "--output-dir", tmp_path / "a")
    assert at_once.returncode == 0, at_once.stderr
    trained = run_in_process(script, *flags, "--output-dir", tmp_path / "b", "--score", "validation")
    assert trained.returncode == 0, trained.stderr
    first = results_of(tmp_path / "b")
    assert "test" not in first and "forgetting" not in first and "not measured yet" in trained.stdout
    later = run_script(script, "--output-dir", tmp_path / "b", "--resume", "--forgetting-data", "bundled")
    assert later.returncode == 0, later.stderr

    a, b = results_of(tmp_path / "a"), results_of(tmp_path / "b")
    assert a["test"] and a["forgetting"]
    for name in SAME:
        assert a[name] == b[name], name
    assert first["val"] == a["val"] and b["peak_memory_mib"] >= first["peak_memory_mib"]
    rows = "predictions.jsonl" if script == "finetune_cls" else "generations.jsonl"
    for name in (rows, "validation.jsonl"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
    assert (tmp_path / "b" / "validation.jsonl").read_text().count("\n") == a["data"]["rows"]["validation"]
    assert not (tmp_path / "b" / "checkpoint").exists()
    ours, theirs = weights_of(tmp_path / "b"), weights_of(tmp_path / "a")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    again = run_in_process(script, "--output-dir", tmp_path / "b", "--resume")
    assert again.returncode == 2 and "finished" in again.stderr


def test_what_is_scored_after_the_training_alone_is_the_same_without_what_was_before(
    plain, tiny_model, mail_file, tmp_path
):
    flags = flags_for("finetune_cls", mail_file, tiny_model)
    for score in ("validation", "trained"):
        words = ["--output-dir", tmp_path / "b", "--resume", "--score", score]
        done = run_in_process("finetune_cls", *flags, *words)
        assert done.returncode == 0, done.stderr
    found = results_of(tmp_path / "b")
    assert {name: found[name] for name in ("test", "val", "forgetting")} == {
        name: plain[name] for name in ("test", "val", "forgetting")
    }
    assert "before" not in found and "before  not measured (--score trained)" in done.stdout


def test_a_trained_embedding_is_all_that_is_added_and_predict_applies_it(plain, tiny_model, mail_file, tmp_path):
    flags = flags_for("finetune_cls", mail_file, tiny_model)
    done = run_in_process("finetune_cls", *flags, "--train-embedding", "--output-dir", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    a, b = plain["parameters"], results_of(tmp_path / "b")["parameters"]
    before = load_tensors(tiny_model / "model.safetensors")["transformer.wte.weight"]
    assert b["trainable"] - a["trainable"] == before.numel()
    learnt = load_tensors(tmp_path / "b" / "adapter" / "adapter.safetensors")
    assert (learnt["transformer.wte.weight"] - before).abs().max() > 1e-3
    assert "transformer.h.0.mlp.c_fc.linear.weight" not in learnt
    applied = run_in_process("predict", "--run", tmp_path / "b", "--data", mail_file, "--output", tmp_path / "p.jsonl")
    assert applied.returncode == 0, applied.stderr
    answers = lines_of(tmp_path / "p.jsonl")
    tested = lines_of(tmp_path / "b" / "predictions.jsonl")
    assert tested
    for line in tested:
        assert answers[line["id"]]["probabilities"] == pytest.approx(line["probabilities"], abs=1e-5), line["id"]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["--method", "full", "--train-embedding"], "--method full trains it already"),
        (["--train-embedding", "--cache-frozen", "memory", "--last-blocks", 1], "--train-embedding changes what"),
        (["--train-embedding", "--forgetting-curve"], "--train-embedding trains more"),
        (["--train-on", "all", "--test-examples", 3], "--train-on all: leaves nothing for --test-examples"),
        (["--train-on", "all", "--early-stop", 2], "no validation examples"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(others, said, tiny_model, mail_file, tmp_path):
    refused = run_in_process("finetune_cls", *flags_for("finetune_cls", mail_file, tiny_model, *others))
    assert refused.returncode == 2 and said in refused.stderr


def test_training_on_all_examples_leaves_none_to_test(plain, tiny_model, mail_file, tmp_path):
    flags = flags_for("finetune_cls", mail_file, tiny_model)
    done = run_in_process("finetune_cls", *flags, "--train-on", "all", "--output-dir", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    a, b = plain["data"]["rows"], results_of(tmp_path / "b")["data"]["rows"]
    assert a["test"] > 0 and b == {"train": sum(a.values()), "validation": 0, "test": 0}
