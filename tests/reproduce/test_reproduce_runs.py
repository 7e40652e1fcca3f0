"""Tables that run: with a tiny model, or with scripts that only pretend."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, results_of, run_script
from table_rows import shell

from reproduce.run import print_rates
from reproduce.tables import Plan, Row


def table_file(folder, *lines):
    path = folder / "table9_own.sh"
    path.write_text("\n".join([f"source {ROOT}/reproduce/lib.sh", *lines, ""]))
    return path


def settings(folder, **more):
    return {"RUNS": str(folder), "SEEDS": "0", "JOBS": "2", "LAUNCH": sys.executable, "PYTHON": sys.executable} | more


def folders_of(path, **given):
    lines = shell(path, LIST="1", **given).stdout.splitlines()
    return [ROOT / line.split("\t")[9] for line in lines]


@pytest.fixture
def small(mail_file):
    """Flags of a run of seconds: --epochs alone says how long."""
    flags = f"--data {mail_file} --text-column text --label-column label --model gpt2 --max-length 64 --lr 1e-3"
    return f"run=(python scripts/finetune_cls.py {flags} --forgetting-data none --last-blocks 4 --eval-every 4)"


@pytest.mark.parametrize("scale", ["nano", "report"])
def test_an_interrupted_table_goes_on_where_it_was_and_a_finished_one_does_nothing(scale, small, tiny_model, tmp_path):
    model = f" --model {tiny_model} --last-blocks 1" if scale == "report" else ""
    path = table_file(tmp_path, small, f'corrected own long "${{run[@]}}" --epochs 16{model}')
    given = settings(tmp_path / "runs", SCALE=scale, MODEL=str(tiny_model))
    (folder,) = folders_of(path, **given)
    env = os.environ | given
    begun = subprocess.Popen(["bash", str(path)], env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    state = folder / "checkpoint" / "state.pt"
    while not state.exists():
        assert begun.poll() is None, begun.stderr.read()
        time.sleep(0.02)
    os.killpg(begun.pid, signal.SIGINT)
    _, told = begun.communicate(timeout=120)
    assert begun.returncode == 130 and told == "interrupted; the same command goes on where it was\n"
    assert "interrupted" in folder.with_name("seed0.log").read_text()
    assert state.exists() and not (folder / "results.json").exists()

    done = shell(path, **given)
    assert done.returncode == 0, done.stderr
    assert "1 runs, 1 to make" in done.stdout
    value = results_of(folder)["test"]["accuracy"]["value"]
    assert re.search(rf"^Own: accuracy\n +corrected\nlong  {value:.3f} \[", done.stdout, flags=re.MULTILINE)
    again = shell(path, **given)
    assert again.returncode == 0 and "1 runs, 0 to make" in again.stdout

    words = shell(path, LIST="1", **given).stdout.rstrip().split("\t")[10].split()[2:]
    words[words.index("--output-dir") + 1] = str(tmp_path / "at once")
    assert run_script("finetune_cls", *words).returncode == 0  # a process of its own, never interrupted
    ours, theirs = results_of(folder), results_of(tmp_path / "at once")
    assert ours["curve"] == theirs["curve"] and ours["test"] == theirs["test"]


def test_the_first_failure_stops_the_table_and_names_the_command(small, tiny_model, tmp_path):
    cells = [
        f'corrected own {name} "${{run[@]}}" --model {tiny_model} --last-blocks 1 --lora-rank {rank}'
        for name, rank in (("a", 999), ("b", 2))
    ]
    path = table_file(tmp_path, small, *cells)
    given = settings(tmp_path / "runs")
    done = shell(path, **given)
    wrong, right = folders_of(path, **given)
    assert done.returncode == 1
    assert "--lora-rank 999" in done.stderr.splitlines()[-1] and f"log: {wrong}.log" in done.stderr
    assert "must be 1 to 16" in done.stderr  # the end of the log is shown
    assert not right.exists() and not right.with_name("seed0.log").exists()


def test_a_finished_row_is_not_run_again(small, tmp_path):
    path = table_file(tmp_path, small, 'corrected own a "${run[@]}" --epochs 1 --data nowhere')
    given = settings(tmp_path / "runs")
    (folder,) = folders_of(path, **given)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"args": {}, "test": {"accuracy": {"value": 0.5}}}))
    done = shell(path, **given)
    assert done.returncode == 0 and "1 runs, 0 to make" in done.stdout
    assert done.stdout.splitlines()[-3:] == ["Own", "   corrected", "a      0.500"]


def test_a_dry_run_prints_the_command_memory_and_time_and_writes_nothing(small, tiny_model, tmp_path):
    path = table_file(
        tmp_path, small, 'corrected own a "${run[@]}" --epochs 1', "corrected own b python benchmarks/digits.py"
    )
    given = settings(tmp_path / "runs", SCALE="nano", MODEL=str(tiny_model), SEEDS="0 1")
    done = shell(path, DRY_RUN="1", **given)
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("python ")]
    assert [("scripts/finetune_cls.py" in c, "benchmarks/digits.py" in c) for c in commands] == [(1, 0), (0, 1)]
    assert "peak" in done.stdout and re.search(r"in all +\d+\.\d", done.stdout)
    assert not (tmp_path / "runs").exists()


# What a table does at the nano scale, of runs that are given to it as (folder, command).
WARM = """
import sys
from pathlib import Path
from reproduce import run, warm
runs = [warm.Run(Path(folder), command) for folder, command in zip(sys.argv[2::2], sys.argv[3::2])]
sys.exit(run.to_the_end(lambda: warm.run_all(runs, int(sys.argv[1]), [])))
"""


def warm(runs, jobs=2, wait=True):
    words = [sys.executable, "-c", WARM, str(jobs), *(str(word) for run in runs for word in run)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    begun = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not wait:
        return begun
    out, err = begun.communicate(timeout=60)
    return begun.returncode, out, err


@pytest.fixture
def pretending(tmp_path):
    """A script that says what it was given, waits for a file where it is told one, and ends with a status."""
    path = tmp_path / "pretend.py"
    path.write_text(
        "import dataclasses, os, pathlib, sys, time, typing\n"
        "@dataclasses.dataclass\nclass Own:\n    word: 'typing.Any'\n"
        "assert typing.get_type_hints(Own), 'the script is the main module'\n"
        "folder, status, awaited = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:-1]\n"
        "folder.mkdir(parents=True)\n"
        "print('started', os.environ['OMP_NUM_THREADS'], flush=True)\n"
        "try:\n"
        "    while awaited and not pathlib.Path(awaited[0]).exists(): time.sleep(0.01)\n"
        "except KeyboardInterrupt:\n    print('asked to stop'); sys.exit(130)\n"
        "(folder / 'done').touch()\nsys.exit(status)\n"
    )

    def line(name, status=0, awaited=""):
        return tmp_path / name, f"python {path} {tmp_path / name} {status} {awaited}"

    return line


def test_a_warm_process_runs_every_line_with_one_thread_and_its_own_log(pretending, tmp_path):
    status, out, _ = warm([pretending("a"), pretending("b"), pretending("c")])
    assert status == 0 and len(out.splitlines()) == 3
    assert all((tmp_path / name / "done").exists() for name in "abc")
    assert (tmp_path / "b.log").read_text() == "started 1\n"


def test_two_rows_run_at_a_time(pretending, tmp_path):
    first = pretending("a", awaited=tmp_path / "b" / "done")  # would wait for ever alone
    assert warm([first, pretending("b")])[0] == 0


def test_a_failure_in_a_warm_process_stops_the_others_and_starts_no_more(pretending, tmp_path):
    lines = [pretending("a", awaited=tmp_path / "never"), pretending("b", status=3), pretending("c")]
    status, _, told = warm(lines)
    assert status == 1 and f"failed: {lines[1][1]}" in told
    assert not (tmp_path / "a" / "done").exists() and not (tmp_path / "c").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_warm_process_stops_its_children(pretending, tmp_path, how):
    begun = warm([pretending("a", awaited=tmp_path / "never")], wait=False)
    log = tmp_path / "a.log"
    while not (log.exists() and "started" in log.read_text()):
        assert begun.poll() is None
        time.sleep(0.01)
    begun.send_signal(how)
    _, told = begun.communicate(timeout=60)
    assert begun.returncode == 130 and told == "interrupted; the same command goes on where it was\n"
    assert log.read_text().endswith("asked to stop\n")


def test_the_learning_rate_with_the_lowest_validation_loss_is_chosen(tmp_path, capsys):
    rows = [Row("corrected", "spam, lora", rate, "", "", "-") for rate in ("1e-4", "2e-4", "4e-4")]
    found = [Plan(row, {}, "-", f"nano/{row.label}") for row in rows]
    for plan, losses in zip(found, ((0.5, 0.7), (0.4, 0.5), (0.3, 0.9)), strict=True):
        for seed, loss in enumerate(losses):
            folder = tmp_path / plan.place(str(seed))
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps({"val": {"loss": {"value": loss}}}))
    print_rates(found, ["0", "1"], tmp_path)
    assert capsys.readouterr().out == "spam, lora: --lr 2e-4  # 0.6000 at 1e-4, 0.4500 at 2e-4, 0.6000 at 4e-4\n"
    (folder / "results.json").unlink()
    with pytest.raises(ValueError, match="results.json is missing; run learning_rates.sh to its end"):
        print_rates(found, ["0", "1"], tmp_path)
