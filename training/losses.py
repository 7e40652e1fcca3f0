"""Numbers -> (sum, count): the sum of sums over the sum of counts is exact, a mean of means is not."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from gpt2_scratch.precision import at_least_fp32


def class_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Cross-entropy in nats: logits (B, n), labels (B,) -> (sum, B)."""
    return F.cross_entropy(logits.to(at_least_fp32(logits)), labels, reduction="sum"), len(labels)


def token_loss(log_probabilities: Tensor) -> tuple[Tensor, int]:
    """Negative log-likelihood in nats of labelled tokens (M,) -> (sum, M)."""
    return -log_probabilities.sum(), len(log_probabilities)


def pair_losses(
    log_ratios: Tensor, targets: Tensor, kind: Literal["sigmoid", "ipo"], beta: float, smoothing: float
) -> Tensor:
    """One loss a pair: `log_ratios` (B, 2) of the chosen and the rejected answer, `targets` (B, 2) -> (B,).

    A log-ratio is log pi(answer) - log pi_ref(answer), summed over the answer's `targets` tokens. sigmoid: Rafailov et
    al. 2023, eq. 7; `smoothing`: the probability that a label is wrong (Mitchell 2023, cDPO). ipo: Azar et al. 2023,
    eq. 17, with `beta` for their tau and, as they ran it, the mean over tokens in place of the sum.
    """
    if kind == "ipo":
        chosen, rejected = (log_ratios / targets).unbind(1)
        return (chosen - rejected - 1 / (2 * beta)) ** 2
    margins = beta * (log_ratios[:, 0] - log_ratios[:, 1])
    return -(1 - smoothing) * F.logsigmoid(margins) - smoothing * F.logsigmoid(-margins)
