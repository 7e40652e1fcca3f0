"""What fits into the time, and what is said of a run that fails."""

import pytest

from evidence.racing import Trial
from studies.arms import arms_of
from studies.making import Clock, RunFailed
from studies.phases import EXPECTED_RUNS, affordable
from studies.runs import Recipe
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
    assert affordable(recipe.arms, clock(None), recipe, 5) == (every, 5)
    for minutes in (60, 40, 20, 10, 1):
        arms, seeds = affordable(recipe.arms, clock(minutes), recipe, 5)
        assert arms == every[: len(arms)] and len(arms) >= 2 and seeds >= 2
        assert seeds == 5 or len(arms) == 2
    assert affordable(recipe.arms, clock(1), recipe, 5) == (["full", "lora r4"], 2)
    assert EXPECTED_RUNS * 2 * 60 / 2 / 60 > 10


def test_a_run_is_named_by_all_that_it_does_not_share(recipe):
    places = {recipe.place(Trial(arm, rate, seed)) for arm in recipe.arms for rate in (-1, 0, 1) for seed in (0, 1)}
    assert len(places) == 4 * 3 * 2
    assert recipe.place(Trial("lora r4", 1, 0)) == recipe.folder / "50-examples-100-updates/lora-r4/lr-0.002/seed-0"


def test_a_run_that_fails_says_why_and_where_its_log_is(tmp_path):
    job = Job(tmp_path / "run", ("scripts/finetune_cls.py",))
    job.log.write_text("much\n\nerror: --lr 0: must be above 0\n")
    assert str(RunFailed(job)) == f"a run has failed: --lr 0: must be above 0 (log: {job.log})"
    job.log.write_text("x" * 1000)
    assert len(str(RunFailed(job))) <= 300 + len(str(tmp_path))


def test_a_run_that_diverges_is_remembered_and_is_no_failure(recipe):
    trial = Trial("full", 3, 0)
    job = recipe.job(trial, "validation")
    job.log.parent.mkdir(parents=True)
    job.log.write_text("error: the gradient is nan: training diverged; lower --lr or warm up longer\n")
    assert recipe.note_divergence(trial, Done(job, 2, 1.0)) and recipe.has_diverged(trial)
    assert recipe.is_trained(trial) and recipe.scores(trial) is None
    other = Trial("full", 2, 0)
    assert not recipe.note_divergence(other, Done(recipe.job(other, "validation"), 1, 1.0))
