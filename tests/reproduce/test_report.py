"""The report's page from finished runs: its numbers, its warnings, its files, and the page in a browser."""

import ast
import csv
import gzip
import io
import json
import math
import os
import re
import shutil
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tyro
from conftest import ROOT, results_of, run_script
from forked import run_forked
from test_commands import load_script

import compare_runs
import report
from evidence.intervals import bootstrap_mean, bootstrap_ratio, detectable_difference, paired_bootstrap
from report_cells import cell_of, cells_of
from report_document import Block, Grid, Page, Section, Shown
from report_exports import COLUMNS, latex
from report_list import Line, all_tables, natural, parse_list, title_of
from report_markdown import filled, parts
from report_metrics import ACCURACY, JUDGE, PERPLEXITY
from report_notes import commonest_notes, comparison_notes, disagreements, small_notes
from report_runs import Store, read_packed, read_run, write_packed
from report_scale import identical_notes, rate_notes, size_notes
from report_sections import block_of, by_size
from report_settings import DEFAULTS, confounds, effective_scale, first_step, settings_of
from report_words import Unit, listing, mark, number, on_any_machine, unit_of
from training.flags.cli import resolved

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


def line(label, key, version="corrected", column="spam", seed=0, given=("-", "-"), status="run", flags="--lora-rank 8"):
    command = f"python scripts/finetune_cls.py {flags} --seed {seed}"
    return Line("t", label, column, version, "nano", str(seed), *given, status, f"runs/nano/{key}/seed{seed}", command)


def table_file(folder, name, lines, comment="A table of tests."):
    folder.mkdir(parents=True, exist_ok=True)
    listed = "\n".join("\t".join(one) for one in lines)
    text = f"#!/usr/bin/env bash\n# {comment}\n#\n#     bash x.sh\ncat <<'END'\n{listed}\nEND\n"
    (folder / f"{name}.sh").write_text(text)
    return folder


