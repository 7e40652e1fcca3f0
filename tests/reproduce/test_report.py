"""The report's page from finished runs: its numbers, its warnings, its files, and the page in a browser."""

import csv
import gzip
import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from forked import run_forked
from helpers import ROOT
from report_rows import (
    CLS,
    cells_of,
    classifier,
    found_in,
    general,
    line,
    places,
    table_file,
    tutor,
)

from evidence.kinds import NAMED, Kind
from evidence.runs import read_packed
from reproduce import report
from reproduce.cells import cell_of, columns_of, joined
from reproduce.sections import block_of, examples_of, stated
from reproduce.tables import Row, Table, all_tables, natural, plans, read_table, title_of

REPRODUCE = ROOT / "reproduce"

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


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


def test_rows_on_other_examples_are_shown_and_not_compared(tmp_path):
    for seed in range(2):
        classifier(tmp_path / f"nano/a/seed{seed}", range(20), 40)
        classifier(tmp_path / f"nano/b/seed{seed}", range(20), 30)
    cells = cells_of([line(label, label, seed=seed) for label in "ab" for seed in range(2)], found_in(tmp_path))
    assert cells[1].value == 20 / 30 and cells[1].comparison is None and cells[1].why_alone
    notes = [note for fold in block_of("spam", {"corrected": cells}).folds for note in fold.notes]
    assert "Not compared, tested on other examples than a: b (corrected)." in notes


def test_a_kind_of_column_is_one_entry_and_is_shown_everywhere(tmp_path, monkeypatch):
    """The walk through of docs: value, unit, digits and words of a new kind come from what is written here."""
    speed = Kind(unit="tokens a second", digits=0, number=lambda run: run.number("tokens_per_second"))
    monkeypatch.setitem(NAMED, "speed", speed)
    rows = [Row("published", "speed", f"rank {rank}", "4000", "-", f"{CLS} --lora-rank {rank}") for rank in (2, 8)]
    path = table_file(tmp_path / "tables", "table1_x", rows)
    for key in places(path, "report").values():
        classifier(tmp_path / key / "seed0", range(9))
    report.main(report.Args(tmp_path, tmp_path, "report", tmp_path / "out", tmp_path / "tables"))
    text, page, csv_text, tex = (
        (tmp_path / "out" / name).read_text() for name in ("RESULTS.md", "report.html", "tables.csv", "tables.tex")
    )
    assert "**Tokens a second**" in text and "| rank 2 | 4,000 | 3,210 |" in text
    assert '<td data-key="3210">3,210</td>' in page and r"rank 8 & 4,000 & 3,210 \\" in tex
    assert "speed,published,report,,4000,,3210," in csv_text


def test_a_missing_cell_says_why_and_a_missing_seed_is_not_counted(tmp_path):
    classifier(tmp_path / "nano/a/seed1", range(20))
    lines = [line("a", "a", seed=seed) for seed in range(3)]
    lines += [line("b", "b"), line("c", "-", why="differs from 'a' in size only", same_as="a")]
    a, b, c = cells_of(lines, found_in(tmp_path))
    assert a.seeds == ("1",) and a.sd is None and a.value == 0.5
    assert (b.value, b.reason) == (None, "not run")
    assert c.reason.endswith("in size only")
    block = block_of("spam", {"corrected": [a, b, c]})
    assert [row[1].text for row in block.grid.rows[:3]] == ["50.0 [35.2, 64.8]", "–", "= a"]
    texts = [note for fold in block.folds for note in fold.notes]
    assert "Not run: b (corrected)." in texts and "Not yet run, seed 0 2: a (corrected)." in texts
    assert len(texts) == 2, "that c is the run of a stands in its cell"
    told = block_of("spam", {"corrected": [a, b, replace(c, report="90.0")]}).grid
    assert [row[2].text for row in told.rows[:3]] == ["50.0 [35.2, 64.8]", "–", "= a"]
    block = block_of("spam", {"published": [b], "corrected": [b, replace(b, label="d")]})
    assert [note for fold in block.folds for note in fold.notes] == [
        "Not run: b (as published); every row (corrected)."
    ]


