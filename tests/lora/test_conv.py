"""LoRA on convolutions: the contract of an adapter, and PEFT's with the same factors."""

import copy

import peft
import pytest
import torch
from torch import nn

from lora.adapter import Spec, set_strength
from lora.conv import ConvLoRA

SPEC = Spec(4, 8.0)
LAYERS = {
    "one dimension": (lambda: nn.Conv1d(6, 10, 3, padding=1), (2, 6, 9)),
    "two dimensions": (lambda: nn.Conv2d(6, 10, (3, 2), bias=False), (2, 6, 9, 8)),
    "strided": (lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1), (2, 6, 9, 8)),
    "dilated": (lambda: nn.Conv2d(6, 10, 3, dilation=(2, 1)), (2, 6, 9, 8)),
    "circular": (lambda: nn.Conv2d(6, 10, 3, padding="same", padding_mode="circular"), (2, 6, 9, 8)),
    "one image": (lambda: nn.Conv2d(6, 10, 3), (6, 9, 8)),
}


@pytest.fixture(params=LAYERS)
def case(request):
    make, shape = LAYERS[request.param]
    torch.manual_seed(0)
    return make(), torch.randn(shape)


def adapter_of(layer, spec=SPEC, trained=True):
    adapter = ConvLoRA(layer, spec, generator=torch.Generator().manual_seed(1))
    if trained:
        nn.init.normal_(adapter.low_rank.B, generator=torch.Generator().manual_seed(2))
    return adapter


def close(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape
    assert float((ours - theirs).detach().abs().max()) <= tolerance * float(theirs.detach().abs().max())


def test_an_untrained_adapter_changes_nothing(case):
    layer, x = case
    assert torch.equal(adapter_of(layer, trained=False)(x), layer(x))


def test_merged_equals_unmerged_and_the_layer_comes_back_bit_for_bit(case):
    layer, x = case
    adapter, frozen = adapter_of(layer), layer.weight.detach().clone()
    before = adapter(x)
    assert not torch.allclose(before, layer(x), atol=1e-3)
    for _ in range(2):
        adapter.merge()
        close(adapter(x), before)
    assert torch.equal(layer.weight, frozen)
    for _ in range(2):
        adapter.unmerge()
    assert adapter.linear is layer and torch.equal(adapter(x), before)


def test_the_update_is_that_of_the_matrix_of_flattened_kernels(case):
    layer, _ = case
    adapter = adapter_of(layer)
    a, b, scale, magnitude = adapter.factors()
    assert magnitude is None
    close(adapter.update(), scale * b[0].t() @ a)
    close(adapter.merged_weight(), layer.weight.flatten(1) + adapter.update())


def test_strength_goes_from_the_base_to_the_adapter_in_a_straight_line(case):
    layer, x = case
    adapter = adapter_of(layer)
    base, whole = layer(x), adapter(x)
    for strength in (0.0, 0.3, 1.5):
        set_strength(adapter, strength)
        close(adapter(x), base + strength * (whole - base))
    adapter.strength = 0.0
    assert torch.equal(adapter(x), base)


def test_gradients_reach_the_adapter_only(case):
    layer, x = case
    adapter = adapter_of(layer)
    adapter(x).square().sum().backward()
    for name, parameter in adapter.named_parameters():
        assert parameter.requires_grad != name.startswith("linear.")
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == parameter.requires_grad


@pytest.mark.parametrize("name", ["one dimension", "two dimensions", "strided"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_outputs_and_gradients_equal_pefts_with_the_same_factors(name, dropout):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, x = make(), torch.randn(shape)
    adapter = adapter_of(layer, Spec(4, 8.0, dropout=dropout))
    config = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["0"])
    theirs = peft.get_peft_model(nn.Sequential(copy.deepcopy(layer)), config).base_model.model[0]
    a, b = theirs.lora_A["default"].weight, theirs.lora_B["default"].weight
    with torch.no_grad():
        a.copy_(adapter.low_rank.A.view_as(a))
        b.copy_(adapter.low_rank.B[0].t().reshape(b.shape))
    outputs = []
    for module in (adapter, theirs):
        torch.manual_seed(3)
        outputs.append(module.train()(x))
        outputs[-1].square().sum().backward()
    close(*outputs)
    close(adapter.low_rank.A.grad, a.grad.flatten(1))
    close(adapter.low_rank.B.grad[0].t(), b.grad.flatten(1))


def test_what_is_saved_makes_the_same_layer_again(case):
    layer, x = case
    adapter, other = adapter_of(layer), adapter_of(copy.deepcopy(layer), trained=False)
    other.load_state_dict(adapter.state_dict())
    assert torch.equal(other(x), adapter(x))


def test_autocast_gives_the_same_to_the_rounding_of_bf16(case):
    layer, x = case
    adapter = adapter_of(layer)
    with torch.autocast("cpu", torch.bfloat16):
        found = adapter(x)
    assert found.dtype == torch.bfloat16
    close(found.float(), adapter(x), 2**-6)


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 6, 3, groups=2), nn.Linear(6, 6), nn.Conv3d(2, 2, 1)])
def test_other_layers_are_refused(layer):
    with pytest.raises(AssertionError, match="Conv|group"):
        ConvLoRA(layer, Spec(2))
