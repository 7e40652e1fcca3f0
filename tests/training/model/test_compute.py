"""The speed tricks are exact: each of them, on and off, gives the same loss and gradients in any batch composition."""

import json
import platform
from dataclasses import replace
from functools import partial
from itertools import chain, combinations

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from forked import run_forked
from test_frozen_activations import attached, build, instructions
from test_model import relative_error
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import gpt2_scratch.attention
import gpt2_scratch.lm_head
import gpt2_scratch.model
from gpt2_scratch.attention import attend, attend_padded, layout_of
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import Sampling
from gpt2_scratch.lm_head import label_log_probabilities
from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import Spec, adapters
from lora.low_rank_linear import LowRankLinear, low_rank_linear
from lora.variants import adapter_class
from training.evaluation.inference import answer
from training.flags.common import BLOCK_TARGETS, MethodArgs
from training.flags.compute import ComputeArgs
from training.model.frozen_activations import cache_key, contents, frozen_blocks
from training.model.methods import apply_compute, hold_frozen, own_state
from training.step.losses import class_loss, token_loss

CONFIG = GPT2Config(width=16, blocks=3, heads=2, vocabulary=61, context=128)
HALF_EPSILON = 2.0**-8  # relative rounding of bf16
EXACT = 1e-12  # in fp64, relative to the largest


@pytest.fixture(autouse=True)
def _own_precision():
    """All accelerators of a process share one state, which remembers the first precision."""
    yield
    AcceleratorState._reset_state()


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=rng(seed), dtype=dtype)


