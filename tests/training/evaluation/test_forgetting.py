"""Forgetting: general loss against transformers, intervals against numpy, adapters scaled, what the scripts report."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers import results_of, run_in_process, run_script
from safetensors.torch import save_file
from test_commands import load_script
from test_memory import Counted, labelled, replayed, workload_of
from test_resume import kill_at_a_random_moment
from transformers import GPT2LMHeadModel

from gpt2_scratch import lm_head
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.lm_head import LOGIT_ROWS
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.pretrained import save_pretrained
from gpt2_scratch.sources import load_config
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import adapters
from lora.variants import VARIANTS
from training.data.general import LONGEST, General, general_text
from training.evaluation.forgetting import (
    STRENGTHS,
    adapters_at,
    forgetting,
    general_losses,
    losses_at_start,
)
from training.flags.common import MethodArgs, ModelArgs
from training.flags.compute import ComputeArgs
from training.flags.forgetting import ForgettingArgs
from training.forecast.memory import DryRun, memory_of
from training.model.methods import apply_method, build_classifier, build_language_model

SHORT = ForgettingArgs(forgetting_tokens=300)


@pytest.fixture(autouse=True)
def _own_precision():
    yield
    AcceleratorState._reset_state()


def tokenizer_of(folder):
    return find_tokenizer(folder, load_config(folder))


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request, few_tokens, tmp_path_factory):
    """A base model of 128 tokens' context, with the embedding as its head or another matrix."""
    shape = replace(load_config(few_tokens), width=64, blocks=2, context=128, tied_head=request.param)
    model, folder = LanguageModel(shape), tmp_path_factory.mktemp("base")
    initialise(model, torch.Generator().manual_seed(0), std=0.3)
    save_pretrained(model, folder, tokenizer_of(few_tokens))
    return folder


def no_metric():
    raise AssertionError("the task is measured for the curve alone")


def built(kind, folder, method=None, head_training="train"):
    """(model, its general text); adapters are no longer the identity."""
    config = load_config(folder)
    if kind is LanguageModel:
        model = build_language_model(folder, config, ModelArgs())
    else:
        model = build_classifier(folder, config, ModelArgs(), 3, 0)
    if method is not None:
        apply_method(model, MethodArgs(method), 0, head_training)
        for _, adapter in adapters(model):
            for parameter in adapter.low_rank.parameters():
                parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model, general_text(SHORT, folder, config, tokenizer_of(folder))


def losses_of(model, general, **more):
    return general_losses(model, general, Accelerator(cpu=True), **more)


def test_every_token_but_the_first_is_a_target_once_in_pieces_that_fit_the_context(base):
    text, tokenizer = SHORT.text()[:20_000], tokenizer_of(base)
    for config, longest in ((load_config(base), 128), (GPT2Config(), LONGEST)):
        general = general_text(ForgettingArgs(forgetting_tokens=1200), base, config, tokenizer)
        assert max(len(piece.tokens) for piece in general.pieces) == longest
        assert np.concatenate([p.tokens for p in general.pieces]).tolist() == tokenizer.encode(text)[:1200]
        assert np.concatenate([p.labels for p in general.pieces]).tolist() == tokenizer.encode(text)[1:1201]
        assert general.counts.sum() == 1200


@pytest.mark.parametrize("own", [False, True], ids=["GPT-2's tokenizer", "another tokenizer"])
@pytest.mark.parametrize("characters", [SHORT.text(), "-" * 40_000], ids=["of English", "with many in a token"])
def test_the_first_tokens_are_those_of_the_whole_text(own, characters, few_tokens, tmp_path):
    (tmp_path / "general.txt").write_text(characters)
    tokenizer = tokenizer_of(few_tokens) if own else GPT2
    args = ForgettingArgs(str(tmp_path / "general.txt"), forgetting_tokens=300)
    tokens = [t for piece in general_text(args, few_tokens, GPT2Config(), tokenizer).pieces for t in piece.tokens]
    assert tokens == tokenizer.encode(characters)[:300]


