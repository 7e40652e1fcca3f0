"""The adapter contract for every variant of lora/, and each variant against its paper's formula and PEFT."""

import copy
import importlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import peft
import pytest
import torch
from peft.utils.loftq_utils import _low_rank_decomposition
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from lora.adapter import Adapter, Spec, b_factors, set_strength
from lora.loftq import start_at_rounding_error
from lora.low_rank_linear import low_rank_linear
from lora.quantised import QuantisedLinear
from lora.variants import VARIANTS, Variant, adapter_class
from training.flags.method import MethodArgs

SPECS = [Spec(1), Spec(4, 8.0), Spec(4, 8.0, "rslora"), Spec(3, 2.0, "paper", "paper")]
PARTS = [(1, (0,)), (3, (0, 1, 2)), (3, (0, 2)), (3, (1,))]


@pytest.fixture(params=VARIANTS)
def variant(request):
    return adapter_class(request.param)


def adapter_of(variant, spec=SPECS[1], parts=1, active=(0,), trained=True, layer=None):
    torch.manual_seed(0)
    adapter = variant(layer or torch.nn.Linear(12, 18), spec, parts, active, torch.Generator().manual_seed(1))
    return disturbed(adapter) if trained else adapter


def disturbed(adapter, scale=1.0):
    """As if it had been trained: noise on all that trains."""
    with torch.no_grad():
        for _, parameter in own(adapter, "parameters"):
            parameter += scale * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    return adapter


def own(adapter, *kinds):
    """(name, tensor) of what the adapter adds to its layer."""
    named = [pair for kind in kinds for pair in getattr(adapter, f"named_{kind}")()]
    return [(name, tensor) for name, tensor in named if not name.startswith("linear.")]


def quantised(bits):
    pytest.importorskip("bitsandbytes")
    layer = QuantisedLinear(64, 96, torch.nn.Parameter(torch.randn(96)), bits)
    layer.store(torch.randn(96, 64))
    return layer


def test_the_methods_are_the_files_of_the_folder_and_those_without_adapters():
    files = (Path(__file__).parents[2] / "lora" / "variants").glob("[!_]*.py")
    assert set(VARIANTS) == {file.stem.replace("_", "-") for file in files} > {"lora", "lora-fa"}
    assert set(get_args(get_type_hints(MethodArgs)["method"])) == {*VARIANTS, "full", "bitfit", "head"}
    assert all(MethodArgs(method).adapts for method in VARIANTS)


def test_what_a_file_says_of_its_variant_is_read_without_torch():
    code = "import sys; from lora.variants import VARIANTS; print(VARIANTS, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{VARIANTS} False\n"


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_says_what_its_module_says(name):
    module = importlib.import_module(adapter_class(name).__module__)
    said = {field.name: getattr(module, field.name.upper(), field.default) for field in fields(Variant)}
    assert VARIANTS[name] == Variant(**said)
    assert name == "lora" or VARIANTS[name].cost


def test_adapters_know_nothing_of_gpt2(variant):
    adapter = variant(torch.nn.Linear(5, 4), Spec(2))
    assert isinstance(adapter, Adapter)
    assert adapter(torch.randn(2, 5)).shape == (2, 4)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_an_untrained_adapter_changes_nothing(variant, spec, parts, active):
    adapter = adapter_of(variant, spec, parts, active, trained=False)
    x = torch.randn(5, 12)
    assert torch.equal(adapter(x), adapter.linear(x))
    assert torch.equal(adapter.merged_weight(), adapter.linear.weight)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_merged_equals_unmerged_and_merging_twice_equals_once(variant, spec, parts, active):
    adapter, x = adapter_of(variant, spec, parts, active), torch.randn(5, 12)
    before, frozen, bits = adapter(x), adapter.linear.weight, adapter.linear.weight.detach().clone()
    assert not torch.allclose(before, adapter.linear(x))
    adapter.merge()
    once = adapter.linear.weight.clone()
    close(adapter(x), before, 1e-6)
    adapter.merge()
    assert torch.equal(adapter.linear.weight, once)
    adapter.unmerge()
    adapter.unmerge()
    assert adapter.linear.weight is frozen and torch.equal(frozen, bits)
    assert torch.equal(adapter(x), before)


