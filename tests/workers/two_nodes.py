"""A table on a Ray cluster of two nodes with a core each, one of which is killed in the middle of a run.

    python two_nodes.py TABLE.sh

In a network that has nothing but this machine. Tells as JSON what has happened: the table is stopped once, as by Ctrl-C
(`stopped`: its status, its message, the unfinished runs that came back, processes that are left), goes on until a run
on the second node has a checkpoint, and then that node loses its power (`lost`: that run; `alive`: nodes after it). The
table goes on and ends (`status`, `out`, `err`). `refused`: what is said to a driver whose code is another. `nodes`:
whether jobs that are to be on one node are there.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

from workers import driver as engine
from workers.job import Job
from workers.node import ROOT, Outcome


def warm(process):
    """The runs below a process of Ray, which are the children of servers."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = [p for p in process.children(recursive=True) if "workers.warm" in p.cmdline()]
        return [p for p in below if "workers.warm" in p.parent().cmdline()]
    return []


def folder_of(run):
    with contextlib.suppress(psutil.NoSuchProcess):
        logs = [Path(file.path) for file in run.open_files() if file.path.endswith(".log")]
        return logs[0].with_suffix("") if logs else None


def raylet(node):
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def wait_for(find, driver):
    while not (found := find()):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    return found


def checkpointed(node):
    """A run of the node that has a checkpoint and has not ended, held still."""
    for run in warm(raylet(node)):
        folder = folder_of(run)
        if folder and (folder / "checkpoint" / "state.pt").exists():
            run.suspend()
            if not (folder / "results.json").exists():
                return run, folder
            run.resume()
    return None


def has_been_interrupted(run):
    """Whether SIGINT waits for a process that is held still."""
    pending = re.search(r"^ShdPnd:\s*(\w+)$", Path(f"/proc/{run.pid}/status").read_text(), re.M)
    return bool(int(pending[1], 16) >> (signal.SIGINT - 1) & 1)


def refusal_of_another_version(address):
    """What is said to this process, whose code is another than that of the processes of the nodes."""
    real, driver = engine.describe, os.getpid()

    def describe():
        return real()._replace(code="another") if os.getpid() == driver else real()

    engine.describe = describe
    try:
        engine.Cluster(address, 1)
    except ValueError as error:
        return str(error)
    finally:
        engine.describe = real


def where(_):
    """Stands for a run: its log is the node that it was on."""
    return Outcome(0, 0.0, ray.get_runtime_context().get_node_id(), {})


def goes_where_it_should(address):
    """Whether a job that is to be on one node is there, for each of the nodes."""
    real, engine.work = engine.work, where
    with tempfile.TemporaryDirectory() as place, engine.Cluster(address, 1) as workers:
        for workers.first in [node["NodeID"] for node in ray.nodes()]:
            job = Job(Path(place, workers.first), (str(ROOT / "scripts" / "generate.py"),))
            (done,) = workers.run([job], on_one=True)
            if done.job.log.read_text() != workers.first:
                return False
    engine.work = real
    return True


def main(table):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    nodes, refused = goes_where_it_should(cluster.address), refusal_of_another_version(cluster.address)

    def drive():
        env, pipe = os.environ | {"RAY": cluster.address}, subprocess.PIPE
        return subprocess.Popen(["bash", table], env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    driver = drive()
    run, _ = wait_for(lambda: checkpointed(cluster.head_node), driver)
    os.killpg(driver.pid, signal.SIGINT)
    wait_for(lambda: has_been_interrupted(run), driver)  # so that it cannot end before
    run.resume()
    _, told = driver.communicate(timeout=300)
    states = [str(path) for path in Path(os.environ["RUNS"]).glob("**/state.pt")]
    left = [p.pid for node in (cluster.head_node, second) for p in warm(raylet(node))]
    stopped = {"status": driver.returncode, "said": told, "states": states, "left": left}

    driver = drive()
    run, folder = wait_for(lambda: checkpointed(second), driver)
    first = raylet(second)
    for process in [first, *first.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    out, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, (out, err)
    told = {"stopped": stopped, "lost": folder.name, "status": driver.returncode, "out": out, "err": err}
    told |= {"nodes": nodes, "refused": refused}

    ray.init(address=cluster.address, log_to_driver=False)
    deadline = time.monotonic() + 120
    while (alive := [node["Alive"] for node in ray.nodes()].count(True)) > 1 and time.monotonic() < deadline:
        time.sleep(1)  # Ray notices after some seconds
    ray.shutdown()
    print(json.dumps(told | {"alive": alive}))
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
