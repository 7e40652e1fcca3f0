"""Intervals, tests and metrics against scipy, scikit-learn, closed forms and simulations with a known truth."""

import json
import math
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from evidence.intervals import (
    LEVEL,
    Z,
    bootstrap,
    bootstrap_mean,
    bootstrap_ratio,
    bounded_mean,
    holm,
    of_cells,
    perplexity,
    share,
    shown,
)
from training.evaluation import metrics
from training.evaluation.metrics import Row, perplexities


def accuracy_of(confusion):
    value = confusion.trace() / confusion.sum()
    return value, (np.eye(len(confusion)) - value) / confusion.sum()


def of_score(name, classes):
    """(value and slopes of a confusion matrix, its least value)."""
    return (metrics.mcc_slopes, -1) if name == "mcc" else (lambda c: metrics.macro_f1_slopes(c, np.arange(classes)), 0)


def mean_of(sums, n):
    return sums[..., 0] / n


def by_number(rows, classes):
    """Metrics of classes that are called 0, 1 and so on."""
    return metrics.classification_metrics(rows, [str(i) for i in range(classes)])


# Intervals.


def test_the_quantile_of_the_normal_distribution_belongs_to_the_level():
    assert float(stats.norm.ppf((1 + LEVEL) / 2)) == Z


def test_the_interval_of_a_mean_is_close_to_the_normal_one():
    scores = np.random.default_rng(1).normal(3.0, 2.0, 400)
    interval = bootstrap_mean(scores)
    standard_error = scores.std(ddof=1) / math.sqrt(400)
    assert interval.value == pytest.approx(scores.mean()) and interval.n == 400
    assert interval.low == pytest.approx(scores.mean() - 1.96 * standard_error, abs=0.1 * standard_error)
    assert interval.high == pytest.approx(scores.mean() + 1.96 * standard_error, abs=0.1 * standard_error)


def test_the_interval_of_a_mean_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(2)
    covered = 0
    for i in range(200):
        interval = bootstrap_mean(rng.exponential(1.0, 80), seed=i)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


POPULATIONS = {
    "even": np.ones(3) / 3,
    "uneven": np.array([0.6, 0.3, 0.1]),
    "twenty classes": np.ones(20) / 20,
    "spam": np.array([0.9, 0.1]),
}


def confusions(shares, error, n, rng, count):
    """Tables of n examples of classes that are as often as `shares`, of a classifier that errs to any other class."""
    classes = len(shares)
    wrong = (1 - np.eye(classes)) / (classes - 1) * error
    population = shares[:, None] * (np.eye(classes) * (1 - error) + wrong)
    return population, rng.multinomial(n, population.ravel(), size=count).reshape(count, classes, classes)


