"""What the command line is taken for, what it is refused for, and what the environment must not do to a run."""

import os
import re
import subprocess
import sys
from dataclasses import is_dataclass
from inspect import signature
from typing import get_type_hints

import pytest
from accelerate.commands import launch
from accelerate.commands.config import config_args
from helpers import ROOT, run_in_process, run_script
from test_commands import load_script
from test_device import launched_environment

from gpt2_scratch.config import GPT2Config
from training.flags.cli import problems_in
from training.flags.command_line import parse
from training.flags.compute import CONVERTED, ENVIRONMENT, environment_problems
from training.flags.fields import changed_flags, flags_of
from training.flags.near_misses import ENTRIES, OURS, meant

SCRIPTS = (
    "finetune_cls",
    "finetune_ift",
    "finetune_dpo",
    "finetune_kto",
    "pretrain",
    "predict",
    "generate",
    "judge_ift",
    "merge_lora",
)
KNOWN = {script: [f"--{name}" for name in flags_of(load_script(script).Args)] for script in SCRIPTS}


def is_meant(found, ours):
    """Whether that is what is said, or how it begins, with no part of a word behind it."""
    if ours is None or found is None:
        return found is ours
    return re.match(rf"{re.escape(ours)}(?![\w-])", found) is not None


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("--learning-rate", "--lr"),
        ("--learning_rate=1e-4", "--lr"),
        ("--bf16", "--mixed-precision bf16"),
        ("--fp16", "--mixed-precision fp16"),
        ("--num-train-epochs", "--epochs"),
        ("--num_train_epochs", "--epochs"),
        ("--per-device-train-batch-size", "--micro-batch-size"),
        ("--gradient_accumulation_steps", "--batch-size"),
        ("--model-name-or-path", "--model"),
        ("--max_seq_length", "--max-length"),
        ("--lora-r", "--lora-rank"),
        ("--target_modules", "--lora-targets"),
        ("--train-file", "--data"),
        ("--load-in-4bit", "--base-bits 4"),
        ("--use-lora", "--method lora"),
        ("--warmup", "--warmup-steps"),
        ("--wd", "--weight-decay"),
        ("--outputdir", "--output-dir"),
        ("--lora-rnk", "--lora-rank"),
        ("--Epochs", "--epochs"),
        ("--colour", None),
        ("--local_rank", "accelerate launch and torchrun tell"),
        ("--deepspeed", "these scripts know data parallelism alone"),
        ("--shuffle", "training examples are drawn in a new order"),
        ("--save_total_limit", "one checkpoint is kept"),
        ("--class-weights", "classes are not weighted"),
        ("--trust-remote-code", "no code of a model's own"),
        ("--verbose", None),
        ("--lora-path", "--model FOLDER, into which scripts/merge_lora.py has merged the adapter"),
        ("--adapter", "--model FOLDER, into which scripts/merge_lora.py has merged the adapter"),
        ("--start-from", "--model FOLDER, into which scripts/merge_lora.py has merged the adapter"),
        ("--adapter_name_or_path", "--model FOLDER, into which scripts/merge_lora.py has merged the adapter"),
        ("--eval-only", "scripts/predict.py measures a finished run"),
        ("--hub-private-repo", "the repository that is made is public; create it as a private one first"),
    ],
)
def test_a_flag_of_another_tool_or_with_a_slip_is_taken_for_ours(typed, ours):
    assert is_meant(meant(typed, KNOWN["finetune_cls"]), ours)


