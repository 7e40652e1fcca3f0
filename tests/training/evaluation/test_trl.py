"""Against TRL: token ids, loss, gradients of the log-probabilities and of every parameter, on the same pairs."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from accelerate import Accelerator
from helpers import ROOT
from one_example import encode_pair

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.pretrained import TRANSPOSED, save_pretrained
from gpt2_scratch.sources import load_config
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import adapters
from lora.peft_format import attach
from tasks import Preference, read_rows
from training.data.pairs import collate_pairs
from training.evaluation.reference import reference_in, with_reference
from training.flags.common import ModelArgs
from training.flags.preference import PreferenceArgs
from training.model.methods import build_language_model
from training.step.losses import pair_loss, pair_losses

trl, peft, datasets = (pytest.importorskip(name) for name in ("trl", "peft", "datasets"))

BETA = 0.1
# TRL's loss, its label smoothing, pairs a batch. It smooths `aot` alone, which for a single pair is sigmoid's loss.
KINDS = {"sigmoid": ("sigmoid", 0.0, 6), "ipo": ("ipo", 0.0, 6), "smoothed": ("aot", 0.1, 1)}


def args_of(kind):
    _, smoothing, _ = KINDS[kind]
    return PreferenceArgs(dpo_loss="ipo" if kind == "ipo" else "sigmoid", beta=BETA, label_smoothing=smoothing)


def move(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.05, generator=generator))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Weights of a reference, and of a policy some way off."""
    base, policy = (tmp_path_factory.mktemp(name) for name in ("base", "policy"))
    model = LanguageModel(GPT2Config(width=16, blocks=2, heads=2, context=512))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, base, GPT2)
    move(model.parameters(), 1)
    save_pretrained(model, policy, GPT2)
    return base, policy


@pytest.fixture(scope="module")
def pairs():
    """Answers of one token and of many, with line breaks inside."""
    rows = read_rows(ROOT / "tasks" / "bundled" / "preferences.jsonl").rows
    known = [Preference(i, row["prompt"], row["chosen"], row["rejected"]) for i, row in enumerate(rows[:4])]
    more = [("Count to nine.\n\nSlowly.", "1 2 3\n4", "9"), ("Why?", "No", "Why not?")]
    return [*known, *(Preference(4 + i, *texts) for i, texts in enumerate(more))]


