"""A base in 4 or 8 bits: bitsandbytes' numbers, training as on the dequantised matrices, and the memory it saves."""

import pytest
import torch
from accelerate import Accelerator
from test_frozen_activations import _own_precision as _own_precision
from test_frozen_activations import attached, files_in, instructions, labelled, update_of
from test_memory import Counted
from transformers import BitsAndBytesConfig, GPT2LMHeadModel

from gpt2_scratch.attention import layout_of
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import Sampling
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.pretrained import save_pretrained, weights_hash
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import adapters, merge, unmerge
from lora.frozen import dense
from lora.quantised import PIECE, QuantisedLinear, dequantise, load_bitsandbytes
from training.evaluation.inference import answer, classify
from training.flags.common import MethodArgs, ModelArgs, UpdateArgs
from training.flags.compute import ComputeArgs
from training.model.methods import apply_compute, apply_method, build_classifier, build_language_model, parameter_counts
from training.step.optimizers import build_optimizer

CONFIG = GPT2Config(width=64, blocks=2, heads=2, context=128)
BITS = pytest.mark.parametrize("bits", [4, 8])
functional = load_bitsandbytes().functional


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a random model."""
    model = LanguageModel(CONFIG)
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    folder = tmp_path_factory.mktemp("base")
    save_pretrained(model, folder, GPT2)
    return folder


def build(base, kind=LanguageModel, bits=4, method=MethodArgs()):  # noqa: B008 - frozen
    """A model that trains, with adapters that are no longer the identity."""
    model, config = ModelArgs(base_bits=bits), CONFIG
    built = (
        build_classifier(base, config, model, 3, 0) if kind is Classifier else build_language_model(base, config, model)
    )
    apply_method(built, method, 0)
    for _, adapter in adapters(built):
        torch.nn.init.normal_(adapter.low_rank.B, std=0.1, generator=torch.Generator().manual_seed(7))
    return built


def as_bitsandbytes_has_it(weight, bits, dtype):
    if bits == 8:
        codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
        return functional.int8_vectorwise_dequant(codes, scales).to(dtype)
    codes, state = functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    state.dtype = dtype
    return functional.dequantize_4bit(codes, state)


def close(a, b, tolerance):
    return float((a - b).detach().abs().max()) <= tolerance * float(b.detach().abs().max())


@BITS
@pytest.mark.parametrize("shape", [(96, 32), (10, 10), (7, 12), (3072, 768), (1600, 1604)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_matrix_is_the_one_that_bitsandbytes_dequantises_bit_for_bit(bits, shape, dtype):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).t().contiguous().t()  # as it is read
    layer = QuantisedLinear(shape[1], shape[0], None, bits)
    layer.store(weight)
    assert torch.equal(layer.matrix(dtype), as_bitsandbytes_has_it(weight.contiguous(), bits, dtype))
    assert torch.equal(dense(layer), layer.matrix(torch.float32))
    assert (len(list(layer.pieces(dtype))) > 1) == (weight.numel() > PIECE)
    expected = QuantisedLinear(shape[1], shape[0], None, bits).stored()
    assert [(p.shape, p.dtype) for p in layer.stored()] == [(p.shape, p.dtype) for p in expected]


@BITS
def test_logits_and_gradients_of_the_input_are_those_of_transformers_with_bitsandbytes(base, bits):
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    config = BitsAndBytesConfig(load_in_4bit=True, **four) if bits == 4 else BitsAndBytesConfig(load_in_8bit=True)
    theirs = GPT2LMHeadModel.from_pretrained(base, quantization_config=config, device_map="cpu", dtype=torch.float32)
    theirs.train()  # without dropout; its 8-bit layers round activations in evaluation, its 4-bit ones break in it
    ours = build_language_model(base, CONFIG, ModelArgs(base_bits=bits))
    tokens = torch.arange(100, 140)
    expected = theirs(tokens[None]).logits[0]
    found = ours.lm_head(ours.transformer(tokens, layout_of(torch.tensor([40]), tokens.device)))
    assert close(found, expected, 1e-5)
    expected.square().mean().backward()
    found.square().mean().backward()
    ours_at, theirs_at = ours.transformer.wpe.weight.grad, theirs.transformer.wpe.weight.grad
    assert close(ours_at, theirs_at, 1e-5)


@BITS
@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_are_those_on_a_plain_model_with_the_dequantised_matrices(base, bits, kind, checkpointed):
    examples = labelled(6) if kind is Classifier else instructions(6)
    quantised, plain = build(base, kind, bits), build(base, kind, bits)
    dequantise(plain)
    apply_compute(quantised, "lora", ComputeArgs(checkpoint_activations=checkpointed), "no")
    (loss, gradients), (other, expected) = (update_of(model, examples, 3) for model in (quantised, plain))
    assert not any(isinstance(m, QuantisedLinear) for m in plain.modules())
    assert loss == pytest.approx(other, rel=1e-6)
    assert gradients.keys() == expected.keys() and len(expected) > 10
    largest = max(float(g.abs().max()) for g in expected.values())
    assert all(float((g - expected[name]).abs().max()) <= 1e-6 * largest for name, g in gradients.items())


@BITS
def test_training_survives_evaluation_and_merging(base, bits):
    """Of bitsandbytes' own layers, an evaluation on a CPU with AVX512-BF16 would take the gradients and the weights."""
    model, examples = build(base, Classifier, bits), labelled(6)
    accelerator = Accelerator(cpu=True)
    loss, gradients = update_of(model, examples, 6)
    before = classify(model, examples, accelerator, 3)
    again, same = update_of(model, examples, 6)
    assert again == loss and all(torch.equal(gradients[name], g) for name, g in same.items())
    assert sum(row.loss for row in before) / 6 == pytest.approx(loss, rel=1e-6)

    frozen = {path: dense(adapter.linear) for path, adapter in adapters(model)}
    merge(model)
    merged = classify(model, examples, accelerator, 3)
    assert all(a.probabilities == pytest.approx(b.probabilities, rel=1e-5) for a, b in zip(merged, before, strict=True))
    for path, adapter in adapters(model):
        assert close(adapter.linear.weight, frozen[path] + adapter.factors().product().flatten(0, 1), 1e-6)
    unmerge(model)
    last, same = update_of(model, examples, 6)
    assert last == loss and all(torch.equal(gradients[name], g) for name, g in same.items())


