"""Runs on a base in 4 or 8 bits: what they need, how they resume, what their adapters go into, what is refused."""

import json
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers import results_of, run_in_process, run_script, weights_of
from test_frozen_activations import _own_precision as _own_precision
from test_frozen_activations import labelled
from test_memory import LIGHTEST, PLAIN, Counted, replayed, workload_of
from test_merge import adapter
from test_quantised import BITS, CONFIG, build
from test_quantised import base as base
from test_resume import kill_at_a_random_moment
from torch.utils._pytree import tree_leaves
from transformers import GPT2ForSequenceClassification

from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.pretrained import save_pretrained
from gpt2_scratch.sources import load_config
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import Adapter, adapters
from lora.quantised import QuantisedLinear
from training.flags.common import MethodArgs, ModelArgs
from training.flags.compute import ComputeArgs
from training.forecast.memory import DryRun, memory_of
from training.forecast.meter import CPU
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
@pytest.mark.parametrize(("checkpointed", "precision"), [PLAIN, LIGHTEST])
def test_fake_updates_make_exactly_the_tensors_that_real_ones_make(base, bits, checkpointed, precision):
    examples, compute = labelled(4), ComputeArgs(checkpoint_activations=checkpointed)
    model = build(base, Classifier, bits)
    apply_compute(model, "lora", compute, precision)
    workload = workload_of(model, examples, compute, precision)
    dry_run = DryRun(workload)
    built = len(dry_run.meter.events)  # with what was made while it was quantised
    dry_run.update([examples[:2], examples[2:]])

    parameters = list(model.parameters())
    counted = Counted([*parameters, *model.buffers()])
    optimizer = build_optimizer(model, workload.update)
    with counted:
        for part in (examples[:2], examples[2:]):
            loss_of(workload.accelerator, model, workload.batch(part, torch.device("cpu"))).backward()
        torch.nn.utils.clip_grad_norm_([p for p in parameters if p.requires_grad], 1.0)
        optimizer.step()
    assert replayed(dry_run, built).largest.total() == counted.peak


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
    assert replayed(dry_run).largest.total() == counted.peak


@pytest.fixture(scope="module")
def few(few_tokens, tmp_path_factory):
    """A base with few tokens, whose matrices are large enough to be quantised, as is what rank 64 trains."""
    folder, config = tmp_path_factory.mktemp("few"), load_config(few_tokens)
    model = LanguageModel(replace(CONFIG, vocabulary=config.vocabulary, context=config.context))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, folder, find_tokenizer(few_tokens, config))
    return folder


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
    ],
)
def test_a_killed_and_resumed_run_ends_bit_for_bit_like_an_unbroken_one(
    script, processes, more, few, mail_file, question_file, tmp_path
):
    data = mail_file if script == "finetune_cls" else question_file
    flags = ["--data", data, "--model", few, "--max-steps", 24, "--batch-size", 8, "--micro-batch-size", 4, *more]
    flags += ["--eval-every", 4, "--save-every", 3, "--lr", 1e-2, "--lora-rank", 64]
    # In a process of its own, since pytest would keep warnings for itself.
    unbroken = run_script(script, *flags, "--output-dir", tmp_path / "a", processes=processes)
    assert unbroken.returncode == 0, unbroken.stderr
    assert "bitsandbytes" not in unbroken.stdout + unbroken.stderr and "Paged" not in unbroken.stderr
    broken = [*flags, "--output-dir", tmp_path / "b"]
    kill_at_a_random_moment(script, processes, broken, tmp_path / "b", seed=str(tmp_path))
    if "--optimizer" in more:
        state = torch.load(tmp_path / "b" / "checkpoint" / "state.pt")["optimizer"]["state"]
        assert torch.uint8 in {getattr(number, "dtype", None) for number in tree_leaves(state)}, "none has 8 bits"
    run_with = run_in_process if processes == 1 else partial(run_script, processes=processes)
    resumed = run_with(script, *broken, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = weights_of(tmp_path / "b"), weights_of(tmp_path / "a")
    assert ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())

    results = results_of(tmp_path / "a")
    model = rebuild(tmp_path / "a", results)
    assert {m.bits for m in model.modules() if isinstance(m, QuantisedLinear)} == {more[1]}
    assert results["parameters"]["total"] == parameter_counts(model)["total"]
    assert sum(isinstance(m, Adapter) for m in model.modules()) == 4 * CONFIG.blocks


def test_a_run_on_a_quantised_base_is_applied_and_merged(base, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", base, "--base-bits", 4, "--lora-init", "loftq", "--max-steps", 3]
    flags += ["--max-length", 128, "--cache-frozen", "memory", "--last-blocks", 1, "--checkpoint-activations"]
    done = run_in_process("finetune_cls", *flags, "--mixed-precision", "bf16", "--output-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for script, more in (("predict", ["--data", mail_file]), ("merge_lora", ["--output", tmp_path / "merged"])):
        done = run_in_process(script, "--run", tmp_path / "run", *more)
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "predict-mails.jsonl").read_text().splitlines()]
    merged = GPT2ForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        for row in rows[:8]:
            theirs = merged(torch.tensor([GPT2.encode(row["text"])])).logits[0].softmax(0)
            assert list(row["probabilities"].values()) == pytest.approx(theirs.tolist(), abs=1e-5)


def test_a_dry_run_says_what_a_quantised_run_needs(base, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", base, "--base-bits", 4, "--dry-run"]
    done = run_in_process("finetune_cls", *flags, "--max-length", 128, "--output-dir", tmp_path / "x")
    assert done.returncode == 0, done.stderr
    mib = float(done.stdout.split("frozen weights")[1].split()[0])
    embeddings, matrices = CONFIG.width * (CONFIG.vocabulary + CONFIG.context), CONFIG.blocks * 12 * CONFIG.width**2
    assert 4 * embeddings < mib * 2**20 < 4 * embeddings + 2 * matrices, "matrices take less than half of fp32"
    assert not (tmp_path / "x").exists()


@pytest.fixture
def no_bitsandbytes(monkeypatch):
    """It cannot be imported, as where it is not installed."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)


@pytest.mark.parametrize("flags", [["--base-bits", 4], ["--optimizer", "adamw8bit"]])
def test_without_bitsandbytes_a_run_that_needs_it_is_refused_at_once(flags, base, mail_file, tmp_path, no_bitsandbytes):
    known = ["--data", mail_file, "--model", base, "--output-dir", tmp_path / "x"]
    done = run_in_process("finetune_cls", *known, *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "x").exists()
    assert f"{flags[0]} {flags[1]}: needs bitsandbytes; pip install" in done.stderr


@pytest.fixture
def quantised_adapter(base, tmp_path):
    return adapter(base, tmp_path, MethodArgs(lora_rank=2), base_bits=4)


def test_without_bitsandbytes_an_adapter_that_needs_it_is_refused(quantised_adapter, tmp_path, no_bitsandbytes):
    done = run_in_process("merge_lora", "--adapter", quantised_adapter, "--output", tmp_path / "merged")
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "merged").exists()
    assert "--base-bits 4: needs bitsandbytes; pip install" in done.stderr


def test_what_is_quantised_cannot_train(base, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", base, "--base-bits", 8, "--method", "full", "--max-length", 128]
    done = run_in_process("finetune_cls", *flags, "--output-dir", tmp_path / "x")
    assert done.returncode == 2 and "--base-bits 8: what is quantised cannot train" in done.stderr
    assert not (tmp_path / "x").exists()
