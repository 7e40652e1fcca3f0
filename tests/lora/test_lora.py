"""Adapters in the model: against PEFT, merging, what trains and what is saved, and the report's parameter counts."""

import peft
import pytest
import torch
import transformers

from gpt2_scratch.config import SIZES, GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.pretrained import save_pretrained, without_storage
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import adapters, merge, unmerge
from lora.variants import VARIANTS
from training.flags.method import BLOCK_TARGETS, MethodArgs
from training.model.methods import apply_method, load_own_state, own_state, parameter_counts

SMALL = GPT2Config(width=16, blocks=3, heads=2, vocabulary=101, context=32)
TOKENS, LENGTHS = torch.tensor([1, 2, 3, 4, 50, 60, 7]), torch.tensor([4, 3])
ALL = (*BLOCK_TARGETS, "lm-head")
EVERYWHERE = MethodArgs(lora_rank=4, lora_targets=ALL)


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


def close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert float((ours - theirs).detach().abs().max()) <= tolerance * float(theirs.detach().abs().max())


def outputs(model):
    extra = [torch.tensor([2, 3, 4, -100, 60, 7, -100])] if isinstance(model, LanguageModel) else []
    return model(TOKENS, LENGTHS, *extra)


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_logits_and_gradients_equal_pefts_with_the_same_factors(name, tmp_path):
    """Our q, k, v adapters of rank r are PEFT's fused one of rank 3r with a block-diagonal B."""
    method = MethodArgs(name, lora_rank=4, lora_alpha=8.0, lora_targets=BLOCK_TARGETS)
    base = LanguageModel(SMALL)
    initialise(base, torch.Generator().manual_seed(0), std=0.2)
    save_pretrained(base, tmp_path, GPT2)
    model = adapted(method=method)
    hf = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["c_attn", "c_proj", "c_fc"],
        rank_pattern={"c_attn": 12},
        alpha_pattern={"c_attn": 24},
        fan_in_fan_out=True,
        use_dora=name == "dora",
    )
    theirs = peft.get_peft_model(hf, config).eval()
    modules = dict(theirs.base_model.model.named_modules())
    pairs = [(adapter, modules[path]) for path, adapter in adapters(model)]
    assert len(pairs) == 4 * SMALL.blocks
    for adapter, module in pairs:
        with torch.no_grad():
            module.lora_A["default"].weight.copy_(adapter.low_rank.A)
            module.lora_B["default"].weight.copy_(torch.block_diag(*adapter.low_rank.B.transpose(1, 2)))
            if name == "dora":
                module.lora_magnitude_vector["default"].weight.copy_(adapter.magnitude)
    for row in TOKENS.split(LENGTHS.tolist()):
        expected = theirs(row[None]).logits[0, :-1].log_softmax(-1).gather(1, row[1:, None]).squeeze(1)
        ours = model(row, torch.tensor([len(row)]), torch.cat([row[1:], torch.tensor([-100])]))
        close(ours, expected, 1e-5)
        ours.sum().backward()
        expected.sum().backward()
    for adapter, module in pairs:
        close(adapter.low_rank.A.grad, module.lora_A["default"].weight.grad, 1e-5)
        parts = module.lora_B["default"].weight.grad.chunk(adapter.parts)
        for i, (b, part) in enumerate(zip(adapter.low_rank.B.grad, parts, strict=True)):
            close(b, part[:, 4 * i : 4 * i + 4].t(), 1e-5)
        if name == "dora":
            close(adapter.magnitude.grad, module.lora_magnitude_vector["default"].weight.grad, 1e-5)


def test_merging_a_whole_model_changes_no_output_and_no_embedding():
    model = adapted()
    before, embedding = outputs(model), model.transformer.wte.weight.detach().clone()
    merge(model)
    assert torch.allclose(outputs(model), before, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.transformer.wte.weight, embedding)
    unmerge(model)
    assert torch.equal(outputs(model), before)
    assert model.lm_head.linear.weight is model.transformer.wte.weight


@pytest.mark.parametrize(
    ("name", "head_training"),
    [
        *((name, head) for name in VARIANTS for head in ("train", "frozen+lora", "train+lora")),
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


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("lora", 16 * 18 * 768),  # R * (in + out) of q, k, v, attn-out (2 C each), mlp-in and mlp-out (5 C each)
        ("pissa", 16 * 18 * 768),
        ("olora", 16 * 18 * 768),
        ("dora", 16 * 18 * 768 + 9 * 768),  # and a length for each row
        ("lora-fa", 16 * 9 * 768),
    ],
)
def test_trainable_parameters_of_each_variant(method, expected):
    def build():
        model = LanguageModel(SIZES["gpt2"])
        apply_method(model, MethodArgs(method), 0)
        return model

    assert parameter_counts(without_storage(build))["trainable"] == 12 * expected
