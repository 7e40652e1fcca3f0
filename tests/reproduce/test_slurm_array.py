"""The SLURM file, as its tasks would start it: every run is in one share, whatever numbers --array has."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from table_rows import shell

TABLE, SEEDS = "table8_small", "0 1 2 3 4"


def task(number, numbers):
    """What a task of this number lists; the variables are those that SLURM sets."""
    env = {"ID": number, "MIN": min(numbers), "MAX": max(numbers), "COUNT": len(numbers)}
    env = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in env.items()} | {"LIST": "1", "SEEDS": SEEDS}
    env["PYTHON"] = sys.executable
    words = ["bash", "reproduce/slurm_array.sbatch", TABLE]
    return subprocess.run(words, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)


def listed(text):
    """The folders of runs that a table lists."""
    return {line.split("\t")[9] for line in text.splitlines()}


@pytest.mark.parametrize("numbers", [range(1, 5), range(3), range(5, 12, 3), [7]], ids=["1-4", "0-2", "5-11:3", "7"])
def test_the_shares_of_an_array_are_all_runs_each_once(numbers):
    shares = [task(number, numbers) for number in numbers]
    assert all(share.returncode == 0 for share in shares), shares
    found = [listed(share.stdout) for share in shares]
    everything = listed(shell(ROOT / "reproduce" / f"{TABLE}.sh", LIST="1", SEEDS=SEEDS).stdout)
    assert set().union(*found) == everything and sum(map(len, found)) == len(everything) == 20


@pytest.mark.parametrize("numbers", [[1, 4, 9], [1, 2, 4], [0, 1, 5, 6]], ids=str)
def test_numbers_that_are_not_evenly_spaced_are_refused(numbers):
    refused = [done for done in (task(number, numbers) for number in numbers) if done.returncode]
    first, last = numbers[0], numbers[-1]
    told = f"--array: the numbers of its {len(numbers)} tasks, {first} to {last}, must be evenly spaced, as in 1-8"
    assert refused
    for done in refused:
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{told} or 0-14:2\n")
