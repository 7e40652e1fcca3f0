"""The hub as it answers and fails: a server on this machine, asked by the real libraries in processes of their own."""

import errno
import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import httpx2
import hub_probe
import pyarrow as pa
import pytest
from hub_probe import Probe
from hub_repositories import README, as_parquet, gpt2, published
from hub_server import Repository, serving
from huggingface_hub import constants
from safetensors.torch import load, save

from gpt2_scratch.sources import WEIGHTS
from training.data import hub_client
from training.data.hub_reasons import Asked, explain

CONFIG = {"config.json": json.dumps({"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}).encode()}
LLAMA = {"config.json": json.dumps({"model_type": "llama", "hidden_size": 16}).encode()}
MANY = [f"shard-{i:05}.npz" for i in range(100)]


def refusing(status: int, code: str = "", **headers: str) -> Repository:
    return Repository(CONFIG, status=status, headers={"X_Error_Code": code, **headers} if code else headers)


def without(repository: Repository, *names: str, **more: bytes) -> Repository:
    return Repository({name: content for name, content in repository.files.items() if name not in names} | more)


def in_shards(weights: bytes) -> dict[str, bytes]:
    """model.safetensors in two, with the index that says where each tensor lies."""
    tensors = load(weights)
    shards = {f"model-{i + 1:05}-of-00002.safetensors": dict(list(tensors.items())[i::2]) for i in range(2)}
    index = {"metadata": {}, "weight_map": {key: name for name, part in shards.items() for key in part}}
    files = {name: save(part, {"format": "pt"}) for name, part in shards.items()}
    return files | {"model.safetensors.index.json": json.dumps(index).encode()}


def rows(labels: list) -> bytes:
    lines = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def of_classes(numbers: list[int], names: list[str]) -> bytes:
    """A parquet file in which the library `datasets` wrote classes."""
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())], metadata)
    return as_parquet({"text": [f"text {i}" for i in range(len(numbers))], "label": numbers}, schema)


def readme(configs: str) -> bytes:
    return f"---\nconfigs:\n{configs}---\n".encode()


TWO_CONFIGS = "- config_name: easy\n  data_files: easy.jsonl\n- config_name: hard\n  data_files: hard.jsonl\n"
OWN_SEPARATOR = "- config_name: a\n  data_files: a.csv\n  sep: '~'\n  names: [text, label]\n"
MOODS = """---
dataset_info:
  features:
  - {name: text, dtype: string}
  - {name: label, dtype: string}
  - name: mood
    dtype: {class_label: {names: {'0': calm, '1': angry}}}
---
"""
LABELS = MOODS.replace("  - {name: label, dtype: string}\n", "").replace("mood", "label")
CELLS = "text,label,mood\nnull,007,0\n2001-05-14,07,1\nNA,7,-1\n"
DIGITS = """---
dataset_info:
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': '-1', '1': '0', '2': '1'}}}
---
"""
CHAT_SPLITS = ("train_sft", "train_gen", "test_sft", "test_gen")


def models() -> dict[str, Repository]:
    good = gpt2(width=16, blocks=1)
    weights = good.files["model.safetensors"]
    assert isinstance(weights, bytes)
    return {
        "owner/good": good,
        "owner/sharded": without(good, "model.safetensors", **in_shards(weights)),
        "owner/bin": without(good, "model.safetensors", **{"pytorch_model.bin": b"pickled"}),
        "owner/no-weights": without(good, "model.safetensors", **{"tf_model.h5": b"", "flax_model.msgpack": b""}),
        "owner/many-files": Repository(CONFIG | dict.fromkeys(MANY, b"")),
        "owner/llama": Repository(LLAMA | {"model.safetensors": weights}),
        "owner/both": replace(good, files=good.files | {"adapter_config.json": b"{}"}),
        "owner/adapter": Repository({"adapter_config.json": b"{}", "adapter_model.safetensors": b""}),
        "owner/gated": refusing(403, "GatedRepo"),
        "owner/gated-anonymous": refusing(401, "GatedRepo"),
        "owner/private": refusing(401, "RepoNotFound"),
        "owner/bad-token": refusing(401, X_Error_Message="Invalid credentials in Authorization header"),
        "owner/closed": refusing(403, X_Error_Message="Access to this resource is disabled."),
        "owner/forbidden": refusing(403),
        "owner/other-branch": Repository(CONFIG, branch="master"),
        "owner/busy": refusing(429),
        "owner/busy-for-an-hour": refusing(429, Retry_After="3600"),
        "owner/busy-once": replace(good, status=429, headers={"Retry_After": "0"}, times=1),
        "owner/down": refusing(503),
        "owner/down-twice": replace(good, status=502, times=2),
        "owner/teapot": refusing(418),
        "owner/hotel": Repository(CONFIG, html=True),
        "owner/cut": replace(good, cut=1000),
        "owner/cut-anew": replace(good, cut=60_000, ranges=False),
        "owner/slow": replace(good, slow=0.5),
    }


