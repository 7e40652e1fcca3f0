"""Every command that is written down anywhere is one that the scripts understand."""

import re
import shlex
from dataclasses import fields

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from helpers import ROOT

from training.flags import scripts
from training.flags.cli import problems_between, problems_in
from training.flags.command_line import parse


def load_script(name):
    return scripts.load_script(ROOT / "scripts" / f"{name}.py")


NANO = ROOT / "gpt2_scratch" / "assets" / "gpt2-nano" / "README.md"
PLACES = [ROOT / "README.md", NANO, ROOT / "Makefile", *sorted((ROOT / "scripts").glob("*.py"))]
DOCS = sorted((ROOT / "docs").glob("*.md"))


def written_commands():
    """(place, script, flags) of every line that calls a script, continued lines joined."""
    for place in [*PLACES, *DOCS, ROOT / "reproduce" / "README.md"]:
        text = place.read_text().replace("\\\n", " ")
        for script, flags in re.findall(r"(?:python|launch)\b[^\n`|]*?\bscripts/(\w+)\.py([^\n`|#]*)", text):
            yield place.name, script, flags.split("$(")[0].rstrip(' "')


COMMANDS = list(written_commands())


def test_commands_were_found_in_the_readme_and_in_every_script():
    assert {place for place, _, _ in COMMANDS} >= {place.name for place in PLACES}
    assert len(COMMANDS) > 60


ABSENT = re.compile("no such (file or )?folder$|pip install")  # what a reader has and we may not


@pytest.mark.parametrize(("place", "script", "flags"), COMMANDS, ids=lambda x: x)
def test_a_written_command_is_understood_and_its_flags_do_not_contradict_each_other(place, script, flags):
    words = shlex.split(re.sub(r"--config \S+", "...", flags))
    args = parse(load_script(script).Args, [word for word in words if word != "..."])
    groups = {field.name: getattr(args, field.name) for field in fields(args)}
    problems = problems_in(args) + problems_between(**groups)  # the former leaves these out where a file is absent
    if "..." in words:  # stands for other flags, of which one names the data
        problems = [problem for problem in problems if not problem.startswith("--dataset or --data: one of them")]
    assert not [problem for problem in problems if not ABSENT.search(problem)]


def test_the_defaults_of_the_docs_are_those_of_the_scripts():
    table = (ROOT / "docs" / "methods.md").read_text().split("## Defaults")[1].split("\n## ")[0]
    found, script = {}, ""
    for row in re.findall(r"^\| (finetune_\w+)? ?\| ([a-z, ]+) \| (.*?), (\d+) epochs \|", table, re.M):
        script = row[0] or script
        for method, rate in zip(row[1].split(", "), row[2].split(" and "), strict=True):
            found.setdefault(script, {})[method] = (float(rate), float(row[3]))
    assert set(found) == {"finetune_cls", "finetune_ift", "finetune_dpo", "finetune_kto"}
    for script, rates in found.items():
        defaults = load_script(script).DEFAULTS
        assert rates == {method: defaults[method] for method in ("lora", "full", "bitfit", "head")}, script


def test_every_picture_of_the_pages_is_there():
    for page in (ROOT / "README.md", *DOCS):
        pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())
        assert all((page.parent / picture).is_file() for picture in pictures)
        assert pictures or page.name != "README.md"


CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))


def test_there_is_a_configuration_for_each_kind_of_hardware():
    assert {path.stem for path in CONFIGS} == {"cpu", "gpu_bf16", "gpu_fp16", "ddp", "fsdp2", "multi_node"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_a_configuration_and_knows_every_key(path):
    config = load_config_from_file(str(path))
    content = yaml.safe_load(path.read_text())
    assert content and all(hasattr(config, key) for key in content)
    assert 5 <= len(path.read_text().splitlines()) <= 15
    assert path.read_text().startswith("# ")


def test_the_tests_that_the_docs_name_exist():
    named = [found for place in DOCS for found in re.findall(r"`(test_\w+\.py)::(test_\w+)`", place.read_text())]
    assert len(named) > 80
    for file, test in named:
        (path,) = (ROOT / "tests").rglob(file)
        assert f"\ndef {test}(" in path.read_text(), f"{file}::{test}"
