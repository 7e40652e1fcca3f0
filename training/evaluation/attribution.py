"""Attributes a classifier's answer to tokens: gradient times input at the token embedding.

To first order the log-odds of a class change by gradient . embedding when a token's embedding is removed (Simonyan et
al. 2013, section 3; the product with the input: Shrikumar et al. 2016). This shows what the model looks at, not why,
and says nothing of large steps.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gpt2_scratch.attention import layout_of
from gpt2_scratch.model import Classifier, Hidden
from gpt2_scratch.precision import at_least_fp32
from gpt2_scratch.tokenizer import Tokenizer


class Attribution(NamedTuple):
    """The `weights` are what each token adds to the log-odds of class `explained`, in nats; negative ones subtract."""

    probabilities: list[float]  # of the first `classes` outputs
    explained: int
    weights: list[float]  # one a token


class Piece(NamedTuple):
    """Tokens that make whole characters together, and the sum of their weights."""

    text: str
    weight: float


def log_odds(logits: Tensor, chosen: int) -> Tensor:
    """Returns log p / (1 - p) of class `chosen`, a scalar, from logits (n,) of two classes or more.

    The logit alone will not do: a number added to all logits changes no probability, so it must not change weights.
    """
    others = torch.cat([logits[:chosen], logits[chosen + 1 :]])  # (n - 1,)
    return logits[chosen] - others.logsumexp(0)


def attribute(model: Classifier, tokens: list[int], classes: int) -> Attribution:
    """Explains the likeliest of the first `classes` classes for one text of N tokens; `model` is in evaluation mode.

    Example: were the model linear, log-odds = sum of w . e(token) + b, each weight would be exactly its w . e(token).
    """
    assert not model.training, "dropout would make the weights those of a model that nobody asked"
    device = model.transformer.wte.weight.device
    packed, lengths = torch.tensor(tokens, device=device), torch.tensor([len(tokens)])  # (N,), (1,)
    with torch.no_grad():
        x = model.transformer.first_blocks(packed, layout_of(lengths, device), blocks=0).states  # (N, C)
        embeddings = model.transformer.wte(packed)  # (N, C)
    x = x.requires_grad_()  # token plus position: the gradient is that of the token's embedding
    with torch.enable_grad():
        logits = model(packed, lengths, Hidden(x, 0))[0]  # (n,)
        logits = logits.to(at_least_fp32(logits))
        explained = int(logits[:classes].argmax())
        (gradient,) = torch.autograd.grad(log_odds(logits, explained), x)  # (N, C)
    weights = (gradient * embeddings).sum(1)  # (N,)
    return Attribution(logits.softmax(0)[:classes].tolist(), explained, weights.tolist())


def pieces(tokens: list[int], weights: list[float], tokenizer: Tokenizer) -> list[Piece]:
    """Returns the text in pieces: a token each, or the tokens that only together make a character."""
    found, start = list[Piece](), 0
    for text, count in tokenizer.pieces(tokens):
        found.append(Piece(text, sum(weights[start : start + count])))
        start += count
    return found