def test_without_any_run_the_page_is_made_and_every_cell_missing(small, tmp_path):
    args = report.Args(tmp_path / "no", tmp_path / "none", "nano", tmp_path / "out", small.tables)
    report.main(args)
    rows = list(csv.DictReader(io.StringIO((args.output / "tables.csv").read_text())))
    assert rows and all(row["value"] == "" and row["missing"] for row in rows)
    assert not (args.output / "pictures").exists()


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


def test_columns_of_several_sizes_become_one_and_keep_their_comparisons(tmp_path):
    columns = {}
    for size in ("125", "1000000"):
        lines = [
            line(label, f"{label}{size}", column=f"spam {size}", seed=seed)
            for label in ("full", "LoRA")
            for seed in range(4)
        ]
        for one in lines:
            classifier(tmp_path / one.key, range(180 if one.row.label == "full" else 150), 200)
        columns[f"spam {size}"] = {"corrected": cells_of(lines, found_in(tmp_path))}
    merged = joined(columns)["spam"]["corrected"]
    assert [cell.label for cell in merged] == ["full on 125", "LoRA on 125", "full on all", "LoRA on all"]
    assert [cell.comparison is not None for cell in merged] == [False, True, False, True]
    assert "against full of the same size" in block_of("spam", {"corrected": merged}).grid.header


def cells_in(tmp_path, rows, together=False):
    """The cells of a table of such rows (column, label, how many are right of 200, validation loss), four seeds."""
    rows = (
        [
            Row("corrected", column, label, "", "", f"{CLS} --lr {i + 1}e-4")
            for i, (column, label, *_) in enumerate(rows)
        ],
        rows,
    )
    table = Table("table1_x", "X", rows[0], [], together=together)
    for plan, (_, _, right, loss) in zip(plans(table, "report", None), rows[1], strict=True):
        for seed in range(4):
            measured = {"loss": {"value": loss, "n": 9}}
            classifier(tmp_path / f"{plan.place(str(seed))}", range(right + seed), 200, val=measured)
    return columns_of(table, plans(table, "report", None), lambda plan: cell_of(plan, "0 1 2 3", found_in(tmp_path)))


def test_a_family_is_what_one_sentence_claims(tmp_path):
    rows = [
        (column, label, 150 + 3 * (label == "LoRA"), 1.0)
        for column in ("spam 125", "spam 250", "nle")
        for label in ("full", "LoRA")
    ]

    def among(**how):
        found = cells_in(tmp_path / str(how), rows, **how)
        return {name: versions["corrected"][1].comparison.among for name, versions in found.items()}

    assert among() == {"spam 125": 2, "spam 250": 2, "nle": 1}
    assert among(together=True) == {"spam 125": 3, "spam 250": 3, "nle": 3}


def test_the_best_are_chosen_on_validation_and_compared_with_each_other(tmp_path):
    rows = [
        ("best", "full: a", 190, 0.5),
        ("best", "full: b", 120, 0.4),
        ("best", "LoRA: a", 150, 0.3),
        ("best", "LoRA: b", 199, 0.6),
    ]
    first, second = cells_in(tmp_path, rows)["best"]["corrected"]
    assert (first.label, second.label, second.reference) == ("full: b", "LoRA: a", "full: b")
    assert second.comparison.value == pytest.approx(30 / 200)


def test_what_was_forgotten_is_not_the_score_of_a_run_that_did_not_measure_it(tmp_path):
    lines = [line(label, label, seed=seed) for label in "ab" for seed in range(2)]
    for one in lines:
        lost = {"forgetting": general(0.5, 0.1)} if one.row.label == "a" else {}
        classifier(tmp_path / one.key, range(20), **lost)
    cells = cells_of(lines, found_in(tmp_path))
    (fold,) = [fold for fold in block_of("spam", {"corrected": cells}).folds if fold.title.startswith("Tests")]
    assert [row[-1].text for row in fold.grid.rows] == ["0.500 / 0.500", "–"]
    assert [stated(cell, "forgetting").split()[0] for cell in cells] == ["0.500", "not"]


