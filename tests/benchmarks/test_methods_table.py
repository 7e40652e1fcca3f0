"""The table and the picture of methods, from finished runs."""

import itertools
import json
import math
import shutil
import subprocess
from dataclasses import replace

import pytest
from scipy import stats

import _runs
import compare_runs
import methods


def finished_run(folder, method, right, seconds=60.0, forgotten=0.1, **flags):
    folder.mkdir(parents=True)
    lines = [{"id": i, "label": "spam", "prediction": "spam" if i < right else "ham"} for i in range(100)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = {
        "script": "finetune_cls",
        "schema": 1,
        "args": flags | {"method": method, "lora_rank": flags.get("lora_rank", 8)},
        "data": {"sha256": "", "rows": {"train": 1000}},
        "model": {"sha256": ""},
        "parameters": {"trainable": 1234},
        "seconds": {"train": seconds},
        "peak_memory_mib": 700.4,
    }
    if forgotten is not None:
        after = [300 + 100 * forgotten - 2, 300 + 100 * forgotten + 2]
        results["forgetting"] = {"pieces": {"tokens": [100, 100], "before": [300, 300], "after": after}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def table_of(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: dict(zip(compare_runs.COLUMNS, line, strict=True)) for line in lines[1:]}


def test_a_row_is_the_mean_over_seeds(tmp_path, capsys):
    runs = [finished_run(tmp_path / f"l{i}", "lora", 90 + i, seconds=50 + 10 * i, forgotten=0.1 * i) for i in range(3)]
    runs += [finished_run(tmp_path / "f", "full", 60, forgotten=None)]
    compare_runs.compare(runs)
    text = capsys.readouterr().out
    lora, full = table_of(text).values()
    assert lora["method"] == "lora rank 8"
    assert lora["accuracy, 95% interval"].startswith("0.9100 [")
    assert (lora["sd"], lora["seeds"], lora["p, against the first"]) == ("0.0100", "3", "")
    assert (lora["trained"], lora["train s, fastest"], lora["peak MiB"]) == ("1,234", "50", "700")
    of_seeds, of_pieces = 0.1**2 / 3, 0.02**2  # with two degrees of freedom, and one
    df = (of_seeds + of_pieces) / (of_seeds / 2 + of_pieces)
    half = stats.t.ppf(0.975, df) * math.sqrt(of_seeds + of_pieces)
    assert lora["forgetting, nats"] == f"+0.100 [{0.1 - half:+.3f}, {0.1 + half:+.3f}]"
    assert (full["method"], full["seeds"], full["forgetting, nats"]) == ("full", "1", "")
    assert full["p, against the first"] == ""  # one seed
    assert "n = 100 test examples" in text


def test_runs_on_other_examples_are_not_compared(tmp_path):
    one, other = (finished_run(tmp_path / name, "lora", 90) for name in "ab")
    lines = (other / "predictions.jsonl").read_text().splitlines()[1:]
    (other / "predictions.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="same examples"):
        compare_runs.compare([one, other])


def test_forgetting_is_of_the_mean_over_runs_and_its_interval_over_seeds_and_pieces(tmp_path):
    """Pieces that move against each other from run to run leave the mean as unsure as either run does."""
    for name, after in (("a", [310.0, 300.0]), ("b", [300.0, 310.0])):
        pieces = {"tokens": [100, 100], "before": [300.0, 300.0], "after": after}
        finished_run(tmp_path / name, "lora", 90)
        (tmp_path / name / "results.json").write_text(json.dumps({"forgetting": {"pieces": pieces}}))
    one, both = (compare_runs.forgetting([tmp_path / name for name in names]) for names in ("a", "ab"))
    half = 12.7062 * 0.05  # Student's t at one degree of freedom
    assert one == pytest.approx((0.05, 0.05 - half, 0.05 + half, 2), abs=1e-5)
    assert both == pytest.approx((0.05, 0.05 - half, 0.05 + half, 2), abs=1e-5)
    pieces["tokens"] = [100, 90]
    (tmp_path / "b" / "results.json").write_text(json.dumps({"forgetting": {"pieces": pieces}}))
    with pytest.raises(ValueError, match="different texts"):
        compare_runs.forgetting([tmp_path / "a", tmp_path / "b"])


def finish(args, **changed):
    """Finished runs of everything that `args` asks for, but for the `changed` flags; those that are None were unknown
    when they were made."""
    for dataset, method, seed in itertools.product(args.datasets, args.methods, args.seeds):
        flags = _runs.flags_of(methods.command(args, dataset, method, seed), 1000)[0] | changed
        known = {name: value for name, value in flags.items() if name not in changed or value is not None}
        finished_run(methods.place(args, dataset, method, seed), right=90 + seed, **known)


@pytest.fixture
def started(monkeypatch):
    """The commands that were started; each fails."""
    calls = []

    def failing(words, **_):
        calls.append(words)
        return subprocess.CompletedProcess(words, 2, "", "error: no room")

    monkeypatch.setattr(subprocess, "run", failing)
    return calls


def test_finished_runs_are_not_repeated_and_make_tables_and_a_picture(tmp_path, capsys, started):
    args = methods.Args(methods=("lora", "full"), seeds=(0, 1), folder=tmp_path)
    finish(args, output_dir="elsewhere", overwrite=True)
    methods.main(args)
    text = capsys.readouterr().out
    assert not started and text.count("| lora rank 16, lr ") == text.count("| full, lr ") == 2
    assert (tmp_path / "methods.png").read_bytes().startswith(b"\x89PNG")


ONE = methods.Args(datasets=("imdb",), methods=("lora",), seeds=(5,))


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({}, {"flags": "--max-length 128"}, "--max-length 256, now 128"),
        ({}, {"flags": "--max-length 256"}, "--eval-every 84, now None"),
        ({}, {"flags": f"{methods.FLAGS['imdb']} --lora-targets q v"}, "--lora-targets q k v attn-out .*, now q v"),
        ({"model": "gpt2"}, {}, "--model gpt2, now gpt2-nano"),
        ({"lr": 0.0005}, {}, "--lr 0.0005, now 0.001"),
        (
            {"truncate": None},
            {"flags": f"{methods.FLAGS['imdb']} --truncate tail"},
            "--truncate premise-first, now tail",
        ),
    ],
    ids=["changed", "left out", "list", "base", "default", "newer flag"],
)
def test_a_finished_run_of_another_command_is_refused_before_anything_starts(before, now, message, tmp_path, started):
    args = replace(ONE, folder=tmp_path)
    finish(args, **before)
    with pytest.raises(ValueError, match=f"^--folder {tmp_path}: imdb-lora-seed5 is another run .*{message}.* delete "):
        methods.main(replace(args, seeds=(4, 5), **now))
    assert not started


def test_a_run_from_before_there_was_a_flag_had_its_default_and_one_whose_base_has_gone_its_rate(tmp_path, started):
    args = replace(ONE, folder=tmp_path)
    finish(args, tf32=None)
    methods.main(args)
    shutil.rmtree(tmp_path)
    args = replace(args, model=str(tmp_path / "gone"))
    finish(args, lr=0.5)
    methods.main(args)
    assert not started


def test_an_interrupted_run_goes_on_and_a_failed_one_is_named(tmp_path, started):
    args = replace(ONE, folder=tmp_path)
    state = methods.place(args, "imdb", "lora", 5) / "checkpoint" / "state.pt"
    for last in ("--overwrite", "--resume"):
        with pytest.raises(ValueError, match="no room"):
            methods.main(args)
        assert started[-1][-1] == last
        state.parent.mkdir(parents=True, exist_ok=True)
        state.touch()