@BITS
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_nothing_is_kept_for_the_backward_pass_but_a_trained_bias_gets_its_gradient(bits, precision):
    bias = torch.nn.Parameter(torch.randn(96))
    layer, kept = QuantisedLinear(64, 96, bias, bits), []
    layer.store(torch.randn(96, 64))
    x = torch.randn(5, 64, requires_grad=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        y = layer(x)
    y.backward(torch.ones_like(y))
    assert kept == [] and y.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert close(bias.grad, torch.full((96,), 5.0), 1e-6)
    assert close(x.grad, dense(layer).sum(0).expand(5, 64), 1e-6 if precision == "no" else 1e-2)


def test_the_model_never_exists_in_full_precision_while_it_is_read(tmp_path):
    config = GPT2Config(width=256, blocks=6, heads=2, vocabulary=300, context=32)
    model = LanguageModel(config)
    initialise(model, torch.Generator().manual_seed(0))
    save_pretrained(model, tmp_path, GPT2)
    full, largest = sum(4 * p.numel() for p in model.parameters()), 4 * 4 * config.width**2
    for bits in (None, 8, 4):
        with Counted([]) as counted:
            built = build_language_model(tmp_path, config, ModelArgs(base_bits=bits))
        held = sum(p.nbytes for p in built.parameters())
        assert counted.peak <= held + 3 * largest and not any(p.is_meta for p in built.parameters())
        assert (counted.peak >= full) == (bits is None)
    assert counted.peak < 0.3 * full


@BITS
@pytest.mark.parametrize("method", ["lora", "bitfit", "head"])
def test_as_many_parameters_are_counted_as_without_quantisation(base, bits, method):
    counts = [parameter_counts(build(base, Classifier, b, MethodArgs(method, last_blocks=1))) for b in (None, bits)]
    assert counts[0] == counts[1]


def test_generation_leaves_a_quantised_base_as_it_is_and_writes_what_a_merged_one_writes(base):
    prompts, accelerator = [[5, 6, 7], [8, 9]], Accelerator(cpu=True)
    quantised, plain = build(base), build(base)
    dequantise(plain)
    with Counted([]) as counted:
        texts = answer(quantised, GPT2, prompts, accelerator, 6, Sampling())
    assert texts == answer(plain, GPT2, prompts, accelerator, 6, Sampling())
    with Counted([]) as merged:
        answer(plain, GPT2, prompts, accelerator, 6, Sampling())
    assert counted.peak < merged.peak


def test_a_cache_of_frozen_blocks_serves_a_base_of_the_same_bits_only(base, tmp_path):
    disk, examples = ComputeArgs(cache_frozen="disk", cache_dir=tmp_path), labelled(4)
    method, seen = MethodArgs(last_blocks=1), []
    for bits in (None, 4, 8, 4):
        model = build(base, Classifier, bits, method)
        cached, _ = attached(model, examples, disk, weights_hash(base))
        assert update_of(model, cached, 4)[0] == pytest.approx(update_of(model, examples, 4)[0], rel=1e-6)
        seen.append(len(files_in(disk)))
    assert seen == [1, 2, 3, 3]


@pytest.mark.parametrize("name", ["adamw8bit", "paged-adamw8bit"])
def test_the_8_bit_optimizer_is_that_of_bitsandbytes_with_our_groups(name, recwarn):
    model = torch.nn.Sequential(torch.nn.Linear(128, 64), torch.nn.Linear(64, 4))
    theirs = [p.detach().clone().requires_grad_() for p in model.parameters()]
    optimizer = build_optimizer(model, UpdateArgs(optimizer=name, weight_decay=0.1))
    decayed, plain = [p for p in theirs if p.dim() == 2], [p for p in theirs if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    expected = load_bitsandbytes().optim.AdamW8bit(groups, lr=1e-2)
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        for p, q in zip(model.parameters(), theirs, strict=True):
            p.grad = q.grad = torch.randn(p.shape, generator=draw)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2
        optimizer.step()
        expected.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), theirs, strict=True))
    states = {p.numel(): optimizer.state[p]["state1"].dtype for p in model.parameters()}
    assert states == {8192: torch.uint8, 64: torch.float32, 256: torch.float32, 4: torch.float32}
    assert not [w for w in recwarn if "Paged" in str(w.message)]
