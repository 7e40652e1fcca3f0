"""What a run prints before and after training: counts, the commonest class, what to be wary of, and what it cost."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers import mails, results_of, run_in_process, write_rows
from test_frozen_activations import instructions

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import LanguageModel
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.pretrained import save_pretrained
from gpt2_scratch.sources import load_config
from training.data.examples import Data, DataFacts
from training.evaluation.metrics import commonest
from training.flags.common import MethodArgs, ModelArgs, UpdateArgs
from training.forecast import Workload, print_forecast
from training.forecast.duration import give_numbers
from training.forecast.memory import BASE, FILE, GAPS, PARTS
from training.model.methods import apply_method, build_language_model
from training.run.printed import only_answer, outcome_notes, print_facts, print_outcome, still_falling
from training.run.record import Intervals
from training.run.results import Results


def curve(*losses):
    return [{"step": i, "val_loss": loss} for i, loss in enumerate(losses)] + [{"step": 99}]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.517, 1.474, 1.517, 1.484, 1.437, 1.436, 1.421, 1.408, 1.404, 1.404], True),  # LoRA, 80 updates, 42% right
        ([1.459, 1.441, 1.467, 1.337, 1.121, 0.934, 0.79, 0.706, 0.668, 0.66], True),  # full, 80 updates, 80% right
        ([0.6931, 0.6934, 0.6925, 0.6930, 0.6921, 0.6915], False),  # noise
        ([1.5, 1.2, 0.6, 0.2, 0.05, 0.02, 0.011, 0.009, 0.008, 0.0079], False),  # at rest
        ([1.5, 1.2, 0.6, 0.2, 0.1, 0.12, 0.15, 0.2, 0.21, 0.22], False),  # overfitting
        ([1.5, 1.0, 0.5], False),  # too few evaluations to tell
        ([], False),
    ],
)
def test_a_validation_loss_that_has_not_come_to_rest_is_told(losses, expected):
    assert still_falling(curve(*losses)) is expected


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[0, 3], [0, 2]], "spam"),
        ([[1, 3], [0, 2]], None),
        ([[0, 0], [0, 2]], None),  # all examples are spam: the model may be right
        ([[0, 0, 3], [0, 0, 2]], None),  # tokens that stand for no class
        ([], None),
    ],
)
def test_a_model_that_gives_one_answer_only_is_told(matrix, expected):
    assert only_answer({"confusion_matrix": matrix}, ("ham", "spam")) == expected


def metric(value):
    return {"value": value, "low": value, "high": value, "n": 5}


def facts(labels, train, test):
    balance = {"train": train, "validation": {}, "test": test}
    rows = {name: sum(part.values()) for name, part in balance.items()}
    return DataFacts("x", "0" * 64, rows, {}, balance, {}, ["odd"], labels)


def outcome(labels, classes=None):
    shares = {name: 1 for name in labels} | {labels[0]: 3}
    return Results(
        script="finetune_cls",
        args={"report_to": ["tensorboard"]},
        environment={},
        model={},
        data=facts(labels, shares, shares),
        parameters={},
        best_step=6,
        seconds={"train": 12.34, "eval": 5},
        peak_memory_mib=1234.5,
        curve=curve(1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
        before={"accuracy": metric(0.1)},
        test={"accuracy": metric(0.6), "confusion_matrix": [], **({"classes": classes} if classes else {})},
    )


def test_the_last_lines_have_the_commonest_class_the_classes_the_cost_and_what_to_be_wary_of(tmp_path, capsys):
    scores = {"precision": 0.5, "recall": 1.0, "f1": 0.667, "n": 3}
    found = outcome(["ham", "spam", "eggs"], {"ham": scores, "spam": scores, "eggs": scores})
    print_outcome(tmp_path, replace(found, notes=outcome_notes(found)), ("accuracy",), "  (untrained)")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("(untrained)") and not lines[1].endswith("(untrained)")
    assert "commonest class, ham  accuracy 0.6000" in lines
    assert sum(line.split() == ["ham", "0.500", "1.000", "0.667", "3"] for line in lines) == 1
    assert any(line.startswith("note    validation loss still falls") and "--epochs" in line for line in lines)
    assert "cost    training 12.3 s, evaluation while training 5.0 s; peak memory 1,234 MiB" in lines


def test_a_metric_that_could_not_be_measured_is_left_out_of_the_last_lines(tmp_path, capsys):
    """Of rated answers of one kind alone there is no reward_accuracy."""
    found = replace(outcome(["ham", "spam"]), test={"good_reward": metric(0.5)})
    print_outcome(tmp_path, found, ("reward_accuracy", "good_reward"))
    text = capsys.readouterr().out
    assert "test    good_reward 0.5000" in text and "over n = 5 test examples" in text


def test_of_very_many_classes_the_worst_are_printed_and_the_others_counted(tmp_path, capsys):
    names = [f"intent-{i}" for i in range(150)]
    classes = {name: {"precision": 1.0, "recall": 1.0, "f1": i / 150, "n": 2} for i, name in enumerate(names)}
    found = outcome(names, classes)
    print_outcome(tmp_path, found, ("accuracy",))
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 30
    assert "intent-0 " in text and "intent-149" not in text and "(138 classes with a higher f1" in text


def test_of_very_many_classes_the_commonest_are_counted_before_training(capsys):
    balance = {f"intent-{i}": 1 + i for i in range(150)}
    data = Data([None] * 11325, [], [], facts(list(balance), balance, {}), None, None)  # type: ignore[arg-type]
    model = LanguageModel(GPT2Config(width=16, blocks=1, heads=2, context=8, vocabulary=32))
    print_facts(Accelerator(cpu=True), data, model, UpdateArgs(lr=0.1), 200, Path("runs/mine"))
    text = capsys.readouterr().out
    assert commonest(balance) == "intent-149"
    assert "intent-149 150, intent-148 149" in text and "142 others with 1 to 142" in text
    assert "classes    150; the commonest, intent-149, is 1.3% of train" in text
    assert "note       odd" in text and "plan       updates 200, epochs 0.141" in text
    assert max(map(len, text.splitlines())) < 300


@pytest.fixture(scope="module")
def unreadable(few_tokens, tmp_path_factory):
    """A base whose weights are no numbers: they have shapes, and cannot be read."""
    folder, config = tmp_path_factory.mktemp("base"), load_config(few_tokens)
    model = LanguageModel(replace(config, blocks=1))
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    save_pretrained(model, folder, find_tokenizer(few_tokens, config))
    return folder


@pytest.fixture(scope="module", params=["finetune_cls", "finetune_ift", "finetune_dpo"])
def dry_run(request, unreadable, mail_file, question_file, tmp_path_factory):
    """(script, what it prints, its folder, which holds other files)"""
    folder = tmp_path_factory.mktemp("dry")
    (folder / "thesis.tex").write_text("years of work")
    flags = {
        "finetune_cls": ["--data", mail_file, "--epochs", 2],
        "finetune_ift": ["--data", question_file, "--epochs", 2, "--new-tokens", 8],
        "finetune_dpo": ["--dataset", "preferences", "--max-steps", 12, "--max-length", 256],
    }[request.param]
    flags += ["--model", unreadable, "--forgetting-tokens", 600, "--micro-batch-size", "auto"]
    done = run_in_process(request.param, *flags, "--output-dir", folder, "--dry-run")
    assert done.returncode == 0, done.stderr
    return request.param, done.stdout, folder


def test_a_dry_run_counts_classes_and_updates_and_needs_no_free_folder(dry_run):
    script, printed, folder = dry_run
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    assert "plan       updates 12, epochs " in printed
    if script != "finetune_dpo":
        assert "plan       updates 12, epochs 2, lr" in printed
        assert "note       --epochs 2 gives 12 updates" in printed
    if script == "finetune_cls":
        assert "train           48  ham 24, spam 24" in printed
        assert "classes    2; the commonest, ham, is 50.0% of train, 50.0% of validation, 50.0% of test" in printed


def test_a_dry_run_tells_what_memory_is_needed(dry_run):
    _, printed, _ = dry_run
    for name in (*PARTS, GAPS, FILE, BASE, "peak", "available"):
        assert f"\n  {name} " in printed
    assert printed.split("largest micro-batch")[1].splitlines()[0].split() == ["8"]


def test_a_run_refuses_the_weights_that_a_dry_run_has_not_read(unreadable, mail_file, tmp_path):
    done = run_in_process("finetune_cls", "--data", mail_file, "--model", unreadable, "--output-dir", tmp_path / "run")
    assert done.returncode == 2 and "numbers that are not finite" in done.stderr


def test_a_dry_run_times_the_kinds_of_work_that_a_run_has(dry_run):
    """The numbers depend on the machine; that every part is there, and that they add up, does not."""
    script, printed, _ = dry_run
    table = printed.split("time of a run on cpu, in seconds")[1].splitlines()[1:]
    seconds = {line[2:26].strip(): float(line[26:].replace(",", "")) for line in table}
    parts = {"start and end", "12 updates", "6 evaluations", "before and after", "general text", "checkpoints"}
    assert set(seconds) == parts | {"in all"} | ({"answers"} if script == "finetune_ift" else set())
    assert seconds["in all"] == pytest.approx(sum(seconds.values()) - seconds["in all"], abs=0.5)


def test_a_run_on_little_data_gets_200_updates_and_one_that_learnt_nothing_says_so(tiny_model, tmp_path):
    rows = [row | {"label": "spam" if i % 3 == 0 else "ham"} for i, row in enumerate(mails(30))]
    data, folder = write_rows(tmp_path / "mails.jsonl", rows), tmp_path / "run"
    flags = ["--data", data, "--model", tiny_model, "--lr", 1e-9, "--seed", 3, "--output-dir", folder]
    planned = run_in_process("finetune_cls", *flags, "--dry-run")
    assert "plan       updates 201, epochs 67, lr 1e-09" in planned.stdout, planned.stderr
    done = run_in_process("finetune_cls", *flags, "--max-steps", 2)
    assert done.returncode == 0, done.stderr
    results = results_of(folder)
    lines = done.stdout.splitlines()
    assert any(line.startswith("before") and line.endswith("(of a class head with random weights)") for line in lines)
    assert "commonest class, ham  accuracy 0.6667" in lines
    only = only_answer(results["test"], results["data"]["labels"])
    assert only and f"note    the model answers {only!r} to every test example: it has learnt no difference" in lines
    notes = [line for line in lines if line.startswith("note ")]
    assert len(notes) == len(results["data"]["notes"]) + len(results["notes"])
    assert any(line.startswith("cost ") and "peak memory" in line for line in lines)


def test_what_does_not_fit_is_not_tried_by_a_dry_run(capsys):
    vast = GPT2Config(width=102400, blocks=1, heads=2, context=128)
    model, examples = build_language_model(None, vast, ModelArgs()), instructions(4)
    apply_method(model, MethodArgs("head"), 0)
    workload = Workload(model, UpdateArgs(batch_size=2, max_steps=1), Accelerator(cpu=True), examples)
    print_forecast(workload, Intervals(1, 1, 1, 1), [])
    assert "not measured, since it does not fit" in capsys.readouterr().out


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_random_numbers_fill_a_model_without_weights_and_what_is_shared_stays_shared(bits):
    config = GPT2Config(width=64, blocks=2, heads=2, vocabulary=512, context=64)
    model = build_language_model(None, config, ModelArgs(base_bits=bits))
    apply_method(model, MethodArgs(), 0)
    give_numbers(model, torch.device("cpu"))
    everything = [*model.parameters(), *model.buffers()]
    assert everything and not any(tensor.is_meta for tensor in everything)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert all(p.isfinite().all() for p in everything if p.is_floating_point())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(".linear." not in name for name in trained)