@pytest.mark.parametrize("name", ["macro_f1", "mcc"])
@pytest.mark.parametrize("error", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("shares", POPULATIONS)
def test_the_intervals_of_macro_f1_and_mcc_cover_the_truth_about_95_times_in_100_down_to_the_edge(name, error, shares):
    n = 100 if len(POPULATIONS[shares]) < 20 else 400
    population, drawn = confusions(POPULATIONS[shares], error, n, np.random.default_rng(3), 1000)
    score, least = of_score(name, len(population))
    truth = score(population)[0]
    inside = [found.low <= truth <= found.high for found in (of_cells(one, score, least) for one in drawn)]
    assert 0.90 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("name", ["macro_f1", "mcc"])
def test_the_slopes_of_a_score_are_its_numerical_derivatives(name):
    counts = np.random.default_rng(4).integers(0, 9, (4, 4)).astype(float)
    score, _ = of_score(name, 4)
    value, slopes = score(counts)
    for i, j in np.ndindex(4, 4):
        more = counts.copy()
        more[i, j] += 1e-6
        assert (score(more)[0] - value) / 1e-6 == pytest.approx(slopes[i, j], abs=1e-5)


@pytest.mark.parametrize("support", [[40], [20, 20], [16, 10, 8, 4, 2], [1] * 30])
def test_all_right_has_an_interval_below_1_and_not_down_to_a_class_that_was_not_drawn(support):
    labels = np.repeat(np.arange(len(support)), support)
    found = by_number(rows_of(labels, labels), max(len(support), 2))
    for name in ("macro_f1", "mcc") if len(support) > 1 else ():
        assert found[name]["value"] == found[name]["high"] == 1, name
        # That of all examples where classes are even; where they are not, a little lower. A share e of errors that
        # fall on every other class alike takes e K / (K - 1) from Matthews' correlation.
        lost = 1 - share([1.0] * len(labels)).low
        lost *= len(support) / (len(support) - 1) if name == "mcc" else 1
        assert 1 - found[name]["low"] == pytest.approx(lost, abs=0.01 if len(set(support)) == 1 else 0.06), name


def test_a_class_that_is_only_predicted_counts_0_in_the_macro_f1_and_could_have_been_anything():
    labels = np.arange(40) % 4
    four, five = (by_number(rows_of(labels, labels), classes)["macro_f1"] for classes in (4, 5))
    assert four["value"] == five["value"] == five["high"] == 1 and five["low"] == pytest.approx(four["low"], abs=0.01)
    predictions = np.where(np.arange(40) == 7, 4, labels)
    four, five = (by_number(rows_of(labels, predictions), classes)["macro_f1"] for classes in (4, 5))
    assert five["value"] == pytest.approx(four["value"] * 0.8) and five["high"] == 1
    assert five["low"] == pytest.approx(four["low"] * 0.8, abs=0.05)


def test_one_answer_for_all_leaves_it_open_how_much_the_model_knows():
    labels = np.arange(40) % 4 == 0
    found = by_number(rows_of(labels, np.zeros(40)), 2)
    assert found["mcc"]["value"] == 0 and found["mcc"]["low"] < -0.1 and found["mcc"]["high"] > 0.1
    assert found["macro_f1"]["low"] < found["macro_f1"]["value"] - 0.05


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", [0, 1])
def test_one_label_alone_has_a_correlation_of_0_and_no_warning(label):
    assert by_number(rows_of([label] * 10, [label] * 10), 2)["mcc"] == {"value": 0, "n": 10}


def test_a_correlation_with_labels_that_are_all_the_same_is_0_without_an_interval():
    found = by_number(rows_of([1] * 10, [1] * 9 + [0]), 2)
    assert found["mcc"] == {"value": 0, "n": 10}


@pytest.mark.parametrize("n", [2, 3, 5, 10, 20])
def test_the_interval_of_few_scores_is_students(n):
    scores = np.random.default_rng(n).normal(3.0, 2.0, n)
    theirs = stats.ttest_1samp(scores, 0).confidence_interval()
    ours = bootstrap_mean(scores)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("n", [5, 12, 29])
def test_the_interval_of_a_ratio_of_few_covers_the_truth_about_95_times_in_100(n):
    rng, covered = np.random.default_rng(25), 0
    for _ in range(1000):
        tokens = rng.integers(20, 60, n)
        found = bootstrap_ratio(tokens * rng.normal(2.0, 0.5, n), tokens)
        covered += found.low <= 2.0 <= found.high
    assert 0.92 <= covered / 1000 <= 0.98


def test_a_mean_between_bounds_is_the_bootstraps_and_where_nothing_differs_that_of_a_share():
    scores = np.random.default_rng(26).integers(0, 101, 60)
    assert bounded_mean(scores, 100) == bootstrap_mean(scores)
    equal = bounded_mean([85] * 40, 100)
    assert equal == pytest.approx([x * 100 for x in share([0.85] * 40)[:3]] + [40])
    assert bounded_mean([100.0], 100)[:3] == pytest.approx((100, 20.65, 100), abs=0.01)


def test_the_interval_of_a_few_scores_stays_on_their_scale():
    high = bounded_mean([100, 100, 100, 100, 50], 100)
    assert high.value == 90 and high.low == bootstrap_mean([100, 100, 100, 100, 50]).low and high.high == 100
    assert bounded_mean([0, 0, 0, 0.1], 1).low == 0
    assert bounded_mean([0, 0, 0, 9], math.inf)[1:3] == (0, bootstrap_mean([0, 0, 0, 9]).high)
    assert bounded_mean([1.5] * 4, math.inf) == (1.5, 1.5, 1.5, 4)


def test_a_constant_score_has_an_interval_without_width():
    interval = bootstrap_mean([0.25] * 30)
    assert interval == (0.25, 0.25, 0.25, 30)


def test_the_interval_is_the_same_for_the_same_seed_and_narrower_for_more_examples():
    scores = np.random.default_rng(4).normal(size=400)
    assert bootstrap_mean(scores, seed=5) == bootstrap_mean(scores, seed=5) != bootstrap_mean(scores, seed=6)
    few, many = bootstrap_mean(scores[:100]), bootstrap_mean(scores)
    assert (many.high - many.low) / (few.high - few.low) == pytest.approx(0.5, abs=0.1)


def test_draws_in_several_chunks_are_as_many_and_as_good(monkeypatch):
    scores = np.random.default_rng(5).normal(size=100)
    seen = []

    def mean(sums):
        seen.append(sums.shape)
        return mean_of(sums, 100)

    whole = bootstrap(scores[:, None], mean, draws=4000)
    monkeypatch.setattr("evidence.intervals.CHUNK", 30_000)
    parts = bootstrap(scores[:, None], mean, draws=4000)
    assert seen == [(4000, 1), (1,)] * 2
    assert parts.low == pytest.approx(whole.low, abs=0.02) and parts.high == pytest.approx(whole.high, abs=0.02)


def test_the_interval_of_a_ratio_is_that_of_scipy():
    rng = np.random.default_rng(6)
    tokens = rng.integers(1, 60, 200)
    losses = tokens * rng.gamma(4.0, 0.5, 200)

    def ratio(a, b, axis=-1):
        return a.sum(axis) / b.sum(axis)

    theirs = stats.bootstrap(
        (losses, tokens),
        ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(7),
    )
    ours = bootstrap_ratio(losses, tokens)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.value == pytest.approx(losses.sum() / tokens.sum()) and ours.n == 200
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * width)