@pytest.mark.parametrize("kind", [LanguageModel, Classifier])
def test_the_loss_of_each_piece_is_that_of_transformers(kind, base):
    model, general = built(kind, base)
    theirs = GPT2LMHeadModel.from_pretrained(base, dtype=torch.float32).eval()
    expected = []
    for piece in general.pieces:
        with torch.no_grad():
            logits = theirs(torch.tensor(piece.tokens[None].astype(np.int64))).logits[0]
        expected.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(piece.labels), reduction="sum")))
    assert len(expected) == 3
    assert losses_of(model, general) == pytest.approx(expected, rel=1e-5)


def test_a_classifier_and_a_language_model_on_the_same_base_start_from_the_same_loss(base):
    (model, general), (classifier, same) = built(LanguageModel, base, "lora"), built(Classifier, base, "lora")
    assert general.sha256 == same.sha256
    assert losses_of(model, general, strength=0) == losses_of(classifier, general, strength=0)


@pytest.mark.parametrize("method", VARIANTS)
def test_at_strength_0_the_loss_is_exactly_that_of_the_base(method, few_tokens):
    plain, general = built(LanguageModel, few_tokens)
    adapted, _ = built(LanguageModel, few_tokens, method)
    assert losses_of(adapted, general, strength=0) == losses_of(plain, general)
    assert losses_of(adapted, general) != losses_of(plain, general), "strength is 1 again"


