"""The adapter contract for every variant, plain LoRA against PEFT, and the report's parameter counts."""

import peft
import pytest
import torch
import transformers

import lora
from gpt2_scratch.config import SIZES, GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.pretrained import save_pretrained, without_storage
from lora import Adapter, Spec
from training.args import BLOCK_TARGETS, MethodArgs
from training.methods import apply_method, load_own_state, own_state, parameter_counts

SMALL = GPT2Config(width=16, blocks=3, heads=2, vocabulary=101, context=32)
SPECS = [Spec(1), Spec(4, 8.0), Spec(4, 8.0, "rslora"), Spec(3, 2.0, "paper", "paper")]
PARTS = [(1, (0,)), (3, (0, 1, 2)), (3, (0, 2)), (3, (1,))]
TOKENS, LENGTHS = torch.tensor([1, 2, 3, 4, 50, 60, 7]), torch.tensor([4, 3])
ALL = (*BLOCK_TARGETS, "lm-head")
EVERYWHERE = MethodArgs(lora_rank=4, lora_targets=ALL)


@pytest.fixture(params=lora.VARIANTS)
def variant(request):
    return lora.variant(request.param)


def adapter_of(variant, spec=SPECS[1], parts=1, active=(0,), trained=True):
    torch.manual_seed(0)
    adapter = variant(torch.nn.Linear(12, 18), spec, parts, active, torch.Generator().manual_seed(1))
    if trained:
        with torch.no_grad():
            for name, parameter in adapter.named_parameters():
                if not name.startswith("linear."):
                    parameter.normal_()
    return adapter


def test_the_registry_finds_the_variants():
    assert "lora" in lora.VARIANTS


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_an_untrained_adapter_changes_nothing(variant, spec, parts, active):
    adapter = adapter_of(variant, spec, parts, active, trained=False)
    x = torch.randn(5, 12)
    assert torch.equal(adapter(x), adapter.linear(x))


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_merged_equals_unmerged_and_merging_twice_equals_once(variant, spec, parts, active):
    adapter, x = adapter_of(variant, spec, parts, active), torch.randn(5, 12)
    before, frozen = adapter(x), adapter.linear.weight.detach().clone()
    assert not torch.allclose(before, adapter.linear(x))
    adapter.merge()
    once = adapter.linear.weight.clone()
    assert torch.allclose(adapter(x), before, rtol=1e-5, atol=1e-5)
    adapter.merge()
    assert torch.equal(adapter.linear.weight, once)
    adapter.unmerge()
    adapter.unmerge()
    assert torch.equal(adapter.linear.weight, frozen)
    assert torch.equal(adapter(x), before)


@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_parts_that_are_not_active_stay_frozen_outputs(variant, parts, active):
    adapter, x = adapter_of(variant, SPECS[1], parts, active), torch.randn(5, 12)
    changed = (adapter(x) - adapter.linear(x)).unflatten(1, (parts, -1)).abs().amax((0, 2)) > 1e-6
    assert changed.nonzero().flatten().tolist() == list(active)


def test_a_fused_matrix_equals_separate_matrices_with_their_own_adapters(variant):
    fused, x = adapter_of(variant, SPECS[1], 3, (0, 1, 2)), torch.randn(5, 12)
    separate = []
    for i in range(3):
        single = variant(torch.nn.Linear(12, 6), SPECS[1])
        with torch.no_grad():
            single.linear.weight.copy_(fused.linear.weight[6 * i : 6 * i + 6])
            single.linear.bias.copy_(fused.linear.bias[6 * i : 6 * i + 6])
            single.low_rank.A.copy_(fused.low_rank.A[4 * i : 4 * i + 4])
            single.low_rank.B.copy_(fused.low_rank.B[i : i + 1])
        separate.append(single(x))
    assert torch.allclose(torch.cat(separate, 1), fused(x), atol=1e-5)


def test_gradients_reach_the_adapter_only(variant):
    adapter = adapter_of(variant, parts=3, active=(0, 1))
    adapter(torch.randn(5, 12)).square().sum().backward()
    for name, parameter in adapter.named_parameters():
        assert parameter.requires_grad != name.startswith("linear.")
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == parameter.requires_grad


def test_a_step_leaves_the_frozen_matrix_bit_equal(variant):
    adapter = adapter_of(variant)
    frozen = {name: p.detach().clone() for name, p in adapter.linear.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in adapter.parameters() if p.requires_grad], lr=0.1)
    adapter(torch.randn(5, 12)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(p, frozen[name]) for name, p in adapter.linear.named_parameters())


