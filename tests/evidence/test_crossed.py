"""Means over seeds and examples against Student's t, a known truth and Wilson's interval."""

import math

import numpy as np
import pytest
from scipy import stats

import coverage
from evidence.crossed import crossed_mean, family
from evidence.kinds import ACCURACY, JUDGE, PERPLEXITY


def test_where_the_seeds_alone_differ_the_interval_is_students_of_their_means():
    seeds = np.array([0.2, 0.5, 0.9, 0.4])
    mean = crossed_mean(np.tile(seeds[:, None], 50))
    assert mean.ends() == pytest.approx(stats.t.interval(0.95, 3, seeds.mean(), stats.sem(seeds)))
    assert mean.p() == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue)


def test_where_the_examples_alone_differ_the_interval_is_students_of_them():
    examples = np.random.default_rng(0).normal(1, 2, 60)
    for seeds in (1, 4):
        mean = crossed_mean(np.tile(examples, (seeds, 1)))
        assert mean.ends() == pytest.approx(stats.t.interval(0.95, 59, examples.mean(), stats.sem(examples)))
    assert mean.p() == pytest.approx(stats.ttest_1samp(examples, 0).pvalue)


def test_the_variance_is_that_of_means_of_other_seeds_and_examples():
    rng, found, means = np.random.default_rng(1), [], []
    for _ in range(4000):
        scores = rng.normal(0, 0.3, (6, 1)) + rng.normal(0, 1, 40) + rng.normal(0, 0.8, (6, 40))
        mean = crossed_mean(scores)
        found.append(mean.variance)
        means.append(mean.value)
    assert np.mean(found) == pytest.approx(0.09 / 6 + 1 / 40 + 0.64 / 240, rel=0.03)
    assert np.var(means) == pytest.approx(np.mean(found), rel=0.07)


def test_of_one_example_or_one_seed_nothing_is_claimed_of_others():
    assert math.isnan(crossed_mean(np.ones((3, 1))).ends()[0])
    one, three = crossed_mean(np.eye(1, 9)), crossed_mean(np.eye(3, 9))
    assert (one.p(), three.p()) == (1, 1) and math.isnan(one.detectable()) and math.isnan(three.detectable())
    assert crossed_mean(10 + np.eye(4, 9)).p() < 0.05


@pytest.mark.parametrize("right", [0, 1, 20, 39, 40])
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_a_share_is_never_known_better_than_by_wilsons_interval_of_its_examples(right, seeds):
    scores = np.zeros((seeds, 40))
    scores[:, :right] = 1
    low, high = ACCURACY.ends(ACCURACY.mean(scores, np.ones(40)), 40)
    wilson = stats.binomtest(right, 40).proportion_ci(method="wilson")
    assert low <= wilson.low + 1e-12 and high >= wilson.high - 1e-12
    if seeds == 1:
        assert (low, high) == pytest.approx((wilson.low, wilson.high))


def test_a_difference_of_shares_has_a_width_where_no_example_differs():
    low, high = ACCURACY.difference(np.ones((5, 30)), np.ones((5, 30)), np.ones(30)).ends()
    assert low == -high < -0.05
    assert ACCURACY.difference(np.ones((5, 30)), np.zeros((5, 30)), np.ones(30)).p() < 1e-6


def test_a_row_whose_seeds_all_differ_alike_says_nothing_of_the_others_seeds():
    """Two arms that always answer different classes: what rounding leaves of their seeds' variance is none."""
    reference, rng = np.zeros((3, 150)), np.random.default_rng(0)
    reference[:, :47] = 1
    rows = [1 - reference, *(rng.random((3, 150)) < 0.95 for _ in range(4))]
    means = [ACCURACY.difference(row.astype(float), reference, np.ones(150)) for row in rows]
    assert means[0].of_seeds == 0 < min(mean.of_seeds for mean in means[1:])
    found, without = family(means), family(means[1:])
    assert [mean for mean, _ in found[1:]] == [mean for mean, _ in without]
    assert sum(mean.claims for mean, _ in without) > 1


@pytest.mark.parametrize("seeds", [4, 5])
def test_a_difference_of_a_judges_scores_that_is_the_same_everywhere_is_one(seeds):
    ours, theirs = np.full((seeds, 30), 80.1), np.full((seeds, 30), 20.3)
    mean = JUDGE.difference(ours, theirs, np.ones(30))
    low, high = mean.ends()
    assert 0 < low < mean.value < high and mean.value == pytest.approx(59.8) and 0 < mean.p() < 1e-3
    assert JUDGE.difference(ours, ours, np.ones(30)).p() == 1
    ours[0, 0] = 81
    assert JUDGE.difference(ours, theirs, np.ones(30)) == JUDGE.mean(ours - theirs, np.ones(30))


def test_the_smallest_difference_that_is_found_is_found_in_four_of_five_tries():
    rng, found = np.random.default_rng(2), 0
    least = np.median([crossed_mean(_scores(rng, 0.0)).detectable() for _ in range(300)])
    for _ in range(600):
        found += crossed_mean(_scores(rng, least)).p() < 0.05
    assert 0.7 < found / 600 < 0.9


def _scores(rng, mean):
    return mean + rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 1, 100) + rng.normal(0, 0.5, (5, 100))


@pytest.mark.parametrize("kind", [ACCURACY, PERPLEXITY], ids=["accuracy", "perplexity"])
@pytest.mark.parametrize("spread", coverage.SPREADS)
def test_intervals_hold_and_arms_that_are_alike_are_seldom_told_apart(kind, spread):
    """A part of the table in docs/evidence.md, which has 10,000 repetitions."""
    spreads = [0.15 * times if kind is ACCURACY else 0.01 * times for times in coverage.SPREADS[spread]]
    draw = coverage.accuracies(150, 5, 0.7, spreads) if kind is ACCURACY else coverage.perplexities(150, 5, spreads)
    found = coverage.simulated(kind, draw, 400, [0])
    assert found.holds > 92 and found.differences > 91 and found.claimed < 7.5
    assert 0.95 < found.width < 1.3  # of an interval that is told the true variances
