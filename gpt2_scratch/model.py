"""GPT-2 (Radford et al. 2019) over packed tokens: sequences lie back to back, and nothing is padded.

Letters used in every shape of the project:
  B sequences   N tokens in the batch   M labelled tokens   T longest sequence   C width
  H heads       D head width            V vocabulary        R rank               L blocks
Module names are Hugging Face's, so that a key of a checkpoint is a path in this tree. What makes it fast stands beside
it: attention.py attends sequence by sequence, recompute.py keeps no result of a norm or of GELU for the backward pass,
lm_head.py never holds all logits at once, linear.py multiplies in the order that suits a CPU.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2_scratch.attention import KVCache, Layout, attend, layout_of
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.linear import Linear
from gpt2_scratch.lm_head import label_log_probabilities
from gpt2_scratch.precision import at_least_fp32
from gpt2_scratch.recompute import PositionWise, checkpointed, recomputed
from gpt2_scratch.transfer import all_to_device

gelu = partial(F.gelu, approximate="tanh")


class Attention(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.c_attn = Linear(config.width, 3 * config.width)  # queries, keys, values
        self.c_proj = Linear(config.width, config.width)

    def forward(self, norm: PositionWise, x: Tensor, layout: Layout, cache: KVCache | None = None) -> Tensor:
        """Attends over norm(x): (N, C) -> what `layout` asks for, (N, C) or (B, C)."""
        qkv = recomputed(norm, x, self.c_attn).unflatten(1, (3, self.heads, -1))  # (N, 3, H, D)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(qkv, layout, dropout) if cache is None else cache.attend(qkv, layout)  # (N or B, H, D)
        return self.c_proj(mixed.flatten(1))


class MLP(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Linear(config.width, 4 * config.width)
        self.c_proj = Linear(4 * config.width, config.width)

    def forward(self, norm: PositionWise, x: Tensor) -> Tensor:
        """(N, C) -> (N, C)"""
        inner = recomputed(norm, x, self.c_fc)  # (N, 4C)
        return recomputed(gelu, inner, self.c_proj)


class Block(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width, config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, layout: Layout, cache: KVCache | None = None) -> Tensor:
        """(N, C) -> what `layout` asks for, (N, C) or (B, C); keys and values are those of all N tokens."""
        x = layout.asked(x) + self.drop(self.attn(self.ln_1, x, layout, cache))
        return x + self.drop(self.mlp(self.ln_2, x))


class Hidden(NamedTuple):
    """Hidden states after the first `blocks` blocks: (N, C), or after all of them those that a layout asks for."""

    states: Tensor
    blocks: int


class Transformer(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocabulary, config.width)
        self.wpe = nn.Embedding(config.context, config.width)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.ln_f = nn.LayerNorm(config.width, config.layer_norm_epsilon)
        self.checkpointing = False  # whether the backward pass computes each block once more

    def forward(
        self, tokens: Tensor, layout: Layout, cache: list[KVCache] | None = None, hidden: Hidden | None = None
    ) -> Tensor:
        """Computes the final states of `tokens` (N,): (N, C) or (B, C), as `layout` asks. With `hidden`, which the
        first blocks have made of these tokens, it goes on from there; `cache` has the keys and values of each block."""
        x, done = hidden or self.first_blocks(tokens, layout, 0)
        x = x.to(at_least_fp32(x))  # it may be held in half precision; the sum over the blocks is not
        return self.ln_f(self._run_blocks(x, layout, done, len(self.h), cache))

    def first_blocks(self, tokens: Tensor, layout: Layout, blocks: int) -> Hidden:
        """Runs `tokens` (N,) through the first `blocks` blocks."""
        x = self.drop(self.wte(tokens) + self.wpe(layout.positions))  # (N, C)
        return Hidden(self._run_blocks(x, layout, 0, blocks), blocks)

    def _run_blocks(
        self, x: Tensor, layout: Layout, first: int, end: int, cache: list[KVCache] | None = None
    ) -> Tensor:
        """Runs blocks `first` to `end` - 1. All but the model's last one are asked for every token."""
        for i in range(first, end):
            asked = layout._replace(last_only=layout.last_only and i == len(self.h) - 1)
            inputs = x, asked, cache[i] if cache else None
            x = checkpointed(self.h[i], *inputs) if self.checkpointing else self.h[i](*inputs)
        return x


class _WithHead(nn.Module):
    """A transformer and its head. An `embedding_head` is the token embedding, unless `config.tied_head` is off."""

    HEAD: str  # the head's name, as Hugging Face has it

    def __init__(self, config: GPT2Config, outputs: int, bias: bool, embedding_head: bool) -> None:
        super().__init__()
        self.config, self.embedding_head = config, embedding_head
        self.transformer = Transformer(config)
        self.add_module(self.HEAD, Linear(config.width, outputs, bias))
        self.tie()

    @property
    def head(self) -> Any:
        """A linear.Linear, or what has been put in its place."""
        return self.get_submodule(self.HEAD)

    def tie(self) -> None:
        if self.embedding_head and self.config.tied_head:
            self.head.weight = self.transformer.wte.weight

    def untie(self) -> None:
        """Gives an embedding head a copy of the embedding, to be trained apart from it."""
        self.config = replace(self.config, tied_head=False)
        if self.embedding_head:
            self.head.weight = nn.Parameter(self.transformer.wte.weight.detach().clone())


class LanguageModel(_WithHead):
    """GPT-2 that predicts the next token."""

    HEAD = "lm_head"
    lm_head: Linear

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config, config.vocabulary, bias=False, embedding_head=True)

    def forward(self, tokens: Tensor, lengths: Tensor, labels: Tensor, hidden: Hidden | None = None) -> Tensor:
        """Returns the log-probabilities (M,) of the labelled tokens, in order.

        `tokens` (N,), `lengths` (B,), `labels` (N,): the token that should follow, or -100 for none; `hidden`: what the
        first blocks have already made of `tokens`. `lengths` and `labels` are best on the CPU, which reads them.
        """
        final = self.transformer(tokens, layout_of(lengths, tokens.device), hidden=hidden)  # (N, C)
        labelled = (labels != -100).nonzero().squeeze(1)  # (M,)
        labelled, targets = all_to_device(tokens.device, labelled, labels[labelled])
        return label_log_probabilities(self.head, final.index_select(0, labelled), targets)

    def next_logits(self, tokens: Tensor, layout: Layout, cache: list[KVCache]) -> Tensor:
        """Returns logits (B, V) of the token after each sequence; `cache` takes in the keys and values of `tokens`."""
        return self.head(self.transformer(tokens, layout, cache)[layout.last])


class Classifier(_WithHead):
    """GPT-2 with a class head on the last token; an `embedding_head` has a class for each of the V tokens."""

    HEAD = "score"
    score: Linear

    def __init__(self, config: GPT2Config, classes: int, head_bias: bool = False, embedding_head: bool = False) -> None:
        super().__init__(config, config.vocabulary if embedding_head else classes, head_bias, embedding_head)

    def forward(self, tokens: Tensor, lengths: Tensor, hidden: Hidden | None = None) -> Tensor:
        """`tokens` (N,), `lengths` (B,) -> class logits (B, n); `hidden` as in LanguageModel.forward."""
        layout = layout_of(lengths, tokens.device, last_only=True)
        return self.head(self.transformer(tokens, layout, hidden=hidden))


Model = LanguageModel | Classifier


@torch.no_grad()
def initialise(model: Model, generator: torch.Generator, std: float = 0.02) -> None:
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
