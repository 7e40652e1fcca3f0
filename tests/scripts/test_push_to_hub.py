"""--push-to-hub against a hub on this machine: what arrives there, and what is refused before a run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import results_of, run_in_process, words_of
from hub_probe import Probe
from hub_server import Repository, serving
from huggingface_hub import constants

from evidence.intervals import shown


@pytest.fixture(scope="module")
def served():
    with serving({}) as hub:
        yield hub


@pytest.fixture(scope="module")
def probe(served, tmp_path_factory):
    """The process of a user of that hub."""
    process = Probe(served.address, tmp_path_factory.mktemp("home"), HF_HUB_DISABLE_XET="1")
    yield process
    process.close()


@pytest.fixture
def hub(served):
    """The hub as nobody has used it yet."""
    served.requests.clear()
    served.repositories, served.full = {"other/taken": Repository()}, False
    return served


@pytest.fixture
def run(hub, probe):
    """A script as a user runs it whose token is `token`."""

    def start(script, *flags, token="hf_write"):
        words = [script, *words_of(script, flags)]
        done = probe.ask(script=words, env={"HF_TOKEN": token} if token else {})
        return SimpleNamespace(returncode=done["status"], stdout=done["printed"], stderr=done["said"])

    return start


def short(tiny_model, data, folder):
    return ["--data", data, "--model", tiny_model, "--max-steps", 2, "--report-to", "none", "--output-dir", folder]


def test_an_adapter_arrives_with_a_card_of_its_results_and_the_flags_of_its_run(
    hub, run, tiny_model, mail_file, tmp_path
):
    folder = tmp_path / "run"
    done = run("finetune_cls", *short(tiny_model, mail_file, folder), "--push-to-hub", "me/mails")
    assert done.returncode == 0, done.stderr
    assert f"hub     {hub.address}/me/mails" in done.stdout
    files = hub.repositories["me/mails"].files
    assert set(files) == {path.name for path in (folder / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "config.yaml", "README.md"} <= set(files)
    for name, content in files.items():
        assert content == (folder / "adapter" / name).read_bytes(), name
    own = (folder / "config.yaml").read_text().splitlines()
    assert "push-to-hub: me/mails" in own  # for --resume; who repeats the run has a place of his own
    assert files["config.yaml"].decode().splitlines() == [line for line in own if not line.startswith("push-to-hub")]
    card, results = files["README.md"].decode(), results_of(folder)
    assert card.startswith("---\nlibrary_name: peft\n")  # the hub refuses a card whose base is a folder
    assert f"a classifier of 2 classes of {tiny_model}." in card
    assert "AutoPeftModelForSequenceClassification.from_pretrained('me/mails', id2label=id2label" in card
    for part in ("before", "val", "test"):
        for name in ("accuracy", "macro_f1", "loss"):
            assert shown(results[part][name]) in card
    assert results["data"]["sha256"] in card and f"{results['data']['rows']['train']} train" in card
    assert "python scripts/finetune_cls.py --config config.yaml" in card


def test_a_whole_model_and_a_merged_one_arrive_for_transformers(hub, run, tiny_model, question_file, tmp_path):
    flags = [*short(tiny_model, question_file, tmp_path / "full"), "--method", "full", "--new-tokens", 3]
    done = run("finetune_ift", *flags, "--push-to-hub", "team/tutor")
    assert done.returncode == 0, done.stderr
    files = hub.repositories["team/tutor"].files
    assert {"model.safetensors", "config.json", "README.md", "config.yaml"} <= set(files)
    assert "AutoModelForCausalLM.from_pretrained('team/tutor')" in files["README.md"].decode()
    done = run_in_process("finetune_ift", *short(tiny_model, question_file, tmp_path / "lora"), "--new-tokens", 3)
    assert done.returncode == 0, done.stderr
    kept, stale = {".gitattributes": b"", "notes.md": b"mine"}, {"adapter_config.json": b"{}", "adapter.json": b"{}"}
    hub.repositories["me/merged"] = Repository(files=kept | stale)
    merged = ["--run", tmp_path / "lora", "--output", tmp_path / "merged"]
    for again in ([], ["--overwrite"]):
        done = run("merge_lora", *merged, "--push-to-hub", "me/merged", *again)
        assert done.returncode == 0, done.stderr
    files = hub.repositories["me/merged"].files
    assert {*kept, "model.safetensors"} <= {*files} and not {*stale} & {*files}  # which would be loaded in its place
    card = files["README.md"].decode()
    assert "library_name: transformers" in card and "response_perplexity" in card


@pytest.mark.parametrize(
    ("repository", "token", "message"),
    [
        ("me/x", None, "--push-to-hub me/x: needs a token that may write; set HF_TOKEN, or call hf auth login"),
        ("me/x", "hf_read", "--push-to-hub me/x: the token may only read"),
        ("me/x", "hf_gone", "--push-to-hub me/x: the hub does not know the token"),
        ("mails", "hf_write", "--push-to-hub mails: must be OWNER/NAME"),
        ("me/a b", "hf_write", "--push-to-hub me/a b: must be OWNER/NAME"),
        ("you/new", "hf_write", "--push-to-hub you/new: the token is me's; it may write to me, team"),
        ("other/taken", "hf_write", "--push-to-hub other/taken: the token may not write there"),
    ],
)
def test_what_could_not_be_uploaded_is_refused_before_the_run(
    hub, run, tiny_model, mail_file, tmp_path, repository, token, message
):
    flags = [*short(tiny_model, mail_file, tmp_path / "run"), "--push-to-hub", repository]
    done = run("finetune_cls", *flags, token=token)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert not [request for request in hub.requests if request.startswith(("POST", "PUT"))]


def test_a_hub_that_is_switched_off_is_refused_before_the_run(tiny_model, mail_file, tmp_path):
    flags = [*short(tiny_model, mail_file, tmp_path / "run"), "--push-to-hub", "me/x"]
    assert constants.HF_HUB_OFFLINE  # in this process, which asks no hub
    done = run_in_process("finetune_cls", *flags, HF_TOKEN="hf_write")
    assert done.returncode == 2 and "HF_HUB_OFFLINE" in done.stderr and not (tmp_path / "run").exists()


def test_an_upload_that_fails_loses_nothing_and_says_how_to_do_it_later(hub, run, tiny_model, mail_file, tmp_path):
    hub.full, folder = True, tmp_path / "my run"
    done = run("finetune_cls", *short(tiny_model, mail_file, folder), "--push-to-hub", "me/mails")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"nothing is lost; hf upload me/mails '{folder / 'adapter'}' does it later" in done.stderr
    assert results_of(folder)["test"] and "results " in done.stdout
    assert json.loads((folder / "adapter" / "adapter.json").read_text())["args"]["push_to_hub"] == "me/mails"
    hub.full = False
    env = os.environ | {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_write", "HF_HUB_OFFLINE": "0"}
    env |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    words = [Path(sys.executable).with_name("hf"), "upload", "me/mails", folder / "adapter"]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "adapter_model.safetensors" in hub.repositories["me/mails"].files