def test_tables_come_in_the_reports_order(tmp_path):
    names = ["beyond_b", "table10_x", "figure1_x", "table2_x", "inline_x", "appendix_x"]
    assert sorted(names, key=natural) == ["table2_x", "table10_x", "figure1_x", "inline_x", "appendix_x", "beyond_b"]
    path = tmp_path / "table2_x.sh"
    path.write_text("#!/usr/bin/env bash\n# Table 2: long\n# and longer. And more.\n#\n#     bash x\n")
    assert title_of(path) == "Table 2: long and longer"


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


def test_runs_of_any_seed_are_collected_and_belong_to_their_table(small, tmp_path, monkeypatch, capsys):
    """Also where fewer seeds are asked for."""
    shutil.copytree(small.runs, tmp_path / "runs")
    place = of_rank(small, "published", 2).relative_to(small.runs)
    shutil.copytree(tmp_path / "runs" / place / "seed0", tmp_path / "runs" / place / "seed7")
    monkeypatch.setenv("SEEDS", "0")
    for again in (False, True):
        args = report.Args(
            tmp_path / "runs", tmp_path / "results", "nano", tmp_path / "out", small.tables, collect=True
        )
        report.main(args)
        packed = read_packed(tmp_path / "results/nano.jsonl.gz")
        assert len(packed) == 17 and f"{place}/seed7" in packed, again
        assert "in no table any more" not in capsys.readouterr().out


def test_the_page_of_the_reports_scale_has_no_words_on_that_of_another(small, tmp_path):
    """findings.md names cells of nano scale, and what their numbers say."""
    shutil.copytree(small.tables, tmp_path / "tables")
    (tmp_path / "tables/findings.md").write_text("Of gpt2-nano: {table4_rank | spam | rank 2 | value}.\n")
    for scale, there in (("nano", True), ("report", False)):
        report.main(report.Args(small.runs, tmp_path / "none", scale, tmp_path / scale, tmp_path / "tables"))
        assert ("Of gpt2-nano" in (tmp_path / scale / "RESULTS.md").read_text()) == there


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
        "0.898",
        "",
        "0 1 2",
        "300",
        "abc123",
    )
    assert float(row["difference"]) == pytest.approx(0.1) and float(row["p_holm"]) < 0.001
    assert float(row["forgetting"]) == pytest.approx(0.1)
    assert ranks["rank 32", "corrected"]["missing"] == "not run"
    assert ranks["<xl>", "published"]["missing"] == ("not available at this scale: differs from 'rank 2' in size only")


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
    words = "The report is *long*. At rank 8 {table4_rank | spam | rank 8 | published value}, "
    words += "{table4_rank | spam | rank 8 | published difference}.\n\n## Two words\n\nStay.\n\n"
    words += "## table4_rank\n\nRanks do **not** matter.\n\n- Rank [16](#table4_rank), always "
    (tables / "findings.md").write_text(words + "`--lora-rank 16` <script>.\n\n## figure1_curves\n\nOne.\n")
    report.main(report.Args(small.runs, small.results, "nano", output, tables))
    text, page = ((output / name).read_text() for name in ("RESULTS.md", "report.html"))
    assert text.index("The report is *long*.") < text.index("- scale: nano") < text.index("## Table 4")
    assert f"At rank 8 {100 * 231 / 300:.1f}% [" in text and "points [" in text
    assert text.index("## Table 4") < text.index("Ranks do **not** matter.") < text.index("| rank 2 |")
    assert (
        "<p>The report is <em>long</em>. At rank 8 77.0% [" in page
        and "<p>Ranks do <strong>not</strong> matter.</p>" in page
    )
    assert '<a href="#table4_rank">16</a>, always <code>--lora-rank 16</code> &lt;script&gt;.' in page
    assert text.count("## Table 4") == 1 and text.count("\n## ") == 4


