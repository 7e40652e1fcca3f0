"""KTO against TRL (loss, reference point, gradients, tokens), and that an update does not depend on how it is dealt."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from accelerate import Accelerator
from one_example import within
from sklearn.metrics import roc_auc_score
from test_preference import examples as bundled_pairs
from test_preference import model_of
from test_trl import BETA, DoubleHead, assert_close, move
from test_trl import folders as folders

from evidence.intervals import share
from gpt2_scratch.sources import load_config
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import adapters
from lora.peft_format import attach
from tasks import Rated
from training.data.batches import Plan
from training.data.pairs import collate_rated, encode_rated, mismatched, texts_of, with_texts
from training.evaluation.preference import mean_rated_loss, outranked, rated_losses_of, rated_metrics
from training.evaluation.reference import reference_in, reference_point, score_pairs, with_reference
from training.flags.common import ModelArgs, UpdateArgs
from training.flags.preference import KtoArgs
from training.model.methods import build_language_model
from training.step.losses import rated_loss, rated_losses
from training.step.update import accumulate

trl, peft, datasets = (pytest.importorskip(name) for name in ("trl", "peft", "datasets"))

ARGS = KtoArgs(beta=BETA, desirable_weight=1.5, undesirable_weight=0.75)


def rated(count=6):
    """Answers of different lengths, each to a prompt of its own; two thirds are good."""
    pairs = bundled_pairs(count)
    return [Rated(e.id, e.prompt, "", e.chosen if i % 3 else e.rejected, good=bool(i % 3)) for i, e in enumerate(pairs)]


def encoded(count=6):
    return encode_rated(GPT2, rated(count), 512)


@pytest.fixture(scope="module")
def make_trainer(folders, tmp_path_factory):
    def make(weights, size=6, **more):
        config = trl.KTOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            beta=BETA,
            desirable_weight=ARGS.desirable_weight,
            undesirable_weight=ARGS.undesirable_weight,
            per_device_train_batch_size=size,
            use_cpu=True,
            report_to=[],
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
        )
        rows = [{"prompt": e.prompt(), "completion": e.response, "label": e.good} for e in rated()]
        made = trl.KTOTrainer(
            model=transformers.GPT2LMHeadModel.from_pretrained(weights, dtype=torch.float32),
            args=config,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=transformers.AutoTokenizer.from_pretrained(weights),
            **more,
        )
        made.model.eval()
        return made

    return make


@pytest.fixture(scope="module")
def trainer(folders, make_trainer):
    base, policy = folders
    return make_trainer(policy, ref_model=transformers.GPT2LMHeadModel.from_pretrained(base, dtype=torch.float32))


def gradients_of_trl(trainer):
    """(mean loss, z0, gradients by name) of one batch of all answers."""
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)), False)
    loss.backward()
    found = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return float(loss.detach()), trainer._metrics["eval"]["kl"][-1], found


def our_loss(model, examples, cached):
    """(mean, z0), in micro-batches of two; its gradients lie in the parameters."""
    accelerator, total = Accelerator(cpu=True), 0.0
    point = reference_point(model, examples, accelerator, cached)
    for start in range(0, len(examples), 2):
        batch = collate_rated(examples[start : start + 2])
        known = reference_in(accelerator, model, batch, cached)
        outputs = model(batch.tokens, batch.lengths, batch.labels)
        loss = rated_loss(outputs, known, batch, point, ARGS) / len(examples)
        loss.backward()
        total += float(loss.detach())
    return total, point


# Against TRL.


def test_an_answer_and_the_one_to_another_prompt_have_the_tokens_that_trl_gives_them(trainer):
    for row, example in zip(trainer.train_dataset, encoded(), strict=True):
        for text, name in zip(example.texts, ("completion_ids", "KL_completion_ids"), strict=True):
            assert [*text.tokens, text.labels[-1]] == row["prompt_ids"] + row[name]
            assert list(text.labels[text.labels != -100]) == row[name]
        assert example.good is row["label"]


@pytest.mark.parametrize("shift", [-1.0, 0.7])
def test_the_loss_its_reference_point_and_its_gradient_are_those_of_trl_to_double_precision(
    shift, trainer, monkeypatch
):
    """With `shift` above 0 the model is further from its reference than not at all; below it z0 is 0."""
    monkeypatch.setattr(trainer, "precompute_ref_logps", True)
    rng, theirs = torch.Generator().manual_seed(0), trainer.data_collator(list(trainer.train_dataset))
    masks = [theirs[name][:, 1:] for name in ("KL_completion_mask", "completion_mask")]
    others, own = (-6 * torch.rand(m.shape, dtype=torch.float64, generator=rng) * m for m in masks)
    known = own.sum(1) + 4 * torch.randn(6, dtype=torch.float64, generator=rng)
    theirs |= {"ref_logps": known, "ref_KL_logps": others.sum(1) - shift}
    given = own.clone().requires_grad_()
    outputs = []
    for found in (others, given):
        nothing = torch.zeros_like(found)
        more = {"entropy": nothing, "mean_logits": nothing, "is_top1": nothing.bool()}
        outputs.append(SimpleNamespace(log_probs=found, **more))
    expected = trainer._compute_loss(lambda **_: outputs.pop(0), theirs, return_outputs=False)
    expected.backward()
    for_answers = torch.stack([row[kept == 1][0] for row, kept in zip(given.grad, masks[1], strict=True)])

    answers = own.sum(1).requires_grad_()  # (B,)
    examples = [
        replace(e, reference=(was, other - shift))
        for e, was, other in zip(encoded(), known.tolist(), others.sum(1).tolist(), strict=True)
    ]
    point, good = max(0.0, shift), torch.tensor([e.good for e in examples])
    found = rated_losses(answers - known, good, point, ARGS).mean()
    found.backward()
    assert trainer._metrics["eval"]["kl"][-1] == pytest.approx(point, rel=1e-12)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert torch.allclose(answers.grad, for_answers, rtol=1e-10, atol=1e-15)
    scores = torch.stack([answers.detach(), others.sum(1)], 1).numpy()
    assert mean_rated_loss(scores, examples, ARGS) == pytest.approx(float(expected.detach()), rel=1e-12)


def test_lora_with_the_adapter_off_as_reference_has_the_loss_and_the_gradients_of_trl_to_double_precision(
    make_trainer, folders, tmp_path, monkeypatch
):
    base, _ = folders
    targets = ["c_attn", "c_proj", "c_fc"]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM")
    trainer = make_trainer(base, peft_config=config)
    move([p for p in trainer.model.parameters() if p.requires_grad], 4)
    trainer.model.save_pretrained(tmp_path)
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", DoubleHead)
    trainer.model.double()
    expected, point, theirs = gradients_of_trl(trainer)

    model = build_language_model(base, load_config(base), ModelArgs())
    attach(model, tmp_path)
    model = model.double().eval()
    assert point > 0.01
    assert our_loss(model, encoded(), cached=False) == pytest.approx((expected, point), rel=1e-12)
    prefix, ours = "base_model.model.", {}
    for path, adapter in adapters(model):
        ours[f"{prefix}{path}.lora_A.default.weight"] = adapter.low_rank.A.grad
        ours[f"{prefix}{path}.lora_B.default.weight"] = adapter.low_rank.B.grad[0].t()
    assert_close(ours, theirs, 1e-12)
    with_kept = with_reference(model, encoded(), Accelerator(cpu=True))
    model.zero_grad()
    assert our_loss(model, with_kept, cached=True) == pytest.approx((expected, point), rel=1e-12)


# One step, however it is dealt out.


def moved_away():
    """A model and its examples, with references so that z0 is above 0."""
    model, accelerator, examples = model_of(), Accelerator(cpu=True), encoded()
    examples = with_texts(examples, within(texts_of(examples), model.config.vocabulary))
    examples = with_reference(model, examples, accelerator)
    return model, accelerator, [replace(e, reference=(e.reference[0], e.reference[1] - 5)) for e in examples]


def update_of(micro_batch_size, processes):
    """(loss, z0s, gradients) of one update of 6 answers, dealt out as the plan does it; all processes in turn."""
    model, accelerator, examples = moved_away()
    plan = Plan(examples, UpdateArgs(batch_size=6, micro_batch_size=micro_batch_size, max_steps=1), processes)
    total, points = 0.0, []
    for rank in range(processes):
        chosen, micro_batches = plan.shares(0, examples, rank)
        points.append(reference_point(model, chosen, accelerator, cached=True))

        def loss(batch, point=points[-1]):
            outputs = model(batch.tokens, batch.lengths, batch.labels)
            return rated_loss(outputs, batch.reference, batch, point, ARGS)

        total += float(accumulate(accelerator, model, [collate_rated(part) for part in micro_batches], 6, loss, (0, 0)))
    return total, points, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("micro_batch_size", "processes"), [(3, 1), (1, 1), (2, 2), (2, 8)])
def test_an_update_of_kto_does_not_depend_on_micro_batches_and_processes(micro_batch_size, processes):
    """Of 8 processes two have no answer in this step."""
    whole, (point,), expected = update_of(6, 1)
    total, points, found = update_of(micro_batch_size, processes)
    assert point > 1 and points == pytest.approx([point] * processes, rel=1e-5)
    assert total == pytest.approx(whole, rel=1e-5)
    largest = max(float(g.abs().max()) for g in expected.values())
    assert all(float((found[name] - g).abs().max()) <= 2e-6 * largest for name, g in expected.items())


def test_the_reference_point_has_no_gradient_and_leaves_the_model_as_it_was():
    model, accelerator, examples = moved_away()
    model.train()
    assert isinstance(reference_point(model, examples, accelerator, cached=True), float)
    assert model.training and all(p.grad is None for p in model.parameters())


# Answers to other prompts.


def test_every_answer_stands_once_behind_another_prompt_though_prompts_have_several():
    examples = [Rated(i, f"prompt {prompt}", "", f"answer {i}", good=True) for i, prompt in enumerate("aabacbda")]
    others = mismatched(examples)
    assert sorted(e.response for e in others) == [e.response for e in examples]
    own = {e.response: e.group for e in examples}
    assert all(own[other.response] != e.group for e, other in zip(examples, others, strict=True))
    assert all(replace(other, response=e.response) == e for e, other in zip(examples, others, strict=True))


def test_where_no_prompt_has_two_answers_they_move_on_by_one_as_in_trl():
    examples = rated(5)
    assert [e.response for e in mismatched(examples)] == [examples[i - 1].response for i in range(5)]
    assert mismatched([]) == []
    alike = [replace(e, instruction="Summarise this.", input="") for e in examples]
    assert [e.response for e in mismatched(alike)] == [examples[i - 1].response for i in range(5)]


# Metrics.


def test_reward_accuracy_is_the_area_under_the_roc_curve():
    rng = np.random.default_rng(0)
    for goods in (5, 30):
        good, rewards = np.arange(40) < goods, rng.integers(-4, 5, 40).astype(float)  # with ties
        assert outranked(rewards, good).mean() == pytest.approx(roc_auc_score(good, rewards), rel=1e-12)
        assert len(outranked(rewards, good)) == min(goods, 40 - goods)


def test_the_interval_of_reward_accuracy_covers_the_true_area():
    """Of normal rewards half a deviation apart: 0.638 (Bamber 1975). It is wide rather than narrow."""
    rng, area, covered, good = np.random.default_rng(1), 0.6382, 0, np.arange(60) < 20
    for _ in range(400):
        found = share(outranked(rng.normal(good / 2), good))
        covered += found.low <= area <= found.high
    assert covered >= 0.95 * 400


def test_an_untrained_model_is_at_half_and_one_kind_alone_has_no_accuracy():
    examples = [replace(e, reference=(-3.0, -4.0)) for e in encoded()]
    scores = np.array([e.reference for e in examples])
    metrics = rated_metrics(scores, examples, KtoArgs())
    assert set(metrics) == {"loss", "reward_accuracy", "good_reward", "bad_reward"}
    assert metrics["reward_accuracy"]["value"] == 0.5 and metrics["loss"]["value"] == 0.5
    assert (metrics["good_reward"]["n"], metrics["bad_reward"]["n"], metrics["reward_accuracy"]["n"]) == (4, 2, 6)
    alone = [e for e in examples if e.good]
    assert set(rated_metrics(scores[:4], alone, KtoArgs())) == {"loss", "good_reward"}


def test_the_loss_of_a_part_has_the_reference_point_of_that_part():
    model, accelerator, examples = moved_away()
    scores = score_pairs(model, examples, accelerator)
    point = reference_point(model, examples, accelerator, cached=True)
    ratios = torch.tensor([score[0] - e.reference[0] for score, e in zip(scores, examples, strict=True)])
    expected = rated_losses(ratios, torch.tensor([e.good for e in examples]), point, ARGS)
    assert np.allclose(rated_losses_of(scores, examples, ARGS), expected.numpy(), rtol=1e-9)
