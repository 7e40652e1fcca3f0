"""What --report-to hands to experiment trackers, and what it refuses."""

import json
from importlib.util import find_spec

import pytest
import yaml
from conftest import results_of, run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.flags.common import FolderArgs


@pytest.fixture(scope="module")
def short(tiny_model, question_file):
    """Flags of a run of two updates."""
    return ["--data", question_file, "--model", tiny_model, "--max-steps", 2, "--new-tokens", 6]


def answered(folder, short, *flags):
    done = run_script("finetune_ift", *short, "--output-dir", folder, *flags)
    assert done.returncode == 0, done.stderr
    return done, results_of(folder), [json.loads(line) for line in (folder / "generations.jsonl").open()]


def numbers(results):
    parts = {name: results[name] for name in ("before", "val", "test", "forgetting")}
    return {
        f"{part}/{name}": metric["value"]
        for part, metrics in parts.items()
        for name, metric in metrics.items()
        if isinstance(metric, dict) and "value" in metric
    }


def test_tensorboard_has_flags_results_forgetting_and_sample_answers(tmp_path, short):
    done, results, answers = answered(tmp_path / "run", short, "--forgetting-tokens", 200)
    board = tmp_path / "run" / "tensorboard"
    assert f"tensorboard --logdir {board}" in done.stdout
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
    done, results, _ = answered(tmp_path / "run", short, "--report-to", "none")
    assert "tensorboard" not in done.stdout and not (tmp_path / "run" / "tensorboard").exists()
    assert "tensorboard" not in results["files"]


def test_mlflow_gets_the_same(tmp_path, short, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("gpt2-lora-bench", artifact_location=(tmp_path / "artifacts").as_uri())
    _, results, answers = answered(tmp_path / "run", short, "--report-to", "mlflow")
    (run,) = client.search_runs([experiment])
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
