"""Losses as sums: the sum of sums over the sum of counts is exact, and a mean of means is not."""

from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.precision import at_least_fp32
from gpt2_scratch.transfer import to_device
from training.data.batches import Batch
from training.data.pairs import PairBatch
from training.flags.preference import KtoArgs, PreferenceArgs


def class_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Returns the cross-entropy in nats and its count: logits (B, n), labels (B,) -> (sum, B)."""
    labels = to_device(labels, logits.device)
    return F.cross_entropy(logits.to(at_least_fp32(logits)), labels, reduction="sum"), len(labels)


def token_loss(log_probabilities: Tensor) -> tuple[Tensor, int]:
    """Returns the negative log-likelihood in nats of labelled tokens, and their number: (M,) -> (sum, M)."""
    return -log_probabilities.sum(), len(log_probabilities)


def pair_losses(
    log_ratios: Tensor, targets: Tensor, kind: Literal["sigmoid", "ipo"], beta: float, smoothing: float
) -> Tensor:
    """Returns a loss for each pair: `log_ratios` (B, 2) of chosen and rejected answers, `targets` (B, 2) -> (B,).

    A log-ratio is log pi(answer) - log pi_ref(answer), summed over the answer's `targets` tokens. sigmoid: Rafailov et
    al. 2023, eq. 7, with `smoothing`, the probability of a wrong label (Mitchell 2023, cDPO). ipo: Azar et al. 2023,
    eq. 17, with `beta` for their tau and, as they ran it, the mean over tokens in place of the sum.
    """
    if kind == "ipo":
        chosen, rejected = (log_ratios / targets).unbind(1)
        return (chosen - rejected - 1 / (2 * beta)) ** 2
    margins = beta * (log_ratios[:, 0] - log_ratios[:, 1])
    return -(1 - smoothing) * F.logsigmoid(margins) - smoothing * F.logsigmoid(-margins)


def per_answer(log_probabilities: Tensor, batch: PairBatch) -> Tensor:
    """Sums the values of the targets (M,) over each answer: pairs give (B, 2), rated answers (B,)."""
    counts = batch.targets.flatten().tolist()
    return torch.stack([part.sum() for part in log_probabilities.split(counts)]).view(batch.targets.shape)


def pair_loss(log_probabilities: Tensor, reference: Tensor, batch: PairBatch, args: PreferenceArgs) -> Tensor:
    """Sums the losses of a batch of pairs, from the log-probabilities of the model (M,) and the `reference` (B, 2)."""
    if batch.weight == 0:
        return token_loss(log_probabilities)[0]
    answers = per_answer(log_probabilities, batch)
    targets = to_device(batch.targets, answers.device)
    ratios = answers - to_device(reference, answers.device).to(answers.dtype)
    return pair_losses(ratios, targets, args.dpo_loss, args.beta, args.label_smoothing).sum()


def rated_losses(log_ratios: Tensor, good: Tensor, point: float | Tensor, args: KtoArgs) -> Tensor:
    """Returns a loss for each answer: `log_ratios` (B,) as in `pair_losses`, `good` (B,) -> (B,). Ethayarajh et al.
    2024, eq. 8, with the reference point z0 in `point` (training/evaluation/reference.py)."""
    weights = torch.where(good, args.desirable_weight, args.undesirable_weight)
    ahead = torch.where(good, log_ratios - point, point - log_ratios)
    return weights * torch.sigmoid(-args.beta * ahead)  # 1 - sigmoid(x) is sigmoid(-x)


def rated_loss(
    log_probabilities: Tensor, reference: Tensor, batch: PairBatch, point: float | Tensor, args: KtoArgs
) -> Tensor:
    """Sums the losses of a batch of answers, from the log-probabilities of the model (M,) and the `reference` (B,)."""
    if batch.weight == 0:
        return token_loss(log_probabilities)[0]
    answers = per_answer(log_probabilities, batch)
    ratios = answers - to_device(reference, answers.device).to(answers.dtype)
    return rated_losses(ratios, to_device(batch.good, answers.device), point, args).sum()


def outputs_of(accelerator: Accelerator, model: Classifier | LanguageModel, batch: Batch) -> Tensor:
    """Returns class logits (B, n), or log-probabilities of the labelled tokens (M,), in the run's precision."""
    with accelerator.autocast():
        if isinstance(model, Classifier):
            return model(batch.tokens, batch.lengths, batch.hidden)
        return model(batch.tokens, batch.lengths, batch.labels, batch.hidden)


def loss_of(accelerator: Accelerator, model: Classifier | LanguageModel, batch: Batch) -> Tensor:
    outputs = outputs_of(accelerator, model, batch)
    return class_loss(outputs, batch.labels)[0] if isinstance(model, Classifier) else token_loss(outputs)[0]
