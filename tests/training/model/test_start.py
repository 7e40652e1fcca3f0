"""What learning from preferences starts from, and that what it leaves loads on the base of what it started from."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
import transformers
from helpers import write_rows
from safetensors.torch import load_file
from test_merge import WITH_HEAD, adapter, assert_same_logits, tokenizer_of
from test_merge import base as base

from gpt2_scratch.pretrained import save_pretrained, weights_hash
from gpt2_scratch.sources import load_config
from lora.adapter import set_strength
from training.data.sources import Inputs
from training.flags.common import DataArgs, MethodArgs, ModelArgs, RunArgs, UpdateArgs
from training.flags.compute import ComputeArgs
from training.flags.finetuning import FineTuneArgs
from training.flags.forgetting import ForgettingArgs
from training.flags.preference import PairArgs
from training.model.facts import Facts, base_facts
from training.model.merging import logits
from training.model.methods import apply_method, build_language_model, own_state
from training.model.saved import adapted
from training.model.start import Learnt, find_start, start_model

TEXTS = [[1, 2, 3, 4, 50, 60, 7], [9], [100, 0, 5, 5]]
LORA, NEW = MethodArgs(lora_rank=2), MethodArgs(lora_rank=3, lora_alpha=5, lora_targets=("q", "v", "mlp-in"))


def facts_of(base, method, **flags):
    args = asdict(method) | {"model": str(base), "seed": 0} | flags
    return Facts(args, base_facts(str(base), base, tokenizer_of(base)))


def inputs_of(base):
    return Inputs(None, None, "", base, load_config(base), tokenizer_of(base), base)


def find(base, folder, pairs=None, **model):
    return find_start(folder, pairs or PairArgs(), ModelArgs(str(base), **model), inputs_of(base))


def move(model, seed=9):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))
    return model.eval()


def save(folder, trained, start, before, facts, method, model):
    """Writes what a run with these flags leaves."""
    flags = FineTuneArgs(DataArgs(), model, method, UpdateArgs(seed=0), ComputeArgs(), ForgettingArgs(), RunArgs())
    tokenizer = tokenizer_of(start.base)
    Learnt(folder, trained, method.method, facts, tokenizer, start=start, before=before, flags=flags).export()


def learnt(base, folder, start, method, **model):
    """A model that was trained from `start` with `method`, saved in `folder`."""
    args = ModelArgs(str(base), **model)
    trained, before = start_model(start, args)
    apply_method(trained, method, 0)
    move(trained)
    save(folder, trained, start, before, facts_of(base, method, **model), method, args)
    return trained


def assert_same(ours, theirs, tolerance=1e-5):
    with torch.no_grad():
        for text in TEXTS:
            expected = logits(theirs, text)
            assert float((logits(ours, text) - expected).abs().max()) <= tolerance * float(expected.abs().max())


def full_run(base, folder):
    """A finished run of full fine-tuning."""
    model = build_language_model(base, load_config(base), ModelArgs())
    apply_method(model, MethodArgs("full"), 0)
    save_pretrained(move(model, 3), folder / "model", tokenizer_of(base))
    facts = facts_of(base, MethodArgs("full"))
    results = {"schema": 1, "script": "finetune_ift", "data": {"sha256": ""}}
    (folder / "results.json").write_text(json.dumps(results | {"args": facts.args, "model": facts.base.entry()}))
    return folder


STARTS = ["lora", "pissa", "lora-fa", "dora", "bitfit"]


@pytest.mark.parametrize("method", STARTS)
def test_without_its_new_adapters_the_model_is_the_one_that_was_started_from(method, base, tmp_path):
    folder = adapter(base, tmp_path, MethodArgs(method, lora_rank=2))
    model, _ = start_model(find(base, folder), ModelArgs(str(base)))
    apply_method(model, NEW, 0)
    assert_same(model.eval(), adapted(folder))  # as they start, new adapters change nothing
    set_strength(move(model), 0)
    assert_same(model, adapted(folder))
    plain = build_language_model(base, load_config(base), ModelArgs())
    assert not torch.allclose(logits(model, TEXTS[0]), logits(plain, TEXTS[0]), rtol=1e-2)


@pytest.mark.parametrize("new", ["lora", "pissa", "olora", "lora-fa"])
@pytest.mark.parametrize("first", ["lora", "pissa"])
def test_what_is_saved_is_one_adapter_with_both_updates_that_loads_on_the_original_base(first, new, base, tmp_path):
    folder = adapter(base, tmp_path / "first", MethodArgs(first, lora_rank=2))
    method = replace(NEW, method=new)
    trained = learnt(base, tmp_path / "second", find(base, folder), method)
    assert not (tmp_path / "second" / "model").exists()
    assert_same(adapted(tmp_path / "second" / "adapter"), trained)
    tensors = load_file(tmp_path / "second" / "adapter" / "adapter_model.safetensors")
    ranks = {len(t) for n, t in tensors.items() if n.endswith("lora_A.weight")}
    assert len(ranks) > 1, "matrices that only one of them changes have its rank"


def test_peft_reads_the_adapter_with_both_updates(base, tmp_path):
    peft = pytest.importorskip("peft")
    folder = adapter(base, tmp_path / "first")
    trained = learnt(base, tmp_path / "second", find(base, folder), NEW)
    plain = transformers.GPT2LMHeadModel.from_pretrained(base, dtype=torch.float32)
    assert_same_logits(trained, peft.PeftModel.from_pretrained(plain, tmp_path / "second" / "adapter").eval())


@pytest.mark.parametrize(("first", "new"), [(WITH_HEAD, NEW), (LORA, WITH_HEAD), (WITH_HEAD, WITH_HEAD)])
def test_adapters_of_the_lm_head_are_summed_too_and_leave_the_embedding_alone(first, new, base, tmp_path):
    folder = adapter(base, tmp_path / "first", first)
    start = find(base, folder)
    trained = learnt(base, tmp_path / "second", start, new)
    assert start.trained_shape().tied_head == trained.config.tied_head == (first is LORA)
    found = adapted(tmp_path / "second" / "adapter")
    assert torch.equal(
        found.transformer.wte.weight, build_language_model(base, load_config(base), ModelArgs()).transformer.wte.weight
    )
    assert_same(found, trained)


@pytest.mark.parametrize(
    ("first", "new"),
    [
        (MethodArgs("dora", lora_rank=2), NEW),
        (LORA, MethodArgs("dora", lora_rank=2)),
        (LORA, MethodArgs("bitfit")),
        (MethodArgs("bitfit"), WITH_HEAD),
    ],
    ids=lambda method: method.method,
)
def test_what_no_adapter_can_say_is_saved_as_a_whole_model(first, new, base, tmp_path):
    folder = adapter(base, tmp_path / "first", first)
    trained = learnt(base, tmp_path / "second", find(base, folder), new)
    assert not (tmp_path / "second" / "adapter").exists()
    whole = tmp_path / "second" / "model"
    assert_same_logits(trained, transformers.GPT2LMHeadModel.from_pretrained(whole, dtype=torch.float32).eval())
    assert_same(build_language_model(whole, load_config(whole), ModelArgs()), trained)


def test_a_run_of_full_fine_tuning_is_started_from_and_a_whole_model_is_left(base, tmp_path):
    (tmp_path / "first").mkdir()
    folder = full_run(base, tmp_path / "first")
    start = find(base, folder)
    trained = learnt(base, tmp_path / "second", start, LORA)
    whole = build_language_model(tmp_path / "second" / "model", load_config(base), ModelArgs())
    assert_same(whole, trained)
    set_strength(trained, 0)
    assert_same(trained, build_language_model(folder / "model", load_config(base), ModelArgs()))


def test_frozen_weights_in_half_precision_do_not_round_the_whole_model_that_is_saved(base, tmp_path):
    folder, args, method = adapter(base, tmp_path / "first"), ModelArgs(str(base)), MethodArgs("dora", lora_rank=2)
    start = find(base, folder)
    exact = learnt(base, tmp_path / "exact", start, method)
    trained, before = start_model(start, args)
    apply_method(trained, method, 0)
    for name, parameter in trained.named_parameters():
        if name in own_state(exact):
            parameter.data = exact.get_parameter(name).data
        elif ".linear.weight" in name:
            parameter.data = parameter.data.bfloat16()
    save(tmp_path / "half", trained, start, before, facts_of(base, method), method, args)
    exactly, half = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("exact", "half"))
    assert all(torch.equal(tensor, half[name]) for name, tensor in exactly.items())


def test_a_start_has_the_dropout_of_the_new_run_and_not_of_the_old_one(base, tmp_path):
    folder = adapter(base, tmp_path, dropout=0.3)
    model, _ = start_model(find(base, folder, dropout=0.1), ModelArgs(str(base), dropout=0.1))
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1} == {model.config.dropout}


def test_without_a_start_the_adapter_alone_is_saved(base, tmp_path):
    trained = learnt(base, tmp_path, find(base, None), LORA)
    assert_same(adapted(tmp_path / "adapter"), trained)
    assert find(base, None).sha256() == weights_hash(base)


def test_the_identity_of_the_frozen_weights_is_that_of_base_and_start(base, tmp_path):
    first, second = (find(base, adapter(base, tmp_path / str(seed), seed=seed)) for seed in (1, 2))
    assert len({first.sha256(), second.sha256(), weights_hash(base)}) == 3
    assert find(base, adapter(base, tmp_path / "again", seed=1)).sha256() == first.sha256()


# What cannot be started from.


@pytest.fixture
def wrong(base, tmp_path):
    """Folders that are wrong in one way each."""
    (tmp_path / "empty").mkdir()
    adapter(base, tmp_path / "classifier", labels=["ham", "spam", "other"])
    adapter(base, tmp_path / "bits", base_bits=4)
    adapter(base, tmp_path / "untied", untie_head=True)
    adapter(base, tmp_path / "headless", response_header=False)
    moved = adapter(base, tmp_path / "moved")
    facts = json.loads((moved / "adapter.json").read_text())
    facts["base"] = {"name": "gpt2-medium", "sha256": "0" * 64}
    (moved / "adapter.json").write_text(json.dumps(facts))
    shutil.copytree(tmp_path / "headless" / "adapter", tmp_path / "damaged")
    (tmp_path / "damaged" / "adapter.json").write_text("{")
    write_rows(tmp_path / "empty" / "results.json", [{"args": {"method": "lora"}}])
    (tmp_path / "pretrained").mkdir()
    write_rows(
        tmp_path / "pretrained" / "results.json",
        [{"schema": 1, "script": "pretrain", "args": {}, "data": {"sha256": ""}, "model": {"sha256": ""}}],
    )
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "holds neither a finished run nor an adapter; a whole model is given as --model"),
        ("empty", "results.json is damaged"),
        ("pretrained", "is not a run of fine-tuning; .*pretrained/model, for --model"),
        ("damaged", "adapter.json is damaged"),
        ("classifier/adapter", "is a classifier's"),
        ("bits/adapter", "trained beside weights in 4 bits.*merge_lora.py"),
        ("untied/adapter", "was trained with --untie-head; give the same"),
        ("headless/adapter", "was trained with --no-response-header; give the same"),
        ("moved/adapter", "was trained on gpt2-medium, .* not those of --model .*; add --model gpt2-medium"),
    ],
)
def test_a_folder_that_cannot_be_started_from_is_refused_with_the_reason(name, message, wrong, base):
    with pytest.raises(ValueError, match=f"^--start-from {wrong / name}: .*{message}"):
        find(base, wrong / name)


def test_what_was_trained_with_other_flags_starts_with_the_same_flags(wrong, base):
    assert find(base, wrong / "untied" / "adapter", untie_head=True).folder == wrong / "untied" / "adapter"
    assert find(base, wrong / "headless" / "adapter", PairArgs(response_header=False)).facts.args