@pytest.mark.parametrize(("scaling", "expected"), [("standard", 16 / 4), ("rslora", 16 / 2), ("paper", 16.0)])
def test_scale_is_as_the_scaling_says(scaling, expected):
    assert Spec(4, 16.0, scaling).scale == expected


@pytest.mark.parametrize(("init", "bound"), [("standard", 1 / 12**0.5), ("paper", 1 / 4**0.5)])
def test_a_starts_uniform_within_its_bound_and_b_at_zero(init, bound):
    adapter = adapter_of(lora.variant("lora"), Spec(4, init=init), trained=False)
    assert 0.8 * bound < float(adapter.low_rank.A.detach().abs().max()) <= bound
    assert not adapter.low_rank.B.any()


# In the model.


def adapted(kind=LanguageModel, method=EVERYWHERE, head_training="train", trained=True):
    model = kind(SMALL, *([3] if kind is Classifier else []))
    initialise(model, torch.Generator().manual_seed(0), std=0.2)
    apply_method(model, method, seed=0, head_training=head_training)
    if trained:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.normal_(0, 0.3, generator=generator)
    return model.eval()


def outputs(model):
    extra = [torch.tensor([2, 3, 4, -100, 60, 7, -100])] if isinstance(model, LanguageModel) else []
    return model(TOKENS, LENGTHS, *extra)


def test_logits_equal_pefts_with_the_same_factors(tmp_path):
    """Our q, k, v adapters of rank r are PEFT's fused one of rank 3r with a block-diagonal B."""
    method = MethodArgs(lora_rank=4, lora_alpha=8.0, lora_targets=BLOCK_TARGETS)
    base = LanguageModel(SMALL)
    initialise(base, torch.Generator().manual_seed(0), std=0.2)
    save_pretrained(base, tmp_path)
    model = adapted(method=method)
    hf = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["c_attn", "c_proj", "c_fc"],
        rank_pattern={"c_attn": 12},
        alpha_pattern={"c_attn": 24},
        fan_in_fan_out=True,
    )
    theirs = peft.get_peft_model(hf, config).eval()
    modules = dict(theirs.base_model.model.named_modules())
    found = 0
    for name, adapter in lora.adapters(model):
        a, b = adapter.low_rank.A, adapter.low_rank.B
        with torch.no_grad():
            modules[name].lora_A["default"].weight.copy_(a)
            modules[name].lora_B["default"].weight.copy_(torch.block_diag(*b.transpose(1, 2)))
        found += 1
    assert found == 4 * SMALL.blocks
    for row in TOKENS.split(LENGTHS.tolist()):
        expected = theirs(row[None]).logits[0, :-1].log_softmax(-1).gather(1, row[1:, None]).squeeze(1)
        ours = model(row, torch.tensor([len(row)]), torch.cat([row[1:], torch.tensor([-100])]))
        assert float((ours - expected).detach().abs().max()) <= 1e-5 * float(expected.detach().abs().max())


def test_merging_a_whole_model_changes_no_output_and_no_embedding():
    model = adapted()
    before, embedding = outputs(model), model.transformer.wte.weight.detach().clone()
    lora.merge(model)
    assert torch.allclose(outputs(model), before, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.transformer.wte.weight, embedding)
    lora.unmerge(model)
    assert torch.equal(outputs(model), before)
    assert model.lm_head.linear.weight is model.transformer.wte.weight


@pytest.mark.parametrize(
    ("name", "head_training"),
    [
        ("lora", "train"),
        ("lora", "frozen+lora"),
        ("lora", "train+lora"),
        ("full", "train"),
        ("bitfit", "train"),
        ("head", "train"),
    ],
)
def test_what_was_trained_can_be_saved_and_put_into_a_fresh_model(name, head_training):
    method = MethodArgs(name, lora_rank=2)
    model, fresh = adapted(Classifier, method, head_training), adapted(Classifier, method, head_training, trained=False)
    assert not torch.allclose(outputs(model), outputs(fresh))
    load_own_state(fresh, {k: v.clone() for k, v in own_state(model).items()})
    assert torch.equal(outputs(model), outputs(fresh))


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_saved_weights_that_do_not_fit_are_refused(change):
    model = adapted()
    state = {name: tensor.clone() for name, tensor in own_state(model).items()}
    name = next(iter(state))
    if change == "missing":
        del state[name]
    elif change == "unexpected":
        state["more"] = torch.ones(1)
    else:
        state[name] = torch.ones(2, 2, 2)
    with pytest.raises(ValueError, match=change):
        load_own_state(model, state)


