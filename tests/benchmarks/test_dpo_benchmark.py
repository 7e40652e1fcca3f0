"""benchmarks/preferences.py: every pair is tested once by a model that has not seen it, and the table adds them up."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from forked import run_forked
from helpers import ROOT, write_rows

import _runs
import preferences
from evidence.intervals import bootstrap_mean, share, shown
from tasks import Preference

PAIRS = [Preference(i, f"Question {i // 2}", f"yes {i}", f"no {i}") for i in range(22)]


def test_every_pair_is_tested_once_and_no_prompt_is_on_both_sides():
    parts = preferences.deal(PAIRS, 5)
    assert sorted(e.id for part in parts for e in part) == list(range(22))
    prompts = [{e.prompt for e in part} for part in parts]
    assert sum(map(len, prompts)) == 11 and {len(part) for part in parts} == {4, 6}


def test_prompts_that_differ_in_case_and_white_space_are_one():
    pairs = [replace(e, prompt=e.prompt.upper() + " ") if e.id % 2 else e for e in PAIRS]
    assert [[e.id for e in part] for part in preferences.deal(pairs, 5)] == [
        [e.id for e in part] for part in preferences.deal(PAIRS, 5)
    ]


def test_more_folds_than_prompts_are_refused():
    with pytest.raises(ValueError, match="--folds 12: the data has 11 prompts"):
        preferences.deal(PAIRS, 12)


@pytest.fixture
def args(tmp_path, monkeypatch):
    rows = [{"prompt": e.prompt, "chosen": e.chosen, "rejected": e.rejected} for e in PAIRS]
    write_rows(tmp_path / "dpo_pairs.json", [*rows, rows[0]])
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    return preferences.Args(folds=2, methods=("lora",), folder=tmp_path / "runs")


def test_the_files_of_a_fold_hold_what_it_trains_and_tests_on(args, capsys):
    folds = preferences.write_folds(args)
    assert "22 pairs" in capsys.readouterr().out
    read = [
        [json.loads(line)["chosen"] for line in (fold / f"{name}.jsonl").read_text().splitlines()]
        for fold in folds
        for name in ("train", "test")
    ]
    assert all(sorted(train + test) == sorted(e.chosen for e in PAIRS) for train, test in (read[:2], read[2:]))
    assert sorted(read[1] + read[3]) == sorted(e.chosen for e in PAIRS)


def test_the_table_has_the_means_over_all_pairs_and_seeds(args, capsys):
    args = replace(args, seeds=(0, 1))
    margins = {0: [[1.0, -1.0], [3.0]], 1: [[2.0, 0.0], [-1.0]]}
    folds = [args.folder / "a", args.folder / "b"]
    for seed, by_fold in margins.items():
        for fold, values in zip(folds, by_fold, strict=True):
            run = preferences.place(args, fold, "lora", seed)
            run.mkdir(parents=True)
            known = {"rejected_reward": 0.5, "chosen_reference": -10.0, "rejected_reference": -5.0}
            write_rows(run / "predictions.jsonl", [{"chosen_reward": v + 0.5} | known for v in values])
            lost = {"pieces": {"tokens": [100, 100], "before": [300, 300], "after": [300, 350]}}
            write_rows(run / "results.json", [{"args": {"beta": 0.1}, "forgetting": lost}])
    preferences.table(args, folds)
    cells = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    row = dict(zip(preferences.COLUMNS, cells, strict=True))
    expected = {
        "reward accuracy": [1.0, 0.25, 0.5],
        "reward margin": [1.5, -0.5, 1.0],
        "chosen": [2.0, 0.0, 1.5],
        "rejected": [0.5, 0.5, 0.5],
        "ranking accuracy before": [0.0, 0.0, 0.0],
        "after": [1.0, 0.0, 0.5],  # margins in log-probability: -5 + 10 and -5 + 20, and so on
    }
    for name, values in expected.items():
        mean = bootstrap_mean if name in ("reward margin", "chosen", "rejected") else share
        assert row[name] == shown(mean(np.array(values)).entry(), ".3f"), name
    assert row["pairs"] == "3" and row["forgetting, nats"] == "0.250 [-2.927, 3.427]"  # Student's of two


def test_the_real_script_runs_for_each_fold_and_finished_runs_are_not_repeated(args, few_tokens, capsys, monkeypatch):
    def started(words, cwd, **_):
        assert (words[0], cwd) == (sys.executable, ROOT)
        return run_forked(words[1:])

    monkeypatch.setattr(_runs, "subprocess", SimpleNamespace(run=started))
    args = replace(args, model=str(few_tokens), flags="--max-steps 2 --lr 1e-2 --forgetting-tokens 300")
    preferences.main(args)
    said = capsys.readouterr()
    assert said.err.count("finetune_dpo.py") == 2 and "| lora | 22 |" in said.out
    preferences.main(args)
    again = capsys.readouterr()
    assert "finetune_dpo.py" not in again.err and again.out == said.out
    with pytest.raises(ValueError, match="another run .--max-steps 2, now 3; --lr 0.01, now .*delete"):
        preferences.main(replace(args, flags="--max-steps 3 --forgetting-tokens 300"))
    assert "finetune_dpo.py" not in capsys.readouterr().err
