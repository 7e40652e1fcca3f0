"""A race on losses whose truth is known: what it tries, what it stops, and what it must never stop."""

from dataclasses import replace

import numpy as np
import pytest

from evidence.racing import COARSE, Race, Trial

N = 200


def loss_at(best, rate, height=0.0, bend=0.05):
    return 0.5 + height + bend * (rate - best) ** 2


def ended(truth, seeds=5, noise=0.0, rates=range(-6, 7), **options):
    """A race to its end over `truth`: arm -> mean loss at a rate. Seeds vary by `noise`, examples by much more."""
    race, rng, rounds = Race([*truth], seeds, rates, **options), np.random.default_rng(0), []
    examples = rng.normal(0, 0.3, N)
    for trials in race.rounds():
        assert trials and not {*trials} & {*race.found}, "no run is made twice"
        rounds.append(trials)
        for trial in trials:
            mean = truth[trial.arm](trial.rate)
            scores = mean + examples + rng.normal(0, noise) + rng.normal(0, 0.02, N)
            race.found[trial] = None if mean == np.inf else scores
    return race, rounds


def test_rates_go_from_coarse_to_fine_until_the_best_lies_inside():
    race, rounds = ended({"a": lambda rate: loss_at(5, rate)})
    assert [trial.rate for trial in rounds[0]] == [-2, 0, 2]
    assert [[trial.rate for trial in trials] for trials in rounds[1:3]] == [[4], [6]]
    assert race.best("a") == 5 and race.inside("a")
    assert {trial.seed for trials in rounds[:3] for trial in trials} == {0}


def test_a_best_rate_at_the_end_of_what_may_be_tried_is_not_inside():
    race, _ = ended({"a": lambda rate: -rate}, rates=range(-2, 3))
    assert race.best("a") == 2 and not race.inside("a")


def test_arms_that_are_worse_are_stopped_and_get_no_fine_rates():
    heights = {"good": 0, "fair": 0.001, "also": 0.002, "more": 0.003, "bad": 0.5}
    race, _ = ended({name: (lambda rate, h=h: loss_at(0, rate, h)) for name, h in heights.items()}, noise=0.01)
    assert {("bad", rate) for rate in (-2, 0, 2)} <= {*race.stopped} and race.tried("bad") == [-2, 0, 2]
    winner, rate = min(race.going_on(), key=race.loss)
    assert winner != "bad" and rate == 0 and {-1, 1} < {*race.tried(winner)}
    assert len(race.seeds_of(("bad", 0))) == 2 and len(race.seeds_of((winner, 0))) == 5


def test_nothing_is_stopped_before_seeds_have_shown_how_much_they_vary():
    race, rounds = ended(
        {name: (lambda rate, h=h: loss_at(0, rate, h)) for name, h in {"a": 0, "b": 1, "c": 2}.items()}, noise=0.01
    )
    assert {trial.seed for trial in rounds[0]} == {0} and {trial.seed for trial in rounds[1]} == {1}
    assert race.stopped and {trial for trials in rounds[:2] for trial in trials} >= {
        Trial(arm, 0, s) for arm in "abc" for s in (0, 1)
    }
    alone, _ = ended({"a": lambda rate: loss_at(0, rate), "b": lambda rate: loss_at(0, rate, 3)}, seeds=1)
    assert not alone.stopped


def test_an_arm_is_not_stopped_for_what_a_finer_rate_may_still_gain():
    """Its best rate lies between two coarse ones, at which it is worse than the other arm by far."""
    truth = {"coarse": lambda rate: loss_at(0, rate, 0.02), "fine": lambda rate: loss_at(1, rate)}
    race, _ = ended(truth, noise=0.001)
    assert ("fine", 1) in race.going_on() and race.best("fine") == 1
    assert ("coarse", 0) in race.stopped


@pytest.mark.parametrize("high", [0, 2])
def test_what_diverges_is_never_the_best_and_is_stopped(high):
    truth = {"a": lambda rate: np.inf if rate > high else loss_at(high, rate), "b": lambda rate: loss_at(0, rate)}
    race, _ = ended(truth)
    assert race.best("a") <= high
    assert all(rate <= high for arm, rate in race.going_on() if arm == "a")


def test_an_arm_that_diverges_everywhere_leaves_the_others_to_race():
    race, _ = ended({"a": lambda rate: np.inf, "b": lambda rate: loss_at(0, rate)})
    assert {arm for arm, _ in race.going_on()} == {"b"}


def test_a_race_over_the_same_runs_takes_the_same_turns():
    truth = {"a": lambda rate: loss_at(0, rate), "b": lambda rate: loss_at(1, rate, 0.01), "c": lambda rate: 0.9}
    race, _ = ended(truth, noise=0.02)
    again = Race([*truth], 5)
    for trials in again.rounds():
        again.found |= {trial: race.found[trial] for trial in trials}
    assert again.stopped == race.stopped and again.going_on() == race.going_on()


def test_one_race_in_6_to_25_stops_one_of_two_arms_that_are_alike():
    stopped = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        race = Race(["a", "b"], 5, range(0, 1))
        examples = rng.normal(0, 0.3, N)
        race.found = {
            Trial(arm, 0, s): examples + rng.normal(0, 0.05) + rng.normal(0, 0.05, N) for arm in "ab" for s in range(5)
        }
        assert [*race.rounds()] == []
        stopped += bool(race.stopped)
    assert 200 / 25 <= stopped <= 200 / 6  # each of several tests has a level of 4.5%


def test_what_a_free_worker_begins_early_is_asked_for_later():
    """Before the first test each arm's own runs decide, whatever else has ended; later only a stop can change it."""
    rng, begun, in_vain = np.random.default_rng(0), 0, 0
    for _ in range(6):
        arms = {arm: (int(rng.integers(-4, 5)), rng.uniform(0, 0.1)) for arm in "abcd"}
        truth = {arm: (lambda rate, at=at, high=high: loss_at(at, rate, high)) for arm, (at, high) in arms.items()}
        complete, _ = ended(truth, noise=0.01)
        race, sure, hoped = Race([*truth], 5), set(), set()
        for trials in race.rounds():
            before = all(trial.seed == 0 for trial in race.found)
            for order in [rng.permutation(len(trials)) for _ in range(4)]:
                some = [trials[i] for i in order[: rng.integers(1, len(trials) + 1)]]
                ahead = replace(race, found=race.found | {trial: complete.found[trial] for trial in some}).likely()
                assert not {*ahead} & ({*race.found} | {*some})
                (sure if before else hoped).update([trial for trial in ahead if trial not in trials][:1])
            race.found |= {trial: complete.found[trial] for trial in trials}
        assert {*race.found} == {*complete.found}
        assert sure and {trial for trial in sure if trial.seed == 1 or trial.rate % COARSE == 0} <= {*race.found}
        begun, in_vain = begun + len(sure | hoped), in_vain + len((sure | hoped) - {*race.found})
    assert begun > 40 and in_vain < begun / 4


def test_nothing_is_likely_of_an_arm_that_has_not_begun_or_was_stopped():
    assert Race(["a", "b"], 5).likely() == []
    race, _ = ended({"good": lambda rate: loss_at(0, rate), "bad": lambda rate: loss_at(0, rate, 0.5)}, noise=0.01)
    assert race.likely() == []
    fewer = {trial: scores for trial, scores in race.found.items() if trial.seed < 3}
    assert {trial.arm for trial in replace(race, found=fewer).likely()} == {"good"}
