"""The SLURM file, as its tasks would start it: every run is in one share, whatever numbers --array has."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT
from table_rows import here

TABLE, SEEDS = "table8_small", "0 1 2 3 4"


@pytest.fixture
def share(tmp_path):
    """A Python that says the share that it was given, and makes nothing of it."""
    path = tmp_path / "python"
    path.write_text('#!/bin/sh\necho "$ONLY of ${3##*/}"\n')
    path.chmod(0o755)
    return path


def task(number, numbers, python, tables=(TABLE,)):
    """The process of a task of this number; the variables are those that SLURM sets."""
    env = {"ID": number, "MIN": min(numbers), "MAX": max(numbers), "COUNT": len(numbers)}
    env = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in env.items()} | {"LIST": "1", "SEEDS": SEEDS}
    env["PYTHON"] = str(python)
    words = ["bash", "reproduce/slurm_array.sbatch", *tables]
    return subprocess.run(words, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)


def listed(text):
    """The folders of runs that a table lists."""
    return {line.split("\t")[9] for line in text.splitlines()}


def test_the_shares_of_an_array_are_all_runs_each_once():
    shares = [task(number, range(1, 5), sys.executable) for number in range(1, 5)]
    assert all(share.returncode == 0 for share in shares), shares
    found = [listed(share.stdout) for share in shares]
    everything = listed(here(ROOT / "reproduce" / f"{TABLE}.sh", LIST="1", SEEDS=SEEDS).stdout)
    assert set().union(*found) == everything and sum(map(len, found)) == len(everything) == 20


@pytest.mark.parametrize("numbers", [range(3), range(5, 12, 3), [7]], ids=["0-2", "5-11:3", "7"])
def test_the_tasks_of_an_array_have_each_share_once(numbers, share):
    """What a share holds stands in test_reproduce.py."""
    done = [task(number, numbers, share) for number in numbers]
    assert {one.returncode for one in done} == {0}
    assert [one.stdout for one in done] == [f"{i}/{len(done)} of {TABLE}.sh\n" for i in range(1, len(done) + 1)]


@pytest.mark.parametrize("numbers", [[1, 4, 9], [1, 2, 4], [0, 1, 5, 6]], ids=str)
def test_numbers_that_are_not_evenly_spaced_are_refused(numbers, share):
    refused = [done for done in (task(number, numbers, share) for number in numbers) if done.returncode]
    first, last = numbers[0], numbers[-1]
    told = f"--array: the numbers of its {len(numbers)} tasks, {first} to {last}, must be evenly spaced, as in 1-8"
    assert refused
    for done in refused:
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{told} or 0-14:2\n")


@pytest.mark.parametrize("tables", [(TABLE, "table4_rank"), ("table4",), (f"{TABLE}.sh",)], ids=" ".join)
def test_anything_but_one_table_is_refused(tables, share):
    done = task(1, [1], share, tables)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{' '.join(tables)}: name one file of reproduce/ without its .sh")