def found_in(runs):
    """Runs by key, from a folder of runs."""
    return Store(runs, runs / "none").get


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two versions of a table of three rows, three seeds each, one row not run; an appendix with answers; arguments."""
    folder = tmp_path_factory.mktemp("report")
    runs, lines = folder / "runs", []
    for version, offsets in (("published", (0, 30, 32)), ("corrected", (0, 1, 0))):
        for rank, offset, claim in zip((2, 8, 32), offsets, ("62.8", "89.8", "-"), strict=True):
            for seed in range(3):
                key = f"spam-{version}{rank}"
                one = line(f"rank {rank}", key, version, seed=seed, given=(claim, "-"), flags=f"--lora-rank {rank}")
                lines.append(one)
                if rank != 32 or version == "published":
                    right = range(200 + offset + seed)
                    curve = [
                        {"step": s, "epoch": s / 4, "train_loss": 2 - s / 4, "val_loss": 2.1 - s / 4} for s in range(5)
                    ]
                    lost = general(0.1 * seed, 0.02)
                    classifier(runs / one.key, right, 300, curve=curve, forgetting=lost)
    unavailable = "not available at this scale: <size> & more"
    lines.insert(3, line("<xl>", "-", "published", given=("1", "2"), status=unavailable))
    answered = line("LoRA", "ift-a", column="answers")
    tutor(runs / answered.key, [2.0, 3.0, 1.0], [2, 3, 4])
    printed = "> What is <b>2 + 2</b>?\nbase: 2 and\n\n2 [...]\nfine-tuned: 4\n\n"
    printed += "> Name a bird.\nbase: A\nfine-tuned: Wren\n\n"
    (runs / "nano/ift-a/seed0.answers.txt").write_text(printed)
    tables = table_file(folder / "tables", "table4_rank", lines, "Table 4: 100% of <ranks> & more (report, section 3).")
    table_file(tables, "appendix_answers", [answered], "Appendix: answers.")
    figure = [one._replace(column="val-loss", report="1.5") for one in lines if one.status == "run"]
    table_file(tables, "figure1_curves", figure, "Figure 1: curves.")
    return report.Args(runs, folder / "results", "nano", folder / "out", tables)


@pytest.fixture(scope="module")
def made(small):
    report.main(small)
    return small.output


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
    assert a.sd == pytest.approx(np.std(each, ddof=1)) and a.metric is PERPLEXITY
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
    assert (a.metric, a.value, a.n, b.value) == (JUDGE, 60.0, 2, 70.0)
    assert b.comparison.value == 10.0 and b.comparison.n == 2
    tutor(tmp_path / "nano/c/seed0", [3.0, 4.0, 5.0], [2, 2, 2])
    mixed = cells_of([*lines, line("c", "c")], found_in(tmp_path))
    assert {cell.metric for cell in mixed} == {PERPLEXITY}
    assert bootstrap_mean([50.0, 70.0]).low == a.low


def test_rows_on_other_examples_are_shown_and_not_compared(tmp_path):
    classifier(tmp_path / "nano/a/seed0", range(20), 40)
    classifier(tmp_path / "nano/b/seed0", range(20), 30)
    cells = cells_of([line("a", "a"), line("b", "b")], found_in(tmp_path))
    assert cells[1].value == 20 / 30 and cells[1].comparison is None and cells[1].why_alone
    notes = block_of("spam", {"corrected": cells}, {}).notes
    assert any(note.text == "Not compared, tested on other examples than a: b (corrected)." for note in notes)


def test_columns_of_a_run_as_a_whole_have_a_mean_and_no_test(tmp_path):
    for seed in range(2):
        curve = [{"step": 1, "val_loss": 3.0 + seed, "lr": 1e-3}, {"step": 2, "val_loss": 2.0 + seed, "lr": 5e-4}]
        classifier(tmp_path / f"nano/a/seed{seed}", range(9), curve=curve)
    values = {}
    for column in ("parameters", "memory", "minutes", "val-loss", "peak-lr"):
        (cell,) = cells_of([line("a", "a", column=column, seed=seed) for seed in range(2)], found_in(tmp_path))
        values[column] = cell.value
        assert cell.comparison is None and cell.metric is None
    assert values == pytest.approx(
        {"parameters": 1234, "memory": 700.4 / 1024, "minutes": 1.0, "val-loss": 2.5, "peak-lr": 1e-3}
    )


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
    lines += [line("b", "b"), line("c", "-", status="not available at this scale: differs from 'a' in size only")]
    a, b, c = cells_of(lines, found_in(tmp_path))
    assert a.seeds == ("1",) and a.sd is None and a.value == 0.5
    assert (b.value, b.reason) == (None, "not run")
    assert c.reason.endswith("in size only")
    block = block_of("spam", {"corrected": [a, b, c]}, {})
    assert [row[-1].text for row in block.grid.rows] == ["0.500 [0.352, 0.648]", "missing", "missing"]
    texts = [note.text for note in block.notes]
    assert "Not run: b (corrected)." in texts and "Not yet run, seed 0 2: a (corrected)." in texts
    assert "Not available at this scale: differs from 'a' in size only: c (corrected)." in texts
    texts = [
        note.text for note in block_of("spam", {"published": [b], "corrected": [b, replace(b, label="d")]}, {}).notes
    ]
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
    (runs / "nano/spam-published2/seed1/results.json").write_text("{")
    done = run_report("--runs", runs, "--tables", small.tables, "--output", tmp_path / "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1 and "spam-published2/seed1/results.json: damaged" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_without_tables_and_a_table_that_fails_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no table files"):
        all_tables(tmp_path, tmp_path, "nano")
    (tmp_path / "table1_x.sh").write_text("echo 'error: SEEDS' >&2; exit 2\n")
    with pytest.raises(ValueError, match="table1_x.sh failed with status 2: error: SEEDS"):
        all_tables(tmp_path, tmp_path, "nano")


def test_a_line_of_another_shape_is_refused_with_its_place():
    good = "\t".join(line("a", "b"))
    assert parse_list(good + "\n", "x.sh") == [line("a", "b")]
    with pytest.raises(ValueError, match="x.sh, line 2 of its list: 3 fields instead of 11"):
        parse_list(good + "\none\ttwo\tthree\n", "x.sh")


# Settings and confounds.


def test_the_defaults_are_those_of_the_scripts():
    found = {}
    for name in ("finetune_cls", "finetune_ift"):
        for group in fields(load_script(name).Args):
            assert is_dataclass(group.type)
            if all(f.default is not f.default_factory for f in fields(group.type)):
                found |= asdict(group.type())
    assert {name: list(v) if isinstance(v, tuple) else v for name, v in found.items() if name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    "flags",
    [
        "--dataset enron --model gpt2-medium --lora-rank 8 --lora-alpha 8 --lora-scaling paper --decay-all --lr 5e-5",
        "--dataset imdb --max-grad-norm None --head-training train+lora --warmup-steps 1 --pad-to 256 --epochs 2",
        "--dataset imdb --lora-targets q v --no-decay-all --head-bias --test-examples 500 --lora-init=paper",
    ],
)
def test_settings_of_a_command_are_what_the_script_resolves(flags):
    args = tyro.cli(load_script("finetune_cls").Args, args=flags.split(), config=(tyro.conf.OmitArgPrefixes,))
    theirs, ours = resolved(args), settings_of(f"python scripts/finetune_cls.py {flags}")
    assert {name: ours[name] for name in ours if name in theirs} == {n: theirs[n] for n in ours if n in theirs}


@pytest.mark.parametrize("scaling", ["standard", "rslora", "paper"])
@pytest.mark.parametrize("init", ["standard", "paper"])
def test_the_first_step_grows_with_the_rank_as_in_a_simulated_update(scaling, init):
    """y = s B A x after B's entries moved by lr in the direction of the gradient's sign."""
    inputs, rng, moved, told = 256, np.random.default_rng(0), [], []
    for rank in (2, 32):
        s = DEFAULTS | {"lora_rank": rank, "lora_alpha": 16.0, "lora_scaling": scaling, "lora_init": init}
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
    found = confounds([settings_of(command) for command in commands])
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
    assert confounds([settings_of(command) for command in CLEAN[case]]) == []


def test_a_rate_that_moves_with_the_rank_is_told():
    (found,) = confounds([settings_of(f"--lora-rank {r} --lr {lr}") for r, lr in ((2, 1e-3), (8, 2e-3))])
    assert found.names == {("rank", "learning rate")}


REAL = [
    REPRODUCE / f"{name}.sh"
    for name in ("table2_tokens", "table3_methods", "table4_rank", "table5_blocks", "table6_rank_large")
]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_tables_2_to_6_are_confounded_as_published_and_clean_when_corrected(path, tmp_path):
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / path.name).write_text(f"# A table.\nexec bash {path}\n")
    (table,) = all_tables(tables, tmp_path, "report")
    names = {line.column for line in table.lines} - {"parameters", "memory"}
    assert names
    found = {}
    for name in names:
        for version, rows in report.design_of(table, name).items():
            found.setdefault(version, []).extend(confounds([settings_of(command) for command in rows.values()]))
    assert found["published"] and found["corrected"] == []


def test_a_rate_that_a_run_chose_itself_is_not_what_the_table_sets(tmp_path):
    lines = [line(f"rank {rank}", f"r{rank}", flags=f"--lora-rank {rank}") for rank in (2, 8)]
    given = [one._replace(command=f"{one.command} --lr {lr}") for one, lr in zip(lines, (1e-3, 2e-3), strict=True)]
    for one, rank, lr in zip(lines, (2, 8), (1e-3, 2e-3), strict=True):
        classifier(tmp_path / one.key, range(9), args={"method": "lora", "lora_rank": rank, "lr": lr})
    for asked, expected in ((lines, []), (given, [{("rank", "learning rate")}])):
        rows = [cell.settings for cell in cells_of(asked, found_in(tmp_path))]
        assert [one.names for one in confounds(rows)] == expected


def test_what_a_smaller_scale_hides_is_told_from_the_rows_as_they_are_written(tmp_path):
    """Two token counts that are one at the nano scale, where the batch size alone is left to differ."""
    lines = [
        line(f"{n}", f"k{n}", flags=f"--max-length $(({n} / SMALLER)) --batch-size {batch}")
        for n, batch in ((256, 32), (257, 4))
    ]
    table_file(tmp_path / "tables", "table2_tokens", lines)
    path = tmp_path / "tables/table2_tokens.sh"
    smaller = "[[ $SCALE == nano ]] && SMALLER=4 || SMALLER=1\ncat <<END"
    path.write_text(path.read_text().replace("cat <<'END'", smaller))
    report.main(report.Args(tmp_path, tmp_path, "nano", tmp_path / "out", tmp_path / "tables"))
    text = (tmp_path / "out/RESULTS.md").read_text()
    assert "--max-length 64 --batch-size 32" in text and "--max-length 64 --batch-size 4" in text
    warning = "**Confounded.** Corrected: token count (256 / 257) does not change alone; with it: batch size (32 / 4)."
    assert warning in text and text.count("Confounded") == 1


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
    unit = Unit("accuracy, %", 100.0, 1)
    (note,) = small_notes("corrected", column["corrected"], unit)
    assert "n = 200 is too small" in note.text and "b +1.0 (could be found:" in note.text
    large = verdicts(tmp_path / "l", (150, 140), (150, 140), given=("60.0", "95.0"))
    assert small_notes("corrected", large["corrected"], unit) == []
    same = verdicts(tmp_path / "s", (150, 140), (150, 140), given=("60.0", "60.0"))
    assert small_notes("corrected", same["corrected"], unit) == []


def test_accuracies_that_never_differ_tell_what_could_be_found_and_perplexities_do_not(tmp_path):
    cells = of_runs(tmp_path, {"x": 150, "y": 150}, "xy")
    (note,) = comparison_notes({"corrected": cells}, Unit("accuracy, %", 100.0, 1))
    # Two examples of 202 that differ, one each way: 2.80 sd of the mean.
    least = 2.8016 * math.sqrt(2 / 201 / 202)
    assert (
        cells[1].comparison.detectable == pytest.approx(least, rel=1e-4)
        and f"a difference of {least:.1%}"[:-1] in note.text
    )
    for name in "ab":
        tutor(tmp_path / f"nano/t{name}/seed0", [2.0, 3.0, 1.0], [2, 3, 4])
    answered = cells_of([line(name, f"t{name}") for name in "ab"], found_in(tmp_path))
    (note,) = comparison_notes({"corrected": answered}, Unit("perplexity", 1.0, 1, ratio=True))
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
    assert c.comparison.among == 2 and (c.reference, d.reference, mark(d)) == ("a", "a", "↓ ")
    assert a.comparison is None and b.comparison is None and (b.value, b.why_alone, mark(b)) == (a.value, "", "")
    _, c, d, e = of_runs(tmp_path, rights, "xywz")
    assert c.comparison == d.comparison and e.comparison.among == 3 and identical_notes({"corrected": [c, d, e]}) == []


def test_rows_that_show_the_same_runs_are_told_alike_versions_together(tmp_path):
    rights = {"x": 150, "y": 141, "z": 144}
    for keys, told in (("xxyy", ", as published and corrected: a and b; c and d."), ("xyzz", ", corrected: c and d.")):
        column = {version: of_runs(tmp_path, rights, keys, version) for version in ("published", "corrected")}
        if keys == "xyzz":
            column["published"] = of_runs(tmp_path, rights, "xyz", "published")
        notes = [note.text for note in block_of("spam", column, {}).notes if "the same runs" in note.text]
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
    (note,) = small_notes("corrected", column["corrected"], Unit("accuracy, %", 100.0, 1))
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
    texts = [note.text for note in block_of("spam", {v: column[v] for v in ("published", "corrected")}, {}).notes]
    assert texts.count("Always answering the commonest class would be right in 57.0% of n = 200.") == 1
    (note,) = commonest_notes({"published": column["published"], "corrected": column["another"]})
    assert note.text.endswith("in 57.0% of n = 200 (as published) and 60.0% of n = 200 (corrected).")
    one = line("a", "ift")
    tutor(tmp_path / one.key, [3.0, 4.0], [2, 2])
    assert commonest_notes({"corrected": cells_of([one], found_in(tmp_path)), "published": []}) == []


def sizes(tmp_path, written, ran):
    """Rows by the flags of the design and of what ran; (cells, design by label)."""
    lines = [line(label, label, flags=flags) for label, flags in zip("abcd", ran, strict=False)]
    for one in lines:
        args = {name: value for name, value in settings_of(one.command).items() if name != "seed"}
        classifier(tmp_path / one.key, range(150), 200, args=args)
    design = {label: settings_of(f"python x.py {flags}") for label, flags in zip("abcd", written, strict=False)}
    return cells_of(lines, found_in(tmp_path)), design


def test_rows_of_sizes_that_are_one_model_here_are_told_with_what_is_between_them(tmp_path):
    written = ["--model gpt2 --batch-size 32", "--model gpt2 --batch-size 4", "--model gpt2-medium --batch-size 8"]
    written.append(written[-1])
    ran = [flags.replace("gpt2-medium", "gpt2").replace("gpt2", "gpt2-nano") + " --lr 2e-4" for flags in written]
    ran[2:] = [flags.replace("2e-4", "3e-4") for flags in ran[2:]]
    (note,) = size_notes("published", *sizes(tmp_path / "one", written, ran))
    assert note.kind == "warning" and note.text == (
        "As published: at this scale all sizes are one model, and no difference is one of size; c and d differ from a "
        "in batch size (32 / 8) and learning rate (0.0002 / 0.0003)."
    )
    assert size_notes("published", *sizes(tmp_path / "as-written", written, written)) == []
    assert size_notes("published", *sizes(tmp_path / "same", written[:2], ran[:2])) == []
    assert size_notes("published", [], {}) == []


def test_rates_in_labels_are_told_apart_from_those_that_ran(tmp_path):
    column, design = {}, {"corrected": {}}
    labels = {"full, 2.5e-5": ("2.5e-5", 1.333e-4), "full, 1e-4": ("1e-4", 5.333e-4), "rank 5": ("5e-5", 1.0)}
    lines = [line(label, f"r{i}", flags="--lr 1") for i, label in enumerate(labels)]
    for one, (rate, ran) in zip(lines, labels.values(), strict=True):
        design["corrected"][one.label] = f"python x.py --lr {rate} --lr-min 0"
        classifier(tmp_path / one.key, range(9), args={"method": "full", "lr": ran})
    column["corrected"] = cells_of(lines, found_in(tmp_path))
    told = "Learning rates in the labels are for the width as written; what ran is 5.33 times that."
    assert [n.text for n in block_of("lr", column, design).notes if "Learning rates" in n.text] == [told]
    assert rate_notes({"corrected": column["corrected"][2:]}, design) == []  # a label without its rate
    design["corrected"]["full, 1e-4"] = "python x.py --lr 1e-4"
    classifier(tmp_path / lines[0].key, range(9), args={"method": "full", "lr": 1e-4})
    column["corrected"] = cells_of(lines, found_in(tmp_path))
    (note,) = rate_notes(column, design)
    assert note.text.endswith("what ran is 4 to 5.33 times that.")
    for one, (rate, _) in zip(lines, labels.values(), strict=True):
        classifier(tmp_path / one.key, range(9), args={"method": "full", "lr": float(rate)})
    assert rate_notes({"corrected": cells_of(lines, found_in(tmp_path))}, design) == []


def test_the_notes_on_scale_come_from_the_table_files(tmp_path):
    """Sizes that become one and rates that move with the width at the nano scale, and neither at the report's."""
    flags = ("--lr $((2 * N))e-4 --model gpt2$SMALL", "--lr $((4 * N))e-4 --model gpt2$LARGE")
    lines = [line(f"{rate}e-4", f"k{rate}", column="spam 125", flags=f) for rate, f in zip((2, 4), flags, strict=True)]
    lines = [one._replace(folder=one.folder.replace("/nano/", "/$SCALE/")) for one in lines]
    table_file(tmp_path / "tables", "table2_x", lines)
    path = tmp_path / "tables/table2_x.sh"
    scales = "[[ $SCALE == nano ]] && N=2 SMALL=-nano LARGE=-nano || N=1 SMALL='' LARGE=-medium\ncat <<END"
    path.write_text(path.read_text().replace("cat <<'END'", scales))
    for scale, times in (("nano", 2), ("report", 1)):
        for rate, model in ((2, "gpt2"), (4, "gpt2-medium")):
            args = {"method": "lora", "model": "gpt2-nano" if times == 2 else model, "lr": times * rate * 1e-4}
            classifier(tmp_path / f"runs/{scale}/k{rate}/seed0", range(30), args=args)
        output = tmp_path / scale
        report.main(report.Args(tmp_path / "runs", tmp_path / "no", scale, output, tmp_path / "tables"))
        text = (output / "RESULTS.md").read_text()
        assert text.count("what ran is 2 times that") == text.count("all sizes are one model") == (scale == "nano")
        told = "125, 4e-4 differs from 125, 2e-4 in learning rate (0.0004 / 0.0008)."
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
    notes = block_of("spam", {"corrected": merged}, {}).notes
    assert "lower than full of the same size (paired bootstrap over examples, Holm over 1, 5%)" in notes[0].text


