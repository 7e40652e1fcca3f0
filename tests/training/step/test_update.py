"""One update is the same however its examples are cut into micro-batches and spread over processes."""

import gc
import math
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from helpers import results_of, run_in_process, run_script, weights_of
from one_example import encode_instruction, encode_labelled, within

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.tokenizer import GPT2
from tasks import Instruction, Labelled
from training.data.batches import collate, epoch_plan
from training.flags.common import MethodArgs, UpdateArgs
from training.model.methods import apply_method
from training.step.losses import class_loss, token_loss
from training.step.optimizers import build_optimizer
from training.step.update import accumulate, apply_update

CONFIG = GPT2Config(width=16, blocks=2, heads=2, context=128, vocabulary=1000)
WORDS = ["a", "few words", "rather more words than that", "x" * 40]


def gradients(kind, examples, micro_batch_size, processes=1):
    """Gradients of one batch after all of its micro-batches, the processes taken one after the other."""
    model = kind(CONFIG, *([2] if kind is Classifier else []))
    initialise(model, torch.Generator().manual_seed(0), std=0.2)
    apply_method(model, MethodArgs("full"), seed=0)
    accelerator = Accelerator(cpu=True)

    def loss(batch):
        if kind is Classifier:
            return class_loss(model(batch.tokens, batch.lengths), batch.labels)[0]
        return token_loss(model(batch.tokens, batch.lengths, batch.labels))[0]

    lengths = [len(e.tokens) for e in examples]
    (shares,) = epoch_plan(0, 0, lengths, len(examples), micro_batch_size, processes)
    count = sum(e.count for e in examples)
    total = 0.0
    for share in shares:
        batches = [collate([examples[i] for i in micro]) for micro in share]
        total += float(accumulate(accelerator, model, batches, count, loss, (0, 0)))
    return total / count, {name: p.grad.clone() for name, p in model.named_parameters()}


def labelled(count):
    texts = [Labelled(i, WORDS[i % 4] * (i % 3 + 1)) for i in range(count)]
    return within([encode_labelled(GPT2, text, text.id % 2, 64) for text in texts], CONFIG.vocabulary)


def instructions(count):
    texts = [Instruction(i, WORDS[i % 4], "", WORDS[-i % 4] * (i % 3 + 1)) for i in range(count)]
    return within([encode_instruction(GPT2, text, 64) for text in texts], CONFIG.vocabulary)


@pytest.mark.parametrize(("kind", "examples"), [(Classifier, labelled(8)), (LanguageModel, instructions(8))])
def test_an_update_leaves_no_tensor_to_the_search_for_garbage(kind, examples):
    """Scripts search seldom, so that what only a search frees would pile up (GARBAGE in training/flags/cli.py)."""
    gradients(kind, examples, 4)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gradients(kind, examples, 4)
        gc.collect()
        left = [found for found in gc.garbage if isinstance(found, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not left


@pytest.mark.parametrize(("kind", "examples"), [(Classifier, labelled(8)), (LanguageModel, instructions(8))])
@pytest.mark.parametrize(("micro_batch_size", "processes"), [(4, 1), (3, 1), (1, 1), (8, 2), (1, 2), (2, 3), (1, 11)])
def test_micro_batches_and_processes_do_not_change_the_update(kind, examples, micro_batch_size, processes):
    loss, whole = gradients(kind, examples, 8)
    same_loss, parts = gradients(kind, examples, micro_batch_size, processes)
    assert same_loss == pytest.approx(loss, rel=1e-6)
    largest = max(float(g.abs().max()) for g in whole.values())
    for name, gradient in parts.items():
        assert float((gradient - whole[name]).abs().max()) <= 1e-6 * largest, name


def test_the_loss_of_a_step_is_the_mean_over_its_tokens_not_over_its_micro_batches():
    examples = instructions(6)
    loss, _ = gradients(LanguageModel, examples, 1)
    each = [gradients(LanguageModel, [e], 1)[0] for e in examples]
    counts = [e.count for e in examples]
    expected = sum(x * n for x, n in zip(each, counts, strict=True)) / sum(counts)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss != pytest.approx(sum(each) / len(each), rel=1e-3)


def test_a_stand_in_adds_nothing_but_touches_every_parameter():
    model = Classifier(CONFIG, 2)
    initialise(model, torch.Generator().manual_seed(0))
    empty = collate([])
    accumulate(
        Accelerator(cpu=True),
        model,
        [empty],
        5,
        lambda b: class_loss(model(b.tokens, b.lengths), b.labels)[0],
        (0, 0),
    )
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_the_gradient_is_clipped_to_the_norm_asked_for_and_its_norm_before_is_returned():
    model = torch.nn.Linear(2, 1, bias=False)
    accelerator = Accelerator(cpu=True)
    for limit, moved in ((None, 5.0), (1.0, 1.0), (10.0, 5.0)):
        torch.nn.init.zeros_(model.weight)
        optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.0))
        model.weight.grad = torch.tensor([[3.0, 4.0]])
        assert apply_update(accelerator, model, optimizer, 1.0, limit) == pytest.approx(5.0)
        assert float(model.weight.detach().norm()) == pytest.approx(moved, rel=1e-5)
        assert model.weight.grad is None