@pytest.mark.parametrize(
    ("script", "typed", "ours"),
    [
        ("finetune_dpo", "--ref-model", "--start-from (the run that is the reference too) or --reference"),
        ("finetune_dpo", "--max-prompt-length", "--max-length (of prompt and response together)"),
        ("finetune_ift", "--text-column", "--prompt-column"),
        ("finetune_ift", "--label-column", "--response-column"),
        ("judge_ift", "--items", "every item of the generations is asked about"),
        ("judge_ift", "--api-key", "keys come from the environment: GEMINI_API_KEY, or OPENAI_API_KEY for --judge-url"),
        ("judge_ift", "--model", None),
        ("finetune_dpo", "--adapter", "--start-from"),
        ("merge_lora", "--adapter-path", "--adapter"),
        ("merge_lora", "--output-dir", "--output"),
        ("predict", "--output-dir", "--output"),
        ("predict", "--save_path", "--output"),
        ("generate", "--output-dir", None),
        ("generate", "--stop", "--new-tokens"),
        ("generate", "--max-length", "--new-tokens"),
        ("generate", "--max-tokens", "--new-tokens"),
        ("pretrain", "--model", "--init-from"),
        ("pretrain", "--model-name-or-path", "--init-from"),
        ("pretrain", "--epochs", "--tokens or --minutes"),
        ("pretrain", "--max-steps", "--tokens or --minutes"),
        ("pretrain", "--batch-size", "--batch-tokens"),
        ("generate", "--adapter-strength", "an adapter is applied in full"),
        ("generate", "--do-sample", "--temperature"),
        ("generate", "--num-beams", "there is no beam search"),
    ],
)
def test_a_flag_that_only_looks_like_one_of_the_script_is_taken_for_what_it_means(script, typed, ours):
    assert is_meant(meant(typed, KNOWN[script]), ours)


def test_every_flag_that_is_suggested_is_one_of_a_script():
    everything = {name for names in KNOWN.values() for name in names} | {"--config"}
    suggested = re.findall(r"--[a-z-]+", " ".join(set(OURS.values()) - {OURS["device"]}))
    assert len(OURS) > 300 and len(suggested) > 50
    assert set(suggested) <= everything
    listed = [name for _, names in ENTRIES for name in names.split()]
    assert len(listed) == len(set(listed)) == len(OURS)


def test_a_script_without_the_flag_does_not_suggest_it():
    assert meant("--learning-rate", KNOWN["predict"]) is None
    assert meant("--max-new-tokens", KNOWN["generate"]) == "--new-tokens"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--learning-rate 3 --bf16", "--learning-rate: no such flag; did you mean --lr?"),
        ("--learning-rate 3 --bf16", "--bf16: no such flag; did you mean --mixed-precision bf16?"),
        ("--colour red", "--colour: no such flag; --help lists the flags"),
        ("--do-train", "--do-train: no such flag; training, evaluation and the test always happen; leave it out"),
        ("--lr fast", "--lr fast: must be a number or None"),
        ("--max-steps 3.5", "--max-steps 3.5: must be a whole number or None"),
        ("--micro-batch-size=some", "--micro-batch-size some: must be a whole number or auto"),
        ("--method lara", "--method lara: must be one of lora, .* .did you mean lora?"),
        ("--lora-targets q z", "--lora-targets z: must be one of q, k"),
        ("--lr", "--lr: needs a value"),
        ("mails.csv", "mails.csv: belongs to no flag; quote a value that has spaces, --help lists the flags"),
        (
            "--data a.csv b.csv c.csv",
            "b.csv c.csv: --data takes one value; put several files into one folder",
        ),
        ("--data=a.csv b.csv --lr 3", "b.csv: --data takes one value; put several files into one folder, or quote"),
        ("--data a.csv --lr 3 b.csv", "b.csv: belongs to no flag"),
        ("--resume yes", "--resume takes no value, but has 'yes': write --resume alone, or leave it out"),
        ("--overwrite=true", "--overwrite takes no value, but has 'true'"),
        ("--dry-run true --lr 3", "--dry-run takes no value, but has 'true'"),
        ("--output-dir=", "--output-dir: is empty; name a path, or leave it out"),
        ("--lr fast --colour red", "--colour: no such flag"),
        (" ".join(f"--colour-{i}" for i in range(50)), "and 46 others"),
        (f"--lr {'x' * 500}", "--lr xxx"),
    ],
)
def test_a_command_line_that_is_wrong_gets_one_short_message(words, message):
    with pytest.raises(ValueError) as refused:
        parse(load_script("finetune_cls").Args, words.split())
    text = str(refused.value)
    assert re.search(message.replace("(", "[(]").replace("?", "[?]"), text), text
    assert len(text) <= 300 and not re.search(r"[\u2500-\u257f]", text)


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("finetune_cls", "--epochs 1e300", "--epochs 1e+300: must be at most 1,000,000"),
        ("finetune_cls", "--max-steps 10000000000", "--max-steps 10000000000: must be at most 1,000,000,000"),
        ("finetune_cls", "--split-seed -3", "--split-seed -3: must be at least 0"),
        ("generate", "--prompt a --model gpt2 --seed -1", "--seed -1: must be at least 0"),
        ("generate", "--prompt a --model gpt2 --temperature inf", "--temperature inf: must be finite"),
    ],
)
def test_numbers_that_no_run_can_have_meant_are_refused(script, words, message):
    args = parse(load_script(script).Args, ["--dataset", "imdb"] * (script != "generate") + words.split())
    assert message in problems_in(args)