@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_parts_that_are_not_active_stay_frozen_outputs(variant, parts, active):
    adapter, x = adapter_of(variant, SPECS[1], parts, active), torch.randn(5, 12)
    changed = (adapter(x) - adapter.linear(x)).unflatten(1, (parts, -1)).abs().amax((0, 2)) > 1e-6
    assert changed.nonzero().flatten().tolist() == list(active)
    changed = adapter.update().unflatten(0, (parts, -1)).abs().amax((1, 2)) > 0
    assert changed.nonzero().flatten().tolist() == list(active)


@pytest.mark.parametrize("active", [(0, 1, 2), (0, 2)])
def test_a_fused_matrix_equals_separate_matrices_with_their_own_adapters(variant, active):
    fused, x = adapter_of(variant, SPECS[1], 3, active), torch.randn(5, 12)
    found = fused(x).chunk(3, 1)
    for place, part in enumerate(active):
        layer = torch.nn.Linear(12, 6)
        with torch.no_grad():
            layer.weight.copy_(fused.linear.weight[6 * part : 6 * part + 6])
            layer.bias.copy_(fused.linear.bias[6 * part : 6 * part + 6])
        single = variant(layer, SPECS[1])
        theirs = dict(own(fused, "parameters", "buffers"))
        with torch.no_grad():
            for name, tensor in own(single, "parameters", "buffers"):
                tensor.copy_(theirs[name].chunk(len(active))[place])
        assert torch.allclose(single(x), found[part], atol=1e-5)


def test_each_part_starts_from_its_own_rows(variant):
    fused = adapter_of(variant, SPECS[1], 3, (0, 2), trained=False)
    layer = torch.nn.Linear(12, 6)
    layer.weight.data = fused.linear.weight[12:].detach().clone()
    single = variant(layer, SPECS[1])
    random = {"low_rank.A"} if variant.__name__ in ("LoRA", "DoRA", "LoRAFA") else set()
    theirs = dict(own(fused, "parameters", "buffers"))
    for name, tensor in own(single, "parameters", "buffers"):
        if name not in random:  # singular vectors have no sign of their own
            assert torch.allclose(tensor.abs(), theirs[name].chunk(2)[1].abs(), atol=1e-5), name


def test_gradients_reach_the_adapter_only(variant):
    adapter = adapter_of(variant, parts=3, active=(0, 1))
    adapter(torch.randn(5, 12)).square().sum().backward()
    for name, parameter in adapter.named_parameters():
        assert parameter.requires_grad != name.startswith("linear.")
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == parameter.requires_grad


def test_a_step_leaves_the_frozen_matrix_and_the_fixed_factors_bit_equal(variant):
    adapter = adapter_of(variant)
    fixed = {**dict(adapter.linear.named_parameters()), **dict(adapter.named_buffers())}
    before = {name: tensor.detach().clone() for name, tensor in fixed.items()}
    optimizer = torch.optim.AdamW([p for p in adapter.parameters() if p.requires_grad], lr=0.1)
    adapter(torch.randn(5, 12)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in fixed.items())


@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_what_an_adapter_adds_is_all_that_has_to_be_saved(variant, parts, active):
    adapter, x = adapter_of(variant, SPECS[1], parts, active), torch.randn(5, 12)
    saved = {name: t.detach().clone() for name, t in own(adapter, "parameters", "buffers")}
    assert set(adapter.state_dict()) == {*saved, "linear.weight", "linear.bias"}
    other = copy.deepcopy(adapter)
    disturbed(other)
    assert not torch.allclose(other(x), adapter(x))
    with torch.no_grad():
        for name, tensor in own(other, "parameters", "buffers"):
            tensor.copy_(saved[name])
    assert torch.equal(other(x), adapter(x))