def test_units_follow_the_report():
    lines = [line("a", "a", given=("0.905", "-"))]
    accuracy = cell_of(lines, lambda key: None)
    assert accuracy.report == "0.905" and accuracy.record == ""
    assert unit_of("spam", ACCURACY, ["", "88.2"]) == Unit("accuracy, %", 100.0, 1)
    assert unit_of("spam", ACCURACY, ["0.905", "0.90467"]) == unit_of("spam", ACCURACY, [""]) == Unit("accuracy")
    assert unit_of("parameters", None, ["14e6"]).text(7_898_384) == "7,898,384"
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
    assert {path.name for path in results.iterdir()} == {"nano.jsonl.gz", "nano.tsv"}
    packed = (results / "nano.jsonl.gz").read_bytes()
    assert packed[4:8] == bytes(4), "no time in the file, so that collecting again changes nothing"
    rows = {row["key"]: row for row in map(json.loads, gzip.decompress(packed).splitlines())}
    assert list(rows) == sorted(rows) and len(rows) == 16
    assert {rows[key]["script"] for key in rows} == {"finetune_cls"}
    kept = rows["nano/spam-published2/seed0"]
    assert "curve" not in kept["results"] and kept["results"]["args"] == {"method": "lora", "lora_rank": 8}
    assert set(kept["examples"]) == {"id", "label", "prediction", "loss"} and len(kept["examples"]["id"]) == 300


