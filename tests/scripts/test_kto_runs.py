"""scripts/finetune_kto.py as a user runs it: what a run leaves, that it can be stopped and shared out, and refusals."""

import csv
import re
from functools import partial
from typing import get_args, get_type_hints

import pytest
import torch
from helpers import results_of, run_in_process, run_script, weights_of, write_rows
from test_commands import load_script
from test_dpo_runs import lines_of, pairs
from test_resume import kill_at_a_random_moment

from training.flags.method import MethodArgs

SCRIPT = load_script("finetune_kto")
METRICS = {"loss", "reward_accuracy", "good_reward", "bad_reward"}


def answers(count):
    """Two thirds are good, which their first word tells."""
    every = [row for pair in pairs(count) for row in ((pair, "chosen", "up"), (pair, "rejected", "down"))]
    return [
        {"question": pair["prompt"], "answer": pair[kind], "thumbs": thumbs}
        for i, (pair, kind, thumbs) in enumerate(every)
        if i % 4 != 1
    ]


@pytest.fixture(scope="session")
def answer_file(tmp_path_factory):
    path, rows = tmp_path_factory.mktemp("data") / "answers.csv", answers(40)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def call(run_here):
    return partial(run_here, SCRIPT)


@pytest.fixture
def train(call, tiny_model, answer_file, tmp_path):
    """Runs with these flags in the folder `name`; returns results.json and what was printed."""

    def run(name, *flags):
        known = ["--data", answer_file, "--model", tiny_model, "--output-dir", tmp_path / name, "--lr", 1e-2]
        status, out, err = call(*known, "--cache-dir", tmp_path / "cache", *flags)
        assert status == 0 and "Traceback" not in err, err
        return results_of(tmp_path / name), out

    return run


STEPS = ["--max-steps", 4, "--batch-size", 8, "--eval-every", 2]


def test_a_run_on_your_own_csv_learns_what_is_good_and_leaves_what_the_design_says(
    train, run_here, tmp_path, answer_file, mail_file
):
    results, out = train("run", "--epochs", 3, "--forgetting-tokens", 500, "--forgetting-curve")
    folder = tmp_path / "run"
    names = {"results.json", "predictions.jsonl", "curves.png", "forgetting.png", "tensorboard", "adapter"}
    names |= {"trained_on.json", "config.yaml"}
    assert {path.name for path in folder.iterdir()} == names == set(results["files"])
    for part in ("before", "val", "test"):
        assert set(results[part]) == METRICS
        assert all(set(entry) == {"value", "low", "high", "n"} for entry in results[part].values())
    assert results["script"] == "finetune_kto"
    assert (results["before"]["loss"]["value"], results["before"]["reward_accuracy"]["value"]) == (0.5, 0.5)
    assert results["test"]["reward_accuracy"]["value"] > 0.9
    assert results["test"]["good_reward"]["value"] > results["test"]["bad_reward"]["value"]
    assert results["val"]["loss"]["value"] < results["curve"][0]["train_loss"] == 0.5
    assert results["forgetting"]["curve"][0]["metric"] == pytest.approx(0.5, abs=1e-5)
    assert results["reference"]["cached"] is False
    assert "column 'thumbs': 'up' (40 rows) is read as good, 'down' (20 rows) is read as bad" in out
    assert "reward_accuracy" in out and "general text  loss" in out

    rows, given = lines_of(folder / "predictions.jsonl"), answers(40)
    for row in rows:
        kind = {"up": "good", "down": "bad"}[given[row["id"]]["thumbs"]]
        assert (row["prompt"], row["response"], row["label"]) == (*[*given[row["id"]].values()][:2], kind)
    good = [row["reward"] for row in rows if row["label"] == "good"]
    assert sum(good) / len(good) == pytest.approx(results["test"]["good_reward"]["value"])
    assert len(rows) == results["test"]["loss"]["n"] == results["data"]["rows"]["test"]

    status, _, err = run_here(load_script("predict"), "--run", folder, "--data", mail_file)
    assert status == 2 and f"--run {folder}: is a run of finetune_kto; scripts/generate.py asks it" in err
    generate = load_script("generate")
    written = run_here(generate, "--run", folder, "--prompt", "Is 3 a number?", "--new-tokens", 3)
    assert written.returncode == 0, written.stderr


def test_how_an_update_is_computed_does_not_change_it(train):
    flags = [*STEPS, "--last-blocks", 2, "--optimizer", "sgd"]
    plain, _ = train("plain", *flags)
    ways = {"micro": ["--micro-batch-size", 3], "cached": ["--reference", "cached", "--cache-frozen", "memory"]}
    for name, how in ways.items():
        other, _ = train(name, *flags, *how)
        for part in ("val", "test"):
            for metric in METRICS:
                expected = pytest.approx(plain[part][metric]["value"], rel=2e-3, abs=1e-6)
                assert other[part][metric]["value"] == expected, metric
    assert other["reference"]["cached"] is True and 60 < other["frozen_activations"]["texts"] <= 120


