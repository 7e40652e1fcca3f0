"""What fits into the time, and what is said of a run that fails."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from scripted import Engine

from evidence.racing import Race, Trial
from studies.arms import arms_of
from studies.making import Clock, Maker, Making, RunFailed, forecast
from studies.phases import affordable, beside, effect, expected_runs, likely, pilots_of, to_be_tested
from studies.runs import WATCHED, Recipe
from training.flags.command_line import parse
from training.flags.scripts import load_script
from workers.job import Done, Job

MIDDLES = {"full": 1e-4, "lora": 1e-3, "head": 1e-2}


@pytest.fixture
def recipe(tmp_path):
    arms = {arm.name: arm for arm in arms_of(["full", "lora", "head"], [4, 2], 6, True, MIDDLES)}
    return Recipe(tmp_path, "finetune_cls.py", ("--dataset", "enron"), arms, updates=100, train=50)


def clock(minutes, seconds=60.0, workers=2):
    return Clock(minutes, workers, seconds={100: [seconds]})


def test_runs_side_by_side_take_their_share_of_the_time_and_longer_ones_more():
    assert clock(None).needed(10, 100) == 300 and clock(None).needed(10, 200) == 600
    assert clock(10).has_room_for(8, 100, 4) and not clock(10).has_room_for(30, 100, 4)
    assert clock(None).has_room_for(10**6, 100, 0)


def test_a_short_time_drops_arms_from_the_end_and_then_seeds(recipe):
    every = [*recipe.arms]
    assert affordable(recipe, clock(None), 5) == (every, 5)
    for minutes in (60, 40, 20, 10, 1):
        arms, seeds = affordable(recipe, clock(minutes), 5)
        assert arms == every[: len(arms)] and len(arms) >= 2 and seeds >= 2
        assert seeds == 5 or len(arms) == 2
    assert affordable(recipe, clock(1), 5) == (["full", "lora r4"], 2)
    assert expected_runs(5) == 11 and expected_runs(2) == 8 and expected_runs(5, complete=True) == 35
    # Two arms of eleven runs each take two workers eleven minutes, their tests two and a half, and the timing one.
    assert affordable(recipe, clock(15), 5) == (["full", "lora r4"], 5) != affordable(recipe, clock(14), 5)
    assert len(affordable(recipe, clock(40), 5)[0]) > len(affordable(recipe, clock(40), 5, complete=True)[0])


@pytest.mark.parametrize(
    ("arms", "rise", "said"),
    [
        (["full"], 0.0212, "100 updates raise the loss of full by 0.0212"),
        (["full"], -0.5, "100 updates lower the loss of full by 0.5000"),
        (["full", "head"], 0.03, "100 updates raise the loss of full and head by at most 0.0300"),
        (["full", "head"], -0.03, "100 updates lower the loss of full and head by at least 0.0300"),
        (["full"], float("inf"), "100 updates are not compared, since training diverged"),
        (["full"], float("nan"), "100 updates are not compared, since training diverged"),
    ],
)
def test_what_other_updates_do_to_the_loss_is_said_with_its_direction(recipe, arms, rise, said):
    assert effect(recipe, [Trial(arm, 0, 0) for arm in arms], rise) == said


def test_nothing_is_begun_early_for_which_there_is_no_time(recipe):
    race = Race(["full", "lora r4"], 2, found={Trial("full", rate, 0): np.array([abs(rate)]) for rate in (-2, 0, 2)})
    lasting, short = (Maker(Engine(lambda *_: 0.0), clock(minutes), lambda _: None) for minutes in (30, 1))
    assert likely(lasting, recipe, race, []) == [Making(recipe, Trial("full", 0, 1))]
    assert likely(short, recipe, race, []) == []


def test_what_has_been_begun_is_dropped_by_no_short_time(recipe):
    for trial in (Trial("head", 0, 0), Trial("head", 0, 3)):
        recipe.place(trial).mkdir(parents=True)
        (recipe.place(trial) / "results.json").touch()
    Path(f"{recipe.place(Trial('lora r2', 1, 0))}.diverged").parent.mkdir(parents=True)
    Path(f"{recipe.place(Trial('lora r2', 1, 0))}.diverged").touch()
    assert recipe.begun() == {"head": {("lr-0.01", 0), ("lr-0.01", 3)}, "lora r2": {("lr-0.002", 0)}}
    assert affordable(recipe, clock(1), 5) == ([*recipe.arms], 4)
    pilots = replace(recipe, updates=200)
    pilots.place(Trial("head", 0, 0)).mkdir(parents=True)
    (pilots.place(Trial("head", 0, 0)) / "results.json").touch()
    assert affordable(pilots, clock(1), 5) == (["full", "lora r4"], 2)  # a pilot alone keeps no arm


def test_what_was_begun_early_beside_a_pilot_keeps_no_arm(recipe):
    named_last = replace(recipe, arms={name: recipe.arms[name] for name in ["head", "lora r2", "full", "lora r4"]})
    assert {trial.arm for trial in pilots_of(named_last)} == {"full", "lora r2"}
    before = affordable(named_last, clock(8), 5)
    for making in beside(named_last, pilots_of(named_last)):
        making.place.mkdir(parents=True)
        (making.place / "results.json").touch()
    for trial in pilots_of(named_last):
        named_last.place(trial).mkdir(parents=True)
        (named_last.place(trial) / "results.json").touch()
    assert affordable(named_last, clock(8), 5)[0] == before[0] == ["head", "lora r2"]


def test_as_many_runs_will_be_tested_as_the_arms_have_seeds_and_one_more():
    race = Race(["full", "head"], 3)
    assert to_be_tested(race) == 2
    race.found |= {Trial("full", 0, seed): np.array([0.1]) for seed in (0, 1)} | {Trial("full", 2, 0): np.array([0.2])}
    assert to_be_tested(race) == 3 + 1
    race.found |= {Trial(arm, 0, seed): np.array([0.1]) for arm in race.arms for seed in range(3)}
    assert to_be_tested(race) == 6


def test_times_are_those_of_as_many_updates_and_tests_have_their_own(recipe):
    """A run takes 10 s and a quarter of a second an update; a test takes 40 s, whatever the updates."""
    both = Clock(10, 1, seconds={200: [60.0, 60.0], 25: [16.25]})
    assert (
        both.of_run(25) == 16.25 and both.of_run(200) == 60 and both.of_run(50) == pytest.approx((15 + 15 + 32.5) / 3)
    )
    assert both.has_room_for(20, 25, tested_later=10)
    both.tests += [40.0, 40.0]
    assert not both.has_room_for(20, 25, tested_later=10) and both.has_room_for(10, 25, tested_later=9)


@pytest.mark.parametrize(
    ("status", "log", "said"),
    [
        (0, "  peak  9,000.0\n  available  500.0\n", "a run of full needs 9,000 MiB, and 500 are free"),
        (-9, "much\n", "signal 9 ended it; memory may have run out"),
        (2, "error: --lr 0: must be above 0\n", "the forecast of a run has failed: --lr 0: must be above 0"),
        (1, "", "it said nothing"),
    ],
)
def test_a_forecast_that_fails_or_does_not_fit_says_so(status, log, said, recipe):
    class Workers:
        def run(self, jobs):
            jobs[0].log.parent.mkdir(parents=True, exist_ok=True)
            jobs[0].log.write_text(log)
            return [Done(jobs[0], status, 1.0)]

    with pytest.raises(ValueError, match=said):
        forecast(Workers(), recipe, Trial("full", 0, 0), kept=True)
    assert not (recipe.folder / "forecasts.json").exists()


def test_a_run_is_named_by_all_that_it_does_not_share(recipe):
    places = {recipe.place(Trial(arm, rate, seed)) for arm in recipe.arms for rate in (-1, 0, 1) for seed in (0, 1)}
    assert len(places) == 4 * 3 * 2
    assert recipe.place(Trial("lora r4", 1, 0)) == recipe.folder / "50-examples-100-updates/lora-r4/lr-0.002/seed-0"


@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift"])
def test_a_run_watches_some_validation_examples_while_it_trains_and_is_scored_on_all(script, recipe):
    words = ("--dataset", "enron" if script == "finetune_cls" else "alpaca", "--batch-size", "4")
    recipe, arguments = replace(recipe, script=f"{script}.py", words=words), load_script(ROOT / f"scripts/{script}.py")
    for score in ("validation", "test"):
        args = parse(arguments.Args, recipe.job(Trial("full", 0, 0), score).words[1:])
        assert args.data.val_examples is args.data.test_examples is None
        for there, watched in ((4 * WATCHED + 50, 4 * WATCHED), (10, 10)):
            assert len(args.run.watched(range(there), args.update.batch_size)) == watched


def test_a_run_that_fails_says_why_and_where_its_log_is(tmp_path):
    job = Job(tmp_path / "run", ("scripts/finetune_cls.py",))
    job.log.write_text("much\n\nerror: --lr 0: must be above 0\n")
    assert str(RunFailed(Done(job, 2, 1.0))) == f"a run has failed: --lr 0: must be above 0 (log: {job.log})"
    job.log.write_text("x" * 1000)
    assert len(str(RunFailed(Done(job, 2, 1.0)))) <= 300 + len(str(tmp_path))
    killed = str(RunFailed(Done(job, -9, 1.0)))
    assert "signal 9 ended it; memory may have run out" in killed and "x" * 10 not in killed


def test_a_run_that_diverges_is_remembered_and_is_no_failure(recipe):
    trial = Trial("full", 3, 0)
    job = recipe.job(trial, "validation")
    job.log.parent.mkdir(parents=True)
    job.log.write_text("error: the gradient is nan: training diverged; lower --lr or warm up longer\n")
    assert recipe.note_divergence(trial, Done(job, 2, 1.0)) and recipe.has_diverged(trial)
    assert recipe.is_trained(trial) and recipe.scores(trial) is None
    (recipe.place(trial) / "checkpoint").mkdir(parents=True)
    recipe.drop_weights([trial])
    assert not (recipe.place(trial) / "checkpoint").exists()
    other = Trial("full", 2, 0)
    assert not recipe.note_divergence(other, Done(recipe.job(other, "validation"), 1, 1.0))
