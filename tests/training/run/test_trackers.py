"""What --report-to hands to experiment trackers, and what it refuses."""

import json
from importlib.util import find_spec

import pytest
import yaml
from helpers import results_of, run_in_process, run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.flags.common import FolderArgs


@pytest.fixture(scope="module")
def short(tiny_model, question_file):
    """Flags of a run of two updates."""
    return ["--data", question_file, "--model", tiny_model, "--max-steps", 2, "--new-tokens", 6]


@pytest.fixture(scope="module")
def tracked(short, tmp_path_factory):
    """(what was printed, the folder, its results, its answers) of a run that all trackers here have followed."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    there = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder.parent}/mlflow.db"}
    if find_spec("mlflow"):
        client(folder).create_experiment("gpt2-lora-bench", artifact_location=(folder.parent / "artifacts").as_uri())
    names = ["tensorboard", *(["mlflow"] if find_spec("mlflow") else [])]
    flags = ["--output-dir", folder, "--forgetting-tokens", 200, "--report-to", *names]
    done = run_script("finetune_ift", *short, *flags, **there)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in (folder / "generations.jsonl").open()]
    return done.stdout, folder, results_of(folder), answers


def client(folder):
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")


def numbers(results):
    parts = {name: results[name] for name in ("before", "val", "test", "forgetting")}
    return {
        f"{part}/{name}": metric["value"]
        for part, metrics in parts.items()
        for name, metric in metrics.items()
        if isinstance(metric, dict) and "value" in metric
    }


def test_tensorboard_has_flags_results_forgetting_and_sample_answers(tracked):
    printed, folder, results, answers = tracked
    board = folder / "tensorboard"
    assert f"tensorboard --logdir {board}" in printed
    events = EventAccumulator(str(board))
    events.Reload()
    expected = numbers(results)
    assert {"test/response_perplexity", "forgetting/difference", "before/text_perplexity"} <= set(expected)
    for name, value in expected.items():
        (event,) = events.Scalars(name)
        assert (event.step, event.value) == (2, pytest.approx(value, rel=1e-5))
    (text,) = events.Tensors("answers/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert all(part in shown for row in answers[:8] for part in (row["instruction"], row["response"]))
    (hparams,) = board.glob("*/hparams.yml")
    flags = yaml.safe_load(hparams.read_text())
    assert set(flags) == set(results["args"]) and flags["lr"] == results["args"]["lr"]
    assert flags["lora_targets"] == str(results["args"]["lora_targets"])


def test_none_leaves_the_folder_without_tensorboard(tmp_path, short):
    done = run_in_process("finetune_ift", *short, "--output-dir", tmp_path / "run", "--report-to", "none")
    assert done.returncode == 0, done.stderr
    assert "tensorboard" not in done.stdout and not (tmp_path / "run" / "tensorboard").exists()
    assert "tensorboard" not in results_of(tmp_path / "run")["files"]


def test_mlflow_gets_the_same(tracked, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    _, folder, results, answers = tracked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder.parent}/mlflow.db")
    experiment = client(folder).get_experiment_by_name("gpt2-lora-bench").experiment_id
    (run,) = client(folder).search_runs([experiment])
    assert run.info.run_name == "run" and run.data.params["lr"] == str(results["args"]["lr"])
    assert run.data.metrics["test/response_perplexity"] == results["test"]["response_perplexity"]["value"]
    assert run.data.metrics["train_loss"] == results["curve"][-1]["train_loss"]
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/answers.md")
    assert answers[0]["instruction"] in text


def test_a_tracker_whose_library_is_missing_is_refused_with_the_command_that_installs_it():
    missing = [name for name in ("comet_ml", "aim", "swanlab", "clearml") if find_spec(name) is None]
    assert missing
    (problem,) = FolderArgs(report_to=("tensorboard", missing[0])).problems()
    assert problem == f"--report-to {missing[0]}: needs {missing[0]}; pip install {missing[0].replace('_', '-')}"


@pytest.mark.parametrize("names", [(), ("none", "tensorboard")])
def test_trackers_are_named_or_none_alone(names):
    assert FolderArgs(report_to=names).problems() == ["--report-to: name trackers, or none alone"]