def test_a_ratio_weighs_long_examples_more():
    assert bootstrap_ratio(np.array([1.0, 90.0]), np.array([1, 30])).value == pytest.approx(91 / 31)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (1, 2), (0, 40), (40, 40), (39, 40), (517, 1000)])
def test_the_interval_of_a_share_is_wilsons_as_scipy_has_it(right, n):
    theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
    ours = share(np.arange(n) < right)
    assert (ours.value, ours.low, ours.high, ours.n) == pytest.approx((right / n, theirs.low, theirs.high, n))
    assert 0 <= ours.low <= ours.value <= ours.high <= 1 and ours.high - ours.low > 0.01


def test_a_share_of_ties_and_of_averages_over_seeds_is_wilsons_on_the_number_of_examples():
    halves = share([1.0, 0.5, 0.5, 0.0] * 10)
    assert halves == share([1.0, 0.0] * 20)
    seeds = np.array([[1, 1, 0, 1], [1, 0, 0, 1]])
    assert share(seeds.mean(0)).n == 4 and share(seeds.mean(0)).value == pytest.approx(5 / 8)


@pytest.mark.parametrize("p", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [10, 40, 400])
def test_the_interval_of_a_share_covers_the_truth_on_average_over_nearby_truths(p, n):
    # The exact coverage of one p jumps from one p to the next; the mean over its neighbours is what is promised.
    covered, ends = [], [share(np.arange(n) < k) for k in range(n + 1)]
    for truth in np.linspace(max(p - 0.03, 0.005), min(p + 0.03, 0.995), 31):
        inside = [end.low <= truth <= end.high for end in ends]
        covered.append(stats.binom.pmf(np.arange(n + 1), n, truth)[inside].sum())
    assert np.mean(covered) > 0.935


@pytest.mark.parametrize("scores", [[0.5, 1.1], [-0.1, 0.5], [math.nan, 1.0], []])
def test_what_is_no_share_is_refused(scores):
    with pytest.raises(ValueError):
        share(scores)


