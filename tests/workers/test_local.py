"""Jobs on this machine, with scripts that only pretend: order, failures, Ctrl-C, and that no process is left."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from helpers import ROOT

from training.run.cores import usable_cores
from workers.job import Job, failure_text
from workers.local import Local, fitting, free_mib, gpu_mib

pytestmark = pytest.mark.timeout(60)

# A script that says what it was given, waits for a file where it is told one, and ends with a status.
PRETENDED = """
import dataclasses, os, pathlib, sys, time, typing
@dataclasses.dataclass
class Own:
    word: "typing.Any"
assert typing.get_type_hints(Own), "the script is the main module"
folder, status, awaited = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
folder.mkdir(parents=True, exist_ok=True)
try:
    print("started", os.environ["OMP_NUM_THREADS"], sys.stdin.read(), flush=True)
    while awaited and not pathlib.Path(awaited[0]).exists(): time.sleep(0.01)
except KeyboardInterrupt:
    print("asked to stop")
    sys.exit(130)
(folder / "results.json").touch()
sys.exit(status)
"""


def test_a_system_without_forks_is_refused_and_starts_no_process(monkeypatch):
    """As Windows is; what can be tried of it here is that os has no fork."""
    monkeypatch.delattr(os, "fork")
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ValueError, match="which Windows lacks; use WSL 2, or make each run"):
        Local(1, 1)


@pytest.fixture
def pretending(tmp_path):
    path = tmp_path / "pretend.py"
    path.write_text(PRETENDED)

    def job(name, status=0, awaited=()):
        return Job(tmp_path / name, (str(path), str(tmp_path / name), str(status), *map(str, awaited)))

    return job


def quick(workers, threads=1):
    return Local(workers, threads, libraries=())


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_start(job):
    wait_for(lambda: job.log.exists() and "started" in job.log.read_text())


def children():
    return [child for child in psutil.Process().children(recursive=True) if "workers.warm" in " ".join(child.cmdline())]


def test_every_job_is_run_with_the_number_of_threads_and_its_own_log(pretending):
    jobs = [pretending(name) for name in "abc"]
    with quick(2, threads=3) as workers:
        found = [*workers.run(jobs)]
    assert sorted(done.job for done in found) == jobs and {done.status for done in found} == {0}
    assert all(done.seconds > 0 and (done.job.folder / "results.json").exists() for done in found)
    assert jobs[1].log.read_text() == "started 3 \n"


def test_two_jobs_run_at_a_time_and_are_told_in_the_order_in_which_they_finish(pretending, tmp_path):
    first, second = pretending("a", awaited=[tmp_path / "go"]), pretending("b")
    with quick(2) as workers:
        found = workers.run([first, second])
        assert next(found).job == second
        (tmp_path / "go").touch()
        assert [done.job for done in found] == [first]


def test_a_job_that_is_not_there_yet_is_asked_for_when_another_has_ended(pretending):
    def coming():
        yield pretending("a")
        yield None
        assert (pretending("a").folder / "results.json").exists()
        yield pretending("b")

    with quick(2) as workers:
        assert [done.job.folder.name for done in workers.run(coming())] == ["a", "b"]


def test_the_same_workers_run_one_list_after_another(pretending):
    with quick(1) as workers:
        for name in "ab":
            assert [done.job.folder.name for done in workers.run([pretending(name)])] == [name]


def test_without_a_job_no_process_is_started():
    with quick(1) as workers:
        assert [*workers.run([])] == [] and not children()


def test_a_failure_is_told_and_the_others_go_on(pretending):
    jobs = [pretending("a", status=3), pretending("b")]
    with quick(1) as workers:
        assert [done.status for done in workers.run(jobs)] == [3, 0]
    assert failure_text(jobs[0], 3).splitlines()[0] == "started 1 "
    assert failure_text(jobs[0], 3).splitlines()[-1] == f"failed: python {' '.join(jobs[0].words)} (log: {jobs[0].log})"


def test_a_job_that_is_killed_has_the_signal_as_its_status(pretending, tmp_path):
    job = pretending("a", awaited=[tmp_path / "never"])
    with quick(1) as workers:
        found = workers.run([job, pretending("b")])
        first = next_after(found, job, lambda: [child.kill() for child in children()[0].children()])
        assert first.status == -signal.SIGKILL
        assert next(found).status == 0


def next_after(found, job, act):
    """The next job that ends, where `act` is called in a thread as soon as `job` has started."""
    thread = threading.Thread(target=lambda: (wait_for_start(job), act()), daemon=True)
    thread.start()
    try:
        return next(found)
    finally:
        thread.join()


def test_leaving_the_iterator_early_stops_what_runs_and_starts_no_more(pretending, tmp_path):
    waiting = pretending("a", awaited=[tmp_path / "never"])
    after = pretending("b")
    with quick(2) as workers:
        found = workers.run([waiting, after, waiting, pretending("c")])
        assert next_after(found, waiting, lambda: None).job == after
        found.close()
        assert "asked to stop" in waiting.log.read_text() and not (tmp_path / "c").exists()
        assert not children()[0].children()
        assert [done.status for done in workers.run([pretending("d")])] == [0]  # the workers are still there


def test_an_error_in_the_caller_stops_all_processes(pretending, tmp_path):
    waiting = pretending("a", awaited=[tmp_path / "never"])
    with pytest.raises(LookupError), quick(2) as workers:
        for _ in workers.run([waiting, pretending("b")]):
            wait_for_start(waiting)
            raise LookupError
    assert waiting.log.read_text().endswith("asked to stop\n") and not children()


CALLER = """
import sys
from pathlib import Path
from workers.job import Job
from workers.local import Local
with Local(1, 1, libraries=()) as workers:
    for done in workers.run([Job(Path(sys.argv[1]), tuple(sys.argv[2:]))]):
        print(done.status)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_jobs_of_a_process_that_is_stopped_or_dies_are_stopped_as_by_ctrl_c(how, pretending, tmp_path):
    job = pretending("a", awaited=[tmp_path / "never"])
    words = [sys.executable, "-c", CALLER, str(job.folder), *job.words]
    begun = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    wait_for_start(job)
    server = psutil.Process(begun.pid).children()[0]
    os.killpg(begun.pid, how)  # as a terminal does it: to all processes in the foreground
    _, told = begun.communicate(timeout=60)
    with contextlib.suppress(psutil.NoSuchProcess):
        server.wait(60)
    assert "warm.py" not in told
    assert job.log.read_text().splitlines()[1:] == ["asked to stop"]  # once


