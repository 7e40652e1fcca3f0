"""Continues prompts with a key-value cache, many at once or token by token.

A text does not depend on its neighbours: every prompt draws from its own generator, so that a sampled text is the same
alone and in a batch of any order.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2_scratch.attention import KVCache, layout_of
from gpt2_scratch.model import LanguageModel
from gpt2_scratch.precision import of_products
from gpt2_scratch.tokenizer import Vocabulary

ROWS = 32  # prompts at a time, unless told otherwise
COLDEST = 1e-6  # temperature, below which a draw is the largest logit, and the division may overflow


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy. None for `top_k` or `top_p` excludes no token; if both are given, top-k comes first."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"--temperature {self.temperature}: must be 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"--top-k {self.top_k}: must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p {self.top_p}: must be above 0 and at most 1")


@dataclass(frozen=True)
class Continuation:
    """New tokens without the one that ends a text; `stopped` tells whether the model ended by itself."""

    tokens: list[int]
    stopped: bool


def _prompt_generator(seed: int, prompt: list[int]) -> torch.Generator:
    digest = hashlib.sha256(repr((seed, prompt)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def pick(logits: Tensor, sampling: Sampling, generators: list[torch.Generator]) -> Tensor:
    """Chooses the next tokens (B,) from logits (B, V).

    The largest of logit + Gumbel noise is a draw from the softmax. Rounding changes it only when the two best are equal
    to the last digit, unlike a draw that looks up one random number in the cumulative probabilities.
    """
    if sampling.temperature < COLDEST:
        return logits.max(1).indices  # on a CPU twice as fast as argmax, half a millisecond for 32 texts
    logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        kept, tokens = logits.topk(sampling.top_k)  # (B, k) each
        logits = torch.full_like(logits, -torch.inf).scatter(1, tokens, kept)
    if sampling.top_p is not None:
        ranked, tokens = logits.sort(dim=1, descending=True, stable=True)  # (B, V) each
        probabilities = ranked.softmax(1)
        beyond = probabilities.cumsum(1) - probabilities >= sampling.top_p  # what comes before it reaches p already
        logits = logits.scatter(1, tokens, ranked.masked_fill(beyond, -torch.inf))
    noise = torch.stack([torch.empty(logits.shape[1]).exponential_(generator=g) for g in generators])  # (B, V)
    return (logits - noise.to(logits.device).log()).argmax(1)


@torch.no_grad()
def _steps(
    model: LanguageModel, prompts: list[list[int]], vocabulary: Vocabulary, new_tokens: int, sampling: Sampling
) -> Iterator[dict[int, int]]:
    """Continues one batch: a first pass over the packed prompts, then one over a new token of each text at a time.

    Yields {prompt: its next token}. A text leaves the batch after a token that ends it, or at its limit.
    """
    weight, config, ends = model.transformer.wte.weight, model.config, vocabulary.ends
    device = weight.device
    limits = [min(new_tokens, config.context - len(p)) for p in prompts]
    capacity = max(len(p) + limit for p, limit in zip(prompts, limits, strict=True))
    shape = (len(prompts), config.heads, capacity, config.width // config.heads)
    cache = [KVCache(weight.new_zeros(shape, dtype=of_products(weight))) for _ in range(config.blocks)]
    generators = [_prompt_generator(sampling.seed, p) for p in prompts]
    written = [0] * len(prompts)

    alive = list(range(len(prompts)))
    lengths = torch.tensor([len(p) for p in prompts])
    past: Tensor | None = None
    tokens = torch.tensor([t for p in prompts for t in p], device=device)  # (N,)
    while True:
        logits = model.next_logits(tokens, layout_of(lengths, device, past), cache)  # (B, V)
        logits = logits[:, : vocabulary.size]  # an embedding may be padded to a round number of rows
        chosen = pick(logits.float(), sampling, [generators[i] for i in alive])
        step = dict(zip(alive, chosen.tolist(), strict=True))
        yield step
        keep = []
        for row, (i, token) in enumerate(step.items()):
            written[i] += 1
            if token not in ends and written[i] < limits[i]:
                keep.append(row)
        if not keep:
            return
        past = (lengths if past is None else past + lengths)[keep]
        if len(keep) < len(alive):
            for block in cache:
                block.keep(torch.tensor(keep, device=device))
        alive = [alive[row] for row in keep]
        tokens, lengths = chosen[keep], torch.ones(len(keep), dtype=torch.long)


def _check(prompts: list[list[int]], context: int, new_tokens: int) -> None:
    if prompts and new_tokens < 1:
        raise ValueError(f"{new_tokens} new tokens: at least one is written")
    for i, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens; it must have 1 to {context - 1} (context {context})"
            )


def stream(
    model: LanguageModel, prompt: list[int], vocabulary: Vocabulary, new_tokens: int, sampling: Sampling = Sampling()
) -> Iterator[int]:
    """Returns an iterator of the tokens that `generate` gives, and of the one that ends a text if the model ends it.

    `model` must be in evaluation mode. Several streams may be read in turns. Raises ValueError as `generate` does,
    before the first token is asked for.
    """
    assert not model.training, "a stream may never be finished, so it cannot put the model's mode back"
    _check([prompt], model.config.context, new_tokens)
    return (token for step in _steps(model, [prompt], vocabulary, new_tokens, sampling) for token in step.values())


def generate(
    model: LanguageModel,
    prompts: list[list[int]],
    vocabulary: Vocabulary,
    new_tokens: int,
    sampling: Sampling = Sampling(),
    rows: int = ROWS,
) -> list[Continuation]:
    """Continues each prompt by at most `new_tokens`, `rows` prompts at a time, prompts of similar length together.

    A text ends with the context at the latest. Raises ValueError for an empty prompt, for one that fills the context,
    and for less than one new token.
    """
    _check(prompts, model.config.context, new_tokens)
    was_training = model.training
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        for step in _steps(model, [prompts[i] for i in chosen], vocabulary, new_tokens, sampling):
            for row, token in step.items():
                written[chosen[row]].append(token)
    model.train(was_training)
    ended = [tokens[-1] in vocabulary.ends for tokens in written]
    return [Continuation(w[: len(w) - e], e) for w, e in zip(written, ended, strict=True)]