def test_every_check_of_a_group_is_one_that_the_scripts_make():
    """By its name, and by those of its parameters: groups of a script, or what is found of the base."""
    groups = {}
    for script in SCRIPTS:
        groups |= {n: kind for n, kind in get_type_hints(load_script(script).Args).items() if is_dataclass(kind)}
    assert len(groups) > 15
    checks = {(kind, name) for kind in groups.values() for name in vars(kind) if name.startswith("problems")}
    assert {name for _, name in checks} == {"problems", "problems_given"}
    for kind in groups.values():
        if hasattr(kind, "problems_given"):
            assert {*signature(kind.problems_given).parameters} - {"self"} <= {*groups, "config"}, kind


def test_what_a_group_says_beside_the_others_is_asked_as_soon_as_they_are_there():
    args = parse(
        load_script("finetune_cls").Args, ["--dataset", "imdb", "--method", "bitfit", "--head-training", "frozen+lora"]
    )
    (problem,) = problems_in(args)
    assert problem.startswith("--head-training frozen+lora: needs a --method with adapters")
    args = parse(load_script("finetune_cls").Args, ["--dataset", "imdb", "--last-blocks", "9", "--max-length", "99"])
    assert problems_in(args) == []
    config = GPT2Config(width=64, blocks=2, heads=2, vocabulary=101, context=32)
    found = " ".join(problems_in(args, config=config))
    assert "--last-blocks 9: gpt2 has 2 blocks" in found and "--max-length 99: the context of gpt2 is 32" in found


def test_a_line_that_moves_leaves_the_screen_before_the_last_message(monkeypatch, capsys):
    from training.flags import cli
    from training.run.progress import ProgressLine

    monkeypatch.setattr(cli, "before_stop", [])
    monkeypatch.setattr("training.run.progress.before_stop", cli.before_stop)
    line = ProgressLine(10, 0, True)
    line.show(3, 1e-3, lambda name: 1.0)
    with pytest.raises(SystemExit):
        cli.stop("interrupted", 130)
    line.bar.refresh()
    del line
    said = capsys.readouterr().err
    assert "3/10" in said.replace(" ", "") and said.endswith("\nerror: interrupted\n")


