"""The number of threads is the user's, else that of the cores and of a container's quota."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from training.run import cores, threads
from training.run.cores import free_bytes, quota
from training.run.threads import choose_threads


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_quota_is_read_as_the_kernel_writes_it(files, expected, tmp_path):
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert quota(tmp_path) == expected


@pytest.mark.parametrize(("allowed", "processes", "expected"), [(math.inf, 1, 8), (2.5, 1, 3), (0.5, 1, 1), (8, 4, 2)])
def test_threads_follow_cores_and_quota(allowed, processes, expected, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(cores.psutil, "cpu_count", lambda logical=True: 8)
    monkeypatch.setattr(cores.psutil.Process, "cpu_affinity", lambda self: range(16), raising=False)
    monkeypatch.setattr(cores, "quota", lambda: allowed)
    choose_threads()
    assert torch.get_num_threads() == expected


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys  # importing torch takes seconds, and the question needs none of it
from training.run.threads import asked_for
print(asked_for())
"""


@pytest.mark.parametrize(
    ("started_with", "script_has", "asked"),
    [
        ({}, "", False),
        ({"OMP_NUM_THREADS": "1"}, "", True),
        ({}, "export OMP_NUM_THREADS=1;", True),  # the shell's own, without a launcher
        ({}, "export OMP_NUM_THREADS=1 ACCELERATE_MIXED_PRECISION=no;", False),
        ({"OMP_NUM_THREADS": "1"}, "export OMP_NUM_THREADS=1 ACCELERATE_MIXED_PRECISION=no;", True),
    ],
)
def test_what_accelerate_launch_sets_by_itself_is_not_the_users_choice(started_with, script_has, asked):
    """The shell stands for the launcher: it passes on a variable that it was not started with."""
    env = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS",)} | started_with
    told = f'{script_has} "$0" -c "$1"; true'
    words = ["sh", "-c", told, sys.executable, WITHOUT_TORCH]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(asked), done.stderr


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--num_cpu_threads_per_process", "3", "scripts/x.py"], 3),
        (["--num-cpu-threads-per-process=3"], 3),
        (["--num_processes", "3"], None),
        (["--num_cpu_threads_per_process"], None),
    ],
)
def test_the_launchers_own_flag_is_obeyed(words, asked, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launcher = SimpleNamespace(cmdline=lambda: ["accelerate", "launch", *words])
    monkeypatch.setattr(threads.psutil.Process, "parent", lambda self: launcher)
    assert threads.asked_of_launcher() == asked
    if asked:
        choose_threads()
        assert torch.get_num_threads() == asked


@pytest.mark.parametrize(
    ("files", "limited"),
    [
        ({"memory.max": "1000000", "memory.current": "400000"}, 600000),
        ({"memory/memory.limit_in_bytes": "1000000", "memory/memory.usage_in_bytes": "999999999"}, 0),
        ({"memory.max": "max", "memory.current": "400000"}, None),
        ({}, None),
    ],
)
def test_the_memory_of_a_container_is_what_its_limit_leaves(files, limited, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    found = free_bytes(tmp_path)
    assert found == limited if limited is not None else found > 2**20
