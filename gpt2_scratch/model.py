"""GPT-2 (Radford et al. 2019) over packed tokens: no padding, no mask, one sequence after the other.

Letters used in every shape of the project:
  B sequences   N tokens in the batch   M labelled tokens   T longest sequence   C width
  H heads       D head width            V vocabulary        R rank               L blocks
Module names are Hugging Face's, so that a key of a checkpoint is a path in this tree.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2_scratch.attention import BlockCache, Sequences, attend, attend_last, fill_up, sequences
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.lm_head import label_log_probabilities
from gpt2_scratch.precision import at_least_fp32
from gpt2_scratch.recompute import recomputed

PositionWise = Callable[..., Tensor]
gelu = partial(F.gelu, approximate="tanh")


class Attention(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.c_attn = nn.Linear(config.width, 3 * config.width)  # queries, keys, values
        self.c_proj = nn.Linear(config.width, config.width)

    def mix(self, qkv: Tensor, where: Sequences, cache: BlockCache | None, last_only: bool) -> Tensor:
        """(N, 3C) -> (N, C), or (B, C) when only the last token of each sequence asks."""
        qkv = qkv.unflatten(1, (3, self.heads, -1))  # (N, 3, H, D)
        dropout = self.dropout if self.training else 0.0
        if cache is not None:
            mixed = cache.attend(qkv, where)
        elif last_only:
            q, k, v = qkv.unbind(1)
            mixed = attend_last(q[where.last], k, v, where, dropout)  # (B, H, D)
        else:
            mixed = attend(qkv, where, dropout)  # (N, H, D)
        return mixed.flatten(1)


class MLP(nn.Module):
    """The two matrices; what lies between them stands in Block.after."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.width, 4 * config.width)
        self.c_proj = nn.Linear(4 * config.width, config.width)


class Block(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width, config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)
        self.compiled: tuple[PositionWise, PositionWise] | None = None
        self.checkpointed = False

    def compile_parts(self, dynamic: bool) -> None:
        self.compiled = torch.compile(self.before, dynamic=dynamic), torch.compile(self.after, dynamic=dynamic)

    def forward(self, x: Tensor, where: Sequences, cache: BlockCache | None = None, last_only: bool = False) -> Tensor:
        """(N, C) -> (N, C); with `last_only` (N, C) -> (B, C): keys and values of all tokens, the rest of the last."""
        records = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.parameters()))
        if self.checkpointed and records:
            return checkpoint(self._forward, x, where, cache, last_only, use_reentrant=False)
        return self._forward(x, where, cache, last_only)

    def _forward(self, x: Tensor, where: Sequences, cache: BlockCache | None, last_only: bool) -> Tensor:
        whole = cache is None and not last_only
        before, after = self.compiled if whole and self.compiled else (self.before, self.after)
        mixed = self.attn.mix(before(x), where, cache, last_only)
        return after(x[where.last] if last_only else x, mixed)

    def before(self, x: Tensor) -> Tensor:
        """What comes before tokens meet: (N, C) -> (N, 3C)."""
        return self._feed(self.ln_1, x, self.attn.c_attn)

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """What comes after it: (N, C), (N, C) -> (N, C)."""
        x = x + self.drop(self.attn.c_proj(mixed))
        inner = self._feed(self.ln_2, x, self.mlp.c_fc)  # (N, 4C)
        return x + self.drop(self._feed(gelu, inner, self.mlp.c_proj))

    def _feed(self, cheap: PositionWise, x: Tensor, layer: PositionWise) -> Tensor:
        """layer(cheap(x)); inside a checkpoint, which drops all that is kept, nothing has to be done about it."""
        return layer(cheap(x)) if self.checkpointed else recomputed(cheap, x, layer)


class Hidden(NamedTuple):
    """Tokens that have been through the first `blocks` blocks. Through all L of them, the last ones may stand alone."""

    states: Tensor  # (N, C), or (B, C) of the last tokens
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
        self.fill: int | None = None  # tokens: every batch is filled up to a multiple of this

    def checkpoint_blocks(self) -> None:
        """Keeps nothing of what is inside a block that trains: the backward pass computes it once more."""
        for block in self.h:
            assert isinstance(block, Block)
            block.checkpointed = True

    def compile_blocks(self, fill: int | None) -> None:
        """Compiles what is position-wise in each block: for any N, or with `fill` once for each multiple of it."""
        self.fill = fill
        torch._dynamo.config.recompile_limit = 128  # multiples of `fill`, twice: with gradients and without
        for block in self.h:
            assert isinstance(block, Block)
            block.compile_parts(dynamic=fill is None)

    def forward(
        self,
        tokens: Tensor,
        where: Sequences,
        cache: list[BlockCache] | None = None,
        last_only: bool = False,
        hidden: Hidden | None = None,
    ) -> Tensor:
        """`tokens` (N,) -> final states (N, C), or those of the B last tokens (B, C); `hidden`: where to go on from."""
        x, done = self.prefix(tokens, where, 0) if hidden is None else hidden
        if hidden is not None:  # it may be held in half precision, the sum that runs through the blocks is not
            x = x.to(at_least_fp32(x))
        real = len(where.lengths) if last_only else len(tokens)
        if self.fill and cache is None and done < len(self.h):
            x, where = fill_up(x, where, self.fill, self.config.context)
        x = self._through(done, len(self.h), x, where, cache, last_only)
        x = x[where.last] if last_only and cache is not None else x
        return self.ln_f(x[:real])

    def prefix(self, tokens: Tensor, where: Sequences, blocks: int, last_only: bool = False) -> Hidden:
        """`tokens` (N,) through the first `blocks` blocks, for `forward` with the same `last_only` to go on from."""
        x = self.drop(self.wte(tokens) + self.wpe(where.positions))  # (N, C)
        return Hidden(self._through(0, blocks, x, where, None, last_only), blocks)

    def _through(
        self, first: int, end: int, x: Tensor, where: Sequences, cache: list[BlockCache] | None, last_only: bool
    ) -> Tensor:
        """Blocks `first` to `end` - 1: (N, C) -> (N, C), or (B, C) when the last of all works on last tokens only."""
        for i in range(first, end):
            only_last = last_only and cache is None and i == len(self.h) - 1
            x = self.h[i](x, where, cache[i] if cache else None, only_last)
        return x


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

    def forward(self, tokens: Tensor, lengths: Tensor, labels: Tensor, hidden: Hidden | None = None) -> Tensor:
        """Log-probabilities (M,) of the labelled tokens, in order.

        `tokens` (N,), `lengths` (B,), `labels` (N,): the token that should follow, -100 where nobody asks; `hidden`:
        the same tokens after the first blocks, which then have nothing to do.
        """
        final = self.transformer(tokens, sequences(lengths, tokens.device), hidden=hidden)  # (N, C)
        asked = (labels != -100).nonzero().squeeze(1)  # (M,)
        return label_log_probabilities(self.lm_head, final[asked], labels[asked])

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

    def forward(self, tokens: Tensor, lengths: Tensor, hidden: Hidden | None = None) -> Tensor:
        """`tokens` (N,), `lengths` (B,) -> class logits (B, n); `hidden` as in LanguageModel.forward."""
        where = sequences(lengths, tokens.device)
        return self.score(self.transformer(tokens, where, last_only=True, hidden=hidden))


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