def data_sets() -> dict[str, Repository]:
    labels = ["yes", "no"] * 20
    chat = {f"data/{name}-00000-of-00001.parquet": as_parquet({"text": [name], "label": ["a"]}) for name in CHAT_SPLITS}
    found = {
        "owner/configs": {
            "README.md": readme(TWO_CONFIGS),
            "easy.jsonl": rows(labels),
            "hard.jsonl": rows(labels[:10]),
        },
        "owner/chat": {"README.md": README.encode(), **chat},
        "owner/classes": {"README.md": LABELS.encode(), "train.jsonl": rows([0, 1, 1]), "test.jsonl": rows([-1, -1])},
        "owner/digits": {"train.parquet": of_classes([0, 1, 2], ["-1", "0", "1"])},
        "owner/digits-on-card": {
            "README.md": DIGITS.encode(),
            "train.parquet": of_classes([0, 1, 2], ["-1", "0", "1"]),
        },
        "owner/digits-of-two-files": {
            "train-00000-of-00002.parquet": of_classes([0, 1, 2], ["1", "2", "3"]),
            "train-00001-of-00002.parquet": of_classes([-1, 1], ["a", "b"]),
        },
        "owner/digits-as-text": {"README.md": DIGITS.encode(), "train.csv": b"text,label\na,0\nb,1\nc,2\n"},
        "owner/another-class": {"README.md": LABELS.encode(), "train.csv": b"text,label\na,0\nb,2\nc,1\nd,2\n"},
        "owner/another-class-in-json": {"README.md": LABELS.encode(), "train.jsonl": rows([0, "angry", -2])},
        "owner/another-class-in-parquet": {"train.parquet": of_classes([0, 1, 2], ["no", "yes"])},
        "owner/not-on-card": {"README.md": readme("- config_name: a\n  data_files: b/*.csv\n"), "a.csv": b"text\na\n"},
        "owner/capitals": {"README.md": README.encode(), "TRAIN.CSV": CELLS.encode()},
        "owner/no-yaml": {"README.md": b"---\nconfigs: [\n---\n", "train.csv": CELLS.encode()},
        "owner/zst": {"train.jsonl.zst": b"\x28\xb5\x2f\xfd" + bytes(50)},
        "owner/digits-in-json": {"README.md": DIGITS.encode(), "train.jsonl": rows(["-1", "0", 2])},
        "owner/parts-in-a-file": {
            "train.json": json.dumps({name: [{"text": "a", "label": "b"}] for name in ("train", "test")}).encode()
        },
        "owner/csv": {
            "README.md": MOODS.encode(),
            "train.csv": CELLS.encode(),
        },
        "owner/lines": {"train.txt": b"one\ntwo\n"},
        "owner/own-separator": {"README.md": readme(OWN_SEPARATOR), "a.csv": b"a,b~yes\nc~no\n"},
        "owner/only-test": {"test.jsonl": rows(labels)},
        "owner/script": {"script.py": b"import datasets"},
        "owner/pictures": {"README.md": README.encode(), "model.bin": b"", "notes.pdf": b""},
        "owner/damaged": {"train.jsonl": b'{"text": "a", "label": "b"}\n{"text": "the secret", "la\n'},
        "owner/empty-file": {"train.jsonl": b""},
        "owner/one-more": {"train.csv": CELLS.encode(), "extra.csv": CELLS.encode(), "dataset_infos.json": b"{}"},
        "owner/other-folder": {"data/train/a.jsonl": rows(labels), "data/other/b.jsonl": rows(labels)},
        "owner/other-format": {"a.csv": CELLS.encode(), "b.jsonl": rows(labels[:1]), "c.jsonl": rows(labels[:1])},
        "owner/other-format-of-lines": {"train.txt": b"one\ntwo\n", "more.csv": CELLS.encode()},
        "owner/configs-and-more": {
            "README.md": readme(TWO_CONFIGS),
            "easy.jsonl": rows(labels),
            "hard.jsonl": rows(labels),
            "new.jsonl": rows(labels),
        },
        "owner/configs-with-default": {
            "README.md": readme(TWO_CONFIGS.replace("easy.jsonl\n", "easy.jsonl\n  default: true\n")),
            "easy.jsonl": rows(labels),
            "hard.jsonl": rows(labels),
        },
        "owner/two-formats": {"train.csv": CELLS.encode(), "test.jsonl": rows(labels)},
        "owner/unlike": {"train/a.jsonl": rows(labels), "train/b.jsonl": b'{"other": 1, "more": 2}\n'},
    }
    refused = {"owner/gated-data": refusing(403, "GatedRepo"), "owner/private-data": refusing(401, "RepoNotFound")}
    refused |= {"owner/down-data": refusing(503), "owner/hotel-data": Repository({}, html=True)}
    refused |= {name: Repository(files) for name, files in found.items()}
    return {f"datasets/{name}": repository for name, repository in refused.items()}


