"""README and docs/: links lead somewhere, messages are those that the scripts print, examples work as they stand."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers import ROOT
from test_commands import load_script

from evidence import kinds
from gpt2_scratch import config
from lora.adapter import Spec
from training.flags.config_file import read_config
from training.run.launch import check_launched
from training.run.printed import only_answer, outcome_notes
from training.run.results import Results

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "reproduce" / "README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.M)


def links_of(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    return [found[0] or found[1] for found in LINK.findall(text)]


def anchors_of(page):
    """The anchor of each heading, as GitHub makes it, and those that stand above headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    above = set(re.findall(r'^<a id="(\w+)"></a>$', text, re.M))
    return above | {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading_of_it(page):
    for link in links_of(page):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors_of(target), link


def test_the_default_rates_at_the_widths_of_gpt2_are_those_of_the_scripts():
    rows = re.findall(r"^\| (finetune_\w+), (LoRA|full) \| (.*) \|$", (ROOT / "docs/methods.md").read_text(), re.M)
    assert len(rows) == 8
    widths = [config.SIZES[name].width for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")]
    for script, method, cells in rows:
        shown = [float(word) for word in re.findall(r"[\d.]+e-\d", cells)]
        rate, _ = load_script(script).DEFAULTS[method.lower()]
        assert shown == pytest.approx([rate * 192 / width for width in widths], rel=0.05), script


def test_every_page_can_be_reached_from_readme_which_is_at_most_150_lines():
    readme = ROOT / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 150
    reached, left = set(), [readme]
    while left:
        page = left.pop()
        reached.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links_of(page) if "://" not in link}
        left += [one for one in targets if one.suffix == ".md" and one not in reached]
    assert {*PAGES} <= reached


OURS = re.compile(
    r"`((?:accelerate_configs|evidence|gpt2_scratch|lora|reproduce|scripts|tasks|tests|training)/[\w/.-]*)`"
)


def test_the_files_of_the_project_that_the_pages_name_are_there():
    named = {(page.name, name) for page in PAGES for name in OURS.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 40
    assert not [one for one in named if not (ROOT / one[1]).exists()]


def test_the_file_of_flags_of_the_docs_is_one(tmp_path):
    (lines,) = re.findall(r"^    # (tutor\.yaml)\n((?:    .*\n)+)", (ROOT / "docs" / "methods.md").read_text(), re.M)
    (tmp_path / lines[0]).write_text(lines[1].replace("\n    ", "\n").strip())
    words = read_config(tmp_path / lines[0], load_script("finetune_ift").Args, "--config")
    assert words == ["--dataset=instructions", "--model=gpt2-nano", "--lora-rank=8"]


def test_the_keys_of_results_are_those_of_the_schema_in_its_order():
    table = (ROOT / "docs" / "runs.md").read_text().split("## results.json")[1]
    keys = [key for row in re.findall(r"^\| (`.*?) \|", table, re.M) for key in re.findall(r"`(\w+)`", row)]
    assert keys == [*json.loads((ROOT / "docs" / "results.schema.json").read_text())["properties"]]


PYTHON = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "contributing.md").read_text(), re.S)


def test_an_example_is_one_that_a_test_adds():
    """The dataset and the metric of contributing.md stand in the tests that add them."""
    tests = ("tasks/test_tasks.py", "training/evaluation/test_added_metric.py")
    for start, file in zip(('"""Weather or not', "Metric("), tests, strict=True):
        (code,) = [one for one in PYTHON if one.startswith(start)]
        assert code.strip() in (ROOT / "tests" / file).read_text().replace("metrics.Metric(", "Metric("), file


def test_the_variant_of_contributing_is_a_variant():
    (code,) = [one for one in PYTHON if "ADAPTER" in one]
    known = {}
    exec(code, known)
    torch.manual_seed(0)
    linear = torch.nn.Linear(6, 4)
    adapter, x = known["ADAPTER"](linear, Spec(2)), torch.randn(3, 6)
    assert torch.equal(adapter(x), linear(x))
    assert [name for name, p in adapter.named_parameters() if p.requires_grad] == ["low_rank.B"]


def test_the_size_and_the_kind_of_column_of_contributing_are_entries_of_their_tables():
    for start, table, module in (('"gpt2-pico"', "SIZES", config), ('"tokens-per-second"', "NAMED", kinds)):
        (code,) = [one for one in PYTHON if one.startswith(start)]
        (entry,) = eval("{" + code + "}", vars(module)).values()
        assert {type(entry)} == {type(one) for one in vars(module)[table].values()}


def said_in_troubleshooting(mark):
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(rf"^    {mark}(.*)$", text, re.M)


