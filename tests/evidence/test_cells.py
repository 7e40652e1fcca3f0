"""Runs become cells: numbers, intervals and tests against an oracle, what is damaged, and how cells are written."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, results_of, run_script
from report_rows import PERCENT, cells_of, classifier, found_in, general, line, of_runs, tutor

import compare_runs
from evidence.document import Block, Grid, Page, Section, Shown, listing, on_any_machine
from evidence.intervals import bootstrap_mean, bootstrap_ratio, detectable_difference, paired_bootstrap
from evidence.kinds import ACCURACY, JUDGE, NAMED, PERPLEXITY
from evidence.latex import latex
from evidence.markdown import as_markdown
from evidence.runs import read_packed, read_run, write_packed
from reproduce.cells import number
from reproduce.notes import (
    identical_notes,
)
from reproduce.sections import block_of


def test_the_numbers_are_those_of_compare_runs(tmp_path, capsys):
    rng, lines = np.random.default_rng(0), []
    for label, method, chance in (("full", "full", 0.9), ("lora", "lora", 0.8), ("head", "head", 0.55)):
        for seed in range(3):
            one = line(label, f"x-{method}", seed=seed)
            right = set(np.flatnonzero(rng.random(120) < chance).tolist())
            lost = general(rng.normal(), rng.normal())
            classifier(tmp_path / one.key, right, 120, args={"method": method, "lora_rank": 8}, forgetting=lost)
            lines.append(one)
    compare_runs.compare([tmp_path / one.key for one in lines])
    text = capsys.readouterr().out
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| ")][1:]
    cells = cells_of(lines, found_in(tmp_path))
    assert len(rows) == len(cells) == 3
    for cell, row in zip(cells, rows, strict=True):
        theirs = dict(zip(compare_runs.COLUMNS, row, strict=True))
        assert f"{cell.value:.4f} [{cell.low:.4f}, {cell.high:.4f}]" == theirs["accuracy, 95% interval"]
        assert f"{cell.sd:.4f}" == theirs["sd"] and len(cell.seeds) == int(theirs["seeds"])
        assert ("" if cell.comparison is None else f"{cell.comparison.p:.4f}") == theirs["p, against the first"]
        lost = "{forgetting:+.3f} [{forgetting_low:+.3f}, {forgetting_high:+.3f}]".format(**cell.cost)
        assert lost == theirs["forgetting, nats"]
        assert (
            f"{cell.cost['trained']:,.0f}" == theirs["trained"] and f"{cell.cost['peak_mib']:.0f}" == theirs["peak MiB"]
        )
    least = max(cell.comparison.detectable for cell in cells[1:])
    assert f"a difference of {least:.4f} would have been found" in text


def test_a_small_table_is_as_counted_by_hand(tmp_path):
    lines = [line(label, label, seed=seed) for label in ("a", "b") for seed in (0, 1)]
    for one, right in zip(lines, [{0, 1}, {0, 1, 2, 3}, {0}, {0, 1}], strict=True):
        classifier(tmp_path / one.key, right, 4)
    first, second = cells_of(lines, found_in(tmp_path))
    assert (first.value, second.value, first.n, first.seeds) == (0.75, 0.375, 4, ("0", "1"))
    assert first.sd == pytest.approx(math.sqrt(0.125)) and second.sd == pytest.approx(0.25 / math.sqrt(2))
    assert second.comparison.value == -0.375 and second.reference == "a" and first.comparison is None
    assert second.cost["share"] == 0.1371 and second.cost["seconds"] == 60.0 and "forgetting" not in second.cost


def test_perplexity_is_weighted_by_tokens_and_compared_as_a_ratio(tmp_path):
    rng = np.random.default_rng(1)
    tokens = rng.integers(3, 30, 50)
    losses = [tokens * rng.uniform(2.0, 4.0, 50) + shift for shift in (0.0, 0.5, 1.5, 2.5)]
    lines = [line(label, label, seed=seed) for label in "ab" for seed in (0, 1)]
    for one, loss in zip(lines, losses, strict=True):
        tutor(tmp_path / one.key, loss.round(4), tokens.tolist())
    a, b = cells_of(lines, found_in(tmp_path))
    sums = [np.round(loss, 4) for loss in losses]
    expected = bootstrap_ratio((sums[0] + sums[1]) / 2, tokens)
    assert (a.value, a.low, a.high) == pytest.approx(tuple(map(math.exp, expected[:3])))
    each = [math.exp(loss.sum() / tokens.sum()) for loss in sums[:2]]
    assert a.sd == pytest.approx(np.std(each, ddof=1)) and a.kind is PERPLEXITY
    difference = (sums[2] + sums[3] - sums[0] - sums[1]) / 2
    assert b.comparison.value == pytest.approx(math.exp(difference.sum() / tokens.sum()))
    drawn = np.random.default_rng(0).integers(0, 50, (10_000, 50))
    ratios = difference[drawn].sum(1) / tokens[drawn].sum(1)
    tail = min((ratios <= 0).sum(), (ratios >= 0).sum())
    assert b.comparison.p == pytest.approx(2 * (tail + 1) / 10_001)


def test_the_detectable_ratio_is_that_of_means_when_all_responses_are_equally_long(tmp_path):
    rng = np.random.default_rng(2)
    losses = rng.uniform(5, 9, (2, 60)).round(4)
    lines = [line("a", "a"), line("b", "b")]
    for one, loss in zip(lines, losses, strict=True):
        tutor(tmp_path / one.key, loss, [5] * 60)
    found = cells_of(lines, found_in(tmp_path))[1].comparison
    assert math.log(found.detectable) == pytest.approx(detectable_difference(losses[1] / 5, losses[0] / 5))
    assert found.p == paired_bootstrap(losses[1], losses[0]).p


def test_the_detectable_ratio_knows_that_the_sum_of_tokens_varies_too(tmp_path):
    rng = np.random.default_rng(3)
    tokens = rng.integers(2, 60, 400)
    losses = [tokens * 3.0, tokens * 3.4 + rng.normal(0, 0.5, 400)]  # a ratio that hardly depends on the draw
    lines = [line("a", "a"), line("b", "b")]
    for one, loss in zip(lines, losses, strict=True):
        tutor(tmp_path / one.key, loss.round(4), tokens.tolist())
    found = cells_of(lines, found_in(tmp_path))[1].comparison
    drawn = np.random.default_rng(5).integers(0, 400, (4000, 400))
    spread = ((losses[1] - losses[0])[drawn].sum(1) / tokens[drawn].sum(1)).std()
    assert math.log(found.detectable) == pytest.approx((1.959964 + 0.841621) * spread, rel=0.1)


def test_a_judge_counts_where_every_run_of_the_column_was_judged(tmp_path):
    lines = [line("a", "a"), line("b", "b")]
    scores = [[(0, 50), (1, 70), (2, None)], [(0, 40), (0, 60), (1, 90)]]
    for one, replies in zip(lines, scores, strict=True):
        tutor(tmp_path / one.key, [3.0, 4.0, 5.0], [2, 2, 2], replies)
    a, b = cells_of(lines, found_in(tmp_path))
    assert (a.kind, a.value, a.n, b.value) == (JUDGE, 60.0, 2, 70.0)
    assert b.comparison.value == 10.0 and b.comparison.n == 2
    tutor(tmp_path / "nano/c/seed0", [3.0, 4.0, 5.0], [2, 2, 2])
    mixed = cells_of([*lines, line("c", "c")], found_in(tmp_path))
    assert {cell.kind for cell in mixed} == {PERPLEXITY}
    assert bootstrap_mean([50.0, 70.0]).low == a.low


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
    assert b.comparison.value == pytest.approx(0.5) and a.value == pytest.approx(a.cost["forgetting"])
    (note,) = [n.text for n in block_of("forgetting", {"corrected": [a, b]}).notes if "↑" in n.text]
    assert "n = 2 pieces of general text" in note


def test_runs_of_the_scripts_are_read_as_they_leave_them(tiny_model, mail_file, question_file, tmp_path):
    common = ["--model", tiny_model, "--max-steps", 2, "--seed", 0, "--test-share", 0.3]
    for name, flags in (("ift", ["--data", question_file, "--new-tokens", 2]), ("cls", ["--data", mail_file])):
        done = run_script(f"finetune_{name}", *common, *flags, "--output-dir", tmp_path / f"nano/{name}/seed0")
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
    assert c.comparison.among == 2 and (c.reference, d.reference, d.mark) == ("a", "a", "↓ ")
    assert a.comparison is None and b.comparison is None and (b.value, b.why_alone, b.mark) == (a.value, "", "")
    _, c, d, e = of_runs(tmp_path, rights, "xywz")
    assert c.comparison == d.comparison and e.comparison.among == 3 and identical_notes({"corrected": [c, d, e]}) == []


def test_units_follow_the_report():
    (accuracy,) = cells_of([line("a", "a", given=("0.905", ""))], lambda key: None)
    assert accuracy.report == "0.905" and accuracy.record == ""
    assert ACCURACY.as_given([88.2]) == PERCENT and PERCENT.text(0.9) == "90.0"
    assert ACCURACY.as_given([0.905, 0.90467]) == ACCURACY.as_given([]) == ACCURACY
    assert NAMED["parameters"].text(7_898_384) == "7,898,384"
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
    wild = r"50% of a_b & {c} #1 $x$ ~ ^ \ < > | 0.9 ↑ – −"
    expected = r"50\% of a\_b \& \{c\} \#1 \$x\$ \textasciitilde{} \textasciicircum{} \textbackslash{} \textless{} "
    assert latex(wild) == expected + r"\textgreater{} \textbar{} 0.9 $\uparrow$ -- $-$"


def test_a_cell_of_a_markdown_table_cannot_end_it(tmp_path):
    grid = Grid(["", "a|b"], [[Shown("x | y"), Shown("*1*\n<b>")]])
    page = Page("T", [], [Section("table1_x", "T", [Block("t", grid)])])
    rows = [row for row in as_markdown(page, "p").splitlines() if row.startswith("| ")]
    assert rows == [r"|  | a\|b |", "| :--- | ---: |", r"| x \| y | \*1\* \<b\> |"]


def test_evidence_knows_nothing_of_the_project_and_no_torch():
    code = "import sys, evidence.pictures, evidence.page, evidence.latex; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {name.split(".")[0] for name in done.stdout.split()}
    assert not names & {"gpt2_scratch", "lora", "tasks", "training", "reproduce", "torch"} and "evidence" in names