def test_new_runs_are_added_to_the_packed_ones(small, tmp_path):
    results, some = tmp_path / "results", tmp_path / "some"
    shutil.copytree(small.runs, some)
    shutil.rmtree(some / "nano/spam-published2")
    report.main(report.Args(some, results, "nano", tmp_path / "out", small.tables, collect=True))
    before = read_packed(results / "nano.jsonl.gz")
    new = tmp_path / "new"
    shutil.copytree(small.runs / "nano/spam-published2", new / "nano/spam-published2")
    report.main(report.Args(new, results, "nano", tmp_path / "out", small.tables, collect=True))
    after = read_packed(results / "nano.jsonl.gz")
    assert before.items() <= after.items() and len(after) == len(before) + 3


def test_a_checkout_without_the_data_shows_the_collected_runs_of_the_same_rows(tmp_path, monkeypatch):
    """The list depends on DATA_DIR: another data set, or none. A row with other settings has not been run."""
    rates = {"a": 1, "b": "$LR"}
    rows = [line(label, f"{label}-$TASK", flags=f"--dataset $TASK --lr {lr}") for label, lr in rates.items()]
    away = line("c", "-", status="imdb.parquet is not in DATA_DIR")._replace(command="-")
    here = line("c", "c-imdb", flags="--dataset imdb")
    tables = table_file(tmp_path / "tables", "table1_x", [*rows, line("c", "$C")])
    path = tables / "table1_x.sh"
    text = path.read_text().replace("\t".join(line("c", "$C")), "$C").replace("cat <<'END'", "cat <<END")
    choice = f"if [ -n \"$DATA_DIR\" ]; then TASK=enron C='{chr(9).join(here)}'\n"
    path.write_text(choice + f"else TASK=mail C='{chr(9).join(away)}'; fi\n" + text)
    for key in ("a-enron", "b-enron", "c-imdb"):
        classifier(tmp_path / "runs/nano" / key / "seed0", range(30), data={"source": "/home/me/enron.parquet"})
    monkeypatch.setenv("LR", "1")
    monkeypatch.setenv("DATA_DIR", "somewhere")
    report.main(report.Args(tmp_path / "runs", tmp_path / "results", "nano", tmp_path / "one", tables, collect=True))
    monkeypatch.delenv("DATA_DIR")
    report.main(report.Args(tmp_path / "no", tmp_path / "results", "nano", tmp_path / "two", tables))
    assert (tmp_path / "one/tables.csv").read_text() == (tmp_path / "two/tables.csv").read_text()
    monkeypatch.setenv("LR", "2")
    report.main(report.Args(tmp_path / "no", tmp_path / "results", "nano", tmp_path / "three", tables))
    rows = csv.DictReader(io.StringIO((tmp_path / "three/tables.csv").read_text()))
    assert [(row["label"], row["value"], row["missing"]) for row in rows] == [
        *(("a", "0.75", ""), ("b", "", "not run"), ("c", "0.75", "")),
    ]
    kept = [(tmp_path / "results/nano.tsv").read_text()]
    kept.append(gzip.decompress((tmp_path / "results/nano.jsonl.gz").read_bytes()).decode())
    assert not any("/home/me" in text or str(tmp_path) in text for text in kept)


