"""The docs' own command, as a user types it, against the hub as it is published, small: cold, warm, and without it."""

import re

import pytest
from accelerate.commands import launch
from forked import run_forked
from helpers import ROOT, results_of, run_script
from hub_probe import Probe
from hub_repositories import gpt2, published
from hub_server import serving

LAUNCHED = "    accelerate launch scripts/finetune_cls.py "
(LINE,) = re.findall(f"^{LAUNCHED}(.*--dataset enron.*)$", (ROOT / "docs" / "getting-started.md").read_text(), re.M)
COMMAND = LINE.partition("#")[0].split()
OTHER = "openai-community/gpt2-medium"
SHORT = ("--max-steps", "2", "--forgetting-data", "none")


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """The command under accelerate, with nothing cached: the hub, its settings, the run's folder, what was printed."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("run") / "cold"
    with serving(published() | {OTHER: gpt2(width=16)}) as hub:
        env = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "DATA_DIR": str(home / "no data")}
        env |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
        words = [launch.__file__, ROOT / "scripts" / "finetune_cls.py", *COMMAND, *SHORT, "--output-dir", folder]
        done = run_forked(words, **env)
        assert done.returncode == 0, done.stderr[-2000:]
        yield hub, home, folder, done.stdout + done.stderr


@pytest.fixture(scope="module")
def probe(cold):
    """A process of the user whose command that was."""
    hub, home, _, _ = cold
    process = Probe(hub.address, home)
    yield process
    process.close()


def test_the_command_of_the_docs_downloads_each_file_once_and_trains(cold):
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


def test_a_dry_run_fetches_no_weights(cold, probe, tmp_path):
    """Of a base of which nothing is cached."""
    hub, before = cold[0], len(cold[0].requests)
    flags = [*COMMAND, "--model", "gpt2-medium", *SHORT, "--dry-run", "--output-dir", str(tmp_path / "run")]
    done = probe.ask(script=["finetune_cls", *flags])
    assert done["status"] == 0, done
    asked = hub.requests[before:]
    assert f"GET /{OTHER}/resolve/main/config.json" in asked
    assert not [request for request in asked if "safetensors" in request or "pytorch" in request]
    assert not (tmp_path / "run").exists()


def test_a_second_run_downloads_nothing_and_a_run_without_a_network_is_the_same(cold, probe, tmp_path):
    hub, home, folder, _ = cold
    before = len(hub.requests)
    warm = probe.ask(script=["finetune_cls", *COMMAND, *SHORT, "--output-dir", str(tmp_path / "warm")])
    assert warm["status"] == 0, warm
    assert len(hub.requests) > before, "the hub is asked whether there is something new"
    assert not [request for request in hub.requests[before:] if request.startswith("GET") and "/resolve/" in request]
    hub.shutdown()
    hub.server_close()
    gone = probe.ask(script=["finetune_cls", *COMMAND, *SHORT, "--output-dir", str(tmp_path / "gone")])
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