def test_jobs_end_with_a_server_that_is_killed(pretending, tmp_path):
    job = pretending("a", awaited=[tmp_path / "never"])
    runs = []

    def kill_server():
        server = children()[0]
        runs.extend(server.children())
        server.kill()

    with (
        pytest.raises(ChildProcessError, match="status -9; memory may have run out: give fewer --workers"),
        quick(1) as workers,
    ):
        next_after(workers.run([job]), job, kill_server)
    assert len(runs) == 1
    wait_for(lambda: not runs[0].is_running() or runs[0].status() == psutil.STATUS_ZOMBIE)


def test_as_many_workers_as_fit_into_memory_and_cores(monkeypatch):
    monkeypatch.setattr("training.run.cores.quota", lambda: math.inf)
    free = psutil.virtual_memory().available / 2**20
    cores = fitting(0)
    assert cores == usable_cores()
    assert fitting(free / 1.5) == 1 == fitting(free * 2)
    assert fitting(0, threads=cores) == 1 == fitting(0, threads=2 * cores)


@pytest.mark.parametrize(("allowed", "threads", "expected"), [(2.5, 1, 3), (4.0, 2, 2), (0.5, 1, 1), (32.0, 1, 16)])
def test_no_more_workers_than_the_quota_of_a_container_lets_run(allowed, threads, expected, monkeypatch):
    monkeypatch.setattr("training.run.cores.quota", lambda: allowed)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: range(16), raising=False)
    assert fitting(0, threads) == expected


def test_where_there_is_a_gpu_its_free_memory_says_how_many_fit(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\ncase "$1" in *free) echo 8000; echo 100;; *) echo 24000; echo 24000;; esac\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("training.run.cores.quota", lambda: 16.0)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: range(16), raising=False)
    assert gpu_mib() == [24000, 24000] and free_mib() == 8000  # all jobs share the first
    assert (fitting(1500), fitting(7000), fitting(9000)) == (5, 1, 1)
    smi.write_text('#!/bin/sh\ncase "$*" in *--id=1) echo 100;; *) echo 8000; echo 100;; esac\n')
    for visible, expected in (("1", 100), ("", psutil.virtual_memory().available / 2**20)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert free_mib() == pytest.approx(expected, rel=0.2)