def trained_names(method, kind=Classifier, head_training="train"):
    model = adapted(kind, method, head_training, trained=False)
    return {name for name, p in model.named_parameters() if p.requires_grad}, {n for n, _ in model.named_parameters()}


def test_each_method_trains_what_it_says():
    trained, everything = trained_names(MethodArgs("full"))
    assert trained == everything
    trained, _ = trained_names(MethodArgs("full", last_blocks=1))
    assert trained == {n for n in everything if n.startswith(("transformer.h.2.", "transformer.ln_f.", "score."))}
    trained, _ = trained_names(MethodArgs("head"))
    assert trained == {"score.weight"}
    trained, _ = trained_names(MethodArgs("bitfit"))
    assert trained == {n for n in everything if n.endswith("bias")} | {"score.weight"}
    trained, _ = trained_names(MethodArgs("bitfit", last_blocks=2))
    assert not any(n.startswith("transformer.h.0.") for n in trained)
    trained, _ = trained_names(MethodArgs("lora", last_blocks=1))
    assert trained and all(n.startswith("transformer.h.2.") or n == "score.weight" for n in trained)
    trained, _ = trained_names(MethodArgs("lora", lora_targets=("q", "mlp-out")))
    assert {n.split(".")[3] + "." + n.split(".")[4] for n in trained if n != "score.weight"} == {
        "attn.c_attn",
        "mlp.c_proj",
    }


def test_an_adapted_block_starts_the_same_whichever_other_blocks_are_adapted():
    some = own_state(adapted(method=MethodArgs(last_blocks=1), trained=False))
    every = own_state(adapted(method=MethodArgs(), trained=False))
    assert some.keys() < every.keys()
    assert all(torch.equal(tensor, every[name]) for name, tensor in some.items())


def trainable(size, rank, last_blocks=None, kind=LanguageModel, targets=ALL, head_training="train", bias=False):
    def build():
        model = kind(SIZES[size], *([2, bias] if kind is Classifier else []))
        apply_method(model, MethodArgs(lora_rank=rank, lora_targets=targets, last_blocks=last_blocks), 0, head_training)
        return model

    model = without_storage(build)
    assert all(p.is_meta for p in model.parameters())
    return parameter_counts(model)["trainable"]


@pytest.mark.parametrize(
    ("size", "rank", "last_blocks", "expected"),
    [
        ("gpt2-medium", 2, None, 987_298),
        ("gpt2-medium", 4, None, 1_974_596),
        ("gpt2-medium", 8, None, 3_949_192),
        ("gpt2-medium", 16, None, 7_898_384),
        ("gpt2-medium", 32, None, 15_796_768),
        ("gpt2-medium", 16, 18, 6_128_912),
        ("gpt2-medium", 16, 20, 6_718_736),
        ("gpt2-medium", 16, 22, 7_308_560),
        ("gpt2-large", 16, None, 14_095_632),
        ("gpt2-large", 8, None, 7_047_816),
        ("gpt2-large", 32, None, 28_191_264),
    ],
)
def test_trainable_parameters_equal_the_reports(size, rank, last_blocks, expected):
    assert trainable(size, rank, last_blocks) == expected


def test_trainable_parameters_without_the_head_are_those_of_the_blocks():
    assert trainable("gpt2-medium", 16, targets=BLOCK_TARGETS) == 7_077_888


@pytest.mark.parametrize(
    ("rank", "last_blocks", "head_training", "expected"),
    [
        (16, None, "frozen+lora", 7_094_304),
        (16, None, "train+lora", 7_096_354),
        (16, 18, "train+lora", 5_326_882),
        (16, 1, "train+lora", 313_378),
        (2, None, "train+lora", 888_838),
        (32, None, "train+lora", 14_190_658),
    ],
)
def test_trainable_parameters_of_the_reports_classifiers(rank, last_blocks, head_training, expected):
    """Medium with an adapter on the head of two classes, which the spam runs froze and the sentiment runs trained."""
    found = trainable(
        "gpt2-medium", rank, last_blocks, Classifier, BLOCK_TARGETS, head_training, bias=head_training == "train+lora"
    )
    assert found == expected


def test_adapters_know_nothing_of_gpt2():
    adapter = lora.variant("lora")(torch.nn.Linear(5, 4), Spec(2))
    assert isinstance(adapter, Adapter)
    assert adapter(torch.randn(2, 5)).shape == (2, 4)
