"""Factors that are cast together are those that are cast one by one."""

import pytest
import torch
from test_lora import ALL, LENGTHS, TOKENS, adapted

from lora.adapter import adapters
from lora.casting import factors_cast_to
from lora.variants import VARIANTS
from training.flags.common import MethodArgs

HALF = torch.bfloat16


def outcome(model, together):
    """The loss and the gradients of two passes in bf16, the second of which adds to the first."""
    model.zero_grad()
    labels = torch.tensor([2, 3, 4, -100, 60, 7, -100])
    for _ in range(2):
        with factors_cast_to(HALF if together else None, model):
            assert all((adapter.cast is not None) == together for _, adapter in adapters(model))
            with torch.autocast("cpu", HALF):
                loss = -model(TOKENS, LENGTHS, labels).sum()
            loss.backward()
    assert all(adapter.cast is None for _, adapter in adapters(model))
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", VARIANTS)
def test_together_or_one_by_one_the_loss_and_every_gradient_are_the_same_to_the_last_bit(name):
    model = adapted(method=MethodArgs(name, lora_rank=4, lora_targets=ALL)).train()
    (loss, gradients), (other_loss, others) = (outcome(model, together) for together in (True, False))
    assert torch.equal(loss, other_loss)
    assert gradients.keys() == others.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    for gradient, (key, other) in zip(gradients.values(), others.items(), strict=True):
        assert gradient.dtype == torch.float32 and torch.equal(gradient, other), key
    assert any(float(x.abs().max()) > 0 for x in gradients.values())


def test_without_a_precision_or_without_adapters_nothing_changes():
    with factors_cast_to(HALF, torch.nn.Linear(2, 2)):
        pass
    model = adapted()
    with factors_cast_to(None, model):
        assert all(adapter.cast is None for _, adapter in adapters(model))
