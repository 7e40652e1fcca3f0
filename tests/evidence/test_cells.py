"""Runs become cells: numbers, intervals and tests against an oracle, what is damaged, and how cells are written."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers import ROOT, results_of, run_in_process
from report_rows import cells_of, classifier, found_in, general, line, of_runs, tutor
from scipy import special, stats

from evidence.cells import difference, in_columns
from evidence.crossed import pooled
from evidence.document import Block, Grid, Page, Section, Shown, listing, on_any_machine
from evidence.intervals import bootstrap_ratio, holm
from evidence.kinds import ACCURACY, JUDGE, NAMED, PERPLEXITY, answers_one_class, macro_f1
from evidence.latex import latex
from evidence.markdown import as_markdown
from evidence.runs import read_packed, read_run, write_packed
from reproduce.cells import number, reported
from reproduce.notes import (
    identical_notes,
)


def layout(scores, usual=0.0, of_seeds=False):
    """(variance of the mean of (seeds, n) scores, its degrees of freedom), from the sums of squares as textbooks have
    them; or what of it comes from the seeds, which is at least what is usual in the family."""
    seeds, n = scores.shape
    total = scores.sum() ** 2 / scores.size
    by_seed, by_example = (scores.sum(1) ** 2).sum() / n - total, (scores.sum(0) ** 2).sum() / seeds - total
    rest = ((scores**2).sum() - total - by_seed - by_example) / ((seeds - 1) * (n - 1))
    own = max(by_seed / (seeds - 1), rest) / scores.size
    if of_seeds:
        return own
    part, df = (usual, 2 * (seeds - 1)) if own <= usual else (own, seeds - 1)
    of_examples = max(by_example / (n - 1) - rest, 0) / scores.size
    return part + of_examples, (part + of_examples) / (part / df + of_examples / (n - 1))


def test_intervals_and_tests_are_over_seeds_and_examples(tmp_path):
    rng, lines, scores = np.random.default_rng(0), [], {}
    for label, chance in (("full", 0.9), ("lora", 0.8), ("head", 0.55)):
        for seed in range(5):
            lines.append(line(label, label, seed=seed))
            right = rng.random(120) < chance + 0.05 * rng.normal()
            scores.setdefault(label, []).append(right.astype(float))
            lost = general(rng.normal(), rng.normal())
            classifier(tmp_path / lines[-1].key, set(np.flatnonzero(right).tolist()), 120, forgetting=lost)
    first, *others = cells_of(lines, found_in(tmp_path))
    full, *theirs = (np.array(scores[label]) for label in ("full", "lora", "head"))
    assert (first.value, first.n, first.comparison) == (pytest.approx(full.mean()), 120, None)
    assert first.sd == pytest.approx(full.mean(1).std(ddof=1))
    variance, df = layout(full)
    p, z = full.mean(), stats.t.ppf(0.975, df)
    some = p * (1 - p) / variance
    centre = (p + z * z / 2 / some) / (1 + z * z / some)
    half = z * math.sqrt(p * (1 - p) / some + (z / 2 / some) ** 2) / (1 + z * z / some)
    low, high = stats.binomtest(round(120 * p), 120).proportion_ci(method="wilson")
    assert first.low == pytest.approx(min(centre - half, low), abs=3e-3)
    assert first.high == pytest.approx(max(centre + half, high), abs=3e-3)
    raw = []
    each = [layout(np.concatenate([one - full, np.tile([1.0, -1.0], (5, 1))], 1), of_seeds=True) for one in theirs]
    usual = math.sqrt(each[0] * each[1]) * 2 / math.exp(special.digamma(2))  # e^digamma(2) / 2: chi squared of 4
    for cell, scores_of in zip(others, theirs, strict=True):
        difference = np.concatenate([scores_of - full, np.tile([1.0, -1.0], (5, 1))], 1)
        variance, df = layout(difference, usual)
        mean = (scores_of - full).mean()
        raw.append(2 * stats.t.sf(abs(mean) / math.sqrt(variance), df))
        half = stats.t.ppf(0.975, df) * math.sqrt(variance)
        assert cell.comparison[:3] == pytest.approx((mean, mean - half, mean + half))
        assert cell.comparison.claims and cell.comparison.among == 2
        least = (stats.t.ppf(1 - 0.025 / 2, df) + stats.t.ppf(0.8, df)) * math.sqrt(variance)
        assert cell.comparison.detectable == pytest.approx(least)
    assert [cell.comparison.p for cell in others] == pytest.approx([max(2 * min(raw), max(raw)), 2 * min(raw)])


def random_runs(tmp_path, chances, column="spam", n=120, ham=0):
    """Lines of four seeds of a row for each chance of being right."""
    rng, lines = np.random.default_rng(len(column)), []
    for label, chance in chances.items():
        for seed in range(4):
            lines.append(line(label, f"{column}-{label}", column=column, seed=seed))
            right = rng.random(n) < chance + 0.03 * rng.normal()
            classifier(tmp_path / lines[-1].key, set(np.flatnonzero(right).tolist()), n, ham=ham)
    return lines


def test_columns_that_are_claimed_together_are_one_family_and_each_has_its_own_seeds_variance(tmp_path):
    """p is adjusted over all, by hand; value and interval are those of each column by itself."""
    chances = {"spam": {"a": 0.7, "b": 0.8, "c": 0.9}, "mail": {"a": 0.7, "b": 0.78}}
    columns = {
        name: [replace(cell, comparison=None) for cell in cells_of(random_runs(tmp_path, of, name), found_in(tmp_path))]
        for name, of in chances.items()
    }
    alone, together = {name: in_columns({name: cells})[name] for name, cells in columns.items()}, in_columns(columns)
    raw, adjusted = [], []
    for name, cells in together.items():
        first, *others = columns[name]
        means = pooled([difference(other, first)[0] for other in others])
        raw += [mean.p() for mean in means]
        for cell, mean, one in zip(cells[1:], means, alone[name][1:], strict=True):
            assert cell.comparison[:3] == one.comparison[:3] == pytest.approx((mean.value, *mean.ends()))
            assert cell.comparison.among == 3 and cell.comparison.detectable == pytest.approx(mean.detectable(3))
            adjusted.append(cell.comparison.p)
    assert adjusted == pytest.approx(holm(raw)) and adjusted != pytest.approx(raw)


def test_macro_f1_is_scikit_learns_and_stands_where_classes_are_unequal(tmp_path):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    for ham in (30, 66):
        run = read_run(classifier(tmp_path / f"{ham}", set(rng.permutation(100)[:70].tolist()), 100, ham=ham))
        wanted = sklearn.f1_score(run.examples["label"], run.examples["prediction"], average="macro")
        assert macro_f1(run) == pytest.approx(wanted)
    assert macro_f1(read_run(classifier(tmp_path / "equal", range(70), 100, ham=50))) is None
    assert macro_f1(read_run(tutor(tmp_path / "tutor", [2.0], [2]))) is None


def test_a_run_that_answers_one_class_is_counted(tmp_path):
    lines = [line("a", "a", seed=seed) for seed in range(3)]
    for one, right in zip(lines, (range(60), range(60, 100), range(50)), strict=True):  # spam, ham, and both
        classifier(tmp_path / one.key, right, 100, ham=60)
    (cell,) = cells_of(lines, found_in(tmp_path))
    assert cell.of_one_class == 2
    labels = classifier(tmp_path / "nano/b/seed0", range(40), 40)  # of one class there is nothing else to answer
    assert not answers_one_class(read_run(labels)) and not answers_one_class(
        read_run(tutor(tmp_path / "t", [2.0], [2]))
    )


def test_three_seeds_claim_nothing(tmp_path):
    lines = [line(label, label, seed=seed) for label in "ab" for seed in range(3)]
    for one in lines:
        classifier(tmp_path / one.key, range(180 if one.row.label == "a" else 20), 200)
    _, b = cells_of(lines, found_in(tmp_path))
    assert b.comparison.value == -0.8 and b.comparison.high < 0
    assert (b.comparison.p, b.comparison.claims, b.verdict) == (1.0, False, 0)


def test_a_small_table_is_as_counted_by_hand(tmp_path):
    lines = [line(label, label, seed=seed) for label in ("a", "b") for seed in (0, 1)]
    for one, right in zip(lines, [{0, 1}, {0, 1, 2, 3}, {0}, {0, 1}], strict=True):
        classifier(tmp_path / one.key, right, 4)
    first, second = cells_of(lines, found_in(tmp_path))
    assert (first.value, second.value, first.n, first.seeds) == (0.75, 0.375, 4, ("0", "1"))
    assert first.sd == pytest.approx(math.sqrt(0.125)) and second.sd == pytest.approx(0.25 / math.sqrt(2))
    assert second.comparison.value == -0.375 and second.reference == "a" and first.comparison is None
    assert second.cost["share"] == 0.1371 and second.cost["seconds"] == 60.0


def test_perplexity_is_weighted_by_tokens_and_compared_as_a_ratio(tmp_path):
    rng = np.random.default_rng(1)
    tokens = rng.integers(3, 30, 50)
    losses = [tokens * rng.uniform(2.0, 4.0, 50) + shift for shift in (0.0, 0.5, 1.5, 2.5)]
    lines = [line(label, label, seed=seed) for label in "ab" for seed in (0, 1)]
    for one, loss in zip(lines, losses, strict=True):
        tutor(tmp_path / one.key, loss.round(4), tokens.tolist())
    a, b = cells_of(lines, found_in(tmp_path))
    sums = np.array([np.round(loss, 4) for loss in losses])
    value, weight = sums[:2].sum() / tokens.sum() / 2, tokens.mean()
    variance, df = layout(value + (sums[:2] - value * tokens) / weight)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance)
    assert (a.value, a.low, a.high) == pytest.approx(tuple(map(math.exp, (value, value - half, value + half))))
    each = [math.exp(loss.sum() / tokens.sum()) for loss in sums[:2]]
    assert a.sd == pytest.approx(np.std(each, ddof=1)) and a.kind is PERPLEXITY
    difference = sums[2:] - sums[:2]
    value = difference.mean(0).sum() / tokens.sum()
    variance, df = layout(value + (difference - value * tokens) / weight)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance)
    assert b.comparison[:3] == pytest.approx(tuple(map(math.exp, (value, value - half, value + half))))


def test_a_row_of_one_seed_has_the_interval_of_its_examples_and_is_compared_with_nothing(tmp_path):
    rng = np.random.default_rng(2)
    tokens = rng.integers(2, 60, 400)
    for label in "ab":
        tutor(tmp_path / f"nano/{label}/seed0", (tokens * 3 + rng.normal(0, 5, 400)).round(4), tokens.tolist())
    a, b = cells_of([line("a", "a"), line("b", "b")], found_in(tmp_path))
    runs = [one["loss"] for one in (a.runs[0].examples, b.runs[0].examples)]
    over_examples = bootstrap_ratio(np.array(runs[0]), tokens)
    assert (math.log(a.low), math.log(a.high)) == pytest.approx(over_examples[1:3], abs=0.002)
    assert b.comparison is None and b.why_alone == "not compared, fewer than two seeds in common with a"


def test_a_judge_counts_where_every_run_of_the_column_was_judged(tmp_path):
    lines = [line(label, label, seed=seed) for label in "ab" for seed in range(2)]
    scores = {"a": [(0, 50), (1, 70), (2, None)], "b": [(0, 40), (0, 60), (1, 90)]}
    for one in lines:
        tutor(tmp_path / one.key, [3.0, 4.0, 5.0], [2, 2, 2], scores[one.row.label])
    a, b = cells_of(lines, found_in(tmp_path))
    assert (a.kind, a.value, a.n, b.value) == (JUDGE, 60.0, 2, 70.0)
    assert b.comparison.value == 10.0 and b.comparison.n == 2
    tutor(tmp_path / "nano/c/seed0", [3.0, 4.0, 5.0], [2, 2, 2])
    mixed = cells_of([*lines, line("c", "c")], found_in(tmp_path))
    assert {cell.kind for cell in mixed} == {PERPLEXITY}
    assert (a.low, a.high) == (0.0, 100.0)  # two answers tell that little


def test_the_judge_that_counts_is_the_first_that_scored_answers_of_the_trained_model(tmp_path):
    """Whatever else was asked, wherever its replies are."""
    told = {
        "a-against": {"judge": {"model": "x", "text": "response"}, "win_rate": {"value": 0.5}},
        "a-before": {"judge": {"model": "x", "text": "before"}, "score": {"value": 1}, "scores": {"0": 1.0}},
        "b": {"judge": {"model": "b", "text": "response"}, "score": {"value": 55}, "scores": {"0": 50.0, "2": 60.0}},
        "c": {"judge": {"model": "c", "text": "response"}, "score": {"value": 9}, "scores": {"0": 9.0}},
        "offline": {"measures": {}},
    }
    run = read_run(tutor(tmp_path / "run", [3.0, 4.0, 5.0], [2, 2, 2], judge=told))
    assert run.scores == {"0": 50.0, "2": 60.0}
    assert JUDGE.about([run]).startswith("Judge: b. ")
    assert "scores" not in run.results["judge"]["b"] and "scores" in told["b"]


def test_columns_of_a_run_as_a_whole_have_a_mean_and_no_test(tmp_path):
    for seed in range(2):
        curve = [{"step": 1, "val_loss": 3.0 + seed, "lr": 1e-3}, {"step": 2, "val_loss": 2.0 + seed, "lr": 5e-4}]
        classifier(tmp_path / f"nano/a/seed{seed}", range(9), curve=curve)
    values = {}
    for column in ("parameters", "memory", "minutes", "val-loss", "peak-lr"):
        (cell,) = cells_of([line("a", "a", column=column, seed=seed) for seed in range(2)], found_in(tmp_path))
        values[column] = cell.value
        assert cell.comparison is None and cell.kind.number
    assert values == pytest.approx(
        {"parameters": 1234, "memory": 700.4 / 1024, "minutes": 1.0, "val-loss": 2.5, "peak-lr": 1e-3}
    )


def test_forgetting_is_a_column_over_pieces_of_the_general_text(tmp_path):
    lines = [line(label, label, column="forgetting", seed=seed) for label in "ab" for seed in (0, 1)]
    for one, lost in zip(lines, (0.1, 0.3, 0.5, 0.9), strict=True):
        classifier(tmp_path / one.key, range(9), forgetting=general(lost, lost / 10))
    a, b = cells_of(lines, found_in(tmp_path))
    assert (a.value, b.value, a.n) == pytest.approx((0.2, 0.7, 2)) and a.low < 0.2 < a.high
    assert b.comparison.value == pytest.approx(0.5) and b.comparison.n == 2
    assert a.each == pytest.approx((0.1, 0.3))


def test_forgetting_of_different_texts_is_not_averaged(tmp_path):
    lines = [line("a", "a", column="forgetting", seed=seed) for seed in range(2)]
    for one, text in zip(lines, ("1", "2"), strict=True):
        classifier(tmp_path / one.key, range(9), forgetting=general(0.1, 0.02) | {"sha256": text})
    (cell,) = cells_of(lines, found_in(tmp_path))
    assert cell.value is None and cell.reason == "no example has a forgetting"


def test_runs_of_the_scripts_are_read_as_they_leave_them(tiny_model, mail_file, question_file, tmp_path):
    common = ["--model", tiny_model, "--max-steps", 2, "--seed", 0, "--test-share", 0.3]
    for name, flags in (("ift", ["--data", question_file, "--new-tokens", 2]), ("cls", ["--data", mail_file])):
        done = run_in_process(f"finetune_{name}", *common, *flags, "--output-dir", tmp_path / f"nano/{name}/seed0")
        assert done.returncode == 0, done.stderr
    (ift,), (cls,) = (cells_of([line("a", name, column=name)], found_in(tmp_path)) for name in ("ift", "cls"))
    theirs = results_of(tmp_path / "nano/ift/seed0")["test"]["response_perplexity"]
    assert [ift.value, ift.low, ift.high] == pytest.approx([theirs[k] for k in ("value", "low", "high")], rel=1e-4)
    assert ift.n == theirs["n"] and len(ift.runs[0].answers) == 4 and ift.runs[0].answers[0]["reference"]
    theirs = results_of(tmp_path / "nano/cls/seed0")
    assert cls.value == pytest.approx(theirs["test"]["accuracy"]["value"]) and cls.n == theirs["data"]["rows"]["test"]
    assert cls.cost["trained"] == theirs["parameters"]["trainable"] and cls.cost["peak_mib"] > 0
    assert cls.settings["max_steps"] == 2 and cls.settings["tested"] == cls.n


DAMAGES = {
    "cut short": ("results.json", lambda text: text[:40]),
    "no flags": ("results.json", lambda text: text.replace('"args"', '"arms"')),
    "a list": ("results.json", lambda text: "[]"),
    "a torn line": ("predictions.jsonl", lambda text: text[:-20]),
    "no label": ("predictions.jsonl", lambda text: text.replace("label", "lapel")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_named_with_what_to_do(damage, tmp_path):
    folder = classifier(tmp_path / "nano/a/seed0", range(9))
    name, change = DAMAGES[damage]
    (folder / name).write_text(change((folder / name).read_text()))
    with pytest.raises(ValueError, match="damaged.*delete .*seed0 and run its table again") as error:
        read_run(folder)
    assert str(folder / name) in str(error.value)


def test_a_run_of_preferences_is_read_though_no_column_shows_its_rewards(tmp_path):
    folder = classifier(tmp_path / "nano/a/seed0", range(2))
    rows = [{"id": i, "prompt": "a", "chosen": "b", "rejected": "c", "chosen_reward": 0.5} for i in range(2)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_run(folder).examples == {"id": [0, 1]}


def test_damaged_packed_runs_are_named_too(tmp_path):
    path = tmp_path / "nano.jsonl.gz"
    write_packed(path, {"nano/b/seed0": read_run(classifier(tmp_path / "a", range(9)))})
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ValueError, match="nano.jsonl.gz: damaged .*check it out again"):
        read_packed(path)


def test_runs_that_stand_in_several_rows_are_compared_once(tmp_path):
    rights = {"x": 150, "y": 141, "z": 144, "w": 141}  # w: other runs with the results of y
    a, b, c, d, e = of_runs(tmp_path, rights, "xxyyz")
    once = of_runs(tmp_path, rights, "xyz")
    assert c.comparison == d.comparison == once[1].comparison and e.comparison == once[2].comparison
    assert c.comparison.among == 2 and (c.reference, d.reference, d.verdict) == ("a", "a", -1)
    assert a.comparison is None and b.comparison is None and (b.value, b.why_alone, b.verdict) == (a.value, "", 0)
    _, c, d, e = of_runs(tmp_path, rights, "xywz")
    assert c.comparison == d.comparison and e.comparison.among == 3 and identical_notes({"corrected": [c, d, e]}) == []


def test_a_quantity_has_one_unit_whatever_the_reports_table_has():
    assert ACCURACY.text(0.9) == "90.0" and [reported(text, ACCURACY) for text in ("0.905", "90.5", "")] == [
        *(0.905, pytest.approx(0.905)),
        None,
    ]
    assert reported("36.35/38.10", PERPLEXITY) == 36.35 and reported("38", NAMED["memory"]) == 38
    assert NAMED["parameters"].text(7_898_384) == "7,898,384" and NAMED["peak-lr"].text(0.0010666) == "0.001067"
    assert [number(text) for text in ("92.4%", "7,898,384", "36.35/38.10", "59.86 or 61.26", "14e6", "?", "")] == [
        *(92.4, 7898384, 36.35, 59.86, 14e6),
        *(None, None),
    ]
    assert listing(["a"]) == "a" and listing(["a", "b", "c"]) == "a, b and c"


def test_files_have_only_digits_that_every_processor_finds():
    assert on_any_machine(0.6643215853363464) == on_any_machine(0.6643215853363318) == "0.6643215853"
    assert [on_any_machine(value) for value in (1 / 3, 22164864.0, 50, "50.0")] == [
        "0.3333333333",
        "22164864",
        "50",
        "50.0",
    ]


def test_latex_says_what_was_written():
    wild = r"50% of a_b & {c} #1 $x$ ~ ^ \ < > | 0.9 † – −"
    expected = r"50\% of a\_b \& \{c\} \#1 \$x\$ \textasciitilde{} \textasciicircum{} \textbackslash{} \textless{} "
    assert latex(wild) == expected + r"\textgreater{} \textbar{} 0.9 \dag{} -- $-$"


def test_a_cell_of_a_markdown_table_cannot_end_it(tmp_path):
    grid = Grid(["", "a|b"], [[Shown("x | y"), Shown("*1*\n<b>")]])
    page = Page("T", [Section("table1_x", "T", [Block("t", grid)])])
    rows = [row for row in as_markdown(page, "p").splitlines() if row.startswith("| ")]
    assert rows == [r"|  | a\|b |", "| :--- | ---: |", r"| x \| y | \*1\* \<b\> |"]


def test_evidence_knows_nothing_of_the_project_and_no_torch():
    code = "import sys, evidence.pictures, evidence.page, evidence.latex; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {name.split(".")[0] for name in done.stdout.split()}
    assert not names & {"gpt2_scratch", "lora", "tasks", "training", "reproduce", "torch"} and "evidence" in names
