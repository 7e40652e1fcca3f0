"""GPT-2 (Radford et al. 2019) over packed tokens: no padding, no mask, one sequence after the other.

Letters used in every shape of the project:
  B sequences   N tokens in the batch   M labelled tokens   T longest sequence   C width
  H heads       D head width            V vocabulary        R rank               L blocks
Module names are Hugging Face's, so that a key of a checkpoint is a path in this tree.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2_scratch.attention import BlockCache, Sequences, attend, attend_last, sequences
from gpt2_scratch.config import GPT2Config

LOGIT_ROWS = 1024  # labelled tokens whose V logits exist at one time: 1024 * 50257 * 4 bytes = 206 MB


class Attention(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.c_attn = nn.Linear(config.width, 3 * config.width)  # queries, keys, values
        self.c_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, where: Sequences, cache: BlockCache | None, last_only: bool) -> Tensor:
        """(N, C) -> (N, C), or (B, C) when only the last token of each sequence is asked for."""
        q, k, v = (part.unflatten(1, (self.heads, -1)) for part in self.c_attn(x).chunk(3, dim=1))  # (N, H, D) each
        dropout = self.dropout if self.training else 0.0
        if cache is not None:
            mixed = cache.attend(q, k, v, where)
        elif last_only:
            mixed = attend_last(q[where.last], k, v, where, dropout)  # (B, H, D)
        else:
            mixed = attend(q, k, v, where, dropout)  # (N, H, D)
        return self.c_proj(mixed.flatten(1))


class MLP(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.width, 4 * config.width)
        self.c_proj = nn.Linear(4 * config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width, config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, where: Sequences, cache: BlockCache | None = None, last_only: bool = False) -> Tensor:
        """(N, C) -> (N, C); with `last_only` (N, C) -> (B, C): keys and values of all tokens, the rest of the last."""
        mixed = self.drop(self.attn(self.ln_1(x), where, cache, last_only))
        x = (x[where.last] if last_only else x) + mixed
        return x + self.drop(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocabulary, config.width)
        self.wpe = nn.Embedding(config.context, config.width)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.ln_f = nn.LayerNorm(config.width, config.layer_norm_epsilon)

    def forward(
        self, tokens: Tensor, where: Sequences, cache: list[BlockCache] | None = None, last_only: bool = False
    ) -> Tensor:
        """`tokens` (N,) -> hidden states (N, C), or those of the B last tokens (B, C)."""
        x = self.drop(self.wte(tokens) + self.wpe(where.positions))  # (N, C)
        for i, block in enumerate(self.h):
            only_last = last_only and cache is None and i == len(self.h) - 1
            x = block(x, where, cache[i] if cache else None, only_last)
        return self.ln_f(x[where.last] if last_only and cache is not None else x)


class LanguageModel(nn.Module):
    """GPT-2 that predicts the next token. The head shares the token embedding unless `config.tied_head` is off."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.tie()

    def tie(self) -> None:
        if self.config.tied_head:
            self.lm_head.weight = self.transformer.wte.weight

    def untie(self) -> None:
        """Gives the head a copy of the embedding, to be trained apart from it."""
        self.config = replace(self.config, tied_head=False)
        self.lm_head.weight = nn.Parameter(self.transformer.wte.weight.detach().clone())

    def forward(self, tokens: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Log-probabilities (M,) of the labelled tokens, in order.

        `tokens` (N,), `lengths` (B,), `labels` (N,): the token that should follow, -100 where nobody asks.
        """
        hidden = self.transformer(tokens, sequences(lengths, tokens.device))  # (N, C)
        asked = (labels != -100).nonzero().squeeze(1)  # (M,)
        return label_log_probabilities(self.lm_head, hidden[asked], labels[asked])

    def next_logits(self, tokens: Tensor, where: Sequences, cache: list[BlockCache]) -> Tensor:
        """Logits (B, V) of the token that follows each sequence; `cache` takes in the keys and values of `tokens`."""
        return self.lm_head(self.transformer(tokens, where, cache, last_only=True))


class Classifier(nn.Module):
    """GPT-2 with a class head on the last token. `tied_score` scores with the token embedding itself (V classes)."""

    def __init__(self, config: GPT2Config, classes: int, head_bias: bool = False, tied_score: bool = False) -> None:
        super().__init__()
        self.config, self.tied_score = config, tied_score
        self.transformer = Transformer(config)
        self.score = nn.Linear(config.width, config.vocabulary if tied_score else classes, bias=head_bias)
        self.tie()

    def tie(self) -> None:
        if self.tied_score and self.config.tied_head:
            self.score.weight = self.transformer.wte.weight

    def untie(self) -> None:
        """Gives a tied score a copy of the embedding, to be trained apart from it."""
        self.config = replace(self.config, tied_head=False)
        if self.tied_score:
            self.score.weight = nn.Parameter(self.transformer.wte.weight.detach().clone())

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`tokens` (N,), `lengths` (B,) -> class logits (B, n)."""
        where = sequences(lengths, tokens.device)
        return self.score(self.transformer(tokens, where, last_only=True))


def at_least_fp32(x: Tensor) -> torch.dtype:
    """A softmax over many classes is not computed in half precision."""
    return torch.promote_types(x.dtype, torch.float32)


def label_log_probabilities(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    """log p(label) of M tokens from their hidden states (M, C), at most LOGIT_ROWS rows of V logits at a time.

    The backward pass computes each chunk's logits again instead of keeping them.
    """

    def chunk_log_probabilities(rows: Tensor, targets: Tensor) -> Tensor:
        logits = head(rows)
        return -F.cross_entropy(logits.to(at_least_fp32(logits)), targets, reduction="none")

    chunks = list(zip(hidden.split(LOGIT_ROWS), labels.split(LOGIT_ROWS), strict=True))
    if torch.is_grad_enabled() and len(chunks) > 1:
        return torch.cat([checkpoint(chunk_log_probabilities, *chunk, use_reentrant=False) for chunk in chunks])
    return torch.cat([chunk_log_probabilities(*chunk) for chunk in chunks])


@torch.no_grad()
def initialise(model: LanguageModel | Classifier, generator: torch.Generator, std: float = 0.02) -> None:
    """GPT-2's own initialisation: N(0, std) matrices, residual projections divided by sqrt(2 L), zero biases."""
    blocks = model.config.blocks
    for name, parameter in model.named_parameters():
        if "ln_" in name:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            shrink = (2 * blocks) ** -0.5 if name.endswith("c_proj.weight") else 1.0
            parameter.normal_(0.0, std * shrink, generator=generator)