def test_a_gradient_that_is_not_finite_is_refused():
    model = torch.nn.Linear(2, 1)
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.0))
    model.weight.grad = torch.tensor([[math.nan, 0.0]])
    with pytest.raises(ValueError, match="--lr"):
        apply_update(accelerator, model, optimizer, 0.1, 1.0)


@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift"])
def test_runs_on_one_and_two_processes_and_in_micro_batches_end_with_the_same_weights(
    script, few_tokens, mail_file, question_file, tmp_path
):
    data = mail_file if script == "finetune_cls" else question_file
    common = ["--data", data, "--model", few_tokens, "--max-steps", 7, "--batch-size", 9, "--optimizer", "sgd"]
    common += ["--lr", 0.5, "--lora-rank", 2, "--lora-alpha", 8, "--eval-every", 3]
    common += ["--new-tokens", 4] if script == "finetune_ift" else []
    runs = {"whole": (9, 1), "micro": (2, 1), "two": (9, 2), "two-micro": (1, 2)}
    for name, (micro, processes) in runs.items():
        run = run_in_process if processes == 1 else partial(run_script, processes=processes)
        done = run(script, *common, "--micro-batch-size", micro, "--output-dir", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert results_of(tmp_path / name)["environment"]["processes"] == processes
    whole, moved = weights_of(tmp_path / "whole"), 0.0
    for name in runs:
        for key, tensor in weights_of(tmp_path / name).items():
            assert float((tensor - whole[key]).abs().max()) <= 1e-5 * max(float(whole[key].abs().max()), 1e-3), (
                name,
                key,
            )
            moved = max(moved, float(whole[key].abs().max()) if key.endswith("lora_B.weight") else 0.0)
        for point, other in zip(
            results_of(tmp_path / name)["curve"], results_of(tmp_path / "whole")["curve"], strict=True
        ):
            assert point == pytest.approx(other, rel=1e-4)
    assert moved > 1e-3, "the adapters have not moved, so nothing was compared"


def test_an_fp16_overflow_is_noticed_so_that_the_step_can_be_repeated():
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(2, 1, bias=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = AcceleratedOptimizer(build_optimizer(model, UpdateArgs(lr=0.1), scaled=True), scaler=scaler)
    accelerator._optimizers, accelerator.scaler = [optimizer], scaler
    before = model.weight.detach().clone()
    for gradient, overflows in ((math.inf, True), (1.0, False)):
        scaler.scale(torch.zeros(()))  # as a backward pass does
        model.weight.grad = torch.full((1, 2), gradient)
        assert (apply_update(accelerator, model, optimizer, 0.1, 1.0) is None) == overflows
        assert torch.equal(model.weight, before) == overflows
        assert scaler.get_scale() == 2.0
