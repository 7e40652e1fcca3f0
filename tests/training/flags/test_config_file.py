"""--config FILE: what a file may say, what it is refused for, and that a run's own file gives the run again."""

import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from helpers import ROOT, results_of, run_in_process
from test_commands import load_script

from training.flags.command_line import parse
from training.flags.config_file import completed, read_config, write_config
from training.flags.fields import flags_of, given_flags, resolved
from training.storage.run_folder import FREE_FLAGS

CLS = load_script("finetune_cls").Args


@pytest.fixture(autouse=True)
def _as_the_script(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["finetune_cls.py"])


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def flags_in(tmp_path, text, *words, arguments=CLS):
    return resolved(parse(arguments, completed(arguments, ["--config", str(written(tmp_path, text)), *words])))


def test_values_mean_what_they_mean_on_the_command_line(tmp_path):
    text = """
dataset: imdb
lora_rank: 7
lr: 1e-3
max-grad-norm: null
warmup-steps: ~
mixed-precision: no
labels: [no, yes, 007, null-ish]
text-column: body
lora-targets: [q, v]
overwrite: true
"""
    found = flags_in(tmp_path, text)
    expected = {"dataset": "imdb", "lora_rank": 7, "lr": 1e-3, "max_grad_norm": None, "warmup_steps": None}
    expected |= {"mixed_precision": "no", "labels": ["no", "yes", "007", "null-ish"], "text_column": ["body"]}
    expected |= {"lora_targets": ["q", "v"], "overwrite": True}
    assert {name: found[name] for name in expected} == expected


def test_a_switch_that_is_on_by_default_is_switched_off(tmp_path):
    arguments = load_script("finetune_ift").Args
    assert flags_in(tmp_path, "mask-prompt: false\ndataset: x", arguments=arguments)["mask_prompt"] is False
    assert flags_in(tmp_path, "mask-prompt: true\ndataset: x", arguments=arguments)["mask_prompt"] is True