@pytest.mark.parametrize(
    "words", ["finetune_cls.py --help-all", "generate.py --model gpt2-nano --prompt a --new-tokens 2"]
)
def test_a_reader_that_has_gone_ends_a_script_without_a_word(words):
    """As `| head -0` does."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, *f"scripts/{words}".split()]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


def test_missing_flags_are_named():
    with pytest.raises(ValueError, match="^--data: needed; --help explains every flag"):
        parse(load_script("predict").Args, [])
    with pytest.raises(ValueError, match="^--rum: no such flag; did you mean --run[?]"):
        parse(load_script("predict").Args, ["--rum", "x"])


def test_underscores_are_as_good_as_dashes_and_the_last_of_two_values_counts():
    args = parse(load_script("finetune_cls").Args, ["--output_dir", "x", "--lora_rank", "4", "--lora-rank", "5"])
    assert changed_flags(args) == {"output_dir": args.run.output_dir, "lora_rank": 5}


HOME = "/home/of/someone"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data=~/a.csv", "--output-dir", "~/b"], {"data": f"{HOME}/a.csv", "output_dir": f"{HOME}/b"}),
        (["--model=~/m"], {"model": f"{HOME}/m"}),
        (["--text-column", "~"], {"text_column": "('~',)"}),
    ],
)
def test_a_path_at_home_is_written_in_full_wherever_it_comes_from(words, expected, monkeypatch):
    monkeypatch.setenv("HOME", HOME)
    args = parse(load_script("finetune_cls").Args, words)
    assert {name: str(value) for name, value in changed_flags(args).items()} == expected


@pytest.mark.parametrize("typed", ["cafe\u0301  no", " caf\u00e9 no ", "\ufeffcaf\u00e9 no"])
def test_a_column_is_found_by_its_name_as_the_file_spells_it(typed):
    args = parse(load_script("predict").Args, ["--data", "a", "--text-column", typed, "b", "--keep-columns", typed])
    assert args.text.text_column == ("caf\u00e9 no", "b") and args.output.keep_columns == ("caf\u00e9 no",)
    words = ["--data", "a", "--input-column", "", "--prompt-column", typed, "--output-dir", "b  c"]
    args = parse(load_script("finetune_ift").Args, words)
    assert (args.prompt.input_column, args.prompt.prompt_column) == ("", "caf\u00e9 no")
    assert str(args.run.output_dir) == "b  c"


def test_a_refusal_of_the_command_line_exits_with_2_and_our_form():
    done = run_script("finetune_cls", "--learning-rate", 3)
    assert done.returncode == 2
    assert done.stderr == "\nerror: --learning-rate: no such flag; did you mean --lr?\n"


@pytest.mark.parametrize("name", [*ENVIRONMENT, "ACCELERATE_MIXED_PRECISION"])
def test_an_environment_that_would_change_the_update_in_silence_is_refused(name, monkeypatch):
    script = load_script("finetune_cls")
    assert not parse(script.Args, []).compute.problems()
    value = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_GRADIENT_CLIPPING": "0.5"}.get(name, "true")
    monkeypatch.setenv(name, value)
    (problem,) = parse(script.Args, []).compute.problems()
    assert problem.startswith(f"{name}={value}") and len(problem) <= 300


LAUNCHED = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize("name", CONVERTED)
def test_a_variable_that_a_library_cannot_read_is_named(name, monkeypatch):
    for other, value in LAUNCHED.items():
        monkeypatch.setenv(other, value)
    monkeypatch.setenv(name, "perhaps")
    (problem,) = environment_problems()
    assert problem.startswith(f"{name}=perhaps in the environment: must be") and problem.endswith("unset it")
    monkeypatch.setenv(name, "1")
    assert not environment_problems()


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"MASTER_ADDR": ""}, "MASTER_ADDR="),
        ({"MASTER_PORT": "tcp://10.0.0.1:80"}, "MASTER_PORT=tcp:"),
    ],
)
def test_what_is_left_over_of_a_launch_is_named(changed, wrong, monkeypatch):
    for name, value in (LAUNCHED | changed).items():
        monkeypatch.setenv(name, value)
    assert not environment_problems()
    monkeypatch.setenv("LOCAL_RANK", "0")
    (problem,) = environment_problems()
    assert problem.startswith(f"LOCAL_RANK=0 in the environment, but {wrong}") and len(problem) <= 300
    monkeypatch.setenv("LOCAL_RANK", "-1")
    assert not environment_problems()


@pytest.mark.parametrize("name", [*ENVIRONMENT, "ACCELERATE_MIXED_PRECISION"])
def test_what_accelerate_sets_by_itself_is_no_problem(name, monkeypatch):
    for value in {"1"} if "STEPS" in name else {""} if "CLIPPING" in name else {"NO", "no"}:
        monkeypatch.setenv(name, value)
        assert not parse(load_script("pretrain").Args, ["--data", "x"]).speed.problems()


def test_settings_of_a_stray_default_configuration_are_refused(tmp_path, monkeypatch):
    config = "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: 'no'\nuse_cpu: true\n"
    config += "num_processes: 1\ndynamo_config:\n  dynamo_backend: INDUCTOR\n"
    (tmp_path / "default_config.yaml").write_text(config)
    for module in (launch, config_args):  # where accelerate looks for it, which is decided when it is imported
        monkeypatch.setattr(module, "default_config_file", str(tmp_path / "default_config.yaml"))
    done = run_in_process("finetune_cls", "--dataset", "spamassassin", **launched_environment())
    refused = "error: ACCELERATE_DYNAMO_BACKEND=INDUCTOR in the environment: these scripts compile nothing"
    assert done.returncode == 2 and refused in done.stderr
