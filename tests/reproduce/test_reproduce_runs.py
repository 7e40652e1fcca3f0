"""Tables that run: with a tiny model, or with scripts that only pretend."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from forked import run_forked
from helpers import ROOT, results_of, run_script
from report_rows import classifier
from table_rows import here

from reproduce.run import Run, print_rates, run_all
from reproduce.tables import Plan, Row
from workers.local import Local


def table_file(folder, *lines):
    path = folder / "table9_own.sh"
    path.write_text("\n".join([f"source {ROOT}/reproduce/lib.sh", *lines, ""]))
    return path


def settings(folder, **more):
    of_scale = {"JOBS": "2"} if more.get("SCALE") == "nano" else {"LAUNCH": sys.executable}
    return {"RUNS": str(folder), "SEEDS": "0", "PYTHON": sys.executable} | of_scale | more


def folders_of(path, **given):
    lines = here(path, LIST="1", **given).stdout.splitlines()
    return [ROOT / line.split("\t")[9] for line in lines]


@pytest.fixture
def small(mail_file):
    """Flags of a run of seconds: --epochs alone says how long."""
    flags = f"--data {mail_file} --text-column text --label-column label --model gpt2 --max-length 64 --lr 1e-3"
    return f"run=(python scripts/finetune_cls.py {flags} --forgetting-data none --last-blocks 4 --eval-every 4)"


# A run that waits to be interrupted, and goes on to the results that it is given.
PRETENDED = """
import pathlib, shutil, sys, time
results, folder = sys.argv[1], pathlib.Path(sys.argv[sys.argv.index("--output-dir") + 1])
state = folder / "checkpoint" / "state.pt"
if "--resume" in sys.argv and state.exists():
    shutil.copytree(results, folder, dirs_exist_ok=True)
    sys.exit()
try:
    state.parent.mkdir(parents=True)
    state.touch()
    time.sleep(600)
except KeyboardInterrupt:
    print("error: interrupted")
    sys.exit(130)
"""


@pytest.mark.parametrize("scale", ["nano", "report"])
def test_an_interrupted_table_goes_on_where_it_was(scale, small, tiny_model, tmp_path):
    """The runs of the report's scale, which a launcher starts, only pretend here."""
    script = tmp_path / "pretend.py"
    script.write_text(PRETENDED)
    made = classifier(tmp_path / "made", range(30), 40, test={"accuracy": {"value": 0.75}})
    path = table_file(tmp_path, small, 'corrected own long "${run[@]}" --epochs 8')
    launch = shlex.join(map(str, (sys.executable, script, made)))
    of_scale = {"MODEL": str(tiny_model)} if scale == "nano" else {"LAUNCH": launch}
    given = settings(tmp_path / "runs", SCALE=scale, **of_scale)
    (folder,) = folders_of(path, **given)
    env = os.environ | given
    state = folder / "checkpoint" / "state.pt"
    for _ in range(5):
        begun = subprocess.Popen(
            ["bash", str(path)], env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        while not state.exists() and begun.poll() is None:
            time.sleep(0.02)
        if begun.poll() is None:
            os.killpg(begun.pid, signal.SIGINT)
        _, told = begun.communicate(timeout=120)
        if not (folder / "results.json").exists():
            break
        shutil.rmtree(tmp_path / "runs")  # the run had ended before it was interrupted
    assert begun.returncode == 130 and told == "interrupted; the same command goes on where it was\n"
    assert folder.with_name("seed0.log").read_text().count("error: interrupted") == 1
    assert state.exists() and not (folder / "results.json").exists()

    done = run_forked(["tests/in_forks.py", "reproduce/run.py", path], **given)
    assert done.returncode == 0, done.stderr
    assert "1 runs, 1 to make" in done.stdout
    value = json.loads((folder / "results.json").read_text())["test"]["accuracy"]["value"]
    assert re.search(rf"^Own.*: accuracy, %\n +here\nlong +{100 * value:.1f} \[", done.stdout, re.MULTILINE)
    if scale == "report":
        return

    words = here(path, LIST="1", **given).stdout.rstrip().split("\t")[10].split()[2:]
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
    done = here(path, **given)
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
    done = here(path, **given)
    assert done.returncode == 0 and "1 runs, 0 to make" in done.stdout
    assert done.stdout.splitlines()[-3:] == ["Own", "    here", "a  0.500"]


def test_a_dry_run_prints_the_command_memory_and_time_and_writes_nothing(small, tiny_model, tmp_path, monkeypatch):
    real = subprocess.run

    def run(words, **how):
        """A script runs in a fork, where it has its libraries at once."""
        if words[0] != sys.executable:
            return real(words, **how)
        done = run_forked(words[1:])
        return subprocess.CompletedProcess(words, done.returncode, done.stdout + done.stderr)

    monkeypatch.setattr(subprocess, "run", run)
    path = table_file(
        tmp_path, small, 'corrected own a "${run[@]}" --epochs 1', "corrected own b python benchmarks/digits.py"
    )
    given = settings(tmp_path / "runs", SCALE="nano", MODEL=str(tiny_model), SEEDS="0 1")
    done = here(path, DRY_RUN="1", **given)
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("python ")]
    assert [("scripts/finetune_cls.py" in c, "benchmarks/digits.py" in c) for c in commands] == [(1, 0), (0, 1)]
    assert "peak" in done.stdout and re.search(r"in all +\d+\.\d", done.stdout)
    assert not (tmp_path / "runs").exists()


def test_a_failure_stops_the_other_runs_starts_no_more_and_names_the_command(tmp_path, capsys):
    script = tmp_path / "pretend.py"
    script.write_text("import sys, time; print('it said', sys.argv[2]); time.sleep(600 * (sys.argv[1] == 'waits'))\n")
    jobs = [Run(tmp_path / what, f"python {script} {what}").job() for what in ("waits", "fails", "never")]
    script.write_text(script.read_text() + "sys.exit(3)\n")
    with Local(2, 1, libraries=()) as workers:
        assert run_all(jobs, workers) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.splitlines()[0] == "it said --resume"
    assert told.err.splitlines()[-1] == f"failed: python {script} fails --resume (log: {jobs[1].log})"
    assert not jobs[2].log.exists()


def test_the_learning_rate_with_the_lowest_validation_loss_is_chosen(tmp_path, capsys):
    rows = [Row("corrected", "spam, lora", rate, "", "", "-") for rate in ("1e-4", "2e-4", "4e-4")]
    found = [Plan(row, {}, "-", f"nano/{row.label}") for row in rows]
    for plan, losses in zip(found, ((0.5, 0.7), (0.4, 0.5), (0.3, 0.9)), strict=True):
        for seed, loss in enumerate(losses):
            folder = tmp_path / plan.place(str(seed))
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps({"val": {"loss": {"value": loss}}}))
    print_rates(found, "0 1", tmp_path)
    assert capsys.readouterr().out == "spam, lora: --lr 2e-4  # 0.6000 at 1e-4, 0.4500 at 2e-4, 0.6000 at 4e-4\n"
    (folder / "results.json").unlink()
    with pytest.raises(ValueError, match="results.json is missing; run learning_rates.sh to its end"):
        print_rates(found, "0 1", tmp_path)