@pytest.mark.parametrize("flags", [["full"], ["bitfit"], ["head", "--untie-head"], ["lora", "--lora-dropout", 0.1]])
def test_every_kind_of_method_runs_and_learns(flags, train):
    results, _ = train("run", "--max-steps", 12, "--batch-size", 8, "--eval-every", 4, "--method", *flags)
    assert results["reference"]["cached"] is (flags[0] != "lora")
    assert results["val"]["loss"]["value"] < results["before"]["loss"]["value"]


def test_a_weight_counts_the_answers_of_its_kind_that_much_more(train):
    results, _ = train("run", *STEPS, "--desirable-weight", 2, "--undesirable-weight", 4)
    rows = results["data"]["rows"]["test"]
    good = results["test"]["good_reward"]["n"]
    assert results["before"]["loss"]["value"] == pytest.approx((2 * good + 4 * (rows - good)) / rows / 2)


def test_every_method_has_a_default_learning_rate():
    assert set(SCRIPT.DEFAULTS) == set(get_args(get_type_hints(MethodArgs)["method"]))


def test_the_bundled_pairs_are_forecast_answer_by_answer_and_nothing_is_written(call, tiny_model, tmp_path):
    flags = ["--dataset", "preferences", "--model", tiny_model, "--output-dir", tmp_path / "run"]
    flags += ["--val-examples", 2, "--test-examples", 2, "--batch-size", 3, "--micro-batch-size", "auto"]
    status, out, err = call(*flags, "--dry-run")
    assert status == 0, err
    assert re.search(r"train +198 ", out) and out.split("largest micro-batch")[1].split()[0] == "3"
    assert list(tmp_path.iterdir()) == []


def test_a_killed_and_resumed_run_on_two_processes_ends_bit_for_bit_like_an_unbroken_one_and_as_one_process_does(
    tiny_model, answer_file, tmp_path
):
    flags = ["--data", answer_file, "--model", tiny_model, "--lora-targets", "q", "lm-head", "--optimizer", "sgd"]
    flags += ["--max-steps", 18, "--batch-size", 5, "--micro-batch-size", 2, "--lr", 1e-1, "--save-every", 3]
    flags += ["--forgetting-data", "none"]
    unbroken = run_script("finetune_kto", *flags, "--output-dir", tmp_path / "a", processes=2)
    assert unbroken.returncode == 0, unbroken.stderr
    broken = [*flags, "--output-dir", tmp_path / "b"]
    kill_at_a_random_moment("finetune_kto", 2, broken, tmp_path / "b", seed="2")
    resumed = run_script("finetune_kto", *broken, "--resume", processes=2)
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = weights_of(tmp_path / "b"), weights_of(tmp_path / "a")
    assert ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    a, b = results_of(tmp_path / "a"), results_of(tmp_path / "b")
    assert all(a[name] == b[name] for name in ("curve", "before", "val", "test", "best_step", "data"))
    assert (tmp_path / "a" / "predictions.jsonl").read_text() == (tmp_path / "b" / "predictions.jsonl").read_text()

    alone = run_in_process("finetune_kto", *flags, "--micro-batch-size", 5, "--output-dir", tmp_path / "c")
    assert alone.returncode == 0, alone.stderr
    one = weights_of(tmp_path / "c")
    assert all(torch.allclose(tensor, one[name], rtol=1e-3, atol=1e-5) for name, tensor in theirs.items())
    losses = [[point["train_loss"] for point in results_of(tmp_path / name)["curve"]] for name in ("a", "c")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and min(losses[0]) < 0.499


# Wrong input: one message, status 2, nothing written.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, good = tmp_path_factory.mktemp("wrong"), answers(20)
    contents = {
        "good": good,
        "column": [{name: text for name, text in row.items() if name != "thumbs"} for row in good],
        "unknown": [*good, good[0] | {"thumbs": "sideways"}],
        "one-kind": [row for row in good if row["thumbs"] == "up"],
        "cut": [row | {"question": row["question"] + " many words" * 300 * (row["thumbs"] == "up")} for row in good],
        "long": [row | {"question": row["question"] + " many words" * 300} for row in good],
    }
    for name, rows in contents.items():
        write_rows(folder / f"{name}.jsonl", rows)
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["column"], "column 'label' is missing .*--label-column name them"),
        (["unknown"], "row 31: column 'thumbs' holds 'sideways', which is not known to mean good or bad"),
        (["one-kind"], "all 16 answers to train on are good; both kinds are needed"),
        (["cut"], "answers to train on are bad; both kinds are needed: give a larger --max-length"),
        (["good", "--label-column", "answer"], "name column 'answer' twice|'answer' would be read twice|not known"),
        (["good", "--label-column", "stars"], "column 'stars' is missing"),
        (["good", "--response-column", "x", "--label-column", "x"], "name column 'x' twice"),
        (["long"], "--max-length 512: leaves no example to train on .* no room for answers"),
        (["good", "--beta", "0", "--desirable-weight", "-1"], "--beta 0.0: .*--desirable-weight -1.0: must be above 0"),
        (["good", "--undesirable-weight", "inf"], "--undesirable-weight inf: must be above 0 and finite"),
        (["good", "--method", "full", "--reference", "adapter-off"], "--method full has no adapters to switch off"),
        (["good", "--start-from", "{files}/nowhere"], "--start-from .*nowhere: no such folder"),
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