def test_one_example_tells_no_spread_and_has_no_interval():
    for interval in (bootstrap_mean([0.7]), bootstrap_ratio(np.array([1.4]), np.array([2]))):
        assert interval.entry() == {"value": pytest.approx(0.7), "n": 1}
        assert shown(interval.entry(), ".3f") == "0.700 [no interval, n = 1]"
    assert shown(share([1.0]).entry()) == "1.0000 [0.2065, 1.0000]"


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one example"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="at least one example"):
        of_cells(np.zeros((2, 2), int), accuracy_of, 0)


# Metrics.


def draw_case(name, rng):
    """(labels, predictions, classes) of a case that scikit-learn has an answer for."""
    n, classes = 120, 4
    labels = rng.integers(0, classes, n)
    predictions = np.where(rng.random(n) < 0.5, labels, rng.integers(0, classes, n))
    if name == "two classes":
        return labels % 2, predictions % 2, 2
    if name == "one class predicted":
        return labels, np.full(n, 2), classes
    if name == "one class present":
        return np.full(n, 1), predictions, classes
    if name == "class absent from both":
        return labels % 3, predictions % 3, classes
    if name == "class absent from labels":
        return labels % 3, predictions, classes
    if name == "all right and one class":
        return np.full(n, 1), np.full(n, 1), classes
    if name == "all wrong":
        return labels, (labels + 1) % classes, classes
    if name == "all right":
        return labels, labels, classes
    assert name == "random"
    return labels, predictions, classes


CASES = (
    "random",
    "two classes",
    "one class predicted",
    "one class present",
    "class absent from both",
    "class absent from labels",
    "all right and one class",
    "all wrong",
    "all right",
)


def rows_of(labels, predictions, losses=None):
    losses = np.ones(len(labels)) if losses is None else losses
    return [
        Row(i, int(y), float(loss), 1, int(p))
        for i, (y, p, loss) in enumerate(zip(labels, predictions, losses, strict=True))
    ]


def sklearn_values(labels, predictions, classes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
            "macro_f1": sklearn_metrics.f1_score(
                labels, predictions, labels=sorted({*labels, *predictions} - {classes}), average="macro"
            ),
            "mcc": sklearn_metrics.matthews_corrcoef(labels, predictions),
        }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_macro_f1_and_mcc_of_a_confusion_matrix_are_those_of_scikit_learn(case, seed):
    labels, predictions, classes = draw_case(case, np.random.default_rng(seed))
    confusion = sklearn_metrics.confusion_matrix(labels, predictions, labels=range(classes))
    expected, among = sklearn_values(labels, predictions, classes), metrics.occurring(confusion, classes)
    for times in (1, 3):  # neither depends on how often all examples are repeated
        assert metrics.macro_f1_slopes(times * confusion, among)[0] == pytest.approx(expected["macro_f1"])
        assert metrics.mcc_slopes(times * confusion)[0] == pytest.approx(expected["mcc"], abs=1e-12)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("case", CASES)
def test_reported_metrics_are_those_of_scikit_learn_inside_their_intervals(case):
    labels, predictions, classes = draw_case(case, np.random.default_rng(11))
    found = by_number(rows_of(labels, predictions), classes)
    for name, expected in sklearn_values(labels, predictions, classes).items():
        entry = found[name]
        assert entry["value"] == pytest.approx(expected, abs=1e-12), name
        if name != "mcc" or len(set(labels)) > 1:
            assert entry["low"] - 1e-12 <= entry["value"] <= entry["high"] + 1e-12, name
        assert entry["n"] == 120
    expected = sklearn_metrics.confusion_matrix(labels, predictions, labels=range(classes))
    assert found["confusion_matrix"] == expected.tolist()


@pytest.mark.parametrize("case", CASES)
def test_metrics_by_class_are_those_of_scikit_learn(case):
    labels, predictions, classes = draw_case(case, np.random.default_rng(21))
    classes_found = by_number(rows_of(labels, predictions), classes)["classes"]
    assert [*classes_found] == [str(i) for i in range(classes)]
    found = classes_found.values()
    theirs = sklearn_metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(classes), zero_division=0
    )
    for name, column in zip(("precision", "recall", "f1", "n"), theirs, strict=True):
        assert [one[name] for one in found] == pytest.approx(column.tolist()), name
    assert [one["predicted"] for one in found] == np.bincount(predictions, minlength=classes).tolist()
    json.dumps(classes_found)  # plain numbers


