"""Adding a metric takes one entry in METRICS: it is then in results.json, in the last lines of a run, in predict.py."""

import numpy as np
import pytest
from helpers import results_of
from sklearn.metrics import balanced_accuracy_score
from test_commands import load_script

from training.evaluation import metrics

BALANCED = metrics.Metric(
    "balanced_accuracy",
    "recall averaged over classes",
    lambda labels, predictions, classes, weights: balanced_accuracy_score(labels, predictions, sample_weight=weights),
)


def matrix_of(classes, seed):
    return np.random.default_rng(seed).integers(0, 20, (classes, classes)) + 10 * np.eye(classes, dtype=int)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("name", ["macro_f1", "mcc"])
def test_an_interval_from_the_value_alone_is_the_one_by_slopes_worked_out_by_hand(name, classes):
    (metric,) = [m for m in metrics.METRICS if m.name == name]
    least = -1 if name == "mcc" else 0
    for seed in range(3):
        confusion = matrix_of(classes, seed)
        by_hand, by_value = (f(confusion, classes) for f in (metric.interval, metrics.interval_of(metric.value, least)))
        assert by_value == pytest.approx(by_hand, abs=1e-5)


def test_a_metric_of_nothing_but_right_predictions_is_1_and_its_interval_goes_lower():
    for metric in (*metrics.METRICS, BALANCED):
        interval = metric.interval or metrics.interval_of(metric.value)
        found = interval(np.eye(3, dtype=int), 3)
        assert (found.value, found.high) == pytest.approx((1, 1)) and found.low < 0.9, metric.name


def test_a_metric_needs_no_folder_in_the_cache_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "file" / "metrics")
    metrics._modules.cache_clear()
    found = metrics.classification_metrics([metrics.Row(0, 1, 0.5, 1, 1), metrics.Row(1, 0, 0.5, 1, 1)], "ab")
    assert found["accuracy"]["value"] == 0.5


def test_an_added_metric_is_in_the_results_in_the_last_lines_and_in_predictions(
    tiny_model, mail_file, tmp_path, monkeypatch, run_here
):
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, BALANCED))
    folder = tmp_path / "run"
    flags = ["--model", tiny_model, "--max-steps", 2, "--forgetting-data", "none", "--output-dir", folder]
    status, out, err = run_here(load_script("finetune_cls"), "--data", mail_file, *flags)
    assert status == 0, err
    found = results_of(folder)["test"]
    entry, confusion = found["balanced_accuracy"], np.array(found["confusion_matrix"])[:, :2]
    assert entry["value"] == pytest.approx((confusion.diagonal() / confusion.sum(1)).mean())
    assert 0 <= entry["low"] < entry["value"] < entry["high"] <= 1 and entry["n"] == found["accuracy"]["n"]
    (line,) = [line for line in out.splitlines() if line.startswith("test    ")]
    assert f"balanced_accuracy {entry['value']:.4f} [" in line
    status, out, err = run_here(load_script("predict"), "--run", folder, "--data", mail_file)
    assert status == 0, err
    assert [line for line in out.splitlines() if line.startswith("balanced_accuracy ")]
