"""--help is short, --help-all is whole, and what is said of a flag is said in one place."""

import re
import shutil
import sys
from dataclasses import dataclass
from typing import Literal

import pytest
from helpers import ROOT, results_of, run_in_process, run_script
from test_commands import load_script

from training.flags.command_line import parse
from training.flags.config_file import completed
from training.flags.fields import AS_PUBLISHED, RARE, Rare, changed_flags, flags_of, resolved
from training.flags.help import PUBLISHED, help_text, text_of

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


def shown(script, everything, width=80):
    module = load_script(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        return help_text(module.Args, module.__doc__, everything)


def entries(text):
    """The flags that have a paragraph of their own."""
    return re.findall(r"^  --(?:no-)?([a-z0-9-]+)", text, re.M)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_help_of_a_script_is_less_than_100_lines(script, width):
    assert len(shown(script, everything=False, width=width).splitlines()) < 100


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_all_has_every_flag_once_and_help_those_that_are_not_marked(script):
    flags = flags_of(load_script(script).Args)
    general = {"help", "config"}
    names = {name.removeprefix("no-") if name not in flags else name for name in entries(shown(script, True))}
    assert names == {*flags} | general and len(entries(shown(script, True))) == len(names)
    plain = {name for name, flag in flags.items() if not {RARE, AS_PUBLISHED} & {*flag.notes}}
    assert {*entries(shown(script, False))} == plain | general


@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift", "finetune_dpo", "finetune_kto"])
def test_what_repeats_the_published_runs_is_one_group_at_the_end(script):
    flags = flags_of(load_script(script).Args)
    published = {name for name, flag in flags.items() if AS_PUBLISHED in flag.notes}
    assert {"clip-after-warmup", "untie-head", "decay-all", "drop-last", "eval-batches"} <= published
    before, last = shown(script, True).split(PUBLISHED)
    assert {*entries(last)} == published and not {*entries(before)} & published


@pytest.mark.parametrize(("script", "own"), [("finetune_cls", "label-column"), ("finetune_dpo", "beta")])
def test_the_flags_of_one_script_alone_follow_those_of_its_data(script, own):
    names = entries(shown(script, False))
    assert names.index("data") < names.index(own) < names.index("model") < names.index("output-dir")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_help_all_are_what_the_script_prints(script):
    """They begin with the text above the script, of which they explain every flag."""
    short, whole = run_script(script, "--help", COLUMNS="80"), run_in_process(script, "--help-all", COLUMNS="80")
    assert (short.returncode, whole.returncode) == (0, 0)
    assert short.stdout == shown(script, False) + "\n" and whole.stdout == shown(script, True) + "\n"
    text = load_script(script).__doc__
    assert short.stdout.startswith(text.strip())
    documented = re.findall(r"--([a-z][a-z0-9-]+)", text)
    assert documented and {*documented} <= {*entries(short.stdout.removeprefix(text.strip()))}


def test_the_help_of_a_study_has_its_own_shares_and_says_what_it_sets_itself():
    text = " ".join(shown("study", True).split())
    assert "a quarter below 1,000 rows" in text and "None: four fifths" in text and "None: all" not in text
    flags, texts = flags_of(load_script("study").Args), []
    for name in ("draw-seed", "train-on", "subset"):
        texts.append(text_of(flags[name], whole=True).split(" (")[0])
    assert texts == ["the study sets it itself"] * 3


def test_the_help_of_what_is_on_stands_beside_both_of_its_forms():
    text = shown("finetune_ift", True)
    assert re.search(r"--mask-prompt, --no-mask-prompt\s+train on the response only; off: .*\(on\)", text, re.S)
    assert (
        "error: --dataset no-such: this script knows"
        in run_in_process("finetune_ift", "--mask-prompt", "--dataset", "no-such").stderr
    )


@dataclass(frozen=True)
class Colours:
    """What is painted"""

    colour: Literal["red", "green"] = "red"
    """colour of the wall. It dries in an hour"""
    coats: Rare[int] = 2
    """layers of paint"""


@dataclass(frozen=True)
class Painting:
    colours: Colours


def test_a_flag_is_one_field_for_help_command_line_file_and_results(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["paint.py"])
    short, whole = (help_text(Painting, "Paints.", everything) for everything in (False, True))
    assert "What is painted\n  --colour {red,green}    colour of the wall (red)\n" in short
    assert "colour of the wall. It dries in an hour (red)" in whole
    assert "--coats" not in short and "  --coats INT             layers of paint (2)" in whole
    assert parse(Painting, ["--colour", "green"]) == Painting(Colours("green"))
    (tmp_path / "paint.yaml").write_text("coats: 3")
    args = parse(Painting, completed(Painting, ["--config", str(tmp_path / "paint.yaml"), "--colour", "green"]))
    assert resolved(args) == {"colour": "green", "coats": 3} == changed_flags(args)


MINE = """
from lora.variants.lora import LoRA

TITLE = "Mine"
HELP = "is LoRA under another name"
COST = "7% more patience"
RATE = 0.5


class Mine(LoRA):
    pass


ADAPTER = Mine
"""


def test_a_variant_is_one_file_with_its_help_cost_defaults_and_run(tmp_path, tiny_model, mail_file):
    shutil.copytree(ROOT / "lora", tmp_path / "lora")
    (tmp_path / "lora" / "variants" / "my_own.py").write_text(MINE)
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    helped = " ".join(run_script("finetune_cls", "--help-all", **env).stdout.split())
    assert "my-own: is LoRA under another name" in helped and "my-own: 7% more patience" in helped
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 2, "--method", "my-own"]
    done = run_script("finetune_cls", *flags, "--output-dir", tmp_path / "runs" / "my-own", **env)
    assert done.returncode == 0, done.stderr
    args = results_of(tmp_path / "runs" / "my-own")["args"]
    of_lora, _ = load_script("finetune_cls").DEFAULTS["lora"]
    assert (args["method"], args["lr"]) == ("my-own", 0.5 * of_lora * 192 / 16)  # the width of the model is 16
    done = run_script("predict", "--run", tmp_path / "runs" / "my-own", "--data", mail_file, "--overwrite", **env)
    assert done.returncode == 0, done.stderr
