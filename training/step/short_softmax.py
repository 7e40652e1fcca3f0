"""A softmax estimated from part of the vocabulary, for pretraining a small model whose head is most of its work."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gpt2_scratch.attention import layout_of
from gpt2_scratch.lm_head import SomeRows, label_log_probabilities
from gpt2_scratch.model import LanguageModel
from gpt2_scratch.transfer import to_device

DRAWN = 0.25  # share of the softmax's tokens that is drawn


def frequent_tokens(documents: Sequence[np.ndarray], most: int, vocabulary: int) -> Tensor:
    """Returns the `most` frequent tokens of `documents`, (most,)."""
    counts = sum(np.bincount(document, minlength=vocabulary) for document in documents)
    return torch.from_numpy(np.argsort(-counts, kind="stable")[:most].copy())


class ShortSoftmax(nn.Module):
    """`model` with a softmax over its frequent tokens, the labels of the batch, and tokens drawn from the others.

    A drawn token counts as often as there are other tokens for each one drawn, which makes the sum of exponentials
    right on average (Jean et al. 2015, section 3, with a uniform proposal). `most` None: all tokens.
    """

    frequent: Tensor

    def __init__(self, model: LanguageModel, documents: Sequence[np.ndarray], most: int | None) -> None:
        super().__init__()
        self.model, self.vocabulary = model, model.config.vocabulary
        most = self.vocabulary if most is None else most
        self.draws = most < self.vocabulary  # random numbers, for each micro-batch
        self.drawn = int(DRAWN * most)
        frequent = frequent_tokens(documents, most - self.drawn, self.vocabulary)
        self.register_buffer("frequent", frequent, persistent=False)

    def forward(self, tokens: Tensor, lengths: Tensor, labels: Tensor, whole: bool) -> Tensor:
        """Maps `tokens` (N,), `labels` (N,), none of them ignored, and `lengths` (B,) to log-probabilities (N,).

        Draws from torch's global generator on the CPU, which is seeded for each micro-batch (training/step/update.py).
        """
        if whole or not self.draws:
            return self.model(tokens, lengths, labels)
        final = self.model.transformer(tokens, layout_of(lengths, tokens.device))  # (N, C)
        labels = to_device(labels, tokens.device)
        certain = torch.unique(torch.cat([self.frequent, labels]))
        drawn = to_device(torch.randint(self.vocabulary, (self.drawn,)), labels.device)
        kept = torch.unique(torch.cat([certain, drawn]))  # (K,), ascending
        weight = (self.vocabulary - len(certain)) / max(len(kept) - len(certain), 1)
        added = torch.where(torch.isin(kept, certain), 0.0, math.log(max(weight, 1.0)))  # (K,)
        head = SomeRows(self.model.lm_head.weight[kept], added)
        return label_log_probabilities(head, final, torch.searchsorted(kept, labels))
