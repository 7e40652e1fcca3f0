"""Jobs on a Ray cluster of two nodes, and what is decided before they are sent there."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run_forked
from helpers import ROOT, results_of, weights_of

pytest.importorskip("ray", reason="Ray is not installed (extra: cluster)")

from workers import driver, node  # noqa: E402
from workers.cluster import cluster  # noqa: E402
from workers.driver import Cluster  # noqa: E402
from workers.job import Job  # noqa: E402
from workers.node import Node, replaced, values  # noqa: E402

ALONE = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "alone"]  # with no network but loopback


def alone_is_possible():
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def table(tmp_path_factory, tiny_model, mail_file):
    """A table of three short runs, as (file, its settings)."""
    folder = tmp_path_factory.mktemp("tables")
    flags = f"--data {mail_file} --text-column text --label-column label --model gpt2 --max-length 64 --lr 1e-3"
    flags += " --forgetting-data none --last-blocks 4 --eval-every 4 --epochs 8"
    rows = [
        f'corrected own "rank {rank}" python scripts/finetune_cls.py {flags} --lora-rank {rank}' for rank in (1, 2, 4)
    ]
    path = folder / "table9_own.sh"
    path.write_text("\n".join([f"source {ROOT}/reproduce/lib.sh", *rows, ""]))
    return path, {"SEEDS": "0", "SCALE": "nano", "MODEL": str(tiny_model), "PYTHON": sys.executable}


def printed(out):
    """The table itself, without the progress above it and the memory below it."""
    return out[out.index("\nOwn") : out.index("\nTests, cost")]


def outcome(folder):
    """All that a run found, to the last bit."""
    results = results_of(folder)
    found = {name: results[name] for name in ("curve", "val", "test", "best_step", "parameters")}
    flags = {name: value for name, value in results["args"].items() if name != "output_dir"}
    weights = {name: (str(tensor.dtype), tensor.numpy().tobytes()) for name, tensor in weights_of(folder).items()}
    return found, flags, results["data"], weights, (folder / "predictions.jsonl").read_bytes()


@pytest.mark.timeout(1200)  # a minute and a half where nothing else runs
@pytest.mark.skipif(not alone_is_possible(), reason="no network namespace can be made here (unshare -n, ip)")
def test_two_nodes_one_of_them_killed_in_the_middle_give_the_table_of_one_machine_bit_for_bit(table, tmp_path):
    path, settings = table
    words = ["tests/in_forks.py", "reproduce/run.py", path]
    one = run_forked(words, **settings, RUNS=str(tmp_path / "one" / "runs"), JOBS="2")
    assert one.returncode == 0, one.stderr
    probe = [*ALONE, sys.executable, str(Path(__file__).with_name("two_nodes.py")), str(path)]
    runs = tmp_path / "ray" / "runs"
    env = {"RUNS": str(runs), "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # it would run behind everything else
    env["RAY_health_check_period_ms"] = "500"  # of 3000, and a node that fails five times is dead
    env = os.environ | settings | env
    done = subprocess.run(probe, env=env, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])

    assert told["nodes"]
    stopped = told["stopped"]
    assert stopped["status"] == 130
    assert stopped["said"].splitlines()[-1] == "interrupted; the same command goes on where it was"
    assert stopped["states"] and not stopped["left"]
    assert told["alive"] == 1 and told["status"] == 0, told
    assert "has another version of this project; install the same there" in told["refused"]

    folders = sorted(path.parent.relative_to(runs) for path in runs.glob("**/results.json"))
    assert len(folders) == 3
    assert printed(one.stdout) == printed(told["out"])
    for folder in folders:
        assert outcome(runs / folder) == outcome(tmp_path / "one" / "runs" / folder)
    assert [path.name for path in (tmp_path / "cache").glob("*/*/*.jsonl")] == ["mails.jsonl"]  # once for both nodes


def test_files_are_the_values_of_flags_that_name_files():
    words = ["scripts/x.py", "--data", "a.csv", "b.csv", "--method", "lora", "--model=tiny", "--start_from", "c"]
    found = [*values(words, ["--data", "--model", "--start-from"])]
    assert found == [(2, "--data", "a.csv"), (3, "--data", "b.csv"), (6, "--model", "tiny"), (8, "--start-from", "c")]
    new = replaced(words, {3: "B", 6: "T"})
    assert new == ["scripts/x.py", "--data", "a.csv", "B", "--method", "lora", "--model=T", "--start_from", "c"]


@pytest.fixture
def idle(monkeypatch):
    """A cluster that nothing is asked of but what a job needs."""

    def with_nodes(gpus, gpu_mib, memory=2.0**34):
        found = Cluster.__new__(Cluster)
        found.threads, found.gpus, found.gpu_mib, found.memory = 2, gpus, gpu_mib, memory
        return found

    return with_nodes


def test_a_job_asks_for_its_cores_and_its_forecast_of_memory(idle):
    cpus = idle(0, 0.0)
    assert cpus.needs(1024) == {"num_cpus": 2, "memory": 2**30}
    assert cpus.needs(0) == {"num_cpus": 2, "memory": 0}
    assert cpus.needs(10**6)["memory"] == 2**34  # a whole node, where more would wait for ever


def test_a_job_asks_for_its_share_of_a_gpu(idle):
    gpus = idle(8, 40_000.0)
    small, large, unknown = (gpus.needs(mib)["num_gpus"] for mib in (4_000, 90_000, 0))
    assert 0.1 < small <= 0.102 and large == unknown == 1
    assert idle(8, 0.0).needs(4_000)["num_gpus"] == 1  # of a GPU whose memory is not known


def test_a_node_with_other_libraries_or_code_is_told_apart():
    here = Node("a", {"torch": "2.13.0", "numpy": "2.4.6"}, 0.0)
    assert here._replace(gpu_mib=40_000.0).difference(here) == ""
    other = Node("b", {"torch": "2.12.0", "numpy": "2.4.6"}, 0.0)
    assert other.difference(here) == "torch 2.12.0 (here 2.13.0), another version of this project"


def test_the_version_of_a_project_is_the_content_and_the_place_of_its_files(tmp_path, monkeypatch):
    for name in node.CODE:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tasks" / ".hidden").mkdir()
    (tmp_path / "tasks" / ".hidden" / "a.py").touch()
    (tmp_path / "tasks" / "__pycache__").mkdir()
    (tmp_path / "tasks" / "__pycache__" / "a.pyc").touch()
    here = node.describe()
    monkeypatch.setattr(node, "ROOT", tmp_path)
    assert node.describe() == here
    for name in node.CODE:
        file = min((tmp_path / name).glob("*.py"))
        text = file.read_text()
        file.write_text(f"{text}# another version\n")
        assert node.describe().difference(here) == "another version of this project"
        file.write_text(text)
    data = min((tmp_path / "tasks" / "bundled").glob("*.jsonl"))
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    assert node.describe().code != here.code
    data.write_bytes(content)
    assert node.describe() == here
    file.rename(file.with_name("moved.py"))
    assert node.describe().code != here.code


def test_the_place_of_a_project_is_the_same_behind_a_link(tmp_path):
    (tmp_path / "link").symlink_to(ROOT)
    assert runpy.run_path(str(tmp_path / "link" / "workers" / "node.py"))["ROOT"] == ROOT.resolve()


class Dying:
    """An engine whose process ends in the middle of a run."""

    ended = False

    def __init__(self, *_):
        pass

    def run(self, jobs):
        raise ChildProcessError("killed")
        yield

    def __exit__(self, *_):
        Dying.ended = True


def test_where_the_process_that_starts_runs_dies_what_it_started_is_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", "none")
    monkeypatch.setattr(node, "local", Dying)
    monkeypatch.setattr(node, "_warm", {})
    task = node.Task(("scripts/finetune_cls.py", "--output-dir", "runs/a"), {}, None, None, 1)
    with pytest.raises(ChildProcessError):
        node.work(task)
    assert Dying.ended and not node._warm


class Ended:
    """Stands for Ray where all runs have ended; a run is its own reference."""

    exceptions, cancel = driver.ray.exceptions, staticmethod(lambda ref: None)
    wait = staticmethod(lambda refs, num_returns=1, timeout=None: (refs[:num_returns], refs[num_returns:]))
    get = staticmethod(lambda ref: node.Outcome(0, 1.0, f"log of {ref}\n", {"results.json": b"{}"}))


@pytest.mark.parametrize("failures", [1, 9])
def test_a_run_that_does_not_fit_on_the_disk_takes_no_other_with_it(failures, idle, tmp_path, monkeypatch):
    left, replace = [None] * failures, driver.replace_folder

    def small_disk(path, write):
        if path.name == "a" and left:
            left.pop()
            raise OSError("no room for a")
        replace(path, write)

    monkeypatch.setattr(driver, "ray", Ended)
    monkeypatch.setattr(driver, "replace_folder", small_disk)
    monkeypatch.setattr(Cluster, "_start", lambda self, job, on_one: job.folder.name)
    with pytest.raises(OSError, match="no room for a"):
        list(idle(0, 0.0).run([Job(tmp_path / name, ()) for name in "abc"]))
    written = "bc" if failures > 1 else "abc"
    assert sorted(path.parent.name for path in tmp_path.glob("*/results.json")) == list(written)
    assert [path.read_text() for path in sorted(tmp_path.glob("*.log"))] == [f"log of {name}\n" for name in written]


def test_a_cluster_asks_again_for_a_job_that_is_not_there_yet(idle, tmp_path, monkeypatch):
    def coming():
        yield Job(tmp_path / "a", ())
        yield None
        assert (tmp_path / "a" / "results.json").exists()
        yield Job(tmp_path / "b", ())

    monkeypatch.setattr(driver, "ray", Ended)
    monkeypatch.setattr(Cluster, "_start", lambda self, job, on_one: job.folder.name)
    assert [done.job.folder.name for done in idle(0, 0.0).run(coming())] == ["a", "b"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_cannot_be_reached_is_refused_with_one_line(address, monkeypatch):
    # Ray puts the machine's own address in place of 127.0.0.1, and tests reach for no other than this.
    real = driver.services.canonicalize_bootstrap_address_or_die
    monkeypatch.setattr(
        driver.services, "canonicalize_bootstrap_address_or_die", lambda at: at if "127." in at else real(at)
    )
    with pytest.raises(ValueError, match="start it with `ray start --head`") as refused:
        cluster(address)
    told = str(refused.value)
    assert told.startswith(f"the Ray cluster at {address} cannot be reached (") and "\n" not in told and len(told) < 300
    assert "network" not in told


def test_without_ray_a_cluster_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "workers.driver")
    with pytest.raises(ValueError, match=r"^Ray is not installed: pip install -e '\.\[cluster\]'"):
        runpy.run_path(str(ROOT / "workers" / "cluster.py"))["cluster"]("auto")
