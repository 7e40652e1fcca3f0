"""scripts/finetune_dpo.py as a user runs it: what a run leaves, that it can be killed and shared out, and refusals."""

import json
import re
from functools import partial
from typing import get_args, get_type_hints

import pytest
import torch
from helpers import results_of, run_in_process, run_script, weights_of, write_rows
from test_commands import load_script
from test_resume import kill_at_a_random_moment

from evidence.intervals import share
from training.flags.method import MethodArgs
from training.model.saved import adapted

SCRIPT = load_script("finetune_dpo")
METRICS = {"loss", "reward_accuracy", "reward_margin", "chosen_reward", "rejected_reward", "ranking_accuracy"}


def pairs(count):
    """Answers of different lengths that their first word tells apart."""
    words = ["indeed", "well then", "so it is and will be"]
    return [
        {"prompt": f"Is {i} a number?", "chosen": f"yes {words[i % 3]}", "rejected": f"no {words[(i + 1) % 3]}"}
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def pair_file(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "pairs.jsonl", pairs(40))


@pytest.fixture
def call(run_here):
    return partial(run_here, SCRIPT)


@pytest.fixture
def train(call, tiny_model, pair_file, tmp_path):
    """Runs with these flags in the folder `name`; returns results.json and what was printed."""

    def run(name, *flags):
        known = ["--data", pair_file, "--model", tiny_model, "--output-dir", tmp_path / name, "--lr", 1e-2]
        status, out, err = call(*known, "--cache-dir", tmp_path / "cache", *flags)
        assert status == 0 and "Traceback" not in err, err
        return results_of(tmp_path / name), out

    return run


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def steps():
    return ["--max-steps", 4, "--batch-size", 8, "--eval-every", 2]


def test_a_run_learns_what_is_preferred_and_leaves_what_the_design_says(train, tmp_path):
    results, out = train("run", "--epochs", 3, "--forgetting-tokens", 500, "--forgetting-curve")
    folder = tmp_path / "run"
    names = {"results.json", "predictions.jsonl", "curves.png", "forgetting.png", "tensorboard", "adapter"}
    names |= {"trained_on.json", "config.yaml"}
    assert {path.name for path in folder.iterdir()} == names == set(results["files"])
    for part in ("before", "val", "test"):
        assert set(results[part]) == METRICS
        assert all(set(entry) == {"value", "low", "high", "n"} for entry in results[part].values())
    assert results["before"]["reward_accuracy"] == share([0.5] * 4).entry()
    assert results["before"]["reward_margin"]["value"] == 0
    assert results["before"]["loss"]["value"] == pytest.approx(0.693147, abs=1e-5)
    assert results["test"]["reward_accuracy"]["value"] == 1 and results["test"]["reward_margin"]["low"] > 0
    assert results["val"]["loss"]["value"] < results["curve"][0]["train_loss"]
    assert results["forgetting"]["difference"]["n"] >= 1 and len(results["forgetting"]["curve"]) == 7
    assert results["forgetting"]["curve"][0]["metric"] == pytest.approx(0.693147, abs=1e-5)
    assert results["reference"]["cached"] is False
    assert "reward_accuracy 1.0000" in out and "general text  loss" in out


def test_predictions_match_the_metrics(train, tmp_path, pair_file):
    results, _ = train("run", "--epochs", 1)
    rows, given = lines_of(tmp_path / "run" / "predictions.jsonl"), lines_of(pair_file)
    margins = [row["chosen_reward"] - row["rejected_reward"] for row in rows]
    assert sum(margins) / len(margins) == pytest.approx(results["test"]["reward_margin"]["value"])
    assert len(rows) == results["test"]["loss"]["n"] == results["data"]["rows"]["test"]
    assert all({name: row[name] for name in given[0]} == given[row["id"]] for row in rows)


def assert_same_numbers(ours, theirs, exactly=False):
    tolerance = {} if exactly else {"rel": 2e-3, "abs": 1e-6}
    for part in ("val", "test"):
        for name in METRICS:
            expected = theirs[part][name]["value"]
            assert ours[part][name]["value"] == (expected if exactly else pytest.approx(expected, **tolerance)), name


def test_a_cached_reference_gives_the_numbers_of_adapter_off_and_is_found_again(train, tmp_path, steps):
    off, _ = train("off", *steps)
    cached, out = train("cached", *steps, "--reference", "cached")
    assert cached["reference"]["cached"] is True and "found" not in out
    assert_same_numbers(cached, off)
    again, out = train("again", *steps, "--reference", "cached")
    assert ", found" in out
    assert_same_numbers(again, cached, exactly=True)


def test_with_loftq_the_reference_is_the_untrained_model_with_its_adapters(train, tmp_path):
    pytest.importorskip("bitsandbytes")
    untrained = ["--max-steps", 1, "--lr", 1e-12, "--base-bits", 4, "--lora-init", "loftq"]
    for rank in (4, 2):  # another start has numbers of its own
        results, out = train(f"rank{rank}", *untrained, "--lora-rank", rank, "--forgetting-tokens", 300)
        assert results["reference"]["cached"] is True and ", found" not in out
        assert results["before"]["reward_margin"] == {"value": 0, "low": 0, "high": 0, "n": 4}
        for name in ("reward_margin", "chosen_reward", "rejected_reward"):
            assert results["test"][name]["value"] == pytest.approx(0, abs=1e-5), name
        assert results["forgetting"]["difference"]["value"] == pytest.approx(0, abs=1e-6)
    _, out = train("again", *untrained, "--lora-rank", 4, "--seed", 1)
    assert ", found" in out and len(list((tmp_path / "cache").glob("*/reference"))) == 2


def test_how_an_update_is_computed_does_not_change_it(train):
    flags = ["--max-steps", 4, "--batch-size", 4, "--eval-every", 2, "--last-blocks", 2, "--optimizer", "sgd"]
    plain, _ = train("plain", *flags)
    for how in (["--micro-batch-size", 3], ["--micro-batch-size", "auto"], ["--cache-frozen", "memory"]):
        other, _ = train(how[0] + str(how[1]), *flags, *how)
        assert_same_numbers(other, plain)
        assert other["parameters"] == plain["parameters"]
    assert other["frozen_activations"]["blocks"] == 1 and other["frozen_activations"]["texts"] == 80


@pytest.mark.parametrize("flags", [["full"], ["bitfit"], ["head", "--untie-head"], ["lora", "--lora-dropout", 0.1]])
def test_every_kind_of_method_runs_and_learns(flags, train, steps, tmp_path):
    results, _ = train("run", *steps, "--method", *flags)
    assert results["reference"]["cached"] is (flags[0] != "lora")
    assert results["val"]["loss"]["value"] < results["before"]["loss"]["value"]
    assert (tmp_path / "run" / ("model" if flags[0] == "full" else "adapter")).is_dir()


@pytest.mark.parametrize("flags", [["--dpo-loss", "ipo", "--beta", 0.5], ["--label-smoothing", 0.2]])
def test_the_other_losses_run_and_learn(flags, train, steps):
    results, _ = train("run", *steps, *flags)
    assert results["val"]["loss"]["value"] < results["before"]["loss"]["value"]
    assert results["test"]["reward_margin"]["value"] > 0


def test_every_method_has_a_default_learning_rate():
    assert set(SCRIPT.DEFAULTS) == set(get_args(get_type_hints(MethodArgs)["method"]))


def test_a_dry_run_tells_what_is_needed_and_writes_nothing(call, tiny_model, pair_file, tmp_path):
    known = ["--data", pair_file, "--model", tiny_model, "--output-dir", tmp_path / "run"]
    known += ["--val-examples", 2, "--test-examples", 2, "--batch-size", 3, "--micro-batch-size", "auto"]
    status, out, err = call(*known, "--dry-run")
    assert status == 0, err
    assert out.split("largest micro-batch")[1].splitlines()[0].split() == ["3"] and "logits" in out
    assert list(tmp_path.iterdir()) == []


def test_an_instruction_tuned_run_is_gone_on_from_and_its_answer_is_what_generate_writes(
    train, call, steps, tiny_model, question_file, pair_file, tmp_path
):
    flags = ["--data", question_file, "--model", tiny_model, "--max-steps", 3, "--lr", 1e-2, "--new-tokens", 0]
    done = run_in_process("finetune_ift", *flags, "--output-dir", tmp_path / "tutor")
    assert done.returncode == 0, done.stderr
    results, _ = train("run", *steps, "--start-from", tmp_path / "tutor", "--lora-rank", 4)
    assert results["before"]["reward_accuracy"]["value"] == 0.5
    assert results["args"]["start_from"] == str(tmp_path / "tutor")
    tensors = weights_of(tmp_path / "run")
    assert {len(t) for name, t in tensors.items() if "lora_A" in name and "c_proj" in name} == {16 + 4}
    assert adapted(tmp_path / "run" / "adapter")
    known = ["--data", pair_file, "--output-dir", tmp_path / "dry", "--dry-run", "--start-from"]
    for start in (tmp_path / "tutor", tmp_path / "tutor" / "adapter"):
        status, _, err = call(*known, start)
        assert status == 0 and f"note    --model {tiny_model}: the base of --start-from {start}" in err, err
    written = run_in_process("generate", "--run", tmp_path / "run", "--prompt", "Is 3 a number?", "--new-tokens", 3)
    assert written.returncode == 0, written.stderr
    again, _ = train("again", *steps, "--start-from", tmp_path / "run")
    assert again["reference"]["sha256"] not in (results["reference"]["sha256"], results["model"]["sha256"])


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
    run = run_in_process if processes == 1 else partial(run_script, processes=processes)
    unbroken = run("finetune_dpo", *flags, "--output-dir", tmp_path / "a")
    assert unbroken.returncode == 0, unbroken.stderr
    broken = [*flags, "--output-dir", tmp_path / "b"]
    kill_at_a_random_moment("finetune_dpo", processes, broken, tmp_path / "b", seed=str(processes))
    resumed = run("finetune_dpo", *broken, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = weights_of(tmp_path / "b"), weights_of(tmp_path / "a")
    assert ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    a, b = results_of(tmp_path / "a"), results_of(tmp_path / "b")
    assert all(a[name] == b[name] for name in ("curve", "before", "val", "test", "best_step", "data"))
    assert (tmp_path / "a" / "predictions.jsonl").read_text() == (tmp_path / "b" / "predictions.jsonl").read_text()


# Wrong input: one message, status 2, nothing written.


def test_predict_says_that_generate_asks_such_a_run(call, tiny_model, mail_file, run_here, tmp_path):
    few = ["--train-examples", 4, "--val-examples", 2, "--test-examples", 2, "--max-steps", 1]
    known = ["--dataset", "preferences", "--model", tiny_model, "--output-dir", tmp_path / "run"]
    status, _, err = call(*known, *few)
    assert status == 0, err
    before = sorted((tmp_path / "run").iterdir())
    status, _, err = run_here(load_script("predict"), "--run", tmp_path / "run", "--data", mail_file)
    assert status == 2 and f"--run {tmp_path / 'run'}: is a run of finetune_dpo; scripts/generate.py asks it" in err
    assert sorted((tmp_path / "run").iterdir()) == before


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    good = pairs(20)
    contents = {
        "good": good,
        "column": [{name: text for name, text in row.items() if name != "rejected"} for row in good],
        "same": [*good, good[0] | {"chosen": "no", "rejected": "no "}],
        "types": [*good, good[0] | {"chosen": ["yes"]}],
        "empty-cells": [row | {"rejected": " "} for row in good],
        "contrary": [good[0], good[0] | {"chosen": good[0]["rejected"], "rejected": good[0]["chosen"]}],
        "long": [row | {"prompt": "many words " * 300} for row in good],
    }
    for name, rows in contents.items():
        write_rows(folder / f"{name}.jsonl", rows)
    (folder / "broken.jsonl").write_text('{"prompt": "a"\n')
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["column"], "column 'rejected' is missing .*--rejected-column name them"),
        (["good", "--chosen-column", "better"], "column 'better' is missing"),
        (["same"], r"the same in 1 rows \(row 21\)"),
        (["types"], "row 21: column 'chosen' holds a list, not text"),
        (["empty-cells"], "no training examples remain"),
        (["contrary"], "no training examples remain"),
        (["broken"], "line 1"),
        (["long"], "--max-length 512: leaves no example to train on .* no room for answers"),
        (["good", "--max-length", "20"], "--max-length 20: leaves no example to train on .* no room for answers"),
        (["good", "--max-length", "513"], "--max-length 513: .* 512 tokens"),
        (["good", "--beta", "0", "--label-smoothing", "0.5"], "--beta 0.0: .*--label-smoothing 0.5"),
        (["good", "--dpo-loss", "ipo", "--label-smoothing", "0.1"], "--dpo-loss ipo has none"),
        (["good", "--dpo-loss", "hinge"], "hinge"),
        (["good", "--method", "full", "--reference", "adapter-off"], "--method full has no adapters to switch off"),
        (
            ["good", "--base-bits", "4", "--lora-init", "loftq", "--reference", "adapter-off"],
            "--reference adapter-off: training starts with the adapters of --lora-init loftq",
        ),
        (["good", "--method", "head"], "--untie-head"),
        (["good", "--start-from", "{files}/nowhere"], "--start-from .*nowhere: no such folder"),
        (["good", "--start-from", "{files}"], "--start-from .* holds neither a finished run nor an adapter"),
        (["good", "--method", "full", "--cache-dir", "{files}/good.jsonl/x"], "--cache-dir .* is a file, or lies in"),
        (["good", "--cache-frozen", "memory"], "all 3 blocks train"),
        (["good", "--early-stop", "1", "--validation-share", "0"], "--early-stop 1: there are no validation examples"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_wrong_input_is_refused_before_anything_is_written(flags, message, call, files, tiny_model, tmp_path):
    name, *rest = (flag.format(files=files) for flag in flags)
    known = ["--data", files / f"{name}.jsonl", "--model", tiny_model, "--output-dir", tmp_path / "run"]
    status, _, err = call(*known, *rest)
    assert status == 2 and "Traceback" not in err and err.count("error:") == 1
    assert re.search(message, " ".join(err.split())), err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("steps", "keep"), [(9, "best"), (1, "best"), (1, "last")])  # the last update too
def test_a_run_that_diverges_ends_with_a_message_and_without_results(call, files, tiny_model, tmp_path, steps, keep):
    known = ["--data", files / "good.jsonl", "--model", tiny_model, "--output-dir", tmp_path / "run", "--keep", keep]
    status, _, err = call(*known, "--lr", 1e30, "--max-steps", steps, "--warmup-steps", 0, "--max-grad-norm", None)
    assert status == 2 and "Traceback" not in err and "training diverged" in err
    assert not (tmp_path / "run" / "results.json").exists()


def test_the_message_without_data_names_the_command_that_works_offline(call, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    status, _, err = call("--dataset", "dpo_pairs", "--model", tiny_model)
    assert status == 2 and "put dpo_pairs.json into $DATA_DIR" in err
    status, _, err = call("--dataset", "alpaca", "--model", tiny_model)
    assert status == 2 and "--dataset alpaca: this script knows dpo_pairs, preferences" in err