def test_the_command_line_wins_wherever_it_stands(tmp_path):
    path = written(tmp_path, "dataset: imdb\nlora-rank: 7\noverwrite: true\nlabels: [a, b]")
    for words in (["--lora-rank", "3", f"--config={path}"], ["--config", str(path), "--lora_rank=3"]):
        found = resolved(parse(CLS, completed(CLS, [*words, "--no-overwrite", "--labels", "c"])))
        assert (found["lora_rank"], found["overwrite"], found["labels"]) == (3, False, ["c"])
        assert found["dataset"] == "imdb"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning-rate: 1", "--learning-rate: no such flag; did you mean --lr?"),
        ("colour: red", "--colour: no such flag"),
        ("lr: fast", "--lr fast: must be a number or None"),
        ("lora-rank: 2.5", "--lora-rank 2.5: must be a whole number"),
        ("lora-rank: null", "--lora-rank: has no value; give it one value, or leave it out"),
        ("labels: null", "--labels: has no value; give it texts, or leave it out"),
        ("lr: [1, 2]", "--lr: has several values; give it one value"),
        ("lr: {peak: 1}", "--lr: has flags of its own"),
        ("labels: [a, [b]]", "--labels: has several values; give it texts"),
        ("method: lara", "--method lara: must be one of"),
        ("overwrite: maybe", "--overwrite maybe: must be true or false"),
        ("output-dir: ''", "--output-dir: is empty"),
        ("config: other.yaml", "--config: no such flag"),
        ("- lr", "holds no flags; write a flag a line"),
        ("lr: [", "is not YAML (line 1)"),
        ("", "holds no flags"),
        ("compute_environment: LOCAL_MACHINE\nmixed_precision: bf16", "accelerate launch --config_file FILE"),
        ("script: finetune_ift\nlr: 1", "holds a run of finetune_ift.py"),
        ("seed: 1\nlr: 1\nseed: 2", "has seed twice"),
        ("lora_rank: 4\nlora-rank: 8", "has lora-rank twice"),
    ],
)
def test_what_a_file_says_wrong_is_refused_by_file_and_flag(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError) as refused:
        completed(CLS, ["--config", str(path)])
    said = str(refused.value)
    assert said.startswith(f"--config {path}: ") and message in said
    assert len(said) - len(str(tmp_path)) <= 250


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config"], "--config: needs a YAML file of flags"),
        (["--config", "absent.yaml"], "--config absent.yaml: No such file or directory"),
        (["--config_file", "accelerate_configs/cpu.yaml"], "accelerate launch --config_file FILE scripts/"),
        (["--config", "accelerate_configs/cpu.yaml"], "accelerate launch --config_file FILE scripts/"),
    ],
)
def test_a_file_that_is_not_there_or_is_accelerates_is_refused_with_the_remedy(words, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = run_in_process("finetune_cls", *words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_needed_flags_may_be_in_the_file_or_typed(tmp_path):
    arguments = load_script("predict").Args
    path = str(written(tmp_path, "run: runs/x"))
    assert "data" in completed(arguments, ["--config", path, "--data", "x.csv"])[-2]
    with pytest.raises(ValueError, match="--data: needed"):
        parse(arguments, completed(arguments, ["--config", path]))


def other_value(flag):
    """A value of the flag's type that is not its default."""
    kind = next(kind for kind in flag.types if kind is not NoneType)
    if kind is bool:
        return not flag.default
    if get_origin(kind) is Literal:
        values = [choice for choice in get_args(kind) if choice != flag.default][:2]
    elif kind in (int, float):
        values = [flag.default + 1 if isinstance(flag.default, (int, float)) else kind(3), kind(5)]
    else:
        values = [kind("a: b"), kind("null")]
    return tuple(values) if flag.several else values[0]


def with_other_values(arguments):
    """The flags of a script, none of them at its default."""
    flags, kinds, given = flags_of(arguments), get_type_hints(arguments), {}
    for field in fields(arguments):
        kind = kinds[field.name]
        flag = flags.get(field.name.replace("_", "-"))
        given[field.name] = with_other_values(kind) if is_dataclass(kind) else other_value(flag)
    return arguments(**given)


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "scripts").glob("*.py")))
def test_every_flag_of_every_script_goes_through_a_file_and_comes_back(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{script}.py"])
    arguments = load_script(script).Args
    flags = {name.replace("-", "_"): flag for name, flag in flags_of(arguments).items()}
    before = resolved(with_other_values(arguments))
    assert before.keys() == flags.keys() and all(before[name] != flag.default for name, flag in flags.items())
    write_config(tmp_path / "config.yaml", before)
    after = resolved(parse(arguments, read_config(tmp_path / "config.yaml", arguments, "--config")))
    # Where and how a run is started stays out of the file.
    left_out = {"output_dir", "overwrite", "resume", "dry_run", "score"}
    assert {name: after[name] for name in after if name not in left_out} == {
        name: before[name] for name in before if name not in left_out
    }
    for name in left_out & after.keys():
        default = flags[name].default
        assert after[name] == (str(default) if isinstance(default, Path) else default), name


def test_a_flag_at_its_default_in_the_file_of_a_run_was_not_given(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["finetune_cls.py"])
    arguments = load_script("finetune_cls").Args
    flags = resolved(parse(arguments, ["--dataset", "enron", "--lr", "0.5"]))
    write_config(tmp_path / "run.yaml", flags)
    (tmp_path / "own.yaml").write_text("dataset: enron\nlr: 0.5\nvalidation-share: 0.1\n")
    for name, given in (("run", {"dataset", "lr"}), ("own", {"dataset", "lr", "validation_share"})):
        args = parse(arguments, completed(arguments, ["--config", str(tmp_path / f"{name}.yaml")]))
        assert resolved(args) == flags and {*given_flags(args.data), *given_flags(args.update)} == given


def test_the_file_of_a_run_gives_the_run_again(tmp_path, tiny_model, mail_file):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 4, "--lora-targets", "q", "mlp-in"]
    flags += ["--eval-every", 2, "--text-column", "text", "--max-grad-norm", "None", "--forgetting-tokens", 200]
    done = run_in_process("finetune_cls", *flags, "--output-dir", tmp_path / "first")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "first" / "config.yaml"
    done = run_in_process(
        "finetune_cls", "--config", file, "--output-dir", tmp_path / "second", "--forgetting-tokens", 200
    )
    assert done.returncode == 0, done.stderr
    first, second = (results_of(tmp_path / name) for name in ("first", "second"))
    for name in ("curve", "best_step", "before", "val", "test", "forgetting", "data", "model", "parameters", "notes"):
        assert first[name] == second[name], name
    for found in (first, second):
        found["args"] = {name: value for name, value in found["args"].items() if name not in FREE_FLAGS}
    assert first["args"] == second["args"]
    said = {name.replace("-", "_"): value for name, value in yaml.safe_load(file.read_text()).items()}
    assert {name: said[name] for name in first["args"]} == first["args"], "the file says what results.json says"
    assert Path(tmp_path / "second" / "config.yaml").read_text() == file.read_text()
