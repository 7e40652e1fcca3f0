"""A base in 4 or 8 bits: bitsandbytes' numbers, training as on the dequantised matrices, and the memory it saves."""

import os

import pytest
import torch
from accelerate import Accelerator
from conftest import results_of, run_script, weights_of
from test_memory import Counted, work_of
from test_prefix import _own_precision as _own_precision
from test_prefix import attached, files_in, instructions, labelled, update_of
from test_resume import kill_at_a_random_moment
from transformers import BitsAndBytesConfig, GPT2LMHeadModel

from gpt2_scratch.attention import sequences
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import Sampling
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.pretrained import save_pretrained, weights_hash
from lora import Adapter, QuantisedLinear, adapters, dense, dequantise, load_bitsandbytes, merge, unmerge
from lora._quantised import PIECE
from training.args import MethodArgs, ModelArgs, UpdateArgs
from training.compute_args import ComputeArgs
from training.inference import answer, classify
from training.memory import Rehearsal, forecast, loss_of, model_without_weights
from training.methods import apply_compute, apply_method, build_classifier, build_language_model, parameter_counts
from training.optimizers import build_optimizer
from training.saved import rebuild

CONFIG = GPT2Config(width=64, blocks=2, heads=2, context=128)
BITS = pytest.mark.parametrize("bits", [4, 8])
functional = load_bitsandbytes().functional


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a random model."""
    model = LanguageModel(CONFIG)
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, tmp_path_factory.mktemp("base"))
    return tmp_path_factory.getbasetemp() / "base0"


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
    found = ours.lm_head(ours.transformer(tokens, sequences(torch.tensor([40]), tokens.device)))
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
    save_pretrained(model, tmp_path)
    full = sum(4 * p.numel() for p in model.parameters())
    for bits in (None, 4):
        with Counted([]) as counted:
            built = build_language_model(tmp_path, config, ModelArgs(base_bits=bits))
        beside_file = counted.peak - full  # which is mapped, and counts as one tensor
        assert (beside_file >= full) == (bits is None)
    assert beside_file < 0.5 * full and not any(p.is_meta for p in built.parameters())


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
        texts = answer(quantised, prompts, accelerator, 6, Sampling())
    assert texts == answer(plain, prompts, accelerator, 6, Sampling())
    with Counted([]) as merged:
        answer(plain, prompts, accelerator, 6, Sampling())
    assert counted.peak < merged.peak


def test_a_cache_of_frozen_blocks_serves_a_base_of_the_same_bits_only(base, tmp_path):
    disk, examples = ComputeArgs(cache_prefix="disk", cache_dir=tmp_path), labelled(4)
    method, seen = MethodArgs(last_blocks=1), []
    for bits in (None, 4, 8, 4):
        model = build(base, Classifier, bits, method)
        cached, _ = attached(model, examples, disk, weights_hash(base))
        assert update_of(model, cached, 4)[0] == pytest.approx(update_of(model, examples, 4)[0], rel=1e-6)
        seen.append(len(files_in(disk)))
    assert seen == [1, 2, 3, 3]


@BITS
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_fake_updates_make_exactly_the_tensors_that_real_ones_make(base, bits, precision, checkpointed):
    examples, compute = labelled(8), ComputeArgs(checkpoint_activations=checkpointed)
    model = build(base, Classifier, bits)
    apply_compute(model, "lora", compute, precision)
    work = work_of(model, examples, compute, precision)
    rehearsal = Rehearsal(work)
    rehearsal.meter.at_peak.clear()  # of what was made while it was quantised
    rehearsal.update([examples[:4], examples[4:]])

    parameters = list(model.parameters())
    counted = Counted([*parameters, *model.buffers()])
    optimizer = build_optimizer(model, work.update)
    with counted:
        for part in (examples[:4], examples[4:]):
            loss_of(work.accelerator, model, work.batch(part, torch.device("cpu"))).backward()
        torch.nn.utils.clip_grad_norm_([p for p in parameters if p.requires_grad], 1.0)
        optimizer.step()
    assert rehearsal.meter.at_peak.total() == counted.peak


@BITS
def test_a_model_without_weights_has_the_forecast_of_one_with_them(base, bits):
    examples, found = labelled(8), []
    for model in (
        model_without_weights(Classifier, CONFIG, ModelArgs(base_bits=bits), 3),
        build(base, Classifier, bits),
    ):
        if not list(adapters(model)):
            apply_method(model, MethodArgs(), 0)
        parts = forecast(work_of(model, examples), 4).parts
        found.append({name: size for name, size in parts.items() if name != "allocator's gaps"})
    assert found[0] == found[1]
    assert found[0]["frozen weights"] < 4 * CONFIG.width * (CONFIG.vocabulary + 128) + 12 * CONFIG.width**2 * 2 * 1.2


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


@pytest.mark.parametrize(
    ("script", "processes", "more"),
    [
        ("finetune_cls", 1, ["--base-bits", 4, "--optimizer", "adamw8bit"]),
        ("finetune_cls", 2, ["--base-bits", 8]),
        ("finetune_ift", 1, ["--base-bits", 8, "--optimizer", "paged-adamw8bit", "--new-tokens", 3]),
        ("finetune_cls", 1, ["--method", "full", "--optimizer", "adamw8bit"]),
    ],
)
def test_a_killed_and_resumed_run_ends_bit_for_bit_like_an_unbroken_one(
    script, processes, more, base, mail_file, question_file, tmp_path
):
    data = mail_file if script == "finetune_cls" else question_file
    flags = ["--data", data, "--model", base, "--max-steps", 60, "--batch-size", 8, "--micro-batch-size", 4, *more]
    flags += ["--max-length", 128]
    flags += ["--eval-every", 4, "--save-every", 3, "--lr", 1e-2, "--lora-rank", 64 if "--method" not in more else 1]
    unbroken = run_script(script, *flags, "--output-dir", tmp_path / "a", processes=processes)
    assert unbroken.returncode == 0, unbroken.stderr
    assert "bitsandbytes" not in unbroken.stdout + unbroken.stderr and "Paged" not in unbroken.stderr
    broken = [*flags, "--output-dir", tmp_path / "b"]
    kill_at_a_random_moment(script, processes, broken, tmp_path / "b", seed=str(tmp_path))
    resumed = run_script(script, *broken, "--resume", processes=processes)
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = weights_of(tmp_path / "b"), weights_of(tmp_path / "a")
    assert ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())

    results = results_of(tmp_path / "a")
    if "--base-bits" in more:
        model = rebuild(tmp_path / "a", results)
        assert {m.bits for m in model.modules() if isinstance(m, QuantisedLinear)} == {more[1]}
        assert results["parameters"]["total"] == parameter_counts(model)["total"]
        assert sum(isinstance(m, Adapter) for m in model.modules()) == 4 * CONFIG.blocks


@BITS
def test_a_dry_run_says_what_a_quantised_run_needs(bits, base, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", base, "--base-bits", bits, "--dry-run"]
    flags += ["--max-length", 128, "--output-dir", tmp_path / "x"]
    done = run_script("finetune_cls", *flags)
    assert done.returncode == 0, done.stderr
    assert "frozen weights" in done.stdout and not (tmp_path / "x").exists()


@pytest.mark.parametrize("flags", [["--base-bits", 4], ["--optimizer", "adamw8bit"]])
def test_without_bitsandbytes_a_run_that_needs_it_is_refused_at_once(flags, base, mail_file, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['bitsandbytes'] = None\n")
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = run_script("finetune_cls", "--data", mail_file, "--model", base, *flags, env=environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{' '.join(map(str, flags))}: needs bitsandbytes; pip install" in done.stderr


def test_what_is_quantised_cannot_train(base, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", base, "--base-bits", 8, "--method", "full", "--max-length", 128]
    flags += ["--output-dir", tmp_path / "x"]
    done = run_script("finetune_cls", *flags)
    assert done.returncode == 2 and "--base-bits 8: what is quantised cannot train" in done.stderr
    assert not (tmp_path / "x").exists()
