"""Learning from preferences, part by part: losses, batches, the reference, metrics, memory, the LM head's dropout."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers import ROOT
from one_example import encode_pair, within
from test_depth import recorder, told
from test_memory import CONFIG, LM_HEAD, Counted, replayed
from test_memory import _own_precision as _own_precision

import gpt2_scratch.lm_head
from gpt2_scratch.lm_head import label_log_probabilities
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import Spec, adapters
from lora.variants import adapter_class
from tasks import Preference
from training.data.batches import Plan
from training.data.pairs import collate_pairs, texts_of, with_texts
from training.evaluation.preference import losses, pair_lines, pair_metrics, references
from training.evaluation.reference import (
    reference,
    reference_in,
    score_pairs,
    with_cached_reference,
    with_reference,
)
from training.flags.common import MethodArgs, UpdateArgs
from training.flags.compute import ComputeArgs
from training.flags.preference import PreferenceArgs
from training.forecast.depth import deep
from training.forecast.memory import DryRun, memory_of
from training.forecast.workload import Workload
from training.model.methods import apply_compute, apply_method
from training.step.losses import outputs_of, pair_loss, pair_losses, per_answer
from training.step.optimizers import build_optimizer
from training.step.update import accumulate

ARGS = PreferenceArgs(beta=0.5)
LORA = MethodArgs(lora_rank=2)


def examples(count=6):
    rows = (ROOT / "tasks" / "bundled" / "preferences.jsonl").read_text().splitlines()[:count]
    return [Preference(i, **json.loads(row)) for i, row in enumerate(rows)]


def pairs_of(count=6):
    pairs = [encode_pair(GPT2, e, 128) for e in examples(count)]
    return with_texts(pairs, within(texts_of(pairs), CONFIG.vocabulary))


def model_of(method=LORA, moved=True, dropout=0.0, blocks=CONFIG.blocks):
    """A tiny model whose adapters are some way from their start."""
    model = LanguageModel(replace(CONFIG, dropout=dropout, blocks=blocks))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    apply_method(model, method, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and moved:
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))
    return model.eval()


def cpu(precision="no"):
    return Accelerator(cpu=True, mixed_precision=precision)


# The loss.


@pytest.mark.parametrize(("beta", "smoothing"), [(0.1, 0.0), (2.0, 0.2)])
def test_the_sigmoid_loss_is_that_of_the_formula(beta, smoothing):
    ratios = torch.tensor([[0.0, 0.0], [2.0, -1.0], [-40.0, 3.0]], dtype=torch.float64)
    found = pair_losses(ratios, torch.ones(3, 2), "sigmoid", beta, smoothing).tolist()
    for loss, (chosen, rejected) in zip(found, ratios.tolist(), strict=True):
        right = 1 / (1 + math.exp(-beta * (chosen - rejected)))
        assert loss == pytest.approx(-(1 - smoothing) * math.log(right) - smoothing * math.log(1 - right), rel=1e-12)
    assert found[0] == pytest.approx(math.log(2))


def test_the_loss_of_a_vast_margin_is_finite():
    ratios = torch.tensor([[-1e5, 1e5], [1e5, -1e5]])
    assert pair_losses(ratios, torch.ones(2, 2), "sigmoid", 1.0, 0.1).isfinite().all()


def margin_of_least(kind, beta, smoothing, targets):
    margins = torch.linspace(-20, 20, 40001, dtype=torch.float64)
    ratios = torch.stack([margins, torch.zeros_like(margins)], 1)
    found = pair_losses(ratios, torch.tensor([targets]).expand(len(margins), 2), kind, beta, smoothing)
    return float(margins[found.argmin()])


def test_the_smoothed_loss_is_least_where_the_model_is_as_sure_as_the_labels():
    assert margin_of_least("sigmoid", 0.5, 0.1, [1, 1]) == pytest.approx(math.log(0.9 / 0.1) / 0.5, abs=1e-3)


def test_ipo_is_least_at_the_margin_it_aims_at_in_nats_a_token():
    assert margin_of_least("ipo", 0.25, 0.0, [1, 1]) == pytest.approx(1 / (2 * 0.25), abs=1e-3)
    assert margin_of_least("ipo", 0.25, 0.0, [5, 3]) == pytest.approx(5 / (2 * 0.25), abs=1e-3)


# Batches.


def test_both_answers_of_a_pair_lie_side_by_side_in_one_batch():
    pairs = pairs_of(3)
    batch = collate_pairs(pairs)
    texts = [text for pair in pairs for text in pair.texts]
    assert batch.lengths.tolist() == [len(text.tokens) for text in texts]
    assert torch.equal(batch.tokens, torch.from_numpy(np.concatenate([text.tokens for text in texts])).long())
    assert batch.targets.tolist() == [[text.count for text in p.texts] for p in pairs]
    assert len(set(batch.example_ids)) == 6


def test_the_log_probability_of_an_answer_is_that_of_its_text_alone():
    model, pairs = model_of(), pairs_of(3)
    batch = collate_pairs(pairs)
    together = per_answer(model(batch.tokens, batch.lengths, batch.labels), batch)
    for pair, found in zip(pairs, together.tolist(), strict=True):
        for text, sum_of_it in zip(pair.texts, found, strict=True):
            alone = collate_pairs([replace(pair, texts=(text, text))])
            expected = per_answer(model(alone.tokens, alone.lengths, alone.labels), alone)[0, 0]
            assert sum_of_it == pytest.approx(float(expected.detach()), rel=1e-5)


def gradients_in(micro_batch_size, processes, loss=ARGS):
    """Of one update of 6 pairs, dealt out as the plan does it; all processes in turn."""
    model, pairs, accelerator = model_of(), pairs_of(), cpu()
    plan = Plan(pairs, UpdateArgs(batch_size=6, micro_batch_size=micro_batch_size, max_steps=1), processes)

    def loss_of_batch(batch):
        known = reference_in(accelerator, model, batch, cached=False)
        return pair_loss(model(batch.tokens, batch.lengths, batch.labels), known, batch, loss)

    total, seen = 0.0, []
    for share in plan.at(0):
        batches = [collate_pairs([pairs[i] for i in micro]) for micro in share]
        seen += [id for batch in batches for id in batch.example_ids]
        total += float(accumulate(accelerator, model, batches, 6, loss_of_batch, (0, 0)))
    assert sorted(seen) == list(range(12))
    return total, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("loss", [ARGS, PreferenceArgs(dpo_loss="ipo")], ids=["sigmoid", "ipo"])
@pytest.mark.parametrize(("micro_batch_size", "processes"), [(3, 1), (1, 1), (2, 2), (2, 8)])
def test_an_update_does_not_depend_on_micro_batches_and_processes(micro_batch_size, processes, loss):
    """Of 8 processes two have no pair in this step."""
    whole, expected = gradients_in(6, 1, loss)
    total, found = gradients_in(micro_batch_size, processes, loss)
    assert total == pytest.approx(whole, rel=1e-5)
    largest = max(float(g.abs().max()) for g in expected.values())
    assert all(float((found[name] - g).abs().max()) <= 2e-6 * largest for name, g in expected.items())


def test_a_prompt_that_leaves_no_room_and_answers_that_are_alike_once_cut_are_known():
    pair = Preference(0, "Count.", "one two three", "one two four")
    prompt = len(encode_pair(GPT2, pair, 128).texts[0].tokens) - encode_pair(GPT2, pair, 128).texts[0].count
    cases = [(prompt, "no_room_for_answers"), (prompt + 1, "alike_once_cut"), (prompt + 3, None), (128, None)]
    for length, reason in cases:
        assert encode_pair(GPT2, pair, length).left_out == reason, length


# The reference.


@pytest.mark.parametrize("method", ["lora", "dora", "pissa", "lora-fa"])
def test_the_reference_is_the_model_without_its_adapters_and_nothing_is_left_of_the_switch(method):
    model, accelerator, pairs = model_of(MethodArgs(method, lora_rank=2), dropout=0.5).train(), cpu(), pairs_of()
    plain = model_of(MethodArgs(last_blocks=1), moved=False)
    expected = score_pairs(plain, pairs, accelerator)
    batch = collate_pairs(pairs)
    found = reference_in(accelerator, model, batch, cached=False)
    assert not found.requires_grad and model.training
    assert torch.equal(found, reference_in(accelerator, model, batch, cached=False)), "no dropout"
    assert np.allclose(found.double(), expected, rtol=1e-5)
    assert np.array_equal(references(with_reference(model, pairs, accelerator)), expected)
    assert not np.allclose(score_pairs(model, pairs, accelerator), expected, rtol=1e-3)


def cached(model, parts, folder, base="some weights"):
    compute = ComputeArgs(cache_dir=folder)
    return with_cached_reference(cpu(), model, compute, base, parts)


def test_a_cached_reference_is_computed_once_for_any_split_and_method(tmp_path):
    model, pairs = model_of(), pairs_of()
    first = cached(model, [pairs[:4], pairs[4:]], tmp_path / "new")
    expected = references(with_reference(model, pairs, cpu()))
    assert np.allclose(references([*first[0], *first[1]]), expected, rtol=1e-5)
    (path,) = (tmp_path / "new").glob("*/reference")
    written = path.stat().st_mtime_ns
    other = model_of(MethodArgs("full"))  # would give other numbers
    again = cached(other, [pairs[::-1], []], tmp_path / "new")
    assert np.array_equal(references(again[0])[::-1], references([*first[0], *first[1]])) and again[1] == []
    assert path.stat().st_mtime_ns == written


def test_another_base_or_text_has_another_file_and_a_damaged_file_is_made_anew(tmp_path):
    model, pairs = model_of(), pairs_of()
    whole = references(cached(model, [pairs], tmp_path)[0])
    (path,) = tmp_path.glob("*/reference")
    path.write_bytes(path.read_bytes()[:-9])
    assert np.array_equal(references(cached(model, [pairs], tmp_path)[0]), whole)
    cached(model, [pairs], tmp_path, base="other weights")
    cached(model, [pairs[1:]], tmp_path)
    assert len(list(tmp_path.glob("*/reference"))) == 3


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"--cache-dir {tmp_path}/file"):
        cached(model_of(), [pairs_of(1)], tmp_path / "file")


# Metrics.


def test_rewards_margins_and_accuracies_are_those_worked_out_by_hand():
    pairs = [replace(p, reference=r) for p, r in zip(pairs_of(4), [(-5.0, -6.0)] * 4, strict=True)]
    scores = np.array([[-3.0, -6.0], [-5.0, -6.0], [-9.0, -6.0], [-5.0, -10.0]])  # margins 2, 0, -4, 4
    found = pair_metrics(scores, pairs, ARGS)
    assert found["reward_accuracy"]["value"] == (1 + 0.5 + 0 + 1) / 4
    assert found["reward_margin"]["value"] == 0.5 * (2 + 0 - 4 + 4) / 4
    assert found["chosen_reward"]["value"] == 0.5 * (2 + 0 - 4 + 0) / 4
    assert found["rejected_reward"]["value"] == 0.5 * (0 + 0 + 0 - 4) / 4
    assert found["ranking_accuracy"]["value"] == 3 / 4
    by_hand = [math.log(1 + math.exp(-0.5 * margin)) for margin in (2, 0, -4, 4)]
    assert found["loss"]["value"] == pytest.approx(sum(by_hand) / 4)
    assert losses(scores, pairs, ARGS) == pytest.approx(by_hand)
    assert all(set(entry) == {"value", "low", "high", "n"} and entry["n"] == 4 for entry in found.values())


def test_a_prediction_says_what_the_metrics_are_made_of():
    pairs = [replace(p, reference=(-5.0, -6.0)) for p in pairs_of(2)]
    rows = pair_lines(np.array([[-3.0, -6.0], [-5.0, -8.0]]), pairs, examples(2)[::-1], ARGS)
    assert [row["prompt"] for row in rows] == [e.prompt for e in examples(2)]
    assert [(row["chosen_reward"], row["rejected_reward"]) for row in rows] == [(1.0, 0.0), (0.0, -1.0)]
    assert json.loads(json.dumps(rows)) == rows


# The LM head, whose logits are computed again when tokens have different gradients, as those of two answers have.


def head_with_dropout():
    head = torch.nn.Linear(4, 7, bias=False).double()
    adapter = adapter_class("lora")(
        head, Spec(rank=2, dropout=0.5), generator=torch.Generator().manual_seed(0)
    ).double()
    with torch.no_grad():
        adapter.low_rank.B.normal_(generator=torch.Generator().manual_seed(1))
    return adapter.train()


@pytest.mark.parametrize("rows", [3, 1024])
@pytest.mark.parametrize("equal", [True, False])
def test_an_adapter_of_the_lm_head_drops_the_same_in_both_passes(equal, rows, monkeypatch):
    monkeypatch.setattr(gpt2_scratch.lm_head, "LOGIT_ROWS", rows)
    rng = torch.Generator().manual_seed(2)
    head, hidden = head_with_dropout(), torch.randn(8, 4, dtype=torch.float64, generator=rng).requires_grad_()
    labels = torch.randint(7, (8,), generator=rng)
    weights = torch.ones(8) if equal else torch.randn(8, dtype=torch.float64, generator=rng)
    wanted = [hidden, head.low_rank.A, head.low_rank.B]

    torch.manual_seed(3)
    found = label_log_probabilities(head, hidden, labels)
    drawn_between = torch.rand(1)
    ours = torch.autograd.grad((found * weights).sum(), wanted)
    drawn_after = torch.rand(1)

    torch.manual_seed(3)
    logits = torch.cat([head(part) for part in hidden.split(rows)])
    expected = logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    between, after = torch.rand(1), torch.rand(1)
    assert torch.allclose(found, expected, rtol=1e-12)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)
    assert torch.equal(between, drawn_between) and torch.equal(after, drawn_after)


def test_the_logits_of_a_frozen_head_are_computed_once_whatever_the_gradients():
    head, calls = torch.nn.Linear(4, 7, bias=False).requires_grad_(False), []
    head.register_forward_hook(lambda *_: calls.append(1))
    hidden = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = label_log_probabilities(head, hidden, torch.tensor([0, 1, 2, 3, 4]))
    (found * torch.arange(5)).sum().backward()
    assert len(calls) == 1 and hidden.grad is not None and hidden.grad[0].abs().max() == 0


# Memory and the frozen-activation cache.


def workload_of(model, pairs, compute, precision, cached_reference):
    def loss(accelerator, model, batch):
        known = reference_in(accelerator, model, batch, cached_reference)
        return pair_loss(outputs_of(accelerator, model, batch), known, batch, ARGS)

    update = UpdateArgs(batch_size=4, micro_batch_size=2, max_steps=2)
    return Workload(model, update, cpu(precision), pairs, pairs, compute=compute, loss=loss, base=0)


@pytest.mark.parametrize(
    ("method", "cached_reference", "checkpoint", "precision"),
    [
        (LM_HEAD, False, False, "no"),
        (LM_HEAD, False, True, "bf16"),
        (LORA, False, True, "no"),
        (LORA, False, False, "bf16"),
        (MethodArgs("full"), True, False, "no"),
        (MethodArgs("full"), True, True, "bf16"),
    ],
)
def test_fake_updates_make_exactly_the_tensors_that_real_ones_make(method, cached_reference, checkpoint, precision):
    model, pairs = model_of(method, moved=False).train(), pairs_of(4)
    compute = ComputeArgs(checkpoint_activations=checkpoint)
    apply_compute(model, method.method, compute, precision)
    workload = workload_of(model, pairs, compute, precision, cached_reference)
    micro_batches = [pairs[:2], pairs[2:]]
    dry_run = DryRun(workload)
    built = len(dry_run.meter.events)
    for _ in range(2):
        dry_run.update(micro_batches)

    counted = Counted([*model.parameters(), *model.buffers()])
    with counted:
        optimizer = build_optimizer(model, workload.update)
        for _ in range(2):
            for part in micro_batches:
                workload.loss(workload.accelerator, model, collate_pairs(part)).backward()
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
    state = (
        8192  # bytes at most: that of a generator, which torch makes behind the back of those who count real tensors
    )
    replay = replayed(dry_run, built)
    assert 0 <= replay.largest.total() - counted.peak <= state
    assert replay.live.total() == counted.live


@pytest.mark.parametrize("cached_reference", [False, True])
def test_a_deep_model_is_forecast_from_few_blocks(cached_reference):
    model, compute = model_of(moved=False, blocks=8).train(), ComputeArgs()
    recorded, depths = recorder(workload_of(model, pairs_of(4), compute, "no", cached_reference))
    found = deep(model, recorded)
    assert depths == [5] and told(found) == told(recorded(model))


def test_the_forecast_of_a_run_with_pairs_grows_with_the_micro_batch_and_counts_the_frozen_activations():
    method, pairs = MethodArgs(lora_rank=2, last_blocks=1), pairs_of(4)
    workload = replace(workload_of(model_of(method), pairs, ComputeArgs(), "no", False), validation=())
    small, large = (memory_of(workload, size).peak for size in (2, 4))
    assert 0 < small < large
    held = replace(workload, compute=ComputeArgs(cache_frozen="memory"))
    tokens = sum(len(text.tokens) for text in {text.tokens.tobytes(): text for text in texts_of(pairs)}.values())
    assert held.frozen.shape == (tokens, CONFIG.width)
    assert memory_of(held, 2).parts["frozen activations"] >= 4 * tokens * CONFIG.width


def test_pairs_keep_their_place_when_their_texts_get_another_form():
    pairs = pairs_of(3)
    changed = with_texts(pairs, [replace(text, cut=True) for text in texts_of(pairs)])
    assert [p.texts[0].id for p in changed] == [p.texts[0].id for p in pairs]
    assert all(text.cut for text in texts_of(changed)) and not any(text.cut for text in texts_of(pairs))


def test_inside_the_reference_there_are_no_adapters_and_outside_they_are_whole_even_after_an_error():
    model = model_of().train()
    with pytest.raises(RuntimeError), reference(model):
        assert {adapter.strength for _, adapter in adapters(model)} == {0} and not model.training
        raise RuntimeError
    assert {adapter.strength for _, adapter in adapters(model)} == {1.0} and model.training