def test_the_csv_has_a_line_for_each_cell_and_version(small, made):
    rows = list(csv.DictReader(io.StringIO((made / "tables.csv").read_text())))
    assert list(rows[0]) == COLUMNS and len({tuple(row[c] for c in COLUMNS[:4]) for row in rows}) == len(rows)
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
    assert ranks["<xl>", "published"]["missing"] == "not available at this scale: <size> & more"


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


def test_what_a_person_wrote_stays(small, made, tmp_path):
    text = (made / "RESULTS.md").read_text()
    text = text.replace(
        "<!-- begin table4_rank -->", "Ranks do **not** matter.\n\n<!-- begin table4_rank -->\nold\n", 1
    )
    text += "\n## What to choose\n\nRank [16](#table4_rank), always `--lora-rank 16` <script>.\n"
    output = tmp_path / "out"
    output.mkdir()
    (output / "RESULTS.md").write_text(text)
    report.main(report.Args(small.runs, small.results, "nano", output, small.tables))
    new = (output / "RESULTS.md").read_text()
    assert "Ranks do **not** matter." in new and "\nold\n" not in new and new.endswith("<script>.\n")
    assert new.count("## Table 4") == 1 and new.count("<!-- begin ") == new.count("<!-- end ") == 4
    page = (output / "report.html").read_text()
    assert "<p>Ranks do <strong>not</strong> matter.</p>" in page and "<h2>What to choose</h2>" in page
    assert '<a href="#table4_rank">16</a>, always <code>--lora-rank 16</code> &lt;script&gt;.' in page
    report.main(report.Args(small.runs, small.results, "nano", output, small.tables))
    assert (output / "RESULTS.md").read_text() == new