@pytest.fixture(scope="module")
def make_trainer(folders, pairs, tmp_path_factory):
    def make(weights, **more):
        config = trl.DPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            beta=BETA,
            use_cpu=True,
            report_to=[],
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
        )
        rows = [{"prompt": e.records()[0].prompt(), "chosen": e.chosen, "rejected": e.rejected} for e in pairs]
        made = trl.DPOTrainer(
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
    reference = transformers.GPT2LMHeadModel.from_pretrained(base, dtype=torch.float32)
    return make_trainer(policy, ref_model=reference)


def batches_of(trainer, kind):
    """The batches of TRL; the trainer is set to the loss."""
    name, smoothing, size = KINDS[kind]
    trainer.loss_types, trainer.label_smoothing = [name], smoothing
    rows = list(trainer.train_dataset)
    return [trainer.data_collator(rows[i : i + size]) for i in range(0, len(rows), size)]


def gradients_of_trl(trainer, kind):
    """(mean loss, gradients by name), over all pairs."""
    batches = batches_of(trainer, kind)
    trainer.model.zero_grad()
    losses = [trainer._compute_loss(trainer.model, batch, return_outputs=False) / len(batches) for batch in batches]
    sum(losses).backward()
    found = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return float(sum(losses).detach()), found


def our_loss(model, pairs, kind, cached):
    """Mean over all pairs, in micro-batches of two; its gradients lie in the parameters."""
    accelerator, args, total = Accelerator(cpu=True), args_of(kind), 0.0
    for start in range(0, len(pairs), 2):
        batch = collate_pairs(pairs[start : start + 2])
        reference = reference_in(accelerator, model, batch, cached)
        loss = pair_loss(model(batch.tokens, batch.lengths, batch.labels), reference, batch, args) / len(pairs)
        loss.backward()
        total += float(loss.detach())
    return total


class DoubleHead:
    """In place of TRL's head, which sums in fp32 whatever the model's precision (trl/kernels/chunked_logprob.py)."""

    @staticmethod
    def apply(hidden, weight, _bias, labels, *_):
        found = torch.log_softmax(hidden @ weight.t(), 1).gather(1, labels[:, None]).squeeze(1)
        nothing = torch.zeros_like(found)
        return found, nothing, nothing, nothing, nothing.bool()


def assert_close(ours, theirs, tolerance):
    largest = max(float(g.abs().max()) for g in theirs.values())
    assert ours.keys() == theirs.keys() and largest > 1e-3
    for name, gradient in theirs.items():
        assert float((ours[name] - gradient).abs().max()) <= tolerance * largest, name


def test_a_pair_has_the_tokens_and_the_targets_that_trl_gives_it(trainer, pairs):
    for row, example in zip(trainer.train_dataset, pairs, strict=True):
        pair = encode_pair(GPT2, example, 512)
        for text, answer in zip(pair.texts, (row["chosen_ids"], row["rejected_ids"]), strict=True):
            assert [*text.tokens, text.labels[-1]] == row["prompt_ids"] + answer
            assert list(text.labels[text.labels != -100]) == answer


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_for_the_log_probabilities_are_those_of_trl_to_double_precision(
    kind, trainer, pairs, monkeypatch
):
    monkeypatch.setattr(trainer, "precompute_ref_logps", True)
    _, _, size = KINDS[kind]
    for i, theirs in enumerate(batches_of(trainer, kind)):
        rng, mask = torch.Generator().manual_seed(i), theirs["completion_mask"][:, 1:]
        by_token = -6 * torch.rand(mask.shape, dtype=torch.float64, generator=rng) * mask
        reference = -30 * torch.rand(len(mask) // 2, 2, dtype=torch.float64, generator=rng)
        theirs |= {"ref_chosen_logps": reference[:, 0], "ref_rejected_logps": reference[:, 1]}
        given, nothing = by_token.clone().requires_grad_(), torch.zeros_like(by_token)
        outputs = SimpleNamespace(log_probs=given, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
        expected = trainer._compute_loss(lambda outputs=outputs, **_: outputs, theirs, return_outputs=False)
        expected.backward()
        for_answers = torch.stack([row[kept == 1][0] for row, kept in zip(given.grad, mask, strict=True)])

        answers = by_token.sum(1).view(2, -1).t().clone().requires_grad_()  # (B, 2)
        batch, args = (
            collate_pairs([encode_pair(GPT2, e, 512) for e in pairs[i * size : (i + 1) * size]]),
            args_of(kind),
        )
        losses = pair_losses(answers - reference, batch.targets, args.dpo_loss, args.beta, args.label_smoothing)
        losses.mean().backward()
        assert float(losses.detach().mean()) == pytest.approx(float(expected.detach()), rel=1e-12)
        assert torch.allclose(answers.grad, for_answers.view(2, -1).t(), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_full_fine_tuning_has_the_loss_and_the_gradient_of_every_parameter_that_trl_has(kind, trainer, pairs, folders):
    base, policy = (build_language_model(folder, load_config(folder), ModelArgs()).eval() for folder in folders)
    encoded = with_reference(base, [encode_pair(GPT2, e, 512) for e in pairs], Accelerator(cpu=True))
    expected, theirs = gradients_of_trl(trainer, kind)
    assert our_loss(policy, encoded, kind, cached=True) == pytest.approx(expected, rel=1e-6)
    ours = {n: p.grad.t() if n.endswith(TRANSPOSED) else p.grad for n, p in policy.named_parameters()}
    assert_close(ours, theirs, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_with_the_adapter_off_as_reference_has_the_loss_and_the_gradients_of_trl_to_double_precision(
    kind, make_trainer, pairs, folders, tmp_path, monkeypatch
):
    base, _ = folders
    targets = ["c_attn", "c_proj", "c_fc"]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM")
    trainer = make_trainer(base, peft_config=config)
    move([p for p in trainer.model.parameters() if p.requires_grad], 2)
    trainer.model.save_pretrained(tmp_path)
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", DoubleHead)
    trainer.model.double()
    expected, theirs = gradients_of_trl(trainer, kind)

    model = build_language_model(base, load_config(base), ModelArgs())
    attach(model, tmp_path)
    found = our_loss(model.double().eval(), [encode_pair(GPT2, e, 512) for e in pairs], kind, cached=False)
    assert found == pytest.approx(expected, rel=1e-12)
    prefix, ours = "base_model.model.", {}
    for path, adapter in adapters(model):
        ours[f"{prefix}{path}.lora_A.default.weight"] = adapter.low_rank.A.grad
        ours[f"{prefix}{path}.lora_B.default.weight"] = adapter.low_rank.B.grad[0].t()
    assert_close(ours, theirs, 1e-12)
