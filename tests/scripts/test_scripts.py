"""The scripts as a user runs them: what a run leaves behind, and what wrong input gets."""

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from forked import start_forked
from helpers import ROOT, command, results_of, run_in_process, run_script, weights_of, write_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
METRIC = {"value", "low", "high", "n"}


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_there_are_scripts():
    assert {"finetune_cls", "finetune_ift", "finetune_dpo", "predict", "generate", "judge_ift", "playground"} <= set(
        SCRIPTS
    )


# A run of each kind, looked at from all sides.


@pytest.fixture(scope="module")
def classifier(tiny_model, mail_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cls"
    flags = ["--data", mail_file, "--model", tiny_model, "--epochs", 3, "--lr", 3e-2, "--output-dir", folder]
    done = run_script("finetune_cls", *flags)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture(scope="module")
def tutor(tiny_model, question_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ift"
    flags = ["--data", question_file, "--model", tiny_model, "--epochs", 2, "--lr", 1e-2, "--output-dir", folder]
    done = run_script("finetune_ift", *flags, "--new-tokens", 6)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.parametrize("run", ["classifier", "tutor"])
def test_a_run_folder_holds_what_the_design_says(run, request):
    folder, done = request.getfixturevalue(run)
    rows = "predictions.jsonl" if run == "classifier" else "generations.jsonl"
    names = {
        "results.json",
        "config.yaml",
        rows,
        "validation.jsonl",
        "trained_on.json",
        "curves.png",
        "tensorboard",
        "adapter",
    }
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder / "curves.png") in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("run", ["classifier", "tutor"])
def test_results_have_the_parts_that_other_programs_read(run, request):
    folder, _ = request.getfixturevalue(run)
    results = results_of(folder)
    assert {"args", "environment", "model", "data", "parameters", "curve", "best_step", "before", "val", "test"} <= set(
        results
    )
    assert results["args"]["lr"] and results["args"]["batch_size"] == 8
    assert {"python", "libraries", "device", "precision", "processes"} <= set(results["environment"])
    assert results["environment"]["libraries"]["torch"]
    assert len(results["data"]["sha256"]) == 64
    assert sum(results["data"]["rows"].values()) + sum(results["data"]["skipped"].values()) == 60
    parameters = results["parameters"]
    assert parameters["share"] == parameters["trainable"] / parameters["total"]
    assert results["tokens_per_second"] > 0 and results["peak_memory_mib"] > 100
    assert set(results["seconds"]) == {"train", "eval"}
    assert sorted(results["files"]) == sorted(path.name for path in folder.iterdir())
    names = (
        {"accuracy", "macro_f1", "mcc", "loss"} if run == "classifier" else {"response_perplexity", "text_perplexity"}
    )
    for part in ("before", "val", "test"):
        for name in names:
            metric = results[part][name]
            assert set(metric) == METRIC
            assert metric["low"] <= metric["value"] <= metric["high"]


@pytest.mark.parametrize("run", ["classifier", "tutor"])
def test_the_curve_and_tensorboard_tell_the_same(run, request):
    folder, _ = request.getfixturevalue(run)
    curve = results_of(folder)["curve"]
    assert [point["step"] for point in curve] == sorted({point["step"] for point in curve})
    assert {"epoch", "examples", "tokens", "train_loss", "lr", "grad_norm"} <= set(curve[0])
    assert curve[-1]["val_loss"] < curve[0]["train_loss"]
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    for name in ("train_loss", "val_loss", "lr"):
        logged = {event.step: event.value for event in events.Scalars(name)}
        assert logged == pytest.approx({point["step"]: point[name] for point in curve if name in point}, rel=1e-5)


def test_the_classifier_has_learnt_and_its_predictions_match_its_metrics(classifier):
    folder, _ = classifier
    results, predictions = results_of(folder), lines_of(folder / "predictions.jsonl")
    right = [p["label"] == p["prediction"] for p in predictions]
    assert results["test"]["accuracy"]["value"] == pytest.approx(sum(right) / len(right))
    assert results["test"]["accuracy"]["n"] == len(predictions) == results["data"]["rows"]["test"]
    assert results["val"]["loss"]["value"] < results["before"]["loss"]["value"]
    matrix = results["test"]["confusion_matrix"]
    assert sum(map(sum, matrix)) == len(predictions)
    assert all(sum(p["probabilities"].values()) == pytest.approx(1) for p in predictions)


def test_generations_stand_beside_their_references(tutor, question_file):
    folder, _ = tutor
    generations, asked = lines_of(folder / "generations.jsonl"), {q["instruction"]: q for q in lines_of(question_file)}
    assert len(generations) == results_of(folder)["data"]["rows"]["test"]
    for g in generations:
        assert {"id", "instruction", "input", "reference", "before", "response", "stopped"} <= set(g)
        assert g["reference"] == asked[g["instruction"]]["response"]
    losses, tokens = (sum(g[name] for g in generations) for name in ("reference_loss", "reference_tokens"))
    assert math.exp(losses / tokens) == pytest.approx(results_of(folder)["test"]["response_perplexity"]["value"])
    assert (
        results_of(folder)["test"]["response_perplexity"]["value"]
        < results_of(folder)["before"]["response_perplexity"]["value"]
    )


def test_the_last_weights_are_kept_where_they_are_asked_for(tiny_model, mail_file, tmp_path):
    flags = ["--data", mail_file, "--text-column", "text", "--label-column", "label", "--model", tiny_model]
    flags += ["--max-steps", 6, "--lr", 1.0, "--warmup-ratio", 0]  # far too fast, so that the last are not the best
    kept = {"best": (1, "best"), "last": (1, "last"), "end": (6, "best")}
    for name, (every, keep) in kept.items():
        more = ["--eval-every", every, "--keep", keep, "--output-dir", tmp_path / name]
        done = run_in_process("finetune_cls", *flags, *more)
        assert done.returncode == 0, done.stderr
    steps = {name: results_of(tmp_path / name)["best_step"] for name in kept}
    assert steps["best"] < steps["last"] == steps["end"] == 6
    best, last, end = (weights_of(tmp_path / name) for name in kept)
    assert all(torch.equal(last[name], end[name]) for name in end)
    assert any(not torch.equal(best[name], end[name]) for name in end)


def test_the_same_command_gives_the_same_numbers(classifier, tiny_model, mail_file, tmp_path):
    folder, _ = classifier
    flags = ["--data", mail_file, "--model", tiny_model, "--epochs", 3, "--lr", 3e-2]
    assert run_in_process("finetune_cls", *flags, "--output-dir", tmp_path / "again").returncode == 0
    first, again = results_of(folder), results_of(tmp_path / "again")
    assert first["curve"] == again["curve"]
    assert first["test"] == again["test"]


@pytest.mark.parametrize("method", ["full", "bitfit", "head"])
def test_every_method_runs_and_its_model_can_be_applied(method, tiny_model, mail_file, tmp_path):
    """After full fine-tuning without its base; and a run with predictions in its folder can be done again."""
    folder, base = tmp_path / method, shutil.copytree(tiny_model, tmp_path / "base")
    flags = ["--data", mail_file, "--model", base, "--max-steps", 3, "--method", method, "--output-dir", folder]
    done = run_in_process("finetune_cls", *flags)
    assert done.returncode == 0, done.stderr
    if method == "full":
        shutil.rmtree(base)
    applied = run_in_process("predict", "--run", folder, "--data", mail_file)
    assert applied.returncode == 0, applied.stderr
    lines = {line["row"]: line for line in lines_of(folder / "predict-mails.jsonl")}
    for prediction in lines_of(folder / "predictions.jsonl"):
        ours = lines[prediction["id"]]
        assert ours["prediction"] == prediction["prediction"]
        assert ours["probabilities"] == pytest.approx(prediction["probabilities"], rel=1e-4)
    if method == "bitfit":
        again = run_in_process("finetune_cls", *flags, "--overwrite")
        assert again.returncode == 0, again.stderr


def test_the_published_quirks_run_together(tiny_model, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 3, "--output-dir", tmp_path / "run"]
    flags += ["--lora-scaling", "paper", "--lora-init", "paper", "--pad-to", 64, "--pad-id", 0, "--clip-after-warmup"]
    flags += [
        "--untie-head",
        "--head",
        "lm-token",
        "--head-training",
        "frozen+lora",
        "--decay-all",
        "--eval-batches",
        1,
    ]
    flags += ["--truncate", "tail", "--drop-last", "--warmup-steps", 1, "--schedule", "constant", "--max-length", 64]
    done = run_in_process("finetune_cls", *flags)
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "run")
    assert results["data"]["lengths"]["train"]["median"] == 64
    assert run_in_process("predict", "--run", tmp_path / "run", "--data", mail_file).returncode == 0
    assert (tmp_path / "run" / "predict-mails.jsonl").exists()