@pytest.fixture(scope="module")
def hub():
    with serving(published() | models() | data_sets()) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="module")
def probe(hub, home):
    process = Probe(hub.address, home)
    yield process
    process.close()


def without_paths(message: str) -> str:
    return re.sub(r"\S*/\S*", "", message)


REASONS = {
    "owner/typo": r"is neither a folder here nor a model on the hub; if it is private, set HF_TOKEN",
    "openai-community/gpt-2": r"did you mean openai-community/gpt2\?",
    "gpt2/distilgpt2": r"did you mean distilbert/distilgpt2\?",
    "owner/gated": r"accepted its licence; do that at http://\S+/owner/gated, then set HF_TOKEN",
    "owner/gated-anonymous": r"accepted its licence; do that at http://\S+/owner/gated-anonymous, then set HF_TOKEN",
    "owner/private": r"nor a model on the hub; if it is private, set HF_TOKEN",
    "owner/bad-token": r"does not know your token; set HF_TOKEN to a valid one, or unset it",
    "owner/closed": r"was closed by its owner or the hub",
    "owner/forbidden": r"refuses it \(403\); see http://\S+/owner/forbidden",
    "owner/other-branch": r"has no branch called main",
    "owner/no-weights": r"has neither model.safetensors nor pytorch_model.bin.*it has .*flax_model.msgpack",
    "owner/many-files": r"it has config.json, shard-00000.npz.* and \d\d more",
    "owner/adapter": r"is an adapter, not a model; name its base here",
    "owner/both": r"holds a model and an adapter",
    "owner/busy": r"no more requests for now \(429\); wait some minutes, or set HF_TOKEN",
    "owner/busy-for-an-hour": r"no more requests for now \(429\); wait 3,600 s",
    "owner/down": r"out of order \(503\); try again later, or give --model FOLDER",
    "owner/teapot": r"the hub answers 418",
    "owner/hotel": r"is not the hub, but perhaps a proxy or a login page; look at HF_ENDPOINT",
    "owner/cut": r"what comes from \S+ breaks off; give --model FOLDER",
    "owner/cut-anew": r"breaks off; give --model FOLDER",
    "owner/two words": r"is not a name on the hub; these are owner/name of letters",
    "distilgpt2": r"not a folder \(distilbert/distilgpt2\?\)",
    "tests/conftest.py": r"is a file; give the folder of a model",
    "gpt2-smal": r"not a folder \(gpt2\?\)|not a folder \(gpt2-xl\?\)",
}


@pytest.mark.parametrize("name", REASONS)
def test_each_reason_why_the_hub_gives_no_model_has_a_message_of_its_own(name, probe):
    text = probe.refusal(model=name)
    assert re.search(REASONS[name], text), text
    assert text.startswith(f"--model {name}: ") and len(without_paths(text)) <= 300 and "\n" not in text


def test_a_model_that_was_never_asked_of_the_hub_is_no_matter_of_the_hub(hub, probe):
    before, answer = len(hub.requests), probe.ask(model="gpt2-smal")
    assert answer["refusal"].startswith("--model gpt2-smal: not a folder") and answer["unreachable"] is None
    assert len(hub.requests) == before


