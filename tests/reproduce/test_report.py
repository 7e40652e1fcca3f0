"""The report's page from finished runs: its numbers, its warnings, its files, and the page in a browser."""

import csv
import gzip
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import ROOT, results_of, run_script
from forked import run_forked

import compare_runs
from evidence.cells import in_column
from evidence.document import Block, Grid, Page, Section, Shown, listing, on_any_machine
from evidence.intervals import bootstrap_mean, bootstrap_ratio, detectable_difference, paired_bootstrap
from evidence.kinds import ACCURACY, JUDGE, OF_A_RUN, PERPLEXITY, Kind
from evidence.latex import latex
from evidence.markdown import as_markdown
from evidence.runs import Store, read_packed, read_run, write_packed
from reproduce import report
from reproduce.cells import by_size, cell_of, number
from reproduce.confounds import confounds, effective_scale, first_step
from reproduce.notes import (
    baseline_notes,
    comparison_notes,
    disagreements,
    identical_notes,
    rate_notes,
    size_notes,
    small_notes,
)
from reproduce.sections import block_of
from reproduce.tables import Plan, Row, all_tables, flags_of, natural, plans, read_table, title_of

REPRODUCE = ROOT / "reproduce"
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


# Runs and lists, as small as they can be.


def write_results(folder, **entries):
    folder.mkdir(parents=True, exist_ok=True)
    results = {"args": {"method": "lora", "lora_rank": 8}, "environment": {"commit": "abc123", "device": "a CPU"}}
    results |= {"parameters": {"total": 9000, "trainable": 1234, "share": 0.1371}, "seconds": {"train": 60.0}}
    results |= {"peak_memory_mib": 700.4, "tokens_per_second": 3210.0}
    (folder / "results.json").write_text(json.dumps(results | entries))
    return folder


