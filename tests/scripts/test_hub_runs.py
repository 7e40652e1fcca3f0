"""README's own command, as a user types it, against the hub as it is published, small: cold, warm, and without it."""

import re

import pytest
from accelerate.commands import launch
from conftest import ROOT, results_of, run_script
from forked import run_forked
from hub_probe import Probe
from hub_repositories import published
from hub_server import serving

COMMAND = ("--dataset", "enron", "--lora-rank", "16")
SHORT = ("--max-steps", "2", "--forgetting-data", "none")


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """The command under accelerate, with nothing cached: the hub, its settings, the run's folder, what was printed."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("run") / "cold"
    with serving(published()) as hub:
        env = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "DATA_DIR": str(home / "no data")}
        env |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
        words = [launch.__file__, ROOT / "scripts" / "finetune_cls.py", *COMMAND, *SHORT, "--output-dir", folder]
        done = run_forked(words, **env)
        assert done.returncode == 0, done.stderr[-2000:]
        yield hub, home, folder, done.stdout + done.stderr


def test_the_command_of_the_readme_downloads_each_file_once_and_trains(cold):
    hub, _, folder, text = cold
    results = results_of(folder)
    assert results["data"]["source"] == "hub SetFit/enron_spam" and results["data"]["labels"] == ["ham", "spam"]
    assert results["test"]["accuracy"]["n"] == 40
    assert re.search(r"hub     fetching model.safetensors, \d+ MB\n", text)
    gets = [request for request in hub.requests if request.startswith("GET") and "/resolve/" in request]
    assert len(set(gets)) == len(gets) and {request.rpartition("/")[2] for request in gets} >= {
        "config.json",
        "model.safetensors",
        "train.jsonl",
        "test.jsonl",
    }


def test_a_dry_run_fetches_no_weights(cold, tmp_path):
    hub, _, folder, _ = cold
    probe, before = Probe(hub.address, tmp_path), len(hub.requests)
    done = probe.ask(script=["finetune_cls", *COMMAND, *SHORT, "--dry-run", "--output-dir", str(tmp_path / "run")])
    probe.close()
    assert done["status"] == 0, done
    assert not [request for request in hub.requests[before:] if "safetensors" in request or "pytorch" in request]
    assert not (tmp_path / "run").exists()


def test_a_second_run_downloads_nothing_and_a_run_without_a_network_is_the_same(cold, tmp_path):
    hub, home, folder, _ = cold
    probe, before = Probe(hub.address, home), len(hub.requests)
    warm = probe.ask(script=["finetune_cls", *COMMAND, *SHORT, "--output-dir", str(tmp_path / "warm")])
    assert warm["status"] == 0, warm
    assert not [request for request in hub.requests[before:] if request.startswith("GET") and "/resolve/" in request]
    hub.shutdown()
    hub.server_close()
    gone = probe.ask(script=["finetune_cls", *COMMAND, *SHORT, "--output-dir", str(tmp_path / "gone")])
    probe.close()
    assert gone["status"] == 0, gone
    assert f"gpt2 is used from the cache: {hub.address} cannot be reached" in gone["said"]
    assert f"SetFit/enron_spam is used from the cache: {hub.address} cannot be reached" in gone["printed"]
    env = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "DATA_DIR": str(home)}
    flags = (*COMMAND, *SHORT, "--output-dir", tmp_path / "offline")
    offline = run_script("finetune_cls", *flags, env=env)
    assert offline.returncode == 0, offline.stderr[-2000:]
    assert "is used from the cache: HF_HUB_OFFLINE is set" in offline.stdout
    for name in ("warm", "gone", "offline"):
        assert results_of(tmp_path / name)["test"] == results_of(folder)["test"], name
