"""The folds of a cross-validation are not counted as seeds."""

import json

import pytest
from test_methods_table import finished_run

import preferences
from compare_runs import forgetting


def test_the_interval_of_forgetting_is_over_pieces_of_the_folds_mean(tmp_path):
    """Folds that agree with each other narrow an interval over seeds, and not one over pieces of text."""
    runs, pieces = [], [0.1, 0.3]
    for fold in range(5):
        runs.append(finished_run(tmp_path / str(fold), "lora", 90))
        after = [300 + 100 * piece for piece in pieces]
        results = json.loads((runs[-1] / "results.json").read_text())
        results["forgetting"] = {"pieces": {"tokens": [100, 100], "before": [300, 300], "after": after}}
        (runs[-1] / "results.json").write_text(json.dumps(results))
    found = preferences.forgetting(runs)
    half = 12.7062 * 0.1  # Student's t at one degree of freedom
    assert found == pytest.approx((0.2, 0.2 - half, 0.2 + half, 2), abs=1e-4)
    for fold, run in enumerate(runs):  # each fold moves both pieces alike
        results = json.loads((run / "results.json").read_text())
        results["forgetting"]["pieces"]["after"] = [310 + 10 * (fold - 2), 310 + 10 * (fold - 2)]
        (run / "results.json").write_text(json.dumps(results))
    over_seeds, over_pieces = forgetting(runs), preferences.forgetting(runs)
    assert over_seeds.value == pytest.approx(over_pieces.value)
    assert over_pieces.low == over_pieces.value > over_seeds.low + 0.1