class Ops(TorchDispatchMode):
    """Records (name, arguments, result) of every operation that reaches a kernel."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        self.seen.append((str(op), args, result))
        return result

    def named(self, name):
        return [(args, result) for found, args, result in self.seen if name in found]


# The low-rank layer as one operation.

INPUTS = ("x", "weight", "bias", "a", "b")
SUBSETS = list(chain.from_iterable(combinations(INPUTS, n) for n in range(1, 6)))
PARTS = [(1, (0,)), (3, (0, 1, 2)), (3, (0, 2)), (3, (1,))]
fused_layer = partial(LowRankLinear.apply, F.linear)


def layer_inputs(parts, active, tokens=4, dtype=torch.float64):
    """x (N, 5), weight (6, 5), bias (6,), A (2 P, 5), B (P, 2, 6 / parts)."""
    shapes = ((tokens, 5), (6, 5), (6,), (2 * len(active), 5), (len(active), 2, 6 // parts))
    return dict(zip(INPUTS, (random(*s, seed=i, dtype=dtype) for i, s in enumerate(shapes)), strict=True))


def plain_layer(x, weight, bias, a, b, scale, active):
    """The formula, a part of the columns after the other."""
    columns = list(F.linear(x, weight, bias).split(b.shape[2], 1))
    for part, thin, up in zip(active, a.chunk(len(active)), b, strict=True):
        columns[part] = columns[part] + scale * F.linear(F.linear(x, thin), up.t())
    return torch.cat(columns, 1)


@pytest.mark.parametrize("wanted", SUBSETS, ids="-".join)
@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_the_fused_layer_has_the_derivatives_of_what_it_computes(parts, active, wanted):
    inputs = layer_inputs(parts, active)
    for name in wanted:
        inputs[name].requires_grad_()
    for bias in (inputs["bias"], None):
        given = (*(bias if n == "bias" else t for n, t in inputs.items()), 0.7, active)
        if not any(isinstance(t, torch.Tensor) and t.requires_grad for t in given):
            continue
        assert relative_error(fused_layer(*given), plain_layer(*given)) <= EXACT
        assert torch.autograd.gradcheck(fused_layer, given)


@pytest.mark.parametrize("tokens", [0, 1, 4])
@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_the_fused_layer_takes_any_number_of_tokens_and_any_layout_of_gradients(parts, active, tokens):
    inputs = {name: t.requires_grad_() for name, t in layer_inputs(parts, active, tokens).items()}
    fused, plain = (f(*inputs.values(), 0.7, active) for f in (fused_layer, plain_layer))
    for gradient in (random(6, tokens).t(), random(1, 6).expand(tokens, 6), random(tokens, 1).expand(tokens, 6)):
        ours, theirs = (torch.autograd.grad(y, inputs.values(), gradient, retain_graph=True) for y in (fused, plain))
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape and float((a - b).abs().sum()) <= EXACT * (1 + float(b.abs().sum()))


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize(("parts", "active"), PARTS)
def test_the_fused_layer_under_autocast_is_the_plain_one_to_the_rounding_of_bf16(parts, active, trains):
    exact = layer_inputs(parts, active, tokens=64)
    given = {name: t.float().requires_grad_(name in ("x", "a", "b") or trains) for name, t in exact.items()}
    wanted = [t for t in given.values() if t.requires_grad]
    with torch.autocast("cpu", torch.bfloat16):
        fused, plain = (f(*given.values(), 0.5, active) for f in (partial(low_rank_linear, F.linear), plain_layer))
    gradient = random(64, 6, dtype=torch.bfloat16)
    assert fused.dtype == plain.dtype == torch.bfloat16
    assert relative_error(fused.float(), plain.float()) <= 2 * HALF_EPSILON
    for ours, theirs, t in zip(
        *(torch.autograd.grad(y, wanted, gradient) for y in (fused, plain)), wanted, strict=True
    ):
        assert ours.dtype == theirs.dtype == t.dtype == torch.float32
        assert relative_error(ours, theirs) <= 2 * HALF_EPSILON


# Attention, a sequence after the other.

LENGTHS = [[1], [3], [3, 1, 2], [1, 1, 1], [5, 2]]


def plain_attention(qkv, lengths):
    """softmax(Q K^T / sqrt(D)) V of each sequence with a causal mask: qkv (N, 3, H, D) -> (N, H, D)."""
    mixed = []
    for one in qkv.split(lengths):
        q, k, v = one.permute(1, 2, 0, 3)  # (H, T, D) each
        scores = q @ k.transpose(1, 2) / q.shape[2] ** 0.5
        scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
        mixed.append((scores.softmax(2) @ v).transpose(0, 1))  # (T, H, D)
    return torch.cat(mixed)


def packed(lengths, device="cpu", last_only=False):
    return layout_of(torch.tensor(lengths), torch.device(device), last_only=last_only)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_attention_by_sequence_has_the_derivatives_of_what_it_computes(lengths):
    qkv, layout = random(sum(lengths), 3, 2, 4).requires_grad_(), packed(lengths)
    assert "BySequence" in type(attend(qkv, layout).grad_fn).__name__
    assert torch.autograd.gradcheck(lambda x: attend(x, layout), qkv)


@pytest.mark.parametrize("lengths", [*LENGTHS, [40, 1, 130, 7], [600, 1, 384, 385], [64, 128, 32]], ids=str)
def test_attention_by_sequence_is_the_formula_whatever_layout_the_gradient_has(lengths):
    """The kernel works on blocks of queries and keys, so that lengths at and beyond their borders matter."""
    count, layout = sum(lengths), packed(lengths)
    for dtype, tolerance in ((torch.float64, EXACT), (torch.float32, 1e-5), (torch.bfloat16, 4 * HALF_EPSILON)):
        qkv = (2 * random(count, 3, 2, 8)).to(dtype).double().requires_grad_()
        ours, theirs = attend(qkv.to(dtype), layout), plain_attention(qkv, lengths)
        assert ours.dtype == dtype
        assert relative_error(ours, theirs) <= tolerance
        for gradient in (
            random(count, 2, 8),
            random(2, 8, count).permute(2, 0, 1),
            random(1, 1, 8).expand(count, 2, 8),
        ):
            found, expected = (
                torch.autograd.grad(y, qkv, gradient.to(y.dtype), retain_graph=True)[0] for y in (ours, theirs)
            )
            assert relative_error(found, expected) <= tolerance


# Attention on a GPU, as far as shapes tell.


@pytest.mark.parametrize(
    ("dtype", "width", "dropout", "taken"),
    [
        (torch.bfloat16, 8, 0.0, True),
        (torch.float16, 256, 0.0, True),
        (torch.float32, 8, 0.0, False),
        (torch.bfloat16, 8, 0.1, False),
        (torch.bfloat16, 1, 0.0, False),
        (torch.bfloat16, 260, 0.0, False),
        (torch.bfloat16, 264, 0.0, False),
    ],
)
def test_flash_attention_is_taken_in_half_precision_without_dropout_by_heads_that_fit(
    dtype, width, dropout, taken, monkeypatch
):
    monkeypatch.setattr(gpt2_scratch.attention, "has_flash_attention", lambda device: True)
    layout = packed([3, 1, 7], "meta")
    qkv = torch.empty(11, 3, 2, width, device="meta", dtype=dtype, requires_grad=True)
    with Ops() as ops:
        mixed = attend(qkv, layout, dropout)
        mixed.sum().backward()
    assert (mixed.shape, mixed.dtype) == ((11, 2, width), dtype)
    assert (qkv.grad.shape, qkv.grad.dtype) == (qkv.shape, dtype)
    calls = ops.named("_flash_attention_forward.")
    assert len(calls) == len(ops.named("_flash_attention_backward.")) == taken
    for arguments, _ in calls:
        assert arguments[3] is layout.starts and arguments[4] is layout.starts and layout.starts.dtype == torch.int32
        assert arguments[5:] == (7, 7, 0.0, True, False)  # longest, longest, no dropout, causal, no mask for debugging


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_no_flash_attention_where_there_is_no_gpu(device):
    assert not gpt2_scratch.attention.has_flash_attention(torch.device(device))
    with Ops() as ops:
        attend(torch.empty(4, 3, 2, 8, device="meta", dtype=torch.bfloat16), packed([3, 1], "meta"))
    assert not ops.named("_flash_attention")


def test_with_dropout_attention_is_that_of_padded_rows():
    qkv, layout = random(11, 3, 2, 8), packed([3, 1, 7])
    outs = []
    for route in (attend, attend_padded):
        torch.manual_seed(3)
        outs.append(route(qkv, layout, 0.5))
    assert torch.equal(*outs)
    assert not torch.equal(outs[0], attend(qkv, layout))


# The LM head.


def head_of(kind, tied_to):
    """A head of 7 outputs over 4 numbers in fp64, and what of it trains."""
    head = torch.nn.Linear(4, 7, bias=False, dtype=torch.float64)
    head.weight = tied_to if kind == "tied" else torch.nn.Parameter(random(7, 4, seed=1))
    if kind == "plain":
        head.requires_grad_(False)
    if kind == "adapted":
        head = adapter_class("lora")(head, Spec(2), generator=rng()).double()
        torch.nn.init.normal_(head.low_rank.B, generator=rng(3))
    return head


def plain_log_probabilities(head, hidden, labels):
    logits = head(hidden)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.log_softmax(1, dtype).gather(1, labels[:, None]).squeeze(1)


def reduced(log_probabilities, how):
    """sum: the incoming gradient is one number in one place; equal: the same number M times; weighted: M numbers."""
    if how == "sum":
        return -3.5 * log_probabilities.sum()
    weights = torch.ones(len(log_probabilities)) if how == "equal" else random(len(log_probabilities), seed=9)
    return (log_probabilities * weights).sum()


@pytest.mark.parametrize("how", ["sum", "equal", "weighted"])
@pytest.mark.parametrize("count", [0, 1, 3, 8])
@pytest.mark.parametrize("kind", ["plain", "trained", "adapted", "tied"])
def test_log_probabilities_by_chunks_have_the_gradients_of_the_formula(kind, count, how, monkeypatch):
    monkeypatch.setattr(gpt2_scratch.lm_head, "LOGIT_ROWS", 3)
    embedding = torch.nn.Parameter(random(7, 4))
    head = head_of(kind, embedding)
    tokens, labels = (torch.randint(7, (count,), generator=rng(i)) for i in (5, 6))
    wanted = list({id(p): p for p in (embedding, *head.parameters()) if p.requires_grad}.values())
    results = []
    for function in (label_log_probabilities, plain_log_probabilities):
        found = function(head, embedding[tokens].tanh(), labels)
        gradients = [torch.autograd.grad(reduced(found, how), wanted, retain_graph=True) for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
        results.append([found, *gradients[0]])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert float((ours - theirs).detach().abs().sum()) <= EXACT * (1 + float(theirs.detach().abs().sum()))


@pytest.mark.parametrize("kind", ["plain", "trained", "adapted"])
def test_log_probabilities_by_chunks_have_the_derivatives_of_what_they_compute(kind, monkeypatch):
    monkeypatch.setattr(gpt2_scratch.lm_head, "LOGIT_ROWS", 3)
    head, labels = head_of(kind, None), torch.randint(7, (5,), generator=rng(6))
    trained = [p for p in head.parameters() if p.requires_grad]
    hidden = random(5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda h, *_: label_log_probabilities(head, h, labels), (hidden, *trained))
    if trained:  # --method head: nothing below the head trains
        assert torch.autograd.gradcheck(
            lambda h, *_: label_log_probabilities(head, h, labels), (hidden.detach(), *trained)
        )


def test_log_probabilities_under_autocast_are_fp32_and_their_gradients_those_of_the_plain_products():
    head, labels = torch.nn.Linear(32, 50, bias=False), torch.randint(50, (40,), generator=rng())
    hidden = random(40, 32, dtype=torch.float32).requires_grad_()
    for how in ("sum", "weighted"):
        results = []
        for function in (label_log_probabilities, plain_log_probabilities):
            with torch.autocast("cpu", torch.bfloat16):
                found = function(head, hidden, labels)
            assert found.dtype == torch.float32
            results.append([found, *torch.autograd.grad(reduced(found, how), [hidden, head.weight])])
        for ours, theirs in zip(*results, strict=True):
            assert ours.dtype == torch.float32
            assert relative_error(ours, theirs) <= 2 * HALF_EPSILON


# Whole models: loss and gradients with a trick and without.

METHODS = {
    "lora": MethodArgs("lora", lora_rank=3, lora_targets=(*BLOCK_TARGETS, "lm-head")),
    "lora, last block": MethodArgs("lora", lora_rank=3, last_blocks=1),
    "full": MethodArgs("full"),
    "full, last blocks": MethodArgs("full", last_blocks=2),
}
COMPOSITIONS = [[7], [1], [3, 1, 40, 17, 2, 9], [128], [5, 128, 1], [128, 128], [100, 28, 128], [128, 128, 128, 1]]


def model_of(kind, method, dtype=torch.float64, config=CONFIG, checkpointed=False, **more):
    model = build(kind, METHODS.get(method, method), config=config, **more).to(dtype).train()
    apply_compute(model, "any", ComputeArgs(checkpoint_activations=checkpointed), "no")
    return model


def outcome(model, lengths, hidden=None):
    """Loss, and gradients of all that trains. A third of the tokens is not labelled."""
    tokens = torch.randint(CONFIG.vocabulary, (sum(lengths),), generator=rng())
    counts = torch.tensor(lengths)
    model.zero_grad()
    if isinstance(model, Classifier):
        loss, count = class_loss(model(tokens, counts, hidden), counts % 3)
    else:
        labels = torch.randint(CONFIG.vocabulary, (len(tokens),), generator=rng(1))
        labels[torch.rand(len(tokens), generator=rng(2)) < 0.3] = -100
        loss, count = token_loss(model(tokens, counts, labels, hidden))
    (loss / max(count, 1)).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    return loss.detach() / max(count, 1), gradients


def assert_same(found, expected, loss_tolerance=EXACT, tolerance=EXACT):
    (loss, gradients), (other_loss, others) = found, expected
    assert abs(float(loss - other_loss)) <= loss_tolerance * abs(float(other_loss))
    largest = max(float(g.abs().max()) for g in others.values())
    assert gradients.keys() == others.keys() and largest > 0
    for name, gradient in gradients.items():
        assert float((gradient - others[name]).abs().max()) <= tolerance * largest, name


def hidden_of(model, lengths, blocks):
    tokens = torch.randint(CONFIG.vocabulary, (sum(lengths),), generator=rng())
    last_only = isinstance(model, Classifier) and blocks == CONFIG.blocks
    with torch.no_grad():
        return model.transformer.first_blocks(tokens, packed(lengths, last_only=last_only), blocks)


@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
@pytest.mark.parametrize("method", METHODS)
def test_checkpointing_and_going_on_after_frozen_blocks_change_no_gradient(kind, method):
    model = model_of(kind, method)
    expected = [outcome(model, lengths) for lengths in COMPOSITIONS]
    for checkpointed in (True, False):
        model = model_of(kind, method, checkpointed=checkpointed)
        for lengths, without in zip(COMPOSITIONS, expected, strict=True):
            assert_same(outcome(model, lengths), without)
            for done in range(frozen_blocks(model) + 1) if method != "full" else ():  # there the embedding trains
                assert_same(outcome(model, lengths, hidden_of(model, lengths, done)), without)


@pytest.mark.parametrize("method", [*METHODS, MethodArgs("head"), MethodArgs("bitfit")], ids=str)
def test_the_last_token_alone_gives_the_gradients_of_all_tokens(method):
    model = model_of(Classifier, method)
    last_only = model.forward

    def all_tokens(tokens, lengths, hidden=None):
        layout = layout_of(lengths, tokens.device)
        return model.score(model.transformer(tokens, layout)[layout.last])

    for lengths in COMPOSITIONS:
        model.forward = last_only
        found = outcome(model, lengths)
        model.forward = all_tokens
        assert_same(found, outcome(model, lengths))


def test_states_of_last_tokens_and_of_all_tokens_after_all_blocks_lead_to_the_same_class():
    model = model_of(Classifier, MethodArgs("head")).eval()
    lengths = [3, 1, 40]
    tokens = torch.randint(CONFIG.vocabulary, (44,), generator=rng())
    expected = model(tokens, torch.tensor(lengths))
    with torch.no_grad():
        short = model.transformer.first_blocks(tokens, packed(lengths, last_only=True), CONFIG.blocks)
    assert short.states.shape == (3, CONFIG.width)
    assert relative_error(model(tokens, torch.tensor(lengths), short), expected) <= EXACT


@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
def test_checkpointing_repeats_the_same_dropout(kind):
    config, results = replace(CONFIG, dropout=0.3), []
    for checkpointed in (False, True):
        model = model_of(kind, "lora", config=config, checkpointed=checkpointed)
        torch.manual_seed(5)
        results.append(outcome(model, [3, 1, 40]))
    assert_same(*results)
    torch.manual_seed(6)
    assert abs(float(outcome(model, [3, 1, 40])[0] - results[0][0])) > 1e-6


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "full, last blocks", MethodArgs("bitfit")], ids=str)
@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
def test_what_is_computed_again_for_the_backward_pass_is_the_same_to_the_last_bit(kind, method, half, monkeypatch):
    model, results = model_of(kind, method, torch.float32), []
    for route in (gpt2_scratch.model.recomputed, lambda cheap, x, layer: layer(cheap(x))):
        monkeypatch.setattr(gpt2_scratch.model, "recomputed", route)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            results.append(outcome(model, [3, 1, 40, 17]))
    (loss, gradients), (other_loss, others) = results
    assert torch.equal(loss, other_loss)
    assert all(torch.equal(gradients[name], other) for name, other in others.items())


# What is kept for the backward pass.


def saved_in_forward(model, lengths, before=None):
    """Tensors kept by a forward pass; (how many, whether a gradient is due) where `before` begins; the output."""
    kept, at = [], []
    if before is not None:
        before.register_forward_pre_hook(lambda _, inputs: at.append((len(kept), inputs[0].requires_grad)))
    tokens, counts = torch.zeros(sum(lengths), dtype=torch.long), torch.tensor(lengths)
    labels = [tokens] if isinstance(model, LanguageModel) else []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = model(tokens, counts, *labels)
    return kept, at, out


@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
@pytest.mark.parametrize(
    ("method", "first"),
    [
        (MethodArgs("lora"), "h.0.attn.c_attn"),  # not even the norm in front of it
        (MethodArgs("lora", last_blocks=1), "h.2.attn.c_attn"),
        (MethodArgs("lora", lora_targets=("mlp-in",), last_blocks=2), "h.1.mlp.c_fc"),
        (MethodArgs("full", last_blocks=1), "h.2.ln_1"),
        (MethodArgs("bitfit", last_blocks=2), "h.1.ln_1"),
    ],
    ids=str,
)
def test_nothing_is_kept_for_the_backward_pass_below_what_trains(kind, method, first):
    model = model_of(kind, method)
    kept, at, _ = saved_in_forward(model, [3, 9], model.transformer.get_submodule(first))
    assert at == [(0, False)] and len(kept) > 0
    model = model_of(kind, method, checkpointed=True)
    kept, at, _ = saved_in_forward(model, [3, 9], model.transformer.h[int(first[2])])
    assert at == [(1, False)] and len(kept) > 0  # the one is the input of the block that trains


@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
def test_checkpointing_keeps_less(kind):
    whole, less = (
        sum(t.numel() for t in saved_in_forward(model_of(kind, "lora", checkpointed=checkpointed), [40, 60])[0])
        for checkpointed in (False, True)
    )
    assert less < whole / 3


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
def test_a_frozen_matrix_of_a_block_is_neither_copied_nor_given_a_gradient(kind, half):
    model = model_of(kind, "lora", torch.float32)
    frozen = [adapter.linear.weight for _, adapter in adapters(model.transformer.h)]
    shapes = {w.shape for w in frozen} | {w.t().shape for w in frozen}

    def copies():
        with Ops() as ops, torch.autocast("cpu", torch.bfloat16, enabled=half):
            saved_in_forward(model, [3, 9])[2].sum().backward()
        copied = [result for name in ("_to_copy", "clone", "copy_") for _, result in ops.named(f"aten.{name}")]
        return sum(result.shape in shapes for result in copied)

    if half:
        assert copies() > 0  # else the count below would prove nothing
        hold_frozen(model.transformer.h, torch.bfloat16)
    assert copies() == 0
    assert all(w.grad is None for w in frozen)


# Frozen matrices in half precision.

HELD = [
    (Classifier, "lora", "train"),
    (Classifier, "lora", "frozen+lora"),
    (Classifier, "lora", "train+lora"),
    (Classifier, "lora, last block", "train"),
    (Classifier, MethodArgs("bitfit"), "train"),
    (Classifier, MethodArgs("head"), "train"),
    (LanguageModel, MethodArgs("head"), "train"),  # its head is untied
    (LanguageModel, "lora", "train"),  # its head is the embedding
]


@pytest.mark.parametrize(("kind", "method", "head"), HELD)
def test_frozen_matrices_in_bf16_give_exactly_the_loss_and_gradients_of_fp32_under_autocast(kind, method, head):
    model = model_of(kind, method, torch.float32, head_training=head)
    trained = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    with torch.autocast("cpu", torch.bfloat16):
        expected = outcome(model, [3, 1, 40, 17])
        apply_compute(model, METHODS.get(method, method).method, ComputeArgs(), "bf16")
        loss, gradients = outcome(model, [3, 1, 40, 17])
    held = {p.dtype for n, p in model.named_parameters() if not p.requires_grad and ".h." in n and "ln_" not in n}
    assert held == {torch.bfloat16}
    assert torch.equal(loss, expected[0])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32 and torch.equal(parameter, trained[name])
            assert torch.equal(gradients[name], expected[1][name]), name


@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
@pytest.mark.parametrize(("method", "precision"), [("full", "bf16"), ("full, last blocks", "fp16"), ("lora", "no")])
def test_full_fine_tuning_and_fp32_hold_everything_in_fp32(kind, method, precision):
    model = model_of(kind, method, torch.float32)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    apply_compute(model, METHODS[method].method, ComputeArgs(), precision)
    assert all(p.dtype == torch.float32 and torch.equal(p, before[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (Classifier, "train"),
        (Classifier, "train+lora"),
        (LanguageModel, "train"),
        (Classifier, "frozen+lora"),
    ],
)
def test_what_a_run_saves_is_the_same_whatever_frozen_matrices_are_held_in(kind, head):
    model = model_of(kind, "lora", torch.float32, head_training=head)
    before = {n: t.clone() for n, t in own_state(model).items()}
    hold_frozen(model.transformer.h, torch.bfloat16)
    after = own_state(model)
    assert after.keys() == before.keys()
    assert all(t.dtype == torch.float32 and torch.equal(t, before[n]) for n, t in after.items())


@pytest.mark.parametrize("method", ["lora", "lora, last block"])
def test_a_model_with_frozen_matrices_in_half_precision_still_writes(method):
    model, accelerator = model_of(LanguageModel, method, torch.float32), Accelerator(cpu=True, mixed_precision="bf16")
    apply_compute(model, "lora", ComputeArgs(), "bf16")
    prepared = accelerator.prepare(model)
    assert len(answer(prepared, GPT2, [[1, 2, 3], [4]], accelerator, 3, Sampling())) == 2


def test_two_methods_share_a_prefix_only_where_they_compute_the_same():
    found = []
    for method, last_blocks in (("lora", 2), ("full", 2), ("lora", 1)):
        model, examples = build(LanguageModel, MethodArgs(method, last_blocks=last_blocks)), instructions(3)
        apply_compute(model, method, ComputeArgs(), "bf16")
        key = cache_key(contents(model, examples, "bf16"), model, "base", "bf16")
        cached, _ = attached(model, examples, precision="bf16")
        found.append((key, torch.cat([e.hidden.states for e in cached])))
    (key, states), (same_key, same), (other_key, others) = found
    assert key == same_key and torch.equal(states, same)
    assert key != other_key and not torch.equal(states, others)


# The process.

CHILD = """
import json, os, resource, torch
from pathlib import Path
import psutil
from accelerate.state import AcceleratorState
from training.flags.compute import ComputeArgs
from training.run.launch import keep_freed_memory, start

