"""What decays and what does not, and one step of each optimizer against torch's own."""

from copy import deepcopy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from training.flags.common import MethodArgs, UpdateArgs
from training.model.methods import apply_method
from training.step.optimizers import build_optimizer, muon_with_adamw, page_again, parameter_groups
from training.step.update import apply_update

CONFIG = GPT2Config(width=16, blocks=2, heads=2, vocabulary=31, context=12)
METHODS = {
    "full": MethodArgs(method="full"),
    "full, last block": MethodArgs(method="full", last_blocks=1),
    "bitfit": MethodArgs(method="bitfit"),
    "lora": MethodArgs(lora_rank=2),
    "lora, last block": MethodArgs(lora_rank=2, last_blocks=1),
    "lora, q and v": MethodArgs(lora_rank=2, lora_targets=("q", "v")),
}


def classifier(method="full"):
    model = Classifier(CONFIG, 3)
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    apply_method(model, METHODS[method], seed=0)
    return model


def language_model(method="full", untied=False):
    model = LanguageModel(CONFIG)
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    if untied:
        model.untie()
    apply_method(model, METHODS[method], seed=0)
    return model


MODELS = [
    pytest.param(kind, method, id=f"{kind.__name__}-{method}")
    for kind in (classifier, language_model)
    for method in METHODS
]