@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_strength_goes_from_the_base_to_the_adapter_in_a_straight_line(variant, parts, active):
    adapter, x = adapter_of(variant, SPECS[1], parts, active), torch.randn(5, 12)
    base, whole, update = adapter.linear(x), adapter(x), adapter.update()
    set_strength(torch.nn.Sequential(adapter), 0.0)
    assert torch.equal(adapter(x), base)
    assert torch.equal(adapter.merged_weight(), adapter.linear.weight)
    for strength in (0.3, 1.5):
        adapter.strength = strength
        assert torch.allclose(adapter(x), base + strength * (whole - base), rtol=1e-5, atol=1e-5)
        assert torch.allclose(adapter.merged_weight(), adapter.linear.weight + strength * update, atol=1e-6)
        before = adapter(x)
        adapter.merge()
        assert torch.allclose(adapter(x), before, rtol=1e-5, atol=1e-5)
        adapter.unmerge()
    adapter.strength = 1.0
    assert torch.equal(adapter(x), whole)
    assert not any("strength" in name for name in adapter.state_dict())


@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_factors_alone_say_what_the_update_is(variant, parts, active):
    """As another library would use them: part by part, on the untouched matrix."""
    adapter = adapter_of(variant, SPECS[1], parts, active)
    a, b, scale, magnitude = adapter.factors()
    expected = adapter.linear.weight.detach().clone()
    for part, rows, up in zip(active, a.chunk(len(active)), b, strict=True):
        place = slice(part * 18 // parts, (part + 1) * 18 // parts)
        expected[place] += scale * up.t() @ rows
    if magnitude is not None:
        assert magnitude.shape == (18,)
        expected *= (magnitude / expected.norm(dim=1))[:, None]
    assert torch.allclose(adapter.linear.weight + adapter.update(), expected, atol=1e-5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_what_trains_is_fp32_whatever_the_frozen_matrix_is_held_in(variant, half):
    adapter = adapter_of(variant, parts=3, active=(0, 2), trained=False, layer=torch.nn.Linear(12, 18).to(half))
    assert {p.dtype for _, p in own(adapter, "parameters", "buffers")} == {torch.float32}
    assert adapter.update().dtype == torch.float32


@pytest.mark.parametrize("trained", [False, True])
def test_autocast_gives_the_same_to_the_rounding_of_bf16(variant, trained):
    adapter, x = adapter_of(variant, parts=3, active=(0, 2), trained=trained), torch.randn(64, 12)
    exact = adapter(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = adapter(x)
    assert found.dtype == torch.bfloat16
    found.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for _, p in own(adapter, "parameters"))
    assert float((found - exact).detach().abs().max()) <= 2**-6 * float(exact.detach().abs().max())


def test_b_factors_are_the_trained_b_and_nothing_else(variant):
    model = torch.nn.Sequential(adapter_of(variant), torch.nn.Linear(18, 2), adapter_of(variant))
    assert [id(b) for b in b_factors(model)] == [id(model[i].low_rank.B) for i in (0, 2)]


@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_beside_a_quantised_layer_keeps_the_contract(variant, bits):
    layer, x = quantised(bits), torch.randn(5, 64)
    adapter = adapter_of(variant, SPECS[1], 3, (0, 2), trained=False, layer=layer)
    base = layer(x)
    assert torch.equal(adapter(x), base)
    disturbed(adapter, 0.1)
    before = adapter(x)
    before.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for _, p in own(adapter, "parameters"))
    for _ in range(2):
        adapter.merge()
    assert type(adapter.linear) is torch.nn.Linear
    assert torch.allclose(adapter(x), before, rtol=1e-5, atol=1e-4)
    for _ in range(2):
        adapter.unmerge()
    assert adapter.linear is layer and torch.equal(adapter(x), before)
    adapter.strength = 0.0
    assert torch.equal(adapter(x), base)


# LoRA, and what all variants have from it.


@pytest.mark.parametrize(("scaling", "expected"), [("standard", 16 / 4), ("rslora", 16 / 2), ("paper", 16.0)])
def test_scale_is_as_the_scaling_says(scaling, expected):
    assert Spec(4, 16.0, scaling).scale == expected


@pytest.mark.parametrize(("init", "bound"), [("standard", 1 / 12**0.5), ("paper", 1 / 4**0.5)])
def test_a_starts_uniform_within_its_bound_and_b_at_zero(init, bound):
    adapter = adapter_of(adapter_class("lora"), Spec(4, init=init), trained=False)
    assert 0.8 * bound < float(adapter.low_rank.A.detach().abs().max()) <= bound
    assert not adapter.low_rank.B.any()


def peft_of(layer, **settings):
    """PEFT's adapter of a copy of `layer`, rank 4 and alpha 8 as in SPECS[1]."""
    model = torch.nn.Sequential(copy.deepcopy(layer))
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["0"], **settings)
    return peft.get_peft_model(model, config).base_model.model[0]