def faults():  # together more than malloc keeps by itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [torch.ones(4_000_000) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = {"before": faults()}
keep_freed_memory()
faults()
found["after"] = faults()
held = psutil.Process().memory_info().rss
torch.ones(16_000_000)
found["grown"] = psutil.Process().memory_info().rss - held
for asked in (True, False, True):
    start(ComputeArgs(tf32=asked), Path("runs"), False)
    found.setdefault("tf32", []).append(torch.backends.cuda.matmul.allow_tf32)
    AcceleratorState._reset_state()
os.environ["ACCELERATE_USE_CPU"] = "true"
for name in ("BF16", "NO", "", "FP16"):
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_MIXED_PRECISION"] = name
    try:
        found[name] = start(ComputeArgs(), Path("runs"), False)[0].mixed_precision
    except ValueError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    path = tmp_path_factory.mktemp("child") / "child.py"
    path.write_text(CHILD)
    done = run_forked([path])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_for_the_next_tensor(child):
    assert child["before"] > 200
    assert child["after"] < child["before"] / 10
    assert child["grown"] < 2**20  # by a tensor of 64 MB, gone again


def test_tf32_is_as_the_flag_says(child):
    assert child["tf32"] == [True, False, True]


def test_the_precision_of_the_environment_counts_in_capitals_too(child):
    assert [child[name] for name in ("BF16", "NO", "")] == ["bf16", "no", "no"]
    assert "fp16: needs a GPU" in child["FP16"]