def test_a_finding_of_no_table_is_refused(small, tmp_path):
    shutil.copytree(small.tables, tmp_path / "tables")
    (tmp_path / "tables/findings.md").write_text("## table5_rank\n\nRanks matter.\n")
    with pytest.raises(ValueError, match="findings.md: 'table5_rank' is no table; the tables are appendix_answers,"):
        report.main(report.Args(small.runs, small.results, "nano", tmp_path / "out", tmp_path / "tables"))


def test_a_number_of_no_cell_is_refused(small, tmp_path):
    shutil.copytree(small.tables, tmp_path / "tables")
    (tmp_path / "tables/findings.md").write_text("It is {table4_rank | spam | rank 9 | value}.\n")
    with pytest.raises(
        ValueError, match="findings.md: .table4_rank . spam . rank 9 . value. names no cell; write table"
    ):
        report.main(report.Args(small.runs, small.results, "nano", tmp_path / "out", tmp_path / "tables"))


def test_text_from_files_is_escaped_in_the_page(made):
    page = (made / "report.html").read_text()
    assert "<xl>" not in page and '<td data-key="&lt;xl&gt;">&lt;xl&gt;</td>' in page
    assert "<ranks>" not in page and "Table 4: 100% of &lt;ranks&gt; &amp; more" in page
    assert (
        "not available at this scale: differs from &#x27;rank 2&#x27; in size only" in page and ">= rank 2</td>" in page
    )
    assert "Ask &lt;0&gt;" not in page and "What is &lt;b&gt;2 + 2&lt;/b&gt;?" in page and "<b>2" not in page


def test_questions_of_the_report_are_shown_with_the_answers_before_and_after(made):
    text = (made / "RESULTS.md").read_text()
    _, first, second = re.split("^> ", text, flags=re.MULTILINE)[:3]
    assert first.split("\n\n")[1].splitlines() == [
        r"- **before (LoRA, corrected)**: 2 and 2 \[...\]",
        "- **LoRA, corrected**: 4",
    ]
    assert second.startswith("Name a bird.") and "**LoRA, corrected**: Wren" in second


def test_the_reports_own_answers_stand_first_and_test_prompts_where_a_run_was_not_asked(tmp_path):
    asked = {"What is 2?": [("large", "Two."), ("medium", "2")]}
    table = Table("appendix_x", "X", [], [*asked], asked)
    tutor(tmp_path / "nano/a/seed0", [2.0, 3.0], [2, 3])
    cell = cells_of([line("LoRA", "a", column="answers")], found_in(tmp_path))
    first, *others = examples_of({"corrected": cell}, table)
    assert first == ("What is 2?", [("in the report: large", "Two."), ("in the report: medium", "2")])
    assert [example.instruction for example in others] == ["Ask <0>", "Ask <1>"]
    (tmp_path / "nano/a/seed0.answers.txt").write_text(
        "> What is 2?\nbase: 1\nfine-tuned: 3\n\n> Else?\nbase: a\nfine-tuned: b\n\n"
    )
    cell = cells_of([line("LoRA", "a", column="answers")], found_in(tmp_path))
    (one,) = examples_of({"corrected": cell}, table)
    assert one.answers[2:] == [("before (LoRA, corrected)", "1"), ("LoRA, corrected", "3")]


def test_the_page_holds_its_pictures_and_names_no_other_file(made):
    page = (made / "report.html").read_text()
    assert page.count("<svg ") == 2 and "faint: training" in page and "authors&#x27; record" in page
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

    header = next(th for th in table.find_elements("css selector", "th") if th.text.strip() == "here, corrected")
    before = labels()
    assert before == ["rank 2", "rank 8", "rank 32", "commonest class"]
    orders = []
    for state in ("ascending", "descending", "none"):
        header.find_element("css selector", "button").click()
        assert header.get_attribute("aria-sort") == state
        orders.append(labels())
    rising = ["rank 2", "rank 8", "commonest class", "rank 32"]
    assert orders == [rising, ["commonest class", "rank 8", "rank 2", "rank 32"], before]
    assert browser.get_log("browser") == []