@pytest.mark.parametrize("name", ["owner/busy-once", "owner/down-twice", "owner/slow"])
def test_a_hub_that_is_slow_or_busy_for_a_moment_is_waited_for(name, probe):
    assert "model.safetensors" in probe.ask(model=name)["files"]


def test_a_hub_may_take_seconds_for_an_answer():
    assert min(hub_client.ANSWER, constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT) > 3  # seconds


def test_what_a_busy_hub_is_waited_for_is_said(hub, probe):
    hub.repositories["owner/down-then-up"] = replace(hub.repositories["owner/good"], status=503, times=1)
    assert "hub     127.0.0.1 answers 503; it is asked again in" in probe.ask(model="owner/down-then-up")["said"]


def test_a_model_of_another_kind_is_refused_before_its_weights_are_fetched(hub, probe):
    assert "llama" in probe.refusal(model="owner/llama")
    asked = [request for request in hub.requests if "owner/llama" in request]
    assert asked and not [request for request in asked if any(name in request for name in WEIGHTS)]


def test_without_weights_the_shape_and_the_tokenizer_are_fetched_alone(hub, probe):
    hub.repositories["owner/shape-alone"] = gpt2(width=16, blocks=1)
    found = probe.ask(model="owner/shape-alone", weights=False)
    assert found["width"] == 16
    assert found["files"] == ["config.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]


def test_shards_and_older_weights_are_fetched_where_there_is_no_other(probe):
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert [name for name in probe.ask(model="owner/sharded")["files"] if name.startswith("model")] == shards
    assert "pytorch_model.bin" in probe.ask(model="owner/bin")["files"]


def test_what_is_cached_takes_one_request_a_file_that_may_have_changed(hub, probe):
    probe.ask(model="owner/good")
    before = len(hub.requests)
    probe.ask(model="owner/good")
    asked = {re.sub("[0-9a-f]{40}", "COMMIT", request) for request in hub.requests[before:]}
    assert asked == {"HEAD /owner/good/resolve/main/config.json"}


def test_of_several_processes_one_downloads(hub, probe, home):
    hub.repositories["owner/shared"] = gpt2(width=16, blocks=1)
    other, found = Probe(hub.address, home, LOCAL_RANK="1"), list[dict]()
    other.ask(model="owner/good")  # it has imported the libraries then: both ask at the same time
    asking = [threading.Thread(target=lambda p=p: found.append(p.ask(model="owner/shared"))) for p in (probe, other)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    other.close()
    assert ["model.safetensors" in answer["files"] for answer in found] == [True, True]
    gets = [request for request in hub.requests if re.fullmatch("GET /cdn/owner/shared/.*/model.safetensors", request)]
    assert len(gets) == 1


READ_WHEN_ASKED = {"ALL_PROXY", "HTTP_PROXY", "HF_TOKEN"}  # the others are read when the libraries are imported


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            r"is not cached, and http://127.0.0.1:9 cannot be reached; give --model",
        ),
        ({"HF_ENDPOINT": "https{}"}, r"there is no secure connection to https.*SSL_CERT_FILE"),
        ({"HF_ENDPOINT": "127.0.0.1:9"}, "no request can be made.*look at HF_ENDPOINT"),
        ({"HF_HOME": "/proc/nowhere"}, r"the cache cannot be written to \(/proc/nowhere.*set HF_HOME to a folder"),
        (
            {"ALL_PROXY": "socks5://127.0.0.1:9"},
            "no request can be made.*SOCKS|through the proxy of ALL_PROXY",
        ),
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, "cannot be reached through the proxy of HTTP_PROXY"),
        ({"SSL_CERT_FILE": "/nowhere.pem"}, r"no request can be made.*look at SSL_CERT_FILE"),
        ({"HF_TOKEN": "hf_secret\u2026"}, "HF_TOKEN .* cannot be sent as it is"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_keep_the_hub_away_are_named(settings, reason, hub, probe, tmp_path):
    settings = {name: value.format(hub.address.removeprefix("http")) for name, value in settings.items()}
    if settings.keys() <= READ_WHEN_ASKED:
        answer = probe.ask(model="owner/never-cached", env=settings)
    else:
        endpoint, home = settings.pop("HF_ENDPOINT", hub.address), Path(settings.pop("HF_HOME", tmp_path))
        own = Probe(endpoint, home, **settings)
        answer = own.ask(model="owner/good")
        own.close()
    assert re.search(reason, answer["refusal"]), answer
    assert "secret" not in answer["refusal"] and len(without_paths(answer["refusal"])) <= 300


DATA_REASONS = {
    "owner/no-such": r"there is no such data set on the hub; if it is private, set HF_TOKEN",
    "stanfordnlp/imbd": r"did you mean stanfordnlp/imdb\?",
    "owner/gated-data": r"accepted its licence; do that at http://\S+/datasets/owner/gated-data, then set HF_TOKEN",
    "owner/private-data": r"no such data set on the hub; if it is private, set HF_TOKEN",
    "owner/down-data": r"out of order \(503\); try again later, or give --data FILE",
    "owner/hotel-data": r"is not the hub, but perhaps a proxy or a login page",
    "owner/configs": r"its configurations are easy, hard; choose one with --dataset-config",
    "owner/chat": r"could all be train: train_gen, train_sft; choose, .*--split train=train_gen test=test_gen",
    "owner/only-test": r"has no train split, but test; choose with --split train=NAME",
    "owner/script": r"is made by a script of its own, which is no longer run",
    "owner/pictures": r"hold no rows of text",
    "owner/another-class": r"train.csv: column 'label' .* such as 2, in 2 of 4 rows; its classes are calm, angry;",
    "owner/another-class-in-json": r"train.jsonl: column 'label' .* such as -2, in 1 of 3 rows; its classes are calm",
    "owner/another-class-in-parquet": r"train.parquet: .*column 'label' holds class 2, but only 2 have a name",
    "owner/not-on-card": r"has a.csv, but not where its card .* download it from http://\S+, and give its folder",
    "owner/capitals": r"has TRAIN.CSV, but not where .* the library looks for data; download it from",
    "owner/no-yaml": r"in its README.md are no valid YAML \(.*download it from http://\S+, and give its folder",
    "owner/zst": r"compressed in a way that is not read .*zst.*; unpack it: download it from",
    "owner/damaged": r"train.jsonl: .*line 2.*the file is at http://\S+/owner/damaged\)",
    "owner/empty-file": r"train.jsonl: the file is empty",
    "owner/parts-in-a-file": r"train.json: holds several parts itself; download it, and give this file alone as --data",
    "owner/two-formats": r"are files of different formats; download it from http://\S+, and give its folder as --data",
    "owner/unlike": r"train/b.jsonl: column 'label', 'more', 'other' and 1 more is not in all files of train",
    "imbd": r"\(imdb\?\); for data of the hub give owner/name",
}


@pytest.mark.parametrize("name", DATA_REASONS)
def test_each_reason_why_the_hub_gives_no_rows_has_a_message_of_its_own(name, probe):
    text = probe.refusal(data=name)
    assert re.search(DATA_REASONS[name], text), text
    assert len(without_paths(text)) <= 300 and "secret" not in text and "\n" not in text


def test_the_four_data_sets_are_read_as_they_are_published_and_a_split_without_a_use_is_not_downloaded(hub, probe):
    mails = probe.ask(data="enron")["parts"]
    assert mails["train"][0]["date"] == "2001-05-14"
    assert {name: len(part) for name, part in mails.items()} == {"train": 160, "test": 40}
    assert [row["label_text"] for row in mails["test"][:2]] == ["spam", "ham"]
    before, reviews = len(hub.requests), probe.ask(data="imdb")
    assert [row["label"] for row in reviews["parts"]["train"][:3]] == ["neg", "pos", "neg"]
    assert reviews["notes"] == ["stanfordnlp/imdb: not used: unsupervised (--split PART=NAME takes them)"]
    asked = [request for request in hub.requests[before:] if "/resolve/" in request and ".parquet" in request]
    assert asked and not [request for request in asked if "unsupervised" in request]
    pairs = probe.ask(data="nli_med")["parts"]
    assert {name: len(part) for name, part in pairs.items()} == {"train": 160, "validation": 40}
    assert pairs["train"][1] == {
        "sentence1": "Patient 1 has a fever.",
        "sentence2": "Patient 1 is neutral.",
        "gold_label": "neutral",
    }
    records = probe.ask(data="alpaca")
    assert records["origin"] == "hub tatsu-lab/alpaca" and len(records["parts"]["train"]) == 200
    assert records["parts"]["train"][1]["input"] == "slowly"


def test_cells_of_text_files_stay_text_and_numbers_of_classes_become_names(probe):
    found = probe.ask(data="owner/csv")["parts"]["train"]
    assert found == [
        {"text": "null", "label": "007", "mood": "calm"},
        {"text": "2001-05-14", "label": "07", "mood": "angry"},
        {"text": "NA", "label": "7", "mood": None},
    ]


def test_files_that_only_the_library_reads_are_read_by_it(probe):
    found = probe.ask(data="owner/lines")
    assert found["parts"]["train"] == [{"text": "one"}, {"text": "two"}]
    found = probe.ask(data="owner/own-separator")
    assert found["parts"]["train"] == [{"text": "a,b", "label": "yes"}, {"text": "c", "label": "no"}]


LEFT_OUT = {
    "owner/one-more": "extra.csv",
    "owner/other-folder": "data/other/b.jsonl",
    "owner/other-format": "a.csv",
    "owner/other-format-of-lines": "more.csv",
    "owner/configs-with-default": "hard.jsonl",
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_data_files_of_a_repository_that_are_in_no_split_are_named(name, probe):
    assert probe.ask(data=name)["notes"] == [
        f"{name}: in no split, and not read: {LEFT_OUT[name]} (--data reads a folder of them)"
    ]


def test_of_a_chosen_configuration_the_files_of_others_are_not_missed_but_those_of_none_are(probe):
    assert probe.ask(data="owner/configs-with-default", flags={"dataset_config": "easy"})["notes"] == []
    (note,) = probe.ask(data="owner/configs-and-more", flags={"dataset_config": "easy"})["notes"]
    assert "not read: new.jsonl (" in note


def test_configuration_and_splits_are_chosen_by_name(probe):
    assert len(probe.ask(data="owner/configs", flags={"dataset_config": "hard"})["parts"]["train"]) == 10
    assert len(probe.ask(data="owner/configs", flags={"dataset_config": "easy"})["parts"]["train"]) == 40
    chosen = probe.ask(data="owner/chat", flags={"split": ["train=train_sft", "test=test_sft"]})
    assert {part: rows[0]["text"] for part, rows in chosen["parts"].items()} == {
        "train": "train_sft",
        "test": "test_sft",
    }
    assert chosen["notes"] == ["owner/chat: not used: test_gen, train_gen (--split PART=NAME takes them)"]
    alone = probe.ask(data="owner/chat", flags={"split": ["train_gen"]})["parts"]
    assert {part: rows[0]["text"] for part, rows in alone.items()} == {"train": "train_gen"}
    sliced = probe.ask(data="owner/only-test", flags={"split": ["test[:75%]", "validation=test[75%:]"]})["parts"]
    assert {part: len(rows) for part, rows in sliced.items()} == {"train": 30, "validation": 10}


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        (
            "owner/chat",
            {"split": ["train=train_stf"]},
            "--split train=train_stf: owner/chat has no split 'train_stf', but",
        ),
        ("owner/chat", {"split": ["dev=test_sft"]}, "--split dev=test_sft: dev is not one of train, validation, test"),
        ("owner/chat", {"split": ["test=test_sft"]}, "names nothing to train on; add train=SPLIT"),
        ("owner/only-test", {"split": ["test[:x%]"]}, "'test[:x%]' is neither a split nor a slice of one"),
        ("owner/configs", {"dataset_config": "medium"}, "its configurations are easy, hard"),
        ("spamassassin", {"split": ["train"]}, "--split train: chooses from a data set of the hub, but bundled"),
        ("sick", {"dataset_config": "a"}, "not on the hub|chooses from a data set of the hub"),
    ],
)
def test_a_choice_that_is_not_there_is_refused(name, flags, message, probe):
    text = probe.refusal(data=name, flags=flags)
    assert re.search(message, text) or message in text, text
    assert len(without_paths(text)) <= 300


