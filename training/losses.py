"""Numbers -> (sum, count): the sum of sums over the sum of counts is exact, a mean of means is not."""

from torch import Tensor
from torch.nn import functional as F

from gpt2_scratch.precision import at_least_fp32


def class_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Cross-entropy in nats: logits (B, n), labels (B,) -> (sum, B)."""
    return F.cross_entropy(logits.to(at_least_fp32(logits)), labels, reduction="sum"), len(labels)


def token_loss(log_probabilities: Tensor) -> tuple[Tensor, int]:
    """Negative log-likelihood in nats of labelled tokens (M,) -> (sum, M)."""
    return -log_probabilities.sum(), len(log_probabilities)