def test_early_stop_ends_a_run_that_no_longer_improves(tiny_model, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 200, "--lr", 1, "--eval-every", 1]
    done = run_in_process("finetune_cls", *flags, "--early-stop", 2, "--output-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "run")
    assert results["curve"][-1]["step"] == results["best_step"] + 2 < 200


# predict and generate.


def test_a_run_on_the_bundled_instructions_answers_a_file_with_other_columns(few_tokens, tmp_path):
    flags = ["--dataset", "instructions", "--model", few_tokens, "--max-steps", 2, "--new-tokens", 0]
    flags += ["--val-examples", 4, "--test-examples", 4]
    assert run_in_process("finetune_ift", *flags, "--output-dir", tmp_path / "run").returncode == 0
    asked = write_rows(tmp_path / "asked.jsonl", [{"instruction": "Name a bird."}, {"instruction": "Count."}])
    done = run_in_process("predict", "--run", tmp_path / "run", "--data", asked, "--new-tokens", 2)
    assert done.returncode == 0, done.stderr
    assert len(lines_of(tmp_path / "run" / "predict-asked.jsonl")) == 2


def test_generate_shows_base_and_fine_tuned_side_by_side(tutor):
    folder, _ = tutor
    done = run_in_process("generate", "--run", folder, "--prompt", "Count to 3", "--new-tokens", 5, "--compare")
    assert done.returncode == 0, done.stderr
    assert "> Count to 3" in done.stdout
    assert "base: " in done.stdout and "fine-tuned: " in done.stdout


def test_generate_continues_a_raw_prompt_with_the_bundled_model():
    flags = ["--model", "gpt2-nano", "--prompt", "The movie was", "--raw", "--new-tokens", 8]
    first, again = (run("generate", *flags) for run in (run_script, run_in_process))
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    assert len(first.stdout.splitlines()[1]) > 8


def test_bf16_runs_on_a_cpu_and_keeps_what_trains_in_fp32(tiny_model, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 4, "--output-dir", tmp_path / "run"]
    done = run_in_process("finetune_cls", *flags, "--mixed-precision", "bf16")
    assert done.returncode == 0, done.stderr
    assert results_of(tmp_path / "run")["environment"]["precision"] == "bf16"
    assert {tensor.dtype for tensor in weights_of(tmp_path / "run").values()} == {torch.float32}


def test_ctrl_c_stops_with_a_word_about_how_to_go_on(tiny_model, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 5000, "--eval-every", 2500, "--save-every", 5]
    flags += ["--output-dir", tmp_path / "run"]
    (run,) = start_forked(command("finetune_cls", *flags)[1:], tmp_path)
    deadline, saved = time.monotonic() + 120, tmp_path / "run" / "checkpoint" / "state.pt"
    while not saved.exists():
        assert run.exitcode is None and time.monotonic() < deadline, (tmp_path / "err").read_text()
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGINT)
    run.join(60)
    text = (tmp_path / "err").read_text()
    assert saved.exists() and run.exitcode == 130
    assert "--resume" in text and "Traceback" not in text