def classifier(folder, right, n=40, ham=0, **entries):
    """A run that is right on the examples `right`; the first `ham` are ham."""
    other = {"spam": "ham", "ham": "spam"}
    labels = ["ham" if i < ham else "spam" for i in range(n)]
    lines = [
        {"id": i, "label": label, "prediction": label if i in right else other[label], "loss": 0.25}
        for i, label in enumerate(labels)
    ]
    write_results(folder, **entries)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def tutor(folder, losses, tokens, replies=None, **entries):
    """An instruction run; `replies`: a judge's (item, score)."""
    lines = [
        {"id": i, "instruction": f"Ask <{i}>", "input": "", "reference": "yes", "before": "no", "response": "ja | ja"}
        | {"reference_loss": loss, "reference_tokens": count}
        for i, (loss, count) in enumerate(zip(losses, tokens, strict=True))
    ]
    if replies is not None:
        outcome = {
            "judge": {"model": "a-judge", "text": "response"},
            "score": {"value": 1, "low": 0, "high": 2, "n": 2},
        }
        entries |= {"judge": {"a-judge-published": outcome}}
        place = folder / "judge" / "a-judge-published"
        place.mkdir(parents=True)
        rows = [{"item": item, "repeat": 0, "value": value} for item, value in replies]
        (place / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_results(folder, **entries)
    (folder / "generations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def general(difference, spread):
    """Forgetting on two pieces, of which one loses more than the other by twice the spread."""
    after = [300 + 100 * (difference - spread), 300 + 100 * (difference + spread)]
    return {"pieces": {"tokens": [100, 100], "before": [300.0, 300.0], "after": after}}


CLS = "python scripts/finetune_cls.py"
PERCENT = ACCURACY.as_given([92.4])


class Line(NamedTuple):
    """A row's run of one seed, kept in a folder that the test names."""

    row: Row
    seed: int
    place: str
    why: str = ""

    @property
    def key(self):
        return f"{self.place}/seed{self.seed}"


def line(label, key, version="corrected", column="spam", seed=0, given=("", ""), why="", flags="--lora-rank 8"):
    return Line(Row(version, column, label, *given, f"{CLS} {flags}"), seed, f"nano/{key}", why)


def cells_of(lines, find):
    """The cells of one column and version."""
    rows = {}
    for one in lines:
        rows.setdefault(one.row, []).append(one)
    cells = []
    for row, runs in rows.items():
        plan = Plan(row, flags_of(row.command), row.command, runs[0].place, runs[0].why)
        cells.append(cell_of(plan, [str(one.seed) for one in runs], find))
    return in_column(lines[0].row.column if lines else "", cells)


def table_file(folder, name, rows, comment="A table of tests."):
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join("\t".join(text or "-" for text in row) for row in rows)
    path = folder / f"{name}.sh"
    path.write_text(f"#!/usr/bin/env bash\n# {comment}\n#\n#     bash x.sh\ncat <<'END'\n{text}\nEND\n")
    return path


def places(path, scale="nano", data=None):
    """Where the runs of a table's rows are kept, without the seed, by version, column and label."""
    return {plan.row[:3]: plan.key for plan in plans(read_table(path), scale, data)}


def found_in(runs):
    """Runs by key, from a folder of runs."""
    return Store(runs, runs / "none").get


def make_small(folder):
    """Two versions of a table of three rows, three seeds each, one row not run, one that differs in size only; an
    appendix with answers; a figure. Arguments of the report."""
    runs, tables, rows = folder / "runs", folder / "tables", []
    mail = f"{CLS} --dataset enron --model gpt2-medium"
    for version in ("published", "corrected"):
        for rank, claim in zip((2, 8, 32), ("62.8", "89.8", "-"), strict=True):
            decay = " --decay-all" * (version == "published")
            rows.append(Row(version, "spam", f"rank {rank}", claim, "-", f"{mail} --lora-rank {rank}{decay}"))
    xl = Row("published", "spam", "<xl>", "1", "2", rows[0].command.replace("medium", "xl"))
    figure = [row._replace(column="val-loss", report="1.5") for row in rows]
    table = table_file(
        tables, "table4_rank", [rows[0], xl, *rows[1:]], "Table 4: 100% of <ranks> & more (report, section 3)."
    )
    table_file(tables, "figure1_curves", figure, "Figure 1: curves.")
    offsets = {"published": (0, 30, 32), "corrected": (0, 1, None)}
    for row, offset in zip(rows, [n for some in offsets.values() for n in some], strict=True):
        for seed in range(3) if offset is not None else ():
            curve = [{"step": s, "epoch": s / 4, "train_loss": 2 - s / 4, "val_loss": 2.1 - s / 4} for s in range(5)]
            place = runs / places(table)[row[:3]] / f"seed{seed}"
            classifier(place, range(200 + offset + seed), 300, curve=curve, forgetting=general(0.1 * seed, 0.02))
    ask = "python scripts/finetune_ift.py --dataset alpaca --model gpt2-medium"
    answered = Row("corrected", "answers", "LoRA", "", "", ask)
    appendix = table_file(tables, "appendix_answers", [answered], "Appendix: answers.")
    folder = runs / places(appendix)[answered[:3]]
    tutor(folder / "seed0", [2.0, 3.0, 1.0], [2, 3, 4])
    printed = "> What is <b>2 + 2</b>?\nbase: 2 and\n\n2 [...]\nfine-tuned: 4\n\n"
    printed += "> Name a bird.\nbase: A\nfine-tuned: Wren\n\n"
    (folder / "seed0.answers.txt").write_text(printed)
    return report.Args(runs, runs / "results", "nano", runs / "out", tables)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def made(small):
    report.main(small)
    return small.output


def of_rank(args, version, rank):
    """The folder of a row's runs."""
    return args.runs / places(args.tables / "table4_rank.sh")[version, "spam", f"rank {rank}"]


# Numbers.


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


def test_rows_on_other_examples_are_shown_and_not_compared(tmp_path):
    classifier(tmp_path / "nano/a/seed0", range(20), 40)
    classifier(tmp_path / "nano/b/seed0", range(20), 30)
    cells = cells_of([line("a", "a"), line("b", "b")], found_in(tmp_path))
    assert cells[1].value == 20 / 30 and cells[1].comparison is None and cells[1].why_alone
    notes = block_of("spam", {"corrected": cells}).notes
    assert any(note.text == "Not compared, tested on other examples than a: b (corrected)." for note in notes)


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


def test_a_kind_of_column_is_one_entry_and_is_shown_everywhere(tmp_path, monkeypatch):
    """The walk through of docs: value, unit, digits, words and picture of a new kind come from what is written here."""
    speed = Kind(unit="tokens a second", digits=0, number=lambda run: run.number("tokens_per_second"))
    monkeypatch.setitem(OF_A_RUN, "speed", speed)
    rows = [Row("published", "speed", f"rank {rank}", "4000", "-", f"{CLS} --lora-rank {rank}") for rank in (2, 8)]
    path = table_file(tmp_path / "tables", "table1_x", rows)
    for key in places(path, "report").values():
        classifier(tmp_path / key / "seed0", range(9))
    report.main(report.Args(tmp_path, tmp_path, "report", tmp_path / "out", tmp_path / "tables"))
    text, page, csv_text, tex = (
        (tmp_path / "out" / name).read_text() for name in ("RESULTS.md", "report.html", "tables.csv", "tables.tex")
    )
    assert "**Tokens a second**" in text and "| rank 2 | 4,000 | missing | 3,210 |" in text
    assert '<td data-key="3210">3,210</td>' in page and r"rank 8 & 4,000 & missing & 3,210 \\" in tex
    assert "speed,published,report,,4000,,3210," in csv_text
    picture = (tmp_path / "out/pictures/table1_x.svg").read_text()
    assert ">tokens a second<" in picture and ">report<" in picture


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


# What is missing or damaged.


def test_a_missing_cell_says_why_and_a_missing_seed_is_not_counted(tmp_path):
    classifier(tmp_path / "nano/a/seed1", range(20))
    lines = [line("a", "a", seed=seed) for seed in range(3)]
    lines += [line("b", "b"), line("c", "-", why="differs from 'a' in size only")]
    a, b, c = cells_of(lines, found_in(tmp_path))
    assert a.seeds == ("1",) and a.sd is None and a.value == 0.5
    assert (b.value, b.reason) == (None, "not run")
    assert c.reason.endswith("in size only")
    block = block_of("spam", {"corrected": [a, b, c]})
    assert [row[-1].text for row in block.grid.rows] == ["0.500 [0.352, 0.648]", "missing", "missing"]
    texts = [note.text for note in block.notes]
    assert "Not run: b (corrected)." in texts and "Not yet run, seed 0 2: a (corrected)." in texts
    assert "Not available at this scale: differs from 'a' in size only: c (corrected)." in texts
    texts = [note.text for note in block_of("spam", {"published": [b], "corrected": [b, replace(b, label="d")]}).notes]
    assert texts == ["Not run: b (as published); every row (corrected)."]


def test_without_any_run_the_page_is_made_and_every_cell_missing(small, tmp_path):
    args = report.Args(tmp_path / "no", tmp_path / "none", "nano", tmp_path / "out", small.tables)
    report.main(args)
    rows = list(csv.DictReader(io.StringIO((args.output / "tables.csv").read_text())))
    assert rows and all(row["value"] == "" and row["missing"] for row in rows)
    assert not (args.output / "pictures").exists()


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


def test_damaged_packed_runs_are_named_too(tmp_path):
    path = tmp_path / "nano.jsonl.gz"
    write_packed(path, {"nano/b/seed0": read_run(classifier(tmp_path / "a", range(9)))})
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ValueError, match="nano.jsonl.gz: damaged .*check it out again"):
        read_packed(path)


def run_report(*flags):
    return run_forked([REPRODUCE / "report.py", *flags])


def test_the_program_refuses_with_one_message_and_status_2(small, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(small.runs, runs)
    place = of_rank(small, "published", 2).relative_to(small.runs) / "seed1" / "results.json"
    (runs / place).write_text("{")
    done = run_report("--runs", runs, "--tables", small.tables, "--output", tmp_path / "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1 and f"{place}: damaged" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_without_tables_and_a_table_that_fails_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no table files"):
        all_tables(tmp_path)
    (tmp_path / "table1_x.sh").write_text("echo 'error: SEEDS' >&2; exit 2\n")
    with pytest.raises(ValueError, match="table1_x.sh rows: failed with status 2: error: SEEDS"):
        all_tables(tmp_path)


def test_a_line_of_another_shape_is_refused_with_its_place(tmp_path):
    row = Row("corrected", "spam", "a", "", "", f"{CLS} --lora-rank 8")
    path = table_file(tmp_path, "table1_x", [row])
    assert read_table(path).rows == [row]
    path.write_text(path.read_text().replace("\nEND\n", "\none\ttwo\tthree\nEND\n"))
    with pytest.raises(ValueError, match="line 2 is no row .version, column, label.*one.ttwo"):
        read_table(path)


def test_a_corrected_row_has_the_values_of_its_published_one(tmp_path):
    rows = [Row(version, "spam", label, *given, CLS) for version, label, given in (
        ("published", "a", ("92.4", "-")), ("corrected", "a", ("-", "-")), ("corrected", "b", ("-", "-")))]  # fmt: skip
    found = read_table(table_file(tmp_path, "table1_x", rows)).rows
    assert [row[3:5] for row in found] == [("92.4", ""), ("92.4", ""), ("", "")]


# Settings and confounds.


@pytest.mark.parametrize("scaling", ["standard", "rslora", "paper"])
@pytest.mark.parametrize("init", ["standard", "paper"])
def test_the_first_step_grows_with_the_rank_as_in_a_simulated_update(scaling, init):
    """y = s B A x after B's entries moved by lr in the direction of the gradient's sign."""
    inputs, rng, moved, told = 256, np.random.default_rng(0), [], []
    for rank in (2, 32):
        s = {"lora_rank": rank, "lora_alpha": 16.0, "lora_scaling": scaling, "lora_init": init}
        bound = 1 / math.sqrt(rank if init == "paper" else inputs)
        a, x = rng.uniform(-bound, bound, (400, rank, inputs)), rng.normal(size=inputs)
        b = np.sign(a @ x)  # of one output, the loss falling as it grows
        moved.append(effective_scale(s) * np.mean(np.sum(b * (a @ x), -1)))
        told.append(first_step(s))
    assert moved[1] / moved[0] == pytest.approx(told[1] / told[0], rel=0.1)


FULL, LORA = "--method full", "--method lora --lora-scaling paper --lora-init paper"
COSINE, CONSTANT = "--schedule cosine --warmup-ratio 0.2", "--schedule constant --warmup-steps 0 --max-grad-norm None"
# Settings of the report's tables and what moves with what.
PUBLISHED = {
    "table 2": (
        [
            f"--model {model} {FULL} --max-length {n} --batch-size {batch}"
            for model, n, batch in (
                ("gpt2", 256, 32),
                ("gpt2", 1024, 4),
                ("gpt2-medium", 256, 8),
                ("gpt2-medium", 1024, 4),
            )
        ],
        {("token count", "batch size")},
    ),
    "table 3, sentiment": (
        [f"{FULL} {CONSTANT} --epochs 1 --batch-size 8", f"{LORA} {COSINE} --epochs 2 --batch-size 32"],
        {("method", "epochs"), ("method", "batch size"), ("method", "schedule"), ("method", "clipping")},
    ),
    "table 4, alpha = rank": (
        [f"{LORA} --lora-rank {r} --lora-alpha {r}" for r in (2, 4, 8, 16, 32)],
        {("rank", "adapters' step size")},
    ),
    "table 5, entailment": (
        [
            f"{LORA} --last-blocks {n} --batch-size {batch} --epochs {epochs} --eval-batches 5"
            for n, batch, epochs in ((18, 2, 1), (20, 4, 1), (24, 4, 2))
        ],
        {("trained blocks", "batch size"), ("trained blocks", "epochs"), ("trained blocks", "validation examples")},
    ),
    "a second epoch": (
        [f"{LORA} --epochs 1 --batch-size 16", f"{LORA} --epochs 2 --batch-size 32"],
        {("batch size", "epochs")},
    ),
}


@pytest.mark.parametrize("table", PUBLISHED)
def test_what_moves_with_a_swept_flag_is_told(table):
    commands, expected = PUBLISHED[table]
    found = confounds([flags_of(f"{CLS} {command}") for command in commands])
    assert set().union(*(one.names for one in found)) == expected
    for one in found:
        assert one.swept.name in one.text and all(other.name in one.text for other in one.moving)


CLEAN = {
    "rank at one alpha": [f"--lora-rank {r} --lora-alpha 16" for r in (2, 4, 8, 16, 32)],
    "methods, each with its own rate": ["--method full --lr 1e-4 --epochs 2", "--method lora --lr 1e-3 --epochs 2"],
    "model and token count crossed": [f"--model {m} --max-length {n}" for m in ("gpt2", "gpt2-xl") for n in (64, 128)],
    "one thing after the other": [
        f"--model gpt2-large {CONSTANT}",
        f"--model gpt2-large {COSINE} --max-grad-norm None",
        f"--model gpt2-large {COSINE}",
        f"--model gpt2 {COSINE}",
    ],
    "batch size alone": ["--batch-size 2", "--batch-size 4"],
    "one row": ["--lora-rank 2"],
}


@pytest.mark.parametrize("case", CLEAN)
def test_a_clean_sweep_is_not_warned_of(case):
    assert confounds([flags_of(f"{CLS} {command}") for command in CLEAN[case]]) == []


def test_a_rate_that_moves_with_the_rank_is_told():
    (found,) = confounds([flags_of(f"{CLS} --lora-rank {r} --lr {lr}") for r, lr in ((2, 1e-3), (8, 2e-3))])
    assert found.names == {("rank", "learning rate")}


REAL = [
    REPRODUCE / f"{name}.sh"
    for name in ("table2_tokens", "table3_methods", "table4_rank", "table5_blocks", "table6_rank_large")
]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_tables_2_to_6_are_confounded_as_published_and_clean_when_corrected(path):
    rows = [row for row in read_table(path).rows if row.column not in ("parameters", "memory")]
    found = {"published": [], "corrected": []}
    for name in {row.column for row in rows}:
        for version, told in found.items():
            here = [row for row in rows if (row.column, row.version) == (name, version)]
            told += confounds([flags_of(row.command) for row in here])
    assert rows and found["published"] and found["corrected"] == []


def test_a_rate_that_a_run_chose_itself_is_not_what_the_table_sets(tmp_path):
    lines = [line(f"rank {rank}", f"r{rank}", flags=f"--lora-rank {rank}") for rank in (2, 8)]
    rates = (f"{one.row.command} --lr {lr}" for one, lr in zip(lines, (1e-3, 2e-3), strict=True))
    given = [one._replace(row=one.row._replace(command=c)) for one, c in zip(lines, rates, strict=True)]
    for one, rank, lr in zip(lines, (2, 8), (1e-3, 2e-3), strict=True):
        classifier(tmp_path / one.key, range(9), args={"method": "lora", "lora_rank": rank, "lr": lr})
    for asked, expected in ((lines, []), (given, [{("rank", "learning rate")}])):
        rows = [cell.settings for cell in cells_of(asked, found_in(tmp_path))]
        assert [one.names for one in confounds(rows)] == expected


def test_what_a_smaller_scale_hides_is_told_from_the_rows_as_they_are_written(tmp_path):
    """Two token counts that are one at the nano scale, where the batch size alone is left to differ."""
    flags = f"{CLS} --dataset enron --model gpt2 --max-length %d --batch-size %d"
    rows = [Row("corrected", "spam", f"{n}", "", "", flags % (n, batch)) for n, batch in ((512, 32), (1024, 4))]
    table_file(tmp_path / "tables", "table2_tokens", rows)
    report.main(report.Args(tmp_path, tmp_path, "nano", tmp_path / "out", tmp_path / "tables"))
    text = (tmp_path / "out/RESULTS.md").read_text()
    assert "--batch-size 32" in text and "--batch-size 4" in text and text.count("--max-length 128") == 2
    warning = "Corrected: token count (512 / 1024) does not change alone; with it: batch size (32 / 4)."
    assert f"**Confounded.** {warning}" in text and text.count("Confounded") == 1


# What is said under a column.


def verdicts(tmp_path, published, corrected, given=("90.0", "91.0")):
    """A column of two rows with these numbers right of 200, three seeds that differ by one."""
    column = {}
    for version, rights in (("published", published), ("corrected", corrected)):
        lines = []
        for label, right, claim in zip("ab", rights, given, strict=True):
            for seed in range(3):
                lines.append(line(label, f"{version}{label}", version, seed=seed, given=(claim, "-")))
                classifier(tmp_path / lines[-1].key, range(right + seed), 200)
        column[version] = cells_of(lines, found_in(tmp_path))
    return column


def test_where_the_versions_disagree_a_sentence_says_so(tmp_path):
    (note,) = disagreements(verdicts(tmp_path / "x", (150, 110), (150, 150)))
    assert note.text.startswith("Against a: b is worse as published, not told apart when corrected.")
    (note,) = disagreements(verdicts(tmp_path / "y", (150, 110), (110, 150)))
    assert "b is worse as published, better when corrected" in note.text
    assert note.text.endswith("Best first, as published: a, b; corrected: b, a.")
    assert disagreements(verdicts(tmp_path / "z", (150, 110), (160, 120))) == []
    assert disagreements({"corrected": []}) == []


def test_a_claim_smaller_than_what_n_can_show_is_told(tmp_path):
    column = verdicts(tmp_path, (150, 140), (150, 140))
    unit = PERCENT
    (note,) = small_notes("corrected", column["corrected"], unit)
    assert "n = 200 is too small" in note.text and "b +1.0 (could be found:" in note.text
    large = verdicts(tmp_path / "l", (150, 140), (150, 140), given=("60.0", "95.0"))
    assert small_notes("corrected", large["corrected"], unit) == []
    same = verdicts(tmp_path / "s", (150, 140), (150, 140), given=("60.0", "60.0"))
    assert small_notes("corrected", same["corrected"], unit) == []


def test_accuracies_that_never_differ_tell_what_could_be_found_and_perplexities_do_not(tmp_path):
    cells = of_runs(tmp_path, {"x": 150, "y": 150}, "xy")
    (note,) = comparison_notes({"corrected": cells}, PERCENT)
    # Two examples of 202 that differ, one each way: 2.80 sd of the mean.
    least = 2.8016 * math.sqrt(2 / 201 / 202)
    assert (
        cells[1].comparison.detectable == pytest.approx(least, rel=1e-4)
        and f"a difference of {least:.1%}"[:-1] in note.text
    )
    for name in "ab":
        tutor(tmp_path / f"nano/t{name}/seed0", [2.0, 3.0, 1.0], [2, 3, 4])
    answered = cells_of([line(name, f"t{name}") for name in "ab"], found_in(tmp_path))
    (note,) = comparison_notes({"corrected": answered}, PERPLEXITY)
    assert note.text.startswith("Corrected: on each of the n = 3 test examples every row scores the same as a,")


def of_runs(tmp_path, rights, keys, version="corrected", claims=None):
    """Rows a, b, ... that show the runs `keys`, each right on so many of 200 examples."""
    for key, right in rights.items():
        for seed in range(2):
            classifier(tmp_path / f"nano/{key}/seed{seed}", range(right + seed), 200)
    rows = zip("abcdef", keys, claims or "-" * len(keys), strict=False)
    lines = [line(label, key, version, seed=s, given=(claim, "-")) for label, key, claim in rows for s in range(2)]
    return cells_of(lines, found_in(tmp_path))


def test_runs_that_stand_in_several_rows_are_compared_once(tmp_path):
    rights = {"x": 150, "y": 141, "z": 144, "w": 141}  # w: other runs with the results of y
    a, b, c, d, e = of_runs(tmp_path, rights, "xxyyz")
    once = of_runs(tmp_path, rights, "xyz")
    assert c.comparison == d.comparison == once[1].comparison and e.comparison == once[2].comparison
    assert c.comparison.among == 2 and (c.reference, d.reference, d.mark) == ("a", "a", "↓ ")
    assert a.comparison is None and b.comparison is None and (b.value, b.why_alone, b.mark) == (a.value, "", "")
    _, c, d, e = of_runs(tmp_path, rights, "xywz")
    assert c.comparison == d.comparison and e.comparison.among == 3 and identical_notes({"corrected": [c, d, e]}) == []


def test_rows_that_show_the_same_runs_are_told_alike_versions_together(tmp_path):
    rights = {"x": 150, "y": 141, "z": 144}
    for keys, told in (("xxyy", ", as published and corrected: a and b; c and d."), ("xyzz", ", corrected: c and d.")):
        column = {version: of_runs(tmp_path, rights, keys, version) for version in ("published", "corrected")}
        if keys == "xyzz":
            column["published"] = of_runs(tmp_path, rights, "xyz", "published")
        notes = [note.text for note in block_of("spam", column).notes if "the same runs" in note.text]
        assert notes == [f"At this scale the same runs stand in several rows{told}"]
    assert identical_notes({"corrected": of_runs(tmp_path, {}, "mn")}) == []  # not run


def test_runs_that_stand_in_several_rows_lead_to_no_conclusion_about_themselves(tmp_path):
    rights = {"x": 150, "y": 110, "z": 190}
    claims = ("60.0", "60.5", "60.5", "61.0")
    column = {
        version: of_runs(tmp_path, rights, keys, version, claims)
        for version, keys in (("published", "xyyz"), ("corrected", "xxyz"))
    }
    assert disagreements(column) == []  # b is worse than a as published, and a itself when corrected
    (note,) = small_notes("corrected", column["corrected"], PERCENT)
    assert "claims: c +0.5 (" in note.text and "b +" not in note.text
    rights |= {"z": 112}
    column = {
        version: of_runs(tmp_path, rights, keys, version) for version, keys in zip(column, ("xyz", "xyy"), strict=True)
    }
    assert disagreements(column) == []  # c before b as published, and b itself when corrected


def test_what_always_the_same_answer_would_score_is_told(tmp_path):
    column = {}
    for version, ham in (("published", 86), ("corrected", 86), ("another", 120)):
        lines = [line(label, f"{version}{label}", version) for label in "ab"]
        for one in lines:
            classifier(tmp_path / one.key, range(100), 200, ham=ham)
        column[version] = cells_of(lines, found_in(tmp_path))
    texts = [note.text for note in block_of("spam", {v: column[v] for v in ("published", "corrected")}).notes]
    assert texts.count("Always answering the commonest class would be right in 57.0% of n = 200.") == 1
    (note,) = baseline_notes({"published": column["published"], "corrected": column["another"]})
    assert note.text.endswith("in 57.0% of n = 200 (as published) and 60.0% of n = 200 (corrected).")
    one = line("a", "ift")
    tutor(tmp_path / one.key, [3.0, 4.0], [2, 2])
    assert baseline_notes({"corrected": cells_of([one], found_in(tmp_path)), "published": []}) == []


def sizes(tmp_path, written, ran):
    """Cells of rows with the flags as they are written, by those of what ran."""
    cells = []
    for label, flags, others in zip("abcd", written, ran, strict=False):
        one = line(label, label, flags=flags)
        args = {name: value for name, value in flags_of(f"{CLS} {others}").items() if name != "seed"}
        classifier(tmp_path / one.key, range(150), 200, args=args)
        cells += cells_of([one], found_in(tmp_path))
    return cells


def test_rows_of_sizes_that_are_one_model_here_are_told_with_what_is_between_them(tmp_path):
    written = ["--model gpt2 --batch-size 32", "--model gpt2 --batch-size 4", "--model gpt2-medium --batch-size 8"]
    written = [f"{flags} --lr 5e-5" for flags in [*written, written[-1]]]
    ran = [re.sub("gpt2(-medium)?", "gpt2-nano", flags).replace("5e-5", "2e-4") for flags in written]
    ran[2:] = [flags.replace("2e-4", "3e-4") for flags in ran[2:]]
    (note,) = size_notes("published", sizes(tmp_path / "one", written, ran))
    assert note.kind == "warning" and note.text == (
        "As published: at this scale all sizes are one model, and no difference is one of size; c and d differ from a "
        "in batch size (32 / 8) and learning rate (0.0002 / 0.0003)."
    )
    assert size_notes("published", sizes(tmp_path / "as-written", written, written)) == []
    assert size_notes("published", sizes(tmp_path / "same", written[:2], ran[:2])) == []
    assert size_notes("published", []) == []


def test_rates_in_labels_are_told_apart_from_those_that_ran(tmp_path):
    labels = {"full, 2.5e-5": ("2.5e-5", 1.333e-4), "full, 1e-4": ("1e-4", 5.333e-4), "rank 5": ("5e-5", 1.0)}

    def column(ran):
        lines = [
            line(label, f"r{i}", flags=f"--lr {rate} --lr-min 0") for i, (label, (rate, _)) in enumerate(labels.items())
        ]
        for one, lr in zip(lines, ran, strict=True):
            classifier(tmp_path / one.key, range(9), args={"method": "full", "lr": lr})
        return cells_of(lines, found_in(tmp_path))

    cells = column([lr for _, lr in labels.values()])
    told = "Learning rates in the labels are for the width as written; what ran is 5.33 times that."
    texts = [n.text for n in block_of("lr", {"corrected": cells}).notes]
    assert [text for text in texts if "Learning rates" in text] == [told]
    assert rate_notes({"corrected": cells[2:]}) == []  # a label without its rate
    (note,) = rate_notes({"corrected": column([1e-4, 5.333e-4, 1.0])})
    assert note.text.endswith("what ran is 4 to 5.33 times that.")
    assert rate_notes({"corrected": column([float(rate) for rate, _ in labels.values()])}) == []


def test_the_notes_on_scale_come_from_the_table_files(tmp_path):
    """Sizes that become one and rates that move with the width at the nano scale, and neither at the report's."""
    flags = f"{CLS} --dataset enron --train-examples 125 --max-length 256 --lr %s --model %s --dropout %s"
    rows = [Row("corrected", "spam 125", f"{rate}", "", "", flags % (rate, model, dropout))
            for rate, model, dropout in (("2e-4", "gpt2", 0), ("4e-4", "gpt2-medium", 0.1))]  # fmt: skip
    path = table_file(tmp_path / "tables", "table2_x", rows)
    for scale, factors in (("nano", (768 / 192, 1024 / 192)), ("report", (1, 1))):
        for row, factor in zip(rows, factors, strict=True):
            args = flags_of(row.command) | {"lr": float(row.label) * factor, "data": None}
            args |= {"model": "gpt2-nano"} if scale == "nano" else {}
            classifier(tmp_path / f"runs/{places(path, scale)[row[:3]]}/seed0", range(30), args=args)
        output = tmp_path / scale
        report.main(report.Args(tmp_path / "runs", tmp_path / "no", scale, output, tmp_path / "tables"))
        text = (output / "RESULTS.md").read_text()
        assert (
            text.count("what ran is 4 to 5.33 times that") == text.count("all sizes are one model") == (scale == "nano")
        )
        told = "125, 4e-4 differs from 125, 2e-4 in learning rate (0.0008 / 0.002133) and dropout (0.0 / 0.1)."
        assert text.count(told) == (scale == "nano")


def test_columns_of_several_sizes_become_one_and_keep_their_comparisons(tmp_path):
    columns = {}
    for size in ("125", "1000000"):
        lines = [line(label, f"{label}{size}", column=f"spam {size}") for label in ("full", "LoRA")]
        for one, right in zip(lines, (180, 150), strict=True):
            classifier(tmp_path / one.key, range(right), 200)
        columns[f"spam {size}"] = {"corrected": cells_of(lines, found_in(tmp_path))}
    merged = by_size(columns)["spam"]["corrected"]
    assert [cell.label for cell in merged] == ["125, full", "125, LoRA", "all, full", "all, LoRA"]
    assert [cell.comparison is not None for cell in merged] == [False, True, False, True]
    notes = block_of("spam", {"corrected": merged}).notes
    assert "lower than full of the same size (paired bootstrap over examples, Holm over 1, 5%)" in notes[0].text


def test_units_follow_the_report():
    (accuracy,) = cells_of([line("a", "a", given=("0.905", ""))], lambda key: None)
    assert accuracy.report == "0.905" and accuracy.record == ""
    assert ACCURACY.as_given([88.2]) == PERCENT and PERCENT.text(0.9) == "90.0"
    assert ACCURACY.as_given([0.905, 0.90467]) == ACCURACY.as_given([]) == ACCURACY
    assert OF_A_RUN["parameters"].text(7_898_384) == "7,898,384"
    assert [number(text) for text in ("92.4%", "7,898,384", "36.35/38.10", "59.86 or 61.26", "14e6", "?", "")] == [
        *(92.4, 7898384, 36.35, 59.86, 14e6),
        *(None, None),
    ]
    assert listing(["a"]) == "a" and listing(["a", "b", "c"]) == "a, b and c"


def test_tables_come_in_the_reports_order(tmp_path):
    names = ["beyond_b", "table10_x", "figure1_x", "table2_x", "inline_x", "appendix_x"]
    assert sorted(names, key=natural) == ["table2_x", "table10_x", "figure1_x", "inline_x", "appendix_x", "beyond_b"]
    path = tmp_path / "table2_x.sh"
    path.write_text("#!/usr/bin/env bash\n# Table 2: long\n# and longer. And more.\n#\n#     bash x\n")
    assert title_of(path) == "Table 2: long and longer"


# Files.


def test_a_page_from_collected_runs_is_the_page_from_the_runs_byte_for_byte(small, made, tmp_path):
    results, first, second = (tmp_path / name for name in ("results", "first", "second"))
    report.main(report.Args(small.runs, results, "nano", first, small.tables, collect=True))
    report.main(report.Args(tmp_path / "nothing", results, "nano", second, small.tables))
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert {path.name for path in files} >= {"RESULTS.md", "report.html", "tables.csv", "tables.tex", "table4_rank.svg"}
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes() == (made / name).read_bytes(), name
    assert {path.name for path in results.iterdir()} == {"nano.jsonl.gz"}
    packed = (results / "nano.jsonl.gz").read_bytes()
    assert packed[4:8] == bytes(4), "no time in the file, so that collecting again changes nothing"
    rows = {row["key"]: row for row in map(json.loads, gzip.decompress(packed).splitlines())}
    assert list(rows) == sorted(rows) and len(rows) == 16
    assert {row["script"] for row in rows.values()} == {"finetune_cls", "finetune_ift"}
    kept = rows[str(of_rank(small, "published", 2).relative_to(small.runs) / "seed0")]
    assert "curve" not in kept["results"] and kept["results"]["args"] == {"method": "lora", "lora_rank": 8}
    assert set(kept["examples"]) == {"id", "label", "prediction", "loss"} and len(kept["examples"]["id"]) == 300


def test_new_runs_are_added_to_the_packed_ones(small, tmp_path):
    results, some = tmp_path / "results", tmp_path / "some"
    shutil.copytree(small.runs, some)
    left_out = of_rank(small, "published", 2).relative_to(small.runs)
    shutil.rmtree(some / left_out)
    report.main(report.Args(some, results, "nano", tmp_path / "out", small.tables, collect=True))
    before = read_packed(results / "nano.jsonl.gz")
    new = tmp_path / "new"
    shutil.copytree(small.runs / left_out, new / left_out)
    report.main(report.Args(new, results, "nano", tmp_path / "out", small.tables, collect=True))
    after = read_packed(results / "nano.jsonl.gz")
    assert before.items() <= after.items() and len(after) == len(before) + 3


def test_a_checkout_without_the_data_shows_the_packed_runs_of_the_same_rows(tmp_path, monkeypatch):
    """Without the data there is another data set, or none. A row with other settings has not been run."""
    data, tables = tmp_path / "data", tmp_path / "tables"
    data.mkdir()
    for name in ("enron_spam_data.parquet", "imdb_train.parquet"):
        (data / name).touch()
    flags = {"a": "--dataset enron --lr 1", "b": "--dataset enron --lr 3", "c": "--dataset imdb --lr 2"}
    rows = [Row("corrected", "spam", label, "", "", f"{CLS} --model gpt2 {words}") for label, words in flags.items()]
    path = table_file(tables, "table1_x", rows)
    for key in places(path).values():
        classifier(tmp_path / "runs" / key / "seed0", range(30), data={"source": "/home/me/enron.parquet"})
    monkeypatch.setenv("DATA_DIR", str(data))
    report.main(report.Args(tmp_path / "runs", tmp_path / "results", "nano", tmp_path / "one", tables, collect=True))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    report.main(report.Args(tmp_path / "runs", tmp_path / "results", "nano", tmp_path / "two", tables))
    assert (tmp_path / "one/tables.csv").read_text() == (tmp_path / "two/tables.csv").read_text()
    path.write_text(path.read_text().replace("--lr 3", "--lr 4"))
    report.main(report.Args(tmp_path / "no", tmp_path / "results", "nano", tmp_path / "three", tables))
    rows = csv.DictReader(io.StringIO((tmp_path / "three/tables.csv").read_text()))
    assert [(row["label"], row["value"], row["missing"]) for row in rows] == [
        *(("a", "0.75", ""), ("b", "", "not run"), ("c", "0.75", "")),
    ]
    kept = gzip.decompress((tmp_path / "results/nano.jsonl.gz").read_bytes()).decode()
    assert "/home/me" not in kept and str(tmp_path) not in kept


def test_the_csv_has_a_line_for_each_cell_and_version(small, made):
    rows = list(csv.DictReader(io.StringIO((made / "tables.csv").read_text())))
    assert list(rows[0]) == report.COLUMNS and len({tuple(row[c] for c in report.COLUMNS[:4]) for row in rows}) == len(
        rows
    )
    ranks = {(row["label"], row["version"]): row for row in rows if row["table"] == "table4_rank"}
    assert float(ranks["rank 8", "published"]["value"]) == pytest.approx((230 + 231 + 232) / 900, abs=1e-12)
    row = ranks["rank 8", "published"]
    assert (row["report"], row["record"], row["seeds"], row["n"], row["commits"]) == (
        "89.8",
        "",
        "0 1 2",
        "300",
        "abc123",
    )
    assert float(row["difference"]) == pytest.approx(0.1) and float(row["p_holm"]) < 0.001
    assert float(row["forgetting"]) == pytest.approx(0.1)
    assert ranks["rank 32", "corrected"]["missing"] == "not run"
    assert ranks["<xl>", "published"]["missing"] == ("not available at this scale: differs from 'rank 2' in size only")


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


def test_latex_tables_have_as_many_columns_as_they_say(made):
    text = (made / "tables.tex").read_text()
    tables = text.split(r"\begin{tabular}")[1:]
    assert tables and text.count(r"\begin{table}") == text.count(r"\end{table}") == len(tables)
    for table in tables:
        specification, body = table.split("\n", 1)
        rows = [row for row in body.split(r"\end{tabular}")[0].splitlines() if row.endswith(r"\\")]
        assert rows and {row.replace(r"\&", "").count("&") for row in rows} == {len(specification.strip("{}")) - 1}
    assert r"100\% of \textless{}ranks\textgreater{} \& more" in text


def test_what_a_person_wrote_is_shown_above_its_table(small, tmp_path):
    tables, output = tmp_path / "tables", tmp_path / "out"
    shutil.copytree(small.tables, tables)
    words = "The report is *long*.\n\n## table4_rank\n\nRanks do **not** matter.\n\n- Rank [16](#table4_rank), always "
    (tables / "findings.md").write_text(words + "`--lora-rank 16` <script>.\n\n## figure1_curves\n\nOne.\n")
    report.main(report.Args(small.runs, small.results, "nano", output, tables))
    text, page = ((output / name).read_text() for name in ("RESULTS.md", "report.html"))
    assert text.index("The report is *long*.") < text.index("- scale: nano") < text.index("## Table 4")
    assert text.index("## Table 4") < text.index("Ranks do **not** matter.") < text.index("| rank 2 |")
    assert "<p>The report is <em>long</em>.</p>" in page and "<p>Ranks do <strong>not</strong> matter.</p>" in page
    assert '<a href="#table4_rank">16</a>, always <code>--lora-rank 16</code> &lt;script&gt;.' in page
    assert text.count("## Table 4") == 1 and text.count("\n## ") == 3


def test_a_finding_of_no_table_is_refused(small, tmp_path):
    shutil.copytree(small.tables, tmp_path / "tables")
    (tmp_path / "tables/findings.md").write_text("## table5_rank\n\nRanks matter.\n")
    with pytest.raises(ValueError, match="findings.md: 'table5_rank' is no table; the tables are appendix_answers,"):
        report.main(report.Args(small.runs, small.results, "nano", tmp_path / "out", tmp_path / "tables"))


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


# The page.


def test_text_from_files_is_escaped_in_the_page(made):
    page = (made / "report.html").read_text()
    assert "<xl>" not in page and '<td data-key="&lt;xl&gt;">&lt;xl&gt;</td>' in page
    assert "<ranks>" not in page and "Table 4: 100% of &lt;ranks&gt; &amp; more" in page
    assert "not available at this scale: differs from &#x27;rank 2&#x27; in size only" in page
    assert "Ask &lt;0&gt;" in page and "What is &lt;b&gt;2 + 2&lt;/b&gt;?" in page and "<b>2" not in page


def test_questions_of_the_report_are_shown_with_the_answers_before_and_after(made):
    text = (made / "RESULTS.md").read_text()
    _, first, second = re.split("^> ", text, flags=re.MULTILINE)[:3]
    assert first.split("\n\n")[1].splitlines() == [
        r"- **before (LoRA, corrected)**: 2 and 2 \[...\]",
        "- **LoRA, corrected**: 4",
    ]
    assert second.startswith("Name a bird.") and "**LoRA, corrected**: Wren" in second


def test_the_page_holds_its_pictures_and_names_no_other_file(made):
    page = (made / "report.html").read_text()
    assert page.count("<svg ") == 2 and "rank 8, validation" in page and "authors' record" in page
    assert '<link rel="icon" href="data:,">' in page and "src=" not in page
    assert (made / "pictures/figure1_curves.svg").read_text().startswith("<svg")
    assert "![" in (made / "RESULTS.md").read_text() and "pictures/table4_rank.svg" in (made / "RESULTS.md").read_text()


@pytest.fixture(scope="module")
def browser(made):
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("no Chromium with its driver in /usr/bin")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.get(f"file://{made / 'report.html'}")
    yield driver
    driver.quit()


def test_the_page_opens_from_the_disk_without_an_error_and_loads_nothing(browser):
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.execute_script("return document.querySelectorAll('svg[role=img]').length") == 2
    sizes = "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)"
    assert all(100 < width <= 1000 for width in browser.execute_script(sizes))
    if "SCREENSHOT" in os.environ:
        browser.save_screenshot(os.environ["SCREENSHOT"])


def test_a_click_on_a_header_sorts_and_leaves_the_missing_last(browser):
    table = browser.find_element("css selector", "#table4_rank table")

    def labels():
        return [row.text for row in table.find_elements("css selector", "tbody td:first-child")]

    header = table.find_elements("css selector", "th")[-1]
    before = labels()
    assert before == ["rank 2", "<xl>", "rank 8", "rank 32"] and header.text.strip() == "corrected"
    orders = []
    for state in ("ascending", "descending", "none"):
        header.find_element("css selector", "button").click()
        assert header.get_attribute("aria-sort") == state
        orders.append(labels())
    assert orders == [["rank 2", "rank 8", "<xl>", "rank 32"], ["rank 8", "rank 2", "<xl>", "rank 32"], before]
    assert browser.get_log("browser") == []