def test_the_intervals_are_those_of_redrawn_pieces(few_tokens):
    model, _ = built(LanguageModel, few_tokens, "lora")
    general = general_text(
        ForgettingArgs(forgetting_tokens=4000), few_tokens, GPT2Config(context=100), tokenizer_of(few_tokens)
    )
    before, after = np.array(losses_of(model, general, strength=0)), np.array(losses_of(model, general))
    found = forgetting(model, general, Accelerator(cpu=True), before.tolist(), no_metric)
    drawn = np.random.default_rng(9).integers(0, 40, (20_000, 40))
    tokens = np.array([len(piece.tokens) for piece in general.pieces])
    assert (found["tokens"], found["sha256"], found["source"]) == (4000, general.sha256, "bundled general.txt")
    for name, losses in (("before", before), ("after", after), ("difference", after - before)):
        entry, ratios = found[name], losses[drawn].sum(1) / tokens[drawn].sum(1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        assert entry["value"] == pytest.approx(losses.sum() / 4000, rel=1e-12)
        assert [entry["low"], entry["high"]] == pytest.approx([low, high], abs=0.05 * (high - low))
        assert entry["n"] == 40
    widths = {name: found[name]["high"] - found[name]["low"] for name in ("after", "difference")}
    assert widths["difference"] < widths["after"], "pieces are paired"


@pytest.mark.parametrize("method", VARIANTS)
def test_with_adapters_that_are_not_trained_before_is_the_base_and_nothing_is_forgotten(method, few_tokens):
    plain, general = built(LanguageModel, few_tokens)
    model, _ = built(LanguageModel, few_tokens)
    apply_method(model, MethodArgs(method), 0)
    before = losses_of(model, general)
    assert before == pytest.approx(losses_of(plain, general), rel=1e-6)
    difference = forgetting(model, general, Accelerator(cpu=True), before, no_metric)["difference"]
    assert difference == {"value": 0, "n": 1}, "one piece of text has no spread"


def test_what_has_not_changed_has_forgotten_exactly_nothing(base):
    model, general = built(Classifier, base)
    apply_method(model, MethodArgs("head"), 0)
    before = losses_of(model, general, strength=0)
    model.score.weight.data += 1.0
    difference = forgetting(model, general, Accelerator(cpu=True), before, no_metric)["difference"]
    assert (difference["value"], difference["low"], difference["high"]) == (0, 0, 0)


def test_the_curve_runs_from_before_through_after_and_measures_the_task_at_each_strength(few_tokens):
    model, general = built(Classifier, few_tokens, "dora")
    before, general = losses_of(model, general, strength=0), replace(general, curve=True)
    _, adapter = next(adapters(model))
    found = forgetting(model, general, Accelerator(cpu=True), before, lambda: adapter.strength)
    assert [point["strength"] for point in found["curve"]] == [point["metric"] for point in found["curve"]]
    losses = {point["strength"]: point["general_loss"] for point in found["curve"]}
    assert tuple(losses) == STRENGTHS and len(set(losses.values())) == len(STRENGTHS)
    assert losses[0] == pytest.approx(found["before"]["value"], rel=1e-12)
    assert losses[1] == pytest.approx(found["after"]["value"], rel=1e-12)
    assert adapter.strength == 1


def test_a_class_head_stays_as_trained_whatever_the_strength_even_where_it_has_an_adapter(few_tokens):
    plain, _ = built(Classifier, few_tokens)
    model, _ = built(Classifier, few_tokens, "lora", "frozen+lora")
    plain.score = model.score
    batch = torch.arange(9), torch.tensor([5, 4])
    with torch.no_grad(), adapters_at(model, 0):
        assert torch.equal(model.eval()(*batch), plain.eval()(*batch))
        assert not torch.equal(model.score.linear(torch.ones(1, 16)), model.score(torch.ones(1, 16)))


@pytest.mark.parametrize("rows", [8, LOGIT_ROWS])  # the peak is in a block, where strength matters, or at the logits
@pytest.mark.parametrize("curve", [False, True])
@pytest.mark.parametrize("kind", [LanguageModel, Classifier])
def test_the_forecast_of_the_measurement_has_the_tensors_that_it_makes(kind, curve, rows, base, monkeypatch):
    monkeypatch.setattr(lm_head, "LOGIT_ROWS", rows)
    model, general = built(kind, base, "lora")
    dry_run = DryRun(replace(workload_of(model, labelled(8)), general=replace(general, curve=curve)))
    built_before = len(dry_run.meter.events)
    dry_run.read_general(general.pieces)
    peaks = []
    for strength in (0, 0.25, 1) if curve else (0, 1):
        with Counted([*model.parameters(), *model.buffers()]) as counted:
            losses_of(model, general, strength=strength)
        peaks.append(counted.peak)
    integers = 16 * general.counts.sum() + 192  # at most; tokens, labels and lengths are not forecast
    assert 0 <= max(peaks) - replayed(dry_run, built_before).largest.total() <= integers


@pytest.mark.parametrize(("tied", "more"), [(True, 0), (False, 50257 * 32 * 4)])
def test_the_forecast_has_the_logits_of_general_text_and_a_head_of_its_own(tied, more, tmp_path):
    config = GPT2Config(width=32, blocks=2, heads=2, context=512, tied_head=tied)
    model = build_classifier(None, config, ModelArgs(), 3, 0)
    workload = workload_of(model, labelled(8))
    general = general_text(ForgettingArgs(forgetting_tokens=2000), tmp_path, config, GPT2)
    without, parts = memory_of(workload, 4).parts, memory_of(replace(workload, general=general), 4).parts
    assert without["logits"] == 0 and parts["logits"] >= LOGIT_ROWS * 50257 * 4
    assert parts["frozen weights"] - without["frozen weights"] == more


def test_an_untied_head_is_found_under_the_names_of_a_compiled_model(tmp_path):
    config, args = GPT2Config(width=32, blocks=1, heads=2, tied_head=False), ForgettingArgs(forgetting_tokens=100)
    save_file({"_orig_mod.lm_head.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert general_text(args, tmp_path, config, GPT2).head == tmp_path
    save_file({"_orig_mod.score.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="without a head for language"):
        general_text(args, tmp_path, config, GPT2)


# The scripts.


@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift"])
def test_every_method_has_a_default_learning_rate(script):
    assert set(load_script(script).DEFAULTS) == set(get_args(get_type_hints(MethodArgs)["method"]))


def flags_of(script, model, mail_file, question_file, folder):
    data = ["--data", mail_file] if script == "finetune_cls" else ["--data", question_file, "--new-tokens", 0]
    return [*data, "--model", model, "--batch-size", 8, "--lr", 1e-2, "--output-dir", folder]


@pytest.mark.parametrize(("script", "method"), [("finetune_cls", "dora"), ("finetune_ift", "lora")])
def test_a_run_reports_forgetting_and_the_curve(script, method, few_tokens, mail_file, question_file, tmp_path):
    flags = flags_of(script, few_tokens, mail_file, question_file, tmp_path / "run")
    flags += ["--max-steps", 8, "--method", method, "--lora-plus-ratio", 4]
    done = run_in_process(script, *flags, "--forgetting-tokens", 1000, "--forgetting-curve")
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "run")
    found = results["forgetting"]
    values = [found[name]["value"] for name in ("before", "after")]
    assert "general text  loss {:.3f} -> {:.3f}, ".format(*values) in done.stdout
    assert "over 1,000 tokens" in done.stdout
    assert found["difference"]["value"] == pytest.approx(values[1] - values[0]) != 0
    metric = {point["strength"]: point["metric"] for point in found["curve"]}
    validation = results["val"]["accuracy" if script == "finetune_cls" else "loss"]["value"]
    assert metric[1.0] == pytest.approx(validation, rel=1e-5)
    assert script == "finetune_cls" or len(set(metric.values())) == len(STRENGTHS)  # all 6 texts may stay right
    assert "forgetting.png" in results["files"]
    assert (tmp_path / "run" / "forgetting.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift"])
def test_before_is_where_loftq_starts_and_strength_0_is_the_rounded_base(
    script, few_tokens, mail_file, question_file, tmp_path
):
    pytest.importorskip("bitsandbytes")
    flags = flags_of(script, few_tokens, mail_file, question_file, tmp_path / "run")
    flags[flags.index("--lr") + 1] = 1e-12  # as good as not trained
    flags += ["--base-bits", 4, "--lora-init", "loftq", "--lora-rank", 4, "--max-steps", 1]
    done = run_in_process(script, *flags, "--forgetting-tokens", 500, "--forgetting-curve")
    assert done.returncode == 0, done.stderr
    found = results_of(tmp_path / "run")["forgetting"]
    losses = {point["strength"]: point["general_loss"] for point in found["curve"]}
    assert found["difference"]["value"] == pytest.approx(0, abs=1e-6)
    assert losses[1] == pytest.approx(found["before"]["value"], rel=1e-6)
    assert abs(losses[0] - found["before"]["value"]) > 1e-4


def test_a_resumed_run_and_one_of_two_processes_report_what_an_unbroken_one_does(
    few_tokens, mail_file, question_file, tmp_path
):
    def flags(folder):
        known = flags_of("finetune_cls", few_tokens, mail_file, question_file, tmp_path / folder)
        return [*known, "--max-steps", 60, "--save-every", 3, "--method", "full", "--forgetting-tokens", 2000]

    assert run_in_process("finetune_cls", *flags("unbroken")).returncode == 0
    kill_at_a_random_moment("finetune_cls", 1, flags("broken"), tmp_path / "broken", seed=0)
    assert run_in_process("finetune_cls", *flags("broken"), "--resume").returncode == 0
    assert run_script("finetune_cls", *flags("two"), processes=2).returncode == 0
    unbroken, broken, two = (results_of(tmp_path / name)["forgetting"] for name in ("unbroken", "broken", "two"))
    assert unbroken["before"] != unbroken["after"]
    pieces = unbroken["pieces"]
    lost = sum(pieces["after"]) - sum(pieces["before"])
    assert lost / sum(pieces["tokens"]) == pytest.approx(unbroken["difference"]["value"], abs=1e-5)
    assert unbroken == broken
    assert unbroken["before"] == pytest.approx(two["before"], rel=1e-6) and unbroken["sha256"] == two["sha256"]
    for name in ("after", "difference"):  # after 60 updates, whose sums two processes take in another order
        assert two[name] == pytest.approx(unbroken[name], rel=1e-3), name


@dataclass
class Read:
    """What losses_at_start reads of a run's data."""

    general: General
    inputs: SimpleNamespace


def at_start(model, general, folder, cache, base="base", precision="no", **changed):
    args = SimpleNamespace(
        model=ModelArgs(**{k: v for k, v in changed.items() if k == "base_bits"}),
        method=MethodArgs(**{k: v for k, v in changed.items() if k == "lora_init"}),
        compute=ComputeArgs(cache_dir=cache, tf32=changed.get("tf32", False)),
    )
    data = Read(general, SimpleNamespace(config=load_config(folder)))
    AcceleratorState._reset_state()
    return losses_at_start(model, data, Accelerator(cpu=True, mixed_precision=precision), args, base)


@pytest.mark.parametrize("method", [None, *VARIANTS])
@pytest.mark.parametrize("kind", [LanguageModel, Classifier])
def test_the_base_s_losses_serve_every_method_bit_for_bit(kind, method, base, tmp_path):
    model, general = built(kind, base, method)
    plain, _ = built(LanguageModel, base)
    kept = at_start(plain, general, base, tmp_path)
    assert kept == losses_of(model, general, strength=0)
    model.transformer.wte.weight.data.zero_()
    assert at_start(model, general, base, tmp_path) == kept != losses_of(model, general, strength=0)


def test_what_can_change_the_base_s_losses_has_them_computed_again(base, tmp_path):
    model, general = built(Classifier, base)
    kept = at_start(model, general, base, tmp_path)
    model.transformer.wte.weight.data.zero_()
    other = general_text(ForgettingArgs(forgetting_tokens=200), base, load_config(base), tokenizer_of(base))
    changes = [{"base": "other"}, {"precision": "bf16"}, {"base_bits": 8}, {"tf32": True}, {"lora_init": "loftq"}]
    for changed in changes:
        assert at_start(model, general, base, tmp_path, **changed) != kept, changed
    assert len(at_start(model, other, base, tmp_path)) != len(kept)
    torch.set_num_threads(2)
    assert at_start(model, general, base, tmp_path) != kept


@pytest.mark.parametrize("harm", ["short", "no folder"])
def test_a_cache_that_cannot_be_used_costs_the_time_and_nothing_else(harm, base, tmp_path):
    model, general = built(Classifier, base)
    kept = at_start(model, general, base, tmp_path)
    if harm == "short":
        (path,) = tmp_path.glob("*/general")
        path.write_bytes(path.read_bytes()[:-3])
        assert at_start(model, general, base, tmp_path) == kept == np.fromfile(path).tolist()
    else:
        (tmp_path / "file").touch()
        assert at_start(model, general, base, tmp_path / "file") == kept


def test_a_second_run_reads_the_base_s_losses_and_reports_the_same(few_tokens, mail_file, question_file, tmp_path):
    found = []
    for folder in ("first", "second"):
        flags = flags_of("finetune_cls", few_tokens, mail_file, question_file, tmp_path / folder)
        flags += ["--max-steps", 4, "--method", "full", "--forgetting-tokens", 900, "--cache-dir", tmp_path / "cache"]
        assert run_in_process("finetune_cls", *flags).returncode == 0
        found.append(results_of(tmp_path / folder)["forgetting"])
    assert found[0] == found[1] and found[0]["difference"]["value"] != 0
    (path,) = (tmp_path / "cache").glob("*/general")
    assert np.fromfile(path).sum() / 900 == found[0]["before"]["value"]


def test_none_measures_and_reports_nothing(tiny_model, mail_file, question_file, tmp_path):
    flags = flags_of("finetune_cls", tiny_model, mail_file, question_file, tmp_path / "run")
    done = run_in_process("finetune_cls", *flags, "--max-steps", 2, "--forgetting-data", "none")
    assert done.returncode == 0, done.stderr
    assert "forgetting" not in results_of(tmp_path / "run") and "general text" not in done.stdout
    assert general_text(ForgettingArgs("none"), tiny_model, GPT2Config(), GPT2) == General()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b" \n", "fewer than two tokens"),
        (b" States", "fewer than two tokens"),
        ("folder", "Is a directory"),
        (b"caf\xe9 au lait", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift"])
def test_a_general_text_that_is_none_is_refused_with_one_message(
    content, reason, script, tiny_model, mail_file, question_file, tmp_path
):
    path = tmp_path / "general.txt"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    flags = flags_of(script, tiny_model, mail_file, question_file, tmp_path / "run")
    done = run_in_process(script, *flags, "--forgetting-data", path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count(f"--forgetting-data {path}:") == 1 and reason in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--forgetting-tokens", 0], "--forgetting-tokens 0: must be at least 1"),
        (["--forgetting-curve", "--forgetting-data", "none"], "--forgetting-curve: needs --forgetting-data"),
        (["--forgetting-curve", "--method", "bitfit"], "--forgetting-curve: --method bitfit has no adapters"),
        (["--forgetting-curve", "--validation-share", 0, "--test-share", 0], "no validation or test examples"),
    ],
)
def test_a_curve_that_cannot_be_is_refused_with_one_message(flags, message, tiny_model, mail_file, tmp_path):
    known = ["--data", mail_file, "--model", tiny_model, "--output-dir", tmp_path / "run"]
    done = run_in_process("finetune_cls", *known, *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert message in done.stderr and not (tmp_path / "run").exists()
