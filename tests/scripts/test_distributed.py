"""Launched as the README says: one process, two processes, two hosts that share nothing but a network."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from accelerate.commands import launch as accelerate_launch
from forked import free_port, run_forked
from helpers import ROOT, results_of, weights_of


def flags_for(tiny_model, mail_file, folder):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 6, "--batch-size", 8, "--optimizer", "sgd"]
    return [*flags, "--lr", 0.5, "--eval-every", 2, "--forgetting-tokens", 500, "--output-dir", folder]


def launch(config, flags, *launcher_flags):
    """What `accelerate launch` does, with what it and its processes say."""
    words = ["--config_file", ROOT / "accelerate_configs" / f"{config}.yaml", *launcher_flags]
    done = run_forked([accelerate_launch.__file__, *words, ROOT / "scripts" / "finetune_cls.py", *flags])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def one_process(tiny_model, mail_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    launch("cpu", flags_for(tiny_model, mail_file, folder))
    return folder


def assert_same(folder, reference, processes):
    results = results_of(folder)
    assert results["environment"]["processes"] == processes
    for point, expected in zip(results["curve"], results_of(reference)["curve"], strict=True):
        assert point == pytest.approx(expected, rel=1e-4)
    ours, theirs = weights_of(folder), weights_of(reference)
    for name, tensor in ours.items():
        assert float((tensor - theirs[name]).abs().max()) <= 1e-5 * max(float(theirs[name].abs().max()), 1e-3), name


def test_two_processes_on_one_host_do_the_same_as_one(one_process, tiny_model, mail_file, tmp_path):
    place = ["--mixed_precision", "no", "--main_process_port", free_port()]
    launch("ddp", flags_for(tiny_model, mail_file, tmp_path / "run"), *place)
    assert_same(tmp_path / "run", one_process, 2)


def test_two_hosts_that_share_no_disk_do_the_same_as_one(one_process, tiny_model, mail_file, tmp_path):
    def host(rank):
        place = ["--mixed_precision", "no", "--machine_rank", rank, "--main_process_port", port]
        launch("multi_node", flags_for(tiny_model, mail_file, tmp_path / f"host{rank}"), *place)

    port = free_port()
    with ThreadPoolExecutor(2) as hosts:
        list(hosts.map(host, range(2)))
    assert_same(tmp_path / "host0", one_process, 2)
    assert not (tmp_path / "host1").exists(), "only the main process writes"