def names_by_decay(model, weight_decay=0.1, decay_all=False):
    """(decaying, not decaying) names of the parameters in the groups."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = {True: [], False: []}
    for group in parameter_groups(model, weight_decay, decay_all):
        assert group["weight_decay"] in (0.0, weight_decay)
        found[group["weight_decay"] > 0] += [names[id(p)] for p in group["params"]]
    return found[True], found[False]


# Groups.


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize(("kind", "method"), MODELS)
def test_every_trained_parameter_is_in_one_group_and_no_frozen_one_in_any(kind, method, decay_all):
    model = kind(method)
    decaying, plain = names_by_decay(model, decay_all=decay_all)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and sorted(decaying + plain) == sorted(trained)


@pytest.mark.parametrize(("kind", "method"), MODELS)
def test_only_matrices_that_are_no_embeddings_decay(kind, method):
    model = kind(method)
    decaying, plain = names_by_decay(model)
    parameters = dict(model.named_parameters())
    for name in decaying:
        assert parameters[name].dim() >= 2 and ".wte." not in name and ".wpe." not in name, name
    for name in plain:
        assert parameters[name].dim() == 1 or ".wte." in name or ".wpe." in name, name


def test_the_decaying_parameters_of_full_fine_tuning_are_the_matrices_of_the_blocks_and_the_head():
    decaying, plain = names_by_decay(classifier())
    matrices = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    expected = [f"transformer.h.{i}.{matrix}.weight" for i in range(2) for matrix in matrices]
    assert sorted(decaying) == sorted([*expected, "score.weight"])
    assert {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight"} < set(plain)
    assert "transformer.h.0.attn.c_attn.bias" in plain


def test_both_factors_of_an_adapter_decay():
    decaying, plain = names_by_decay(language_model("lora"))
    assert len(decaying) == 2 * 4 * 2 and plain == []
    assert {name.rsplit(".", 1)[1] for name in decaying} == {"A", "B"}


def test_a_head_that_shares_the_embedding_does_not_decay_and_one_of_its_own_does():
    decaying, plain = names_by_decay(language_model())
    assert "transformer.wte.weight" in plain and not any("lm_head" in name for name in decaying)
    decaying, plain = names_by_decay(language_model(untied=True))
    assert "transformer.wte.weight" in plain and "lm_head.weight" in decaying


def test_with_decay_all_nothing_is_left_out():
    decaying, plain = names_by_decay(classifier(), decay_all=True)
    assert plain == [] and "transformer.wte.weight" in decaying and "transformer.ln_f.bias" in decaying


def test_no_group_is_empty():
    assert [len(group["params"]) > 0 for group in parameter_groups(classifier("bitfit"), 0.1, False)] == [True, True]
    assert len(parameter_groups(language_model("lora"), 0.1, False)) == 1


# One step.


def with_gradients(model, seed=1):
    g = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.randn(p.shape, generator=g)
    return model


def steps(model, optimizer, lr, number=2):
    for i in range(number):
        for group in optimizer.param_groups:
            group["lr"] = lr
        with_gradients(model, seed=i)
        optimizer.step()
    return dict(model.named_parameters())


def reference_groups(model, weight_decay):
    """By module, without a look at shapes: weights of linear layers decay, the rest does not."""
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    return [
        {"params": [p for p in model.parameters() if id(p) in linear], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in linear], "weight_decay": 0.0},
    ]


def assert_same_parameters(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        assert torch.allclose(parameter, theirs[name], rtol=1e-6, atol=1e-7), name


def test_adamw_is_that_of_torch_with_its_default_betas():
    ours = classifier()
    theirs = deepcopy(ours)
    optimizer = build_optimizer(ours, UpdateArgs(optimizer="adamw", weight_decay=0.3))
    reference = torch.optim.AdamW(reference_groups(theirs, 0.3), lr=1e-2, betas=(0.9, 0.999), eps=1e-8, foreach=False)
    assert_same_parameters(steps(ours, optimizer, 1e-2), steps(theirs, reference, 1e-2))


def test_the_authors_adamw_decays_everything():
    ours = classifier()
    theirs = deepcopy(ours)
    optimizer = build_optimizer(ours, UpdateArgs(optimizer="adamw", weight_decay=0.1, decay_all=True))
    reference = torch.optim.AdamW(theirs.parameters(), lr=5e-3, weight_decay=0.1, foreach=False)
    assert_same_parameters(steps(ours, optimizer, 5e-3), steps(theirs, reference, 5e-3))


@pytest.mark.parametrize(
    ("name", "momentum", "used"), [("sgd", 0.9, 0.0), ("sgd-momentum", 0.9, 0.9), ("sgd-momentum", 0.99, 0.99)]
)
def test_sgd_is_that_of_torch_with_momentum_only_where_asked(name, momentum, used):
    ours = classifier()
    theirs = deepcopy(ours)
    optimizer = build_optimizer(ours, UpdateArgs(optimizer=name, momentum=momentum, weight_decay=0.2))
    reference = torch.optim.SGD(reference_groups(theirs, 0.2), lr=1e-2, momentum=used, foreach=False)
    assert_same_parameters(steps(ours, optimizer, 1e-2), steps(theirs, reference, 1e-2))


def test_one_step_of_sgd_without_decay_is_the_gradient_times_the_learning_rate():
    model = classifier()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, UpdateArgs(optimizer="sgd", weight_decay=0.0))
    after = steps(model, optimizer, 0.5, number=1)
    for name, parameter in after.items():
        assert torch.allclose(parameter, before[name] - 0.5 * parameter.grad, atol=1e-6), name


def test_the_learning_rate_is_nothing_until_a_step_sets_it():
    model = with_gradients(classifier())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    build_optimizer(model, UpdateArgs(weight_decay=0.3)).step()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "sgd-momentum"])
def test_a_step_leaves_frozen_weights_bit_for_bit(optimizer):
    model = classifier("lora")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    after = steps(model, build_optimizer(model, UpdateArgs(optimizer=optimizer, weight_decay=0.3)), 1e-2)
    moved = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}


# Learning-rate ratios, and several optimizers as one.


@pytest.mark.parametrize("method", ["lora", "dora", "pissa", "lora-fa"])
def test_lora_plus_raises_the_rate_of_the_b_factors_alone(method):
    model = Classifier(CONFIG, 3)
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    apply_method(model, MethodArgs(method, lora_rank=2), seed=0)
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, UpdateArgs(), b_ratio=16.0)
    ratios = {names[id(p)]: group["lr_ratio"] for group in optimizer.param_groups for p in group["params"]}
    assert ratios.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, ratio in ratios.items() if ratio == 16} == {n for n in ratios if n.endswith("low_rank.B")}
    assert set(ratios.values()) == {1.0, 16.0}


def test_an_update_gives_each_group_its_share_of_the_learning_rate():
    accelerator, model = Accelerator(cpu=True), with_gradients(classifier("lora"))
    optimizer = accelerator.prepare_optimizer(build_optimizer(model, UpdateArgs(), b_ratio=4.0))
    apply_update(accelerator, model, optimizer, 0.5, None)
    assert {(group["lr_ratio"], group["lr"]) for group in optimizer.param_groups} == {(1.0, 0.5), (4.0, 2.0)}


def muon_steps(model, optimizer):
    for i in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * group["lr_ratio"]
        with_gradients(model, seed=i)
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest():
    ours = language_model()
    theirs = deepcopy(ours)
    found = muon_steps(ours, muon_with_adamw(ours, 0.15, 0.05, 0.1))
    matrices = [p for name, p in theirs.named_parameters() if ".h." in name and p.dim() == 2]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1)
    embeddings = [theirs.transformer.wte.weight, theirs.transformer.wpe.weight]
    known = {id(p) for p in (*matrices, *embeddings)}
    others = [p for p in theirs.parameters() if id(p) not in known]
    settings = {"betas": (0.9, 0.95), "weight_decay": 0.0, "foreach": False}
    parts = [muon, *(torch.optim.AdamW(p, lr=lr, **settings) for p, lr in ((embeddings, 3e-3), (others, 1e-3)))]
    for i in range(3):
        with_gradients(theirs, seed=i)
        for part in parts:
            part.step()
    assert_same_parameters(found, dict(theirs.named_parameters()))


def test_muon_with_adamw_goes_on_from_its_saved_state_bit_for_bit():
    model = language_model()
    optimizer = muon_with_adamw(model, 0.15, 0.05, 0.1)
    muon_steps(model, optimizer)
    other = deepcopy(model)
    second = muon_with_adamw(other, 0.15, 0.05, 0.1)
    second.load_state_dict(deepcopy(optimizer.state_dict()))
    assert second.param_groups[0] is second.parts[0].param_groups[0]
    expected, found = muon_steps(model, optimizer), muon_steps(other, second)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_loaded_states_of_a_paged_optimizer_are_in_pages_again():
    """As bitsandbytes has it: its own load_state_dict makes ordinary tensors of them."""
    parameter, pages = nn.Parameter(torch.zeros(4, 3)), []

    class Paged(torch.optim.SGD):
        is_paged = True

        def get_state_buffer(self, p, dtype):
            pages.append(torch.zeros_like(p, dtype=dtype))
            return pages[-1]

    optimizer, loaded = Paged([parameter], lr=0.1), torch.arange(12, dtype=torch.uint8).view(4, 3)
    optimizer.state[parameter] = {"state1": loaded, "absmax1": torch.ones(2), "step": 3}
    page_again(optimizer)
    found = optimizer.state[parameter]
    assert found["state1"] is pages[0] and len(pages) == 1 and torch.equal(pages[0], loaded)
    assert found["step"] == 3 and torch.equal(found["absmax1"], torch.ones(2))
    optimizer.is_paged = False
    page_again(optimizer)
    assert len(pages) == 1