MESSAGES = said_in_troubleshooting("error: ")
DATA = ["--data", "mine.csv", "--text-column", "body", "--label-column", "topic"]
NANO = ["--model", "gpt2-nano"]
# What leads to each message of the page, in its order.
CAUSES = [
    ("finetune_cls", [], {}),
    ("finetune_cls", ["--data", "missing.csv", *NANO], {}),
    ("finetune_cls", ["--data", "mine.csv", *NANO], {}),
    ("finetune_cls", ["--data", "latin.csv", *DATA[2:], *NANO], {}),
    ("finetune_cls", ["--data", "ragged.csv", *DATA[2:], *NANO], {}),
    ("finetune_cls", ["--data", "single.csv", *DATA[2:], *NANO], {}),
    ("finetune_cls", ["--data", "scores.csv", *DATA[2:4], "--label-column", "score", *NANO], {}),
    ("finetune_cls", [*DATA, *NANO, "--labels", "dry", "rainy"], {}),
    ("finetune_ift", ["--dataset", "instructions", *NANO, "--max-length", "20"], {}),
    ("finetune_cls", DATA, {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}),
    ("finetune_cls", [*DATA, "--model", "gpt5"], {}),
    ("finetune_cls", [*DATA, *NANO, "--push-to-hub", "me/x"], {}),
    ("finetune_cls", [*DATA, *NANO, "--lora-rnk", "4"], {}),
    ("finetune_cls", [*DATA, *NANO, "--lora-rank", "300"], {}),
    ("finetune_cls", [*DATA, *NANO, "--max-length", "2000"], {}),
    ("finetune_cls", [*DATA, *NANO, "--cache-frozen", "memory"], {}),
    ("finetune_ift", ["--dataset", "instructions", *NANO, "--method", "head"], {}),
    ("finetune_cls", [*DATA, *NANO, "--report-to", "wandb"], {}),
    ("finetune_cls", [*DATA, *NANO, "--mixed-precision", "fp16"], {}),
    ("finetune_cls", [*DATA, *NANO], {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_CPU": "False"}),
    (None, [], {"WORLD_SIZE": "2"}),
    ("finetune_cls", [*DATA, *NANO], {"ACCELERATE_USE_DEEPSPEED": "true"}),
    ("finetune_cls", [*DATA, "--model", "tiny", "--lr", "1e9", "--max-steps", "30", "--forgetting-data", "none"], {}),
    ("finetune_cls", [*DATA, *NANO, "--output-dir", "runs/done"], {}),
    ("finetune_cls", [*DATA, *NANO, "--output-dir", "runs/stopped"], {}),
    ("finetune_cls", ["--resume", "--output-dir", "runs/stopped", "--lora-rank", "8"], {}),
    ("predict", ["--run", "runs/stopped", "--data", "mine.csv"], {}),
]


def test_the_page_has_at_least_twenty_messages_each_with_its_cause():
    assert len(MESSAGES) == len(CAUSES) >= 20


@pytest.fixture(scope="module")
def here(tmp_path_factory, tiny_model):
    """A folder as that of a user of the page, with files that are wrong in one way each, and two runs."""
    folder = tmp_path_factory.mktemp("here")
    good = "".join(f"number {i} {('sun', 'rain')[i % 2]},{('dry', 'wet')[i % 2]}\n" for i in range(40))
    files = {
        "mine.csv": f"body,topic\n{good}".encode(),
        "latin.csv": "body,topic\ncafé,wet\nthé,dry\n".encode("latin-1"),
        "ragged.csv": b"body,topic\na,wet\nb\nc,dry\n",
        "single.csv": b"body,topic\na,wet\nb,wet\nc,wet\n",
        "scores.csv": ("body,score\n" + "".join(f"text {i},{i / 7:.3f}\n" for i in range(60))).encode(),
        "runs/done/results.json": b"{}",
        "runs/stopped/checkpoint/state.pt": b"",
        "runs/stopped/config.yaml": b"data: mine.csv\ntext-column: [body]\nlabel-column: topic\nmodel: gpt2-nano\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "tiny").symlink_to(tiny_model)
    return folder


@pytest.mark.parametrize(("message", "cause"), [*zip(MESSAGES, CAUSES, strict=True)], ids=lambda x: str(x)[:40])
def test_a_message_of_the_page_is_the_one_that_is_printed(message, cause, here, monkeypatch, run_here):
    script, flags, env = cause
    if "wandb" in flags and find_spec("wandb"):
        pytest.skip("wandb is installed")
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator() if script is None else None
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(here)
    if accelerator is not None:
        with pytest.raises(ValueError) as refused:
            check_launched(accelerator)
        said = f"error: {refused.value}"
    elif "HF_ENDPOINT" in env:  # it is read when libraries are imported
        words = [sys.executable, ROOT / "scripts" / f"{script}.py", *flags]
        settings = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, capture_output=True, text=True, env=settings, check=False)
        status, said = done.returncode, done.stderr
        assert status == 2
    else:
        status, _, said = run_here(load_script(script), *flags)
        assert status == 2, said
    AcceleratorState._reset_state(reset_partial_state=True)
    assert said.strip().splitlines()[-1 if "diverged" in message else 0] == f"error: {message}"


def test_the_notes_of_the_page_are_those_of_a_run():
    answer, falls = said_in_troubleshooting("note    ")
    matrix = {"confusion_matrix": [[23, 0], [17, 0]]}
    losses = [1.459, 1.441, 1.467, 1.337, 1.121, 0.934, 0.79, 0.706, 0.668, 0.66]
    curve = [{"step": i, "val_loss": loss} for i, loss in enumerate(losses)]
    facts = type("Facts", (), {"labels": ["ham", "spam"]})
    assert only_answer(matrix, ["ham", "spam"]) == "ham"
    known = {"model": {}, "parameters": {}, "seconds": {}, "args": {}, "environment": {}}
    known |= {"best_step": 1, "peak_memory_mib": 1.0, "curve": curve}
    results = Results(script="finetune_cls", data=facts, test=matrix, **known)
    assert outcome_notes(results) == [answer]
    assert outcome_notes(replace(results, test={})) == [falls]