def test_a_prediction_outside_the_classes_is_wrong_in_its_class_and_has_no_line_of_its_own():
    found = by_number(rows_of([0, 0, 1, 1], [0, 777, 1, 50256]), 2)["classes"].values()
    assert [(one["precision"], one["recall"], one["n"], one["predicted"]) for one in found] == [(1.0, 0.5, 2, 1)] * 2


def test_a_prediction_outside_the_classes_is_wrong_and_has_a_column_of_its_own():
    found = by_number(rows_of([0, 0, 1, 1], [0, 777, 1, 50256]), 2)
    assert found["confusion_matrix"] == [[1, 0, 1], [0, 1, 1]]
    expected = sklearn_values([0, 0, 1, 1], [0, 2, 1, 2], 2)
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)


def test_a_prediction_outside_the_classes_is_no_class_of_the_macro_f1():
    labels = np.arange(200) % 2
    predictions = np.where(np.arange(200) % 10 < 4, 777, labels)
    found = by_number(rows_of(labels, predictions), 2)
    for name in ("accuracy", "macro_f1", "mcc"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"], name
    assert found["macro_f1"]["value"] == pytest.approx(2 * 0.6 / 1.6)  # precision 1, recall 0.6


def test_the_loss_of_a_classifier_is_the_mean_over_examples():
    losses = np.random.default_rng(12).gamma(2.0, 1.0, 50)
    found = by_number(rows_of([0, 1] * 25, [0] * 50, losses), 2)["loss"]
    assert found["value"] == pytest.approx(losses.mean()) and found["low"] < losses.mean() < found["high"]


def test_perplexity_is_the_exponential_of_the_loss_per_token():
    response = [Row(0, -1, 4.0, 2), Row(1, -1, 30.0, 10)]
    whole = [Row(0, -1, 40.0, 10), Row(1, -1, 80.0, 20)]
    found = perplexities(response, response, whole)
    assert found["loss"]["value"] == pytest.approx(34 / 12)
    assert found["response_perplexity"]["value"] == pytest.approx(math.exp(34 / 12))
    assert found["text_perplexity"]["value"] == pytest.approx(math.exp(4.0))
    assert found["response_perplexity"]["low"] == pytest.approx(math.exp(found["loss"]["low"]))
    assert found["response_perplexity"]["high"] == pytest.approx(math.exp(found["loss"]["high"]))


def test_the_perplexity_of_a_model_that_diverged_is_a_number_that_results_json_can_hold():
    diverged = [Row(0, -1, 2000.0, 2), Row(1, -1, 900.0, 1)]
    assert perplexities(diverged, diverged, diverged)["response_perplexity"]["value"] == perplexity(900)
    assert perplexity(900) == perplexity(700) == pytest.approx(math.e**700)
    assert perplexity(2.5) == pytest.approx(math.exp(2.5)) and math.isnan(perplexity(math.nan))


# Several tests.


def test_holm_is_the_example_worked_out_by_hand():
    # In order .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and the last may not be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_keeps_the_order_and_lies_between_the_raw_value_and_bonferroni():
    p_values = np.random.default_rng(19).random(20) ** 2
    adjusted = np.array(holm(p_values))
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()
    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(1.0, 20 * p_values) + 1e-12).all()


@pytest.mark.parametrize(("given", "expected"), [([], []), ([0.3], [0.3]), ([0.6, 0.7], [1.0, 1.0])])
def test_holm_of_none_one_and_large_p_values(given, expected):
    assert holm(given) == pytest.approx(expected)


def test_intervals_of_many_classes_are_found_at_once_and_right():
    confusion = np.diag(np.full(150, 3))
    confusion[0, 1] = 50
    interval = of_cells(confusion, accuracy_of, 0)
    assert interval.value == pytest.approx(450 / 500)
    assert interval == pytest.approx(share([1.0] * 450 + [0.0] * 50), abs=0.001)