def same_factors(theirs, adapter):
    with torch.no_grad():
        theirs.lora_A["default"].weight.copy_(adapter.low_rank.A)
        theirs.lora_B["default"].weight.copy_(torch.block_diag(*adapter.low_rank.B.transpose(1, 2)))


def assert_same_gradients(theirs, adapter):
    a, b = theirs.lora_A["default"].weight.grad, theirs.lora_B["default"].weight.grad
    close(adapter.low_rank.A.grad, a)
    close(adapter.low_rank.B.grad[0], b.t())


def close(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape
    assert float((ours - theirs).detach().abs().max()) <= tolerance * float(theirs.detach().abs().max())


def test_dropout_is_pefts_before_a_and_off_in_evaluation():
    spec = Spec(4, 8.0, dropout=0.3)
    adapter, x = adapter_of(adapter_class("lora"), spec), torch.randn(50, 12)
    theirs = peft_of(adapter.linear, lora_dropout=0.3)
    same_factors(theirs, adapter)
    outputs = []
    for layer in (adapter, theirs):
        torch.manual_seed(7)
        outputs.append(layer.train()(x))
        outputs[-1].square().sum().backward()
    close(*outputs)
    assert_same_gradients(theirs, adapter)
    assert not torch.equal(outputs[0], adapter(x)), "each pass draws its own mask"
    assert torch.equal(adapter.eval()(x), adapter(x))
    close(adapter(x), theirs.eval()(x))


@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_with_dropout_training_starts_at_the_base_and_its_mean_is_the_adapter(variant, parts, active):
    spec = Spec(4, 8.0, dropout=0.5)
    adapter, x = adapter_of(variant, spec, parts, active, trained=False).train(), torch.randn(3, 12)
    assert torch.equal(adapter(x), adapter.linear(x))
    disturbed(adapter, 0.3)
    exact = adapter.eval()(x)
    drawn = adapter.train()(x.repeat(4000, 1)).detach().unflatten(0, (4000, 3))  # each row has masks of its own
    error = drawn.std(0) / 4000**0.5
    assert bool(((drawn.mean(0) - exact).abs() <= 6 * error + 1e-5).all()) and bool((error > 0).any())


def test_dropout_draws_from_torchs_global_generator(variant):
    adapter, x = adapter_of(variant, Spec(4, dropout=0.5)).train(), torch.randn(3, 12)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(adapter(x))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


# LoftQ's start.


@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_loftq_starts_at_the_best_that_its_rank_can_do_about_the_rounding(parts, active):
    original = torch.randn(18, 12, generator=torch.Generator().manual_seed(3))
    layer = torch.nn.Linear(12, 18)
    layer.weight.data = (original * 2).round() / 2
    rounded = layer.weight.detach().clone()
    adapter = adapter_class("lora")(layer, Spec(4, 8.0), parts, active)
    start_at_rounding_error(adapter, original)
    left = (original - adapter.merged_weight()).unflatten(0, (parts, -1))
    before = (original - rounded).unflatten(0, (parts, -1))
    for part in range(parts):
        if part in active:
            beyond = torch.linalg.svdvals(before[part])[4:]
            assert torch.allclose(left[part].norm(), beyond.norm(), rtol=1e-4)
            assert left[part].norm() < before[part].norm()
        else:
            assert torch.equal(left[part], before[part])


def test_loftq_starts_as_pefts_does_where_the_scale_is_one():
    layer, original = torch.nn.Linear(12, 18), torch.randn(18, 12)
    adapter = adapter_class("lora")(layer, Spec(4, 4.0))
    start_at_rounding_error(adapter, original)
    expected = _low_rank_decomposition(original - layer.weight.detach(), 4)
    close(adapter.update(), expected["L"] @ expected["R"])
    assert torch.allclose(adapter.low_rank.A.norm(dim=1), expected["R"].norm(dim=1), rtol=1e-5)


# DoRA.


@pytest.mark.parametrize(("parts", "active"), PARTS)
@pytest.mark.parametrize("bias", [True, False])
def test_dora_equals_pefts_with_the_same_factors_and_magnitude(parts, active, bias):
    adapter = adapter_of(adapter_class("dora"), parts=parts, active=active, layer=torch.nn.Linear(12, 18, bias=bias))
    x, rank, width = torch.randn(5, 12), 4 * len(active), 18 // parts
    theirs = peft_of(adapter.linear, use_dora=True, rank_pattern={"0": rank}, alpha_pattern={"0": 2 * rank})
    rows = torch.cat([torch.arange(18).chunk(parts)[part] for part in active])  # those that have an update
    magnitude = theirs.lora_magnitude_vector["default"].weight
    close(adapter_of(adapter_class("dora"), trained=False, layer=adapter.linear).factors().magnitude, magnitude)
    with torch.no_grad():
        theirs.lora_A["default"].weight.copy_(adapter.low_rank.A)
        theirs.lora_B["default"].weight.zero_()[rows] = torch.block_diag(*adapter.low_rank.B.transpose(1, 2))
        magnitude.copy_(adapter.factors().magnitude)
    outputs = [layer(x) for layer in (adapter, theirs)]
    for output in outputs:
        output.square().sum().backward()
    close(*outputs)
    close(adapter.low_rank.A.grad, theirs.lora_A["default"].weight.grad)
    blocks = theirs.lora_B["default"].weight.grad[rows].unflatten(0, (len(active), width))
    for part, block in enumerate(blocks):
        close(adapter.low_rank.B.grad[part], block[:, 4 * part : 4 * part + 4].t())
    close(adapter.magnitude.grad, magnitude.grad[rows])


def test_doras_magnitude_is_the_length_of_each_row():
    adapter = adapter_of(adapter_class("dora"), parts=3, active=(0, 2))
    lengths = adapter.merged_weight().norm(dim=1)
    assert torch.allclose(lengths.chunk(3)[0], adapter.magnitude.chunk(2)[0].abs(), atol=1e-5)
    assert torch.allclose(lengths.chunk(3)[1], adapter.linear.weight.chunk(3)[1].norm(dim=1), atol=1e-6)


def test_a_row_of_zeros_stays_one_under_dora():
    layer = torch.nn.Linear(12, 18, bias=False)
    layer.weight.data[3] = 0
    adapter = adapter_of(adapter_class("dora"), trained=False, layer=layer)
    x = torch.randn(5, 12)
    output = adapter(x)
    output.square().sum().backward()
    close(output, layer(x))
    close(adapter.merged_weight(), layer.weight)
    assert all(torch.isfinite(p.grad).all() for p in adapter.parameters() if p.requires_grad)


# PiSSA and OLoRA.


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_a_start_in_the_matrix_is_pefts_and_so_are_outputs_and_gradients_from_there_on(name):
    adapter, x = adapter_of(adapter_class(name), trained=False), torch.randn(5, 12)
    theirs = peft_of(adapter.linear, init_lora_weights=name)
    close(adapter.low_rank.A, theirs.lora_A["default"].weight)
    close(adapter.low_rank.B[0], theirs.lora_B["default"].weight.t())
    disturbed(adapter, 0.5)
    same_factors(theirs, adapter)
    outputs = [layer(x) for layer in (adapter, theirs)]
    for output in outputs:
        output.square().sum().backward()
    close(*outputs)
    assert_same_gradients(theirs, adapter)


def test_pissa_starts_at_the_largest_singular_values():
    adapter = adapter_of(adapter_class("pissa"), Spec(4, 8.0, "rslora"), trained=False)
    piece = adapter.scale * adapter.low_rank.B[0].t() @ adapter.low_rank.A
    values = torch.linalg.svdvals(adapter.linear.weight)
    assert torch.allclose(torch.linalg.svdvals(adapter.linear.weight - piece)[:8], values[4:], atol=1e-5)


def test_olora_starts_with_orthonormal_columns():
    b = adapter_of(adapter_class("olora"), trained=False).low_rank.B[0]
    assert torch.allclose(b @ b.t(), torch.eye(4), atol=1e-5)


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_a_matrix_of_two_rows_has_no_more_than_two_pieces(name):
    adapter, x = (
        adapter_of(adapter_class(name), Spec(16), trained=False, layer=torch.nn.Linear(12, 2)),
        torch.randn(3, 12),
    )
    assert torch.equal(adapter(x), adapter.linear(x))
    assert adapter.low_rank.A.shape == (2, 12)


# LoRA-FA.


def test_lora_fa_is_lora_whose_a_gets_no_gradient():
    x, found = torch.randn(5, 12), []
    for name in ("lora", "lora-fa"):
        adapter = adapter_of(adapter_class(name), parts=3, active=(0, 2), trained=False)
        with torch.no_grad():
            adapter.low_rank.B.copy_(torch.randn(adapter.low_rank.B.shape, generator=torch.Generator().manual_seed(4)))
        y = adapter(x)
        y.square().sum().backward()
        found.append((adapter.low_rank.A.detach(), y, adapter.low_rank.B.grad))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
    assert [name for name, _ in own(adapter, "parameters")] == ["low_rank.B"]


@pytest.mark.parametrize(("name", "kept"), [("lora", True), ("lora-fa", False)])
def test_lora_fa_keeps_nothing_of_the_layers_input(name, kept):
    adapter, x = adapter_of(adapter_class(name)), torch.randn(5, 12).requires_grad_()
    saved = []
    with saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        adapter(x * 1)
    assert any(t.shape == x.shape for t in saved) == kept
    assert any(t.shape == (5, 4) for t in saved), "x A^T is what B's gradient needs"


@pytest.mark.parametrize("wanted", ["x", "weight", "bias", "a", "b"])
def test_the_fused_layer_keeps_its_input_for_a_and_the_weight_alone(wanted):
    given = {"x": (7, 5), "weight": (6, 5), "bias": (6,), "a": (2, 5), "b": (1, 2, 6)}
    tensors = {name: torch.randn(shape).requires_grad_(name == wanted) for name, shape in given.items()}
    saved = []
    with saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = low_rank_linear(F.linear, *tensors.values(), 0.5, (0,))
    assert any(t.shape == (7, 5) for t in saved) == (wanted in ("a", "weight"))
    y.sum().backward()
    again = {name: t.detach().requires_grad_(name == wanted) for name, t in tensors.items()}
    x, weight, bias, a, b = again.values()
    (F.linear(x, weight, bias) + 0.5 * F.linear(x, a) @ b[0]).sum().backward()
    close(tensors[wanted].grad, again[wanted].grad)
