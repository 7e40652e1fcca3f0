"""What is wrong in the flags of a benchmark is told with the flag and the remedy, before anything is computed."""

from importlib import import_module

import pytest
from helpers import run_in_process

import coverage
from coverage import ACCURACY, LEFT, accuracies, simulated

MAIL = "benchmarks/grids/mail.npz"


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("racing", (), "--grid: name at least one recorded grid"),
        ("racing", ("--save", "{folder}/grid.npz"), "--grid: name at least one recorded grid"),
        ("racing", ("--grid", "{folder}"), "--grid {folder}: holds no runs of a study"),
        ("racing", ("--grid", MAIL, "--grids", 0), "--grids 0: must be at least 1"),
        ("racing", ("--grid", MAIL, "--alpha", 0.02, 2), "--alpha 2.0: must be between 0 and 1"),
        ("coverage", ("--repetitions", 0), "--repetitions 0: must be at least 1"),
        ("coverage", ("--accuracies", 0.5, 2), "--accuracies 2.0: must be above 0 and at most 1"),
        ("coverage", ("--examples", 40, 1), "--examples 40 1: name at least one number, each at least 2"),
        ("coverage", ("--of-seeds", 0.5), "--of-seeds 0.5: must be above 0 and below 1, and beside --overlap"),
        ("coverage", ("--seeds", 0), "--seeds 0: name at least one number, each at least 1"),
        ("scaling", ("--workers", 2, 0), "--workers 2 0: name at least one number, each at least 1"),
        ("scaling", ("--runs", 0, "--rounds", 0), "--runs 0: must be at least 1"),
        ("network", ("--models", "gpt2", "foo"), "--models foo: must be among gpt2-nano, gpt2, "),
        ("network", ("--gpus", 0), "--gpus 0: name at least one number"),
        ("network", ("--flops", 0), "--flops 0.0: must be above 0"),
        ("peft_exchange", ("--texts", 0), "--texts 0: must be at least 1"),
        ("peft_exchange", ("--lr", 0), "--lr 0.0: must be above 0"),
        (
            "methods",
            ("--flags=--forgetting-data none",),
            "--flags --forgetting-data none: the picture shows",
        ),
        (
            "methods",
            ("--flags=--forgetting_data=none",),
            "--flags --forgetting-data none: the picture shows",
        ),
        ("methods", ("--seeds",), "--seeds: name at least one"),
        ("gpu_check", ("--alone", "numbers", "--json", "{folder}/old.json"), "--json {folder}/old.json: is there"),
    ],
)
def test_wrong_flags_are_refused_with_one_message(script, flags, message, tmp_path):
    (tmp_path / "old.json").write_text("{}")
    words = [str(word).format(folder=tmp_path) for word in flags]
    done = run_in_process(import_module(script), *words)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error:") == 1 and message.format(folder=tmp_path) in done.stderr
    assert done.stdout == "" and (tmp_path / "old.json").read_text() == "{}"


def test_an_incomplete_grid_is_refused(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / "full" / f"lr-0.00{seed + 1}" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "validation.jsonl").write_text('{"id": 0, "prediction": "a", "loss": 1.0}\n')
    done = run_in_process(import_module("racing"), "--grid", tmp_path)
    assert done.returncode == 2 and "fewer than two seeds have a run at every rate of every arm" in done.stderr


def test_arms_that_a_race_has_stopped_are_compared_on_the_seeds_that_they_have(capsys):
    """Fewer seeds, wider intervals: those of two seeds hold at least as often as those of five."""
    found = simulated(ACCURACY, accuracies(150, LEFT[0], 0.7, [0.15] * 4), 60, [0], LEFT)
    assert found.each.shape == (3,) and found.each[2] >= found.each[0] > 90
    coverage.main(coverage.Args(repetitions=2, accuracies=(0.7, 0.99), examples=(40,), stopped=True))
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_intervals_for_any_pool_hold_less_often_the_more_seeds_share_and_the_more_of_the_variance_is_theirs():
    held = [
        coverage.overlapping(5, drawn, 1.0, 400, of_seeds)
        for drawn, of_seeds in ((0.2, 0.75), (0.8, 1 / 6), (0.8, 0.75))
    ]
    assert all(this > 92 for this, _ in held)
    assert held[2][1] < 65 and held[0][1] > held[2][1] + 20 and held[1][1] > held[2][1] + 20
