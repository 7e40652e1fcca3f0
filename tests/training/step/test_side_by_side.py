"""Micro-batches computed side by side give the same numbers as one after the other."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from one_example import encode_labelled

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.tokenizer import GPT2
from tasks import Labelled
from training.data.batches import Encoded, collate
from training.flags.common import MethodArgs, UpdateArgs
from training.forecast.micro_batch import resolve_micro_batch
from training.forecast.workload import Workload
from training.model.methods import apply_method
from training.step.losses import class_loss
from training.step.short_softmax import ShortSoftmax
from training.step.side_by_side import gradients_side_by_side, side_by_side, updates_at_a_time
from training.step.update import accumulate

CONFIG = GPT2Config(width=16, blocks=2, heads=2, context=128)


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)  # conftest.py ends it


def classifier(method="lora", dropout=0.0, **more):
    model = Classifier(GPT2Config(width=16, blocks=2, heads=2, context=128, dropout=dropout), 2)
    initialise(model, torch.Generator().manual_seed(0), std=0.2)
    apply_method(model, MethodArgs(method, **more), seed=0)
    return model


def examples():
    texts = ["a few words", "rather more words than that", "x" * 40, "one", "two or three"]
    return [encode_labelled(GPT2, Labelled(i, text), i % 2, 64) for i, text in enumerate(texts)]


def micro_batches():
    return [collate([example]) for example in examples()]


@pytest.mark.parametrize("half", [False, True])
def test_gradients_are_bit_for_bit_those_of_one_thread_that_takes_the_batches_in_turn(half):
    found = []
    for threads in (1, 3):
        model = classifier()
        trained = [p for p in model.parameters() if p.requires_grad]

        def loss(batch, model=model):
            return class_loss(model(batch.tokens, batch.lengths), batch.labels)[0]

        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            total = gradients_side_by_side(loss, micro_batches(), trained, 1 / 5, threads)
        found.append((total, [p.grad for p in trained]))
    (total, gradients), (other_total, other_gradients) = found
    assert total == other_total and any(g.any() for g in gradients)
    assert all(torch.equal(a, b) for a, b in zip(gradients, other_gradients, strict=True))


def test_each_batch_has_a_thread_of_its_own_and_the_caller_keeps_its_threads(two_threads):
    both = threading.Barrier(2, timeout=60)  # breaks unless two batches are computed at the same time

    def compute(batch):
        both.wait()
        return batch, torch.get_num_threads(), threading.get_ident()

    found = list(side_by_side(compute, [0, 1, 2, 3], 2))
    assert [batch for batch, _, _ in found] == [0, 1, 2, 3] and {threads for _, threads, _ in found} == {1}
    assert len({thread for *_, thread in found}) == 2 and torch.get_num_threads() == 2
    if torch.backends.mkl.is_available():
        assert "mkl_get_max_threads() : 2" in torch.__config__.parallel_info()


def test_threads_without_a_batch_help_the_others():
    assert {n for n in side_by_side(lambda _: torch.get_num_threads(), [0, 1], 6)} == {3}


def test_an_error_in_one_batch_reaches_the_caller(two_threads):
    def compute(batch):
        if batch == 1:
            raise ValueError("this one")
        return batch

    with pytest.raises(ValueError, match="this one"):
        list(side_by_side(compute, range(8), 2))


def test_gradients_are_off_and_casts_on_in_the_threads_as_in_the_caller(two_threads):
    def compute(_):
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert {*side_by_side(compute, [0, 1], 2)} == {(False, True, torch.bfloat16)}
    assert {found[:2] for found in side_by_side(compute, [0, 1], 2)} == {(True, False)}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (classifier, 2),
        (lambda: classifier("full"), 2),
        (lambda: classifier("full", dropout=0.1), 1),
        (lambda: classifier(lora_dropout=0.1), 1),
        (lambda: ShortSoftmax(LanguageModel(CONFIG), [np.arange(50)], 20), 1),
        (lambda: ShortSoftmax(LanguageModel(CONFIG), [np.arange(50)], None), 2),
    ],
)
def test_an_update_is_shared_unless_the_model_draws_numbers(model, expected, two_threads):
    assert updates_at_a_time(Accelerator(cpu=True), model()) == expected


@pytest.mark.parametrize(("method", "expected"), [("lora", 8), ("full", 2), ("head", 8)])
def test_large_gradients_are_held_twice_at_most(method, expected, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert updates_at_a_time(Accelerator(cpu=True), classifier(method)) == expected


@pytest.mark.parametrize(
    ("method", "batch_size", "tokens", "threads", "expected"),
    [
        ("lora", 8, 250, 1, 8),
        ("lora", 8, 250, 2, 2),  # 500 tokens on a thread, four micro-batches
        ("lora", 8, 20, 2, 4),  # one on each thread
        ("lora", 8, 900, 2, 1),
        ("lora", 32, 20, 2, 8),
        ("lora", 8, 250, 16, 1),
        ("full", 8, 250, 2, 4),
        ("full", 8, 250, 16, 4),
    ],
)
def test_by_default_threads_get_the_same_number_of_micro_batches(
    method, batch_size, tokens, threads, expected, monkeypatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    text = Encoded(0, np.zeros(tokens, np.int32), 0)
    update = UpdateArgs(batch_size=batch_size)
    workload = Workload(classifier(method), update, Accelerator(cpu=True), [text] * batch_size)
    assert resolve_micro_batch(workload).micro_batch_size == expected
    given = replace(workload, update=replace(update, micro_batch_size=3))
    assert resolve_micro_batch(given).micro_batch_size == 3


def test_an_update_on_two_threads_is_the_same_as_with_one_micro_batch(two_threads):
    found = []
    for batches in (micro_batches(), [collate(examples())]):
        model = classifier()

        def loss(batch, model=model):
            return class_loss(model(batch.tokens, batch.lengths), batch.labels)[0]

        total = float(accumulate(Accelerator(cpu=True), model, batches, 5, loss, (0, 0)))
        found.append((total, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    (total, gradients), (whole, others) = found
    assert total == pytest.approx(whole, rel=1e-6)
    for name, gradient in gradients.items():
        assert (gradient - others[name]).abs().max() <= 1e-6 * others[name].abs().max() + 1e-12, name