def test_classes_have_their_names_and_a_row_without_one_has_none(probe):
    found = probe.ask(data="owner/classes")
    assert [row["label"] for row in found["parts"]["train"]] == ["calm", "angry", "angry"]
    assert [row["label"] for row in found["parts"]["test"]] == [None, None]
    assert found["notes"] == ["owner/classes, test: column 'label' has no class in 2 of 2 rows"]


@pytest.mark.parametrize("name", ["digits", "digits-on-card", "digits-as-text", "digits-in-json"])
def test_classes_whose_names_are_numbers_are_no_numbers_of_others(name, probe):
    found = probe.ask(data=f"owner/{name}")
    assert [row["label"] for row in found["parts"]["train"]] == ["-1", "0", "1"] and not found["notes"]


def test_each_file_has_its_own_names_of_classes(probe):
    found = probe.ask(data="owner/digits-of-two-files")
    assert [row["label"] for row in found["parts"]["train"]] == ["1", "2", "3", None, "b"]
    assert found["notes"] == ["owner/digits-of-two-files, train: column 'label' has no class in 1 of 5 rows"]


def test_without_a_hub_what_is_cached_is_used_at_once_and_that_is_said(tmp_path):
    with serving(published() | {"owner/good": gpt2(width=16, blocks=1)}) as hub:
        probe = Probe(hub.address, tmp_path)
        before = [probe.ask(data=name)["parts"] for name in ("enron", "imdb", "nli_med", "alpaca")]
        probe.ask(model="owner/good")
    after = [probe.ask(data=name) for name in ("enron", "imdb", "nli_med", "alpaca")]
    model = probe.ask(model="owner/good")
    probe.close()
    assert [found["parts"] for found in after] == before
    assert f"SetFit/enron_spam is used from the cache: {hub.address} cannot be reached" in after[0]["notes"]
    assert f"note    owner/good is used from the cache: {hub.address} cannot be reached\n" in model["said"]
    assert "model.safetensors" in model["files"]


