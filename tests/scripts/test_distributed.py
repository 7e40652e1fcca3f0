"""Launched as the README says: one process, two processes, two hosts that share nothing but a network."""

import subprocess
import sys

import pytest
from conftest import ROOT, results_of, weights_of
from forked import free_port

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]


def flags_for(tiny_model, mail_file):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 6, "--batch-size", 8, "--optimizer", "sgd"]
    return [str(flag) for flag in [*flags, "--lr", 0.5, "--eval-every", 2, "--output-dir", "out/run"]]


def launch(config, cwd, flags, *launcher_flags):
    command = [*LAUNCH, str(ROOT / "accelerate_configs" / f"{config}.yaml"), *launcher_flags]
    cwd.mkdir(exist_ok=True)
    text = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, str(ROOT / "scripts/finetune_cls.py"), *flags], cwd=cwd, **text)


@pytest.fixture(scope="module")
def one_process(tiny_model, mail_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    run = launch("cpu", folder, flags_for(tiny_model, mail_file))
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    return folder / "out" / "run"


def assert_same(folder, reference, processes):
    results = results_of(folder)
    assert results["environment"]["processes"] == processes
    for point, expected in zip(results["curve"], results_of(reference)["curve"], strict=True):
        assert point == pytest.approx(expected, rel=1e-4)
    ours, theirs = weights_of(folder), weights_of(reference)
    for name, tensor in ours.items():
        assert float((tensor - theirs[name]).abs().max()) <= 1e-5 * max(float(theirs[name].abs().max()), 1e-3), name


def test_two_processes_on_one_host_do_the_same_as_one(one_process, tiny_model, mail_file, tmp_path):
    run = launch("ddp", tmp_path, flags_for(tiny_model, mail_file), "--main_process_port", free_port())
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    assert_same(tmp_path / "out" / "run", one_process, 2)


def test_two_hosts_that_share_no_disk_do_the_same_as_one(one_process, tiny_model, mail_file, tmp_path):
    port = free_port()
    hosts = [
        launch(
            "multi_node",
            tmp_path / f"host{rank}",
            flags_for(tiny_model, mail_file),
            *["--machine_rank", str(rank), "--main_process_port", port],
        )
        for rank in range(2)
    ]
    outputs = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], outputs
    assert_same(tmp_path / "host0" / "out" / "run", one_process, 2)
    assert not (tmp_path / "host1" / "out").exists(), "only the main process writes"
