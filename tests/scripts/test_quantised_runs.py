"""Runs on a base in 4 or 8 bits: what they need, how they resume, what their adapters go into, what is refused."""

import json
import os
from dataclasses import replace

import pytest
import torch
from conftest import results_of, run_script, weights_of
from test_frozen_activations import _own_precision as _own_precision
from test_frozen_activations import labelled
from test_memory import Counted, workload_of
from test_merge import adapter
from test_quantised import BITS, CONFIG, build
from test_quantised import base as base
from test_resume import kill_at_a_random_moment
from transformers import GPT2ForSequenceClassification

from gpt2_scratch.model import Classifier
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import Adapter, adapters
from lora.quantised import QuantisedLinear
from training.flags.common import MethodArgs, ModelArgs
from training.flags.compute import ComputeArgs
from training.forecast.memory import DryRun, memory_of
from training.forecast.meter import CPU, Stage, largest
from training.model.methods import apply_compute, apply_method, build_classifier, parameter_counts
from training.model.saved import rebuild
from training.step.losses import loss_of
from training.step.optimizers import build_optimizer


class Inside(Counted):
    """Counts what an operation of bitsandbytes makes on its way, too."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().startswith("bitsandbytes::optimizer"):
            with self:
                return func.redispatch(CPU, *args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


@BITS
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_fake_updates_make_exactly_the_tensors_that_real_ones_make(base, bits, precision, checkpointed):
    examples, compute = labelled(4), ComputeArgs(checkpoint_activations=checkpointed)
    model = build(base, Classifier, bits)
    apply_compute(model, "lora", compute, precision)
    workload = workload_of(model, examples, compute, precision)
    dry_run = DryRun(workload)
    dry_run.meter.stages = [Stage()]  # of what was made while it was quantised
    dry_run.update([examples[:2], examples[2:]])

    parameters = list(model.parameters())
    counted = Counted([*parameters, *model.buffers()])
    optimizer = build_optimizer(model, workload.update)
    with counted:
        for part in (examples[:2], examples[2:]):
            loss_of(workload.accelerator, model, workload.batch(part, torch.device("cpu"))).backward()
        torch.nn.utils.clip_grad_norm_([p for p in parameters if p.requires_grad], 1.0)
        optimizer.step()
    assert largest(dry_run.meter.stages).total() == counted.peak


def test_fake_updates_make_what_the_8_bit_optimizer_unpacks(base):
    model, examples = build(base, Classifier, None, MethodArgs("full")), labelled(4)
    workload = workload_of(model, examples)
    workload = replace(workload, update=replace(workload.update, optimizer="adamw8bit"))
    dry_run, counted = DryRun(workload), Inside([*model.parameters(), *model.buffers()])
    with counted:
        optimizer = build_optimizer(model, workload.update)
    for _ in range(2):
        dry_run.update([examples])
        with counted:
            loss_of(workload.accelerator, model, workload.batch(examples, torch.device("cpu"))).backward()
            torch.nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    assert largest(dry_run.meter.stages).total() == counted.peak


@BITS
def test_a_model_without_weights_has_the_forecast_of_one_with_them(base, bits):
    examples, found = labelled(8), []
    for model in (
        build_classifier(None, CONFIG, ModelArgs(base_bits=bits), 3, 0),
        build(base, Classifier, bits),
    ):
        if not list(adapters(model)):
            apply_method(model, MethodArgs(), 0)
        parts = memory_of(workload_of(model, examples), 4).parts
        found.append({name: size for name, size in parts.items() if name != "allocator's gaps"})
    assert found[0] == found[1]
    assert found[0]["frozen weights"] < 4 * CONFIG.width * (CONFIG.vocabulary + 128) + 12 * CONFIG.width**2 * 2 * 1.2


@pytest.mark.parametrize(
    ("script", "processes", "more"),
    [
        ("finetune_cls", 1, ["--base-bits", 4, "--optimizer", "adamw8bit"]),
        ("finetune_cls", 2, ["--base-bits", 8]),
        ("finetune_ift", 1, ["--base-bits", 8, "--optimizer", "paged-adamw8bit", "--new-tokens", 3]),
        ("finetune_cls", 1, ["--method", "full", "--optimizer", "adamw8bit"]),
    ],
)
def test_a_killed_and_resumed_run_ends_bit_for_bit_like_an_unbroken_one(
    script, processes, more, base, mail_file, question_file, tmp_path
):
    data = mail_file if script == "finetune_cls" else question_file
    flags = ["--data", data, "--model", base, "--max-steps", 36, "--batch-size", 8, "--micro-batch-size", 4, *more]
    flags += ["--max-length", 128]
    flags += ["--eval-every", 4, "--save-every", 3, "--lr", 1e-2, *([] if "--method" in more else ["--lora-rank", 64])]
    unbroken = run_script(script, *flags, "--output-dir", tmp_path / "a", processes=processes)
    assert unbroken.returncode == 0, unbroken.stderr
    assert "bitsandbytes" not in unbroken.stdout + unbroken.stderr and "Paged" not in unbroken.stderr
    broken = [*flags, "--output-dir", tmp_path / "b"]
    kill_at_a_random_moment(script, processes, broken, tmp_path / "b", seed=str(tmp_path))
    resumed = run_script(script, *broken, "--resume", processes=processes)
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = weights_of(tmp_path / "b"), weights_of(tmp_path / "a")
    assert ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())

    results = results_of(tmp_path / "a")
    if "--base-bits" in more:
        model = rebuild(tmp_path / "a", results)
        assert {m.bits for m in model.modules() if isinstance(m, QuantisedLinear)} == {more[1]}
        assert results["parameters"]["total"] == parameter_counts(model)["total"]
        assert sum(isinstance(m, Adapter) for m in model.modules()) == 4 * CONFIG.blocks


def test_a_run_on_a_quantised_base_is_applied_and_merged(base, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", base, "--base-bits", 4, "--lora-init", "loftq", "--max-steps", 3]
    flags += ["--max-length", 128, "--cache-frozen", "memory", "--last-blocks", 1, "--checkpoint-activations"]
    done = run_script("finetune_cls", *flags, "--mixed-precision", "bf16", "--output-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for script, more in (("predict", ["--data", mail_file]), ("merge_lora", ["--output", tmp_path / "merged"])):
        done = run_script(script, "--run", tmp_path / "run", *more)
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "predict-mails.jsonl").read_text().splitlines()]
    merged = GPT2ForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        for row in rows[:8]:
            theirs = merged(torch.tensor([GPT2.encode(row["text"])])).logits[0].softmax(0)
            assert list(row["probabilities"].values()) == pytest.approx(theirs.tolist(), abs=1e-5)


@BITS
def test_a_dry_run_says_what_a_quantised_run_needs(bits, base, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", base, "--base-bits", bits, "--dry-run"]
    flags += ["--max-length", 128, "--output-dir", tmp_path / "x"]
    done = run_script("finetune_cls", *flags)
    assert done.returncode == 0, done.stderr
    assert "frozen weights" in done.stdout and not (tmp_path / "x").exists()


def without_bitsandbytes(folder):
    """An environment in which it cannot be imported."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['bitsandbytes'] = None\n")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("flags", [["--base-bits", 4], ["--optimizer", "adamw8bit"]])
def test_without_bitsandbytes_a_run_that_needs_it_is_refused_at_once(flags, base, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", base, *flags, "--output-dir", tmp_path / "x"]
    done = run_script("finetune_cls", *flags, env=without_bitsandbytes(tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "x").exists()
    assert f"{flags[4]} {flags[5]}: needs bitsandbytes; pip install" in done.stderr


def test_without_bitsandbytes_an_adapter_that_needs_it_is_refused(base, tmp_path):
    folder = adapter(base, tmp_path, MethodArgs(lora_rank=2), base_bits=4)
    flags = ["--adapter", folder, "--output", tmp_path / "merged"]
    done = run_script("merge_lora", *flags, env=without_bitsandbytes(tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "merged").exists()
    assert "--base-bits 4: needs bitsandbytes; pip install" in done.stderr


def test_what_is_quantised_cannot_train(base, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", base, "--base-bits", 8, "--method", "full", "--max-length", 128]
    flags += ["--output-dir", tmp_path / "x"]
    done = run_script("finetune_cls", *flags)
    assert done.returncode == 2 and "--base-bits 8: what is quantised cannot train" in done.stderr
    assert not (tmp_path / "x").exists()