def test_a_hub_that_is_down_leaves_what_is_cached_in_use(hub, probe):
    assert "refusal" not in probe.ask(model="owner/good")
    hub.repositories["owner/good"].status = 500
    said = probe.ask(model="owner/good")["said"]
    hub.repositories["owner/good"].status = None
    assert "owner/good is used from the cache" in said and "too busy or out of order" in said


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_told_from_a_hub_that_fails(wrapped):
    """A disk cannot be filled in a test, so the error is made here: as the system raises it, and around a cut one."""
    full = OSError(errno.ENOSPC, "No space left on device")
    full.__cause__ = httpx2.RemoteProtocolError("the server disconnected") if wrapped else None
    reason = explain(full, Asked("--model", "gpt2", "model"))
    assert re.fullmatch(r"no room on the disk of \S+; make room, or set HF_HOME to a folder that has it", reason.text)
    assert not reason.unreachable


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """This process, which asks no hub, with an empty cache."""
    assert constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_client.HubClient, "given_up", {})


def test_what_is_neither_cached_nor_to_be_asked_for_is_refused(offline):
    message = (
        "^--model owner/good: there is no folder of that name here, and a model of that name on the hub "
        "is not cached, and HF_HUB_OFFLINE is set; unset it, or give --model FOLDER"
    )
    with pytest.raises(ValueError, match=message):
        hub_probe.model("owner/good")


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_of_the_variables_that_switch_the_hub_off_the_one_that_is_set_is_named(name, hub, tmp_path):
    unset = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "")
    probe = Probe(hub.address, tmp_path, **unset | {name: "1"})
    assert f"and {name} is set; unset it" in probe.refusal(data="owner/configs")
    if name != "HF_DATASETS_OFFLINE":
        assert f"and {name} is set; unset it" in probe.refusal(model="owner/good")
    probe.close()


@pytest.mark.parametrize("cached", ["gpt2", "openai-community/gpt2"])
def test_a_cache_that_others_filled_is_used_without_the_hub(cached, offline, tmp_path):
    """transformers caches gpt2 under that name, and leaves no word of files that it did not want."""
    commit = "0" * 40
    folder = tmp_path / "hub" / f"models--{cached.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for path, text in ((folder / "refs" / "main", commit), (snapshot / "config.json", json.dumps({"n_embd": 768}))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("pytorch_model.bin", "vocab.json", "merges.txt"):
        (snapshot / name).write_bytes(b"")
    files = ["config.json", "merges.txt", "pytorch_model.bin", "vocab.json"]
    assert hub_probe.model("gpt2") == {"files": files, "width": 768}