def test_a_part_that_does_not_end_is_refused_and_a_new_one_is_added():
    page = Page("nano", [("scale", "nano")], [Section("table1_x", "Table 1", [])])
    with pytest.raises(ValueError, match="'<!-- begin table1_x -->' has no '<!-- end table1_x -->'"):
        filled(page, "# Results\n<!-- begin table1_x -->\nlost", "pictures")
    text = filled(page, "# Results\n\nWords.\n", "pictures")
    assert text.index("Words.") < text.index("- scale: nano") < text.index("## Table 1")
    assert parts(text)["head"].under.strip() == "Words."


def test_a_cell_of_a_markdown_table_cannot_end_it(tmp_path):
    grid = Grid(["", "a|b"], [[Shown("x | y"), Shown("*1*\n<b>")]])
    page = Page("nano", [], [Section("table1_x", "T", [Block("t", grid)])])
    rows = [row for row in filled(page, "", "p").splitlines() if row.startswith("| ")]
    assert rows == [r"|  | a\|b |", "| :--- | ---: |", r"| x \| y | \*1\* \<b\> |"]


def test_the_report_knows_nothing_of_the_project_but_its_statistics():
    files = sorted(REPRODUCE.glob("report*.py"))
    assert len(files) > 8
    known = {"gpt2_scratch", "lora", "tasks", "training", "scripts", "judge", "benchmarks", "torch", "evidence"}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & known - {"evidence"}, path
            assert all(name == "evidence.intervals" for name in names if name.startswith("evidence")), path


# The page.


def test_text_from_files_is_escaped_in_the_page(made):
    page = (made / "report.html").read_text()
    assert "<xl>" not in page and '<td data-key="&lt;xl&gt;">&lt;xl&gt;</td>' in page
    assert "<ranks>" not in page and "Table 4: 100% of &lt;ranks&gt; &amp; more" in page
    assert "not available at this scale: &lt;size&gt; &amp; more" in page
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
