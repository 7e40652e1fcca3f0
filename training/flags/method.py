"""Flags of the base model and the method, with the rank and alpha of each adapter. Nothing heavy is imported."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from gpt2_scratch.config import GPT2Config
from lora.variants import VARIANTS, Variant
from training.flags.cli import at_least, changed_flags, flag
from training.flags.fields import AsPublished, Help, Rare
from training.flags.update import needs_bitsandbytes

V = TypeVar("V", int, float)
Target = Literal["q", "k", "v", "attn-out", "mlp-in", "mlp-out", "lm-head"]
BLOCK_TARGETS: tuple[Target, ...] = ("q", "k", "v", "attn-out", "mlp-in", "mlp-out")
WITHOUT_ADAPTERS = {
    "full": Variant("full", "all weights", "a gradient and AdamW's two moments for each weight, no adapters' products"),
    "bitfit": Variant("BitFit", "biases", "no adapters' products, the same backward pass through the blocks"),
    "head": Variant("head", "the head alone", "no backward pass through the blocks"),
}
METHODS = {"lora": VARIANTS["lora"]} | VARIANTS | WITHOUT_ADAPTERS
if TYPE_CHECKING:
    from training.flags.task import HeadArgs

    Method = str
else:
    Method = Literal[tuple(METHODS)]


def _methods() -> str:
    """Returns what each method does, and in a second sentence what it costs."""
    does = "; ".join(f"{name}: {method.help}" for name, method in METHODS.items())
    costs = "; ".join(f"{name}: {method.cost}" for name, method in METHODS.items() if method.cost)
    return f"{does}. Against lora (gpt2-nano, rank 16, a CPU) {costs}"


def like_lora(rate: float, epochs: float) -> dict[str, tuple[float, float]]:
    """Returns the default peak learning rate and epochs of every variant, given LoRA's."""
    return {name: (rate * variant.rate, epochs) for name, variant in VARIANTS.items()}


@dataclass(frozen=True)
class ModelArgs:
    """The base model"""

    model: str = "gpt2"
    """gpt2-nano (bundled), gpt2 and its larger sizes up to gpt2-xl, a hub repository, or a folder in HF format"""
    dropout: Rare[float] = 0.0
    """dropout probability on embeddings, attention and residual branches"""
    untie_head: AsPublished[bool] = False
    """give the LM head a copy of the token embedding instead of the embedding itself (as the report's authors did)"""
    base_bits: Literal[4, 8] | None = None
    """hold frozen matrices in 4 bits (NF4) or 8, with bitsandbytes. This takes less memory and more time"""

    def problems(self) -> list[str]:
        found = needs_bitsandbytes(f"--base-bits {self.base_bits}") if self.base_bits else []
        if not 0 <= self.dropout < 1:
            found.append(f"--dropout {self.dropout}: must be at least 0 and below 1")
        return found


@dataclass(frozen=True)
class MethodArgs:
    """What is trained"""

    method: Annotated[Method, Help(_methods())] = "lora"
    lora_rank: int = 16
    """rank of every adapter. It is at most the width of the model"""
    lora_alpha: float = 16.0
    """strength of the adapters, before scaling"""
    lora_rank_pattern: Rare[tuple[str, ...]] = ()
    """PATTERN=RANK: another rank for the matrices that match: 'h.5.*=32' '*.mlp-in=8' 'h.1.[qkv]=4'; the last match
    counts (q, k and v of a block share one rank; lm-head and score are heads)"""
    lora_alpha_pattern: Rare[tuple[str, ...]] = ()
    """PATTERN=ALPHA: another alpha, likewise"""
    lora_scaling: Literal["standard", "rslora", "paper"] = "standard"
    """standard: alpha/r; rslora: alpha/sqrt(r); paper: alpha"""
    lora_init: Rare[Literal["standard", "paper", "loftq"]] = "standard"
    """standard: A is uniform within 1/sqrt(inputs); paper: within 1/sqrt(r), as the report's authors had it; loftq:
    A and B make up for what --base-bits rounded off, as far as their rank goes: at the start each matrix is read and
    dequantised once more and its error decomposed (SVD); after that there is no cost"""
    lora_dropout: Rare[float] = 0.0
    """dropout probability on the input of A; a third more time, and 20% more kept for the backward pass"""
    lora_plus_ratio: Rare[float | None] = None
    """ratio of the learning rate of the adapters' B to that of all else, at least 1 (LoRA+: 16), at no cost; None: 1"""
    lora_targets: tuple[Target, ...] = BLOCK_TARGETS
    """matrices that get an adapter"""
    last_blocks: int | None = None
    """train in the last n blocks only; None: all. With --method full, None trains the embeddings too"""
    train_embedding: Rare[bool] = False
    """train the token embedding too, and with it the LM head, which is the same matrix"""

    @property
    def adapts(self) -> bool:
        """Whether the method is a variant of LoRA."""
        return self.method not in WITHOUT_ADAPTERS

    @property
    def trains_adapters_alone(self) -> bool:
        """Whether the model without its adapters is what it was before training, a class head aside."""
        return self.adapts and not self.train_embedding

    @property
    def starts_at_frozen(self) -> bool:
        """Whether untrained adapters change nothing; those of loftq make up for rounding errors."""
        return self.lora_init != "loftq"

    def places(self, blocks: int) -> list[str]:
        """Returns the names that patterns can match, such as h.5.mlp-in: one for each adapted matrix of the blocks."""
        first = 0 if self.last_blocks is None else max(blocks - self.last_blocks, 0)
        named = [f"h.{i}.{t}" for i in range(first, blocks) for t in BLOCK_TARGETS if t in self.lora_targets]
        return named + ["lm-head"] * ("lm-head" in self.lora_targets)

    def rank_at(self, place: str) -> int:
        return _last_match(self.lora_rank_pattern, place, self.lora_rank, int)

    def alpha_at(self, place: str) -> float:
        return _last_match(self.lora_alpha_pattern, place, self.lora_alpha, float)

    def problems(self) -> list[str]:
        found = at_least(self, 1, "lora_rank", "last_blocks", "lora_plus_ratio")
        if not 0 < self.lora_alpha < math.inf:
            found.append(f"--lora-alpha {self.lora_alpha}: must be above 0 and finite")
        if not 0 <= self.lora_dropout < 1:
            found.append(f"--lora-dropout {self.lora_dropout}: must be at least 0 and below 1")
        found += _pattern_problems("lora_rank_pattern", self.lora_rank_pattern, int, "a whole number, at least 1")
        found += _pattern_problems("lora_alpha_pattern", self.lora_alpha_pattern, float, "a number above 0")
        if self.train_embedding and self.method == "full" and self.last_blocks is None:
            found.append("--train-embedding: --method full trains it already; leave it out, or add --last-blocks")
        if not self.lora_targets:
            found.append("--lora-targets: name at least one")
        if len(set(self.lora_targets)) < len(self.lora_targets):
            found.append(f"--lora-targets {' '.join(self.lora_targets)}: a target is named twice")
        if not self.adapts:
            given = [name for name in changed_flags(self) if name.startswith("lora_")]
            found += [f"{flag(name)}: --method {self.method} has no adapters; leave it out" for name in given]
        elif self.lora_init not in (takes := VARIANTS[self.method].inits):
            others = " or ".join(name for name, variant in VARIANTS.items() if self.lora_init in variant.inits)
            own = takes == ("standard",)
            why = f"{self.method} has a start of its own; leave it out" if own else f"needs --method {others}"
            found.append(f"--lora-init {self.lora_init}: {why}")
        return found

    def problems_given(self, model: ModelArgs, config: GPT2Config, head: "HeadArgs | None" = None) -> list[str]:
        found = []
        if model.base_bits is not None and self.method == "full":
            found.append(
                f"--base-bits {model.base_bits}: what is quantised cannot train; use another --method than full"
            )
        if model.base_bits is None and self.lora_init == "loftq":
            found.append("--lora-init loftq: makes up for what --base-bits rounds off; add it, or leave this out")
        if self.last_blocks is not None and self.last_blocks > config.blocks:
            found.append(f"--last-blocks {self.last_blocks}: {model.model} has {config.blocks} blocks")
        if not self.adapts:
            return found
        head_adapts = head is not None and head.head_training != "train"
        places = self.places(config.blocks) + ["score"] * head_adapts
        for name in ("lora_rank_pattern", "lora_alpha_pattern"):
            for pattern in getattr(self, name):
                if not any(fnmatchcase(place, pattern.rpartition("=")[0]) for place in places):
                    known = f"{places[0]} to {places[-1]}"
                    found.append(f"{flag(name)} {pattern}: matches no matrix with an adapter; there are {known}")
        ranks = {f"--lora-rank {self.lora_rank}": self.lora_rank}
        ranks |= {f"--lora-rank-pattern {one}": int(one.rpartition("=")[2]) for one in self.lora_rank_pattern}
        for given, rank in ranks.items():
            if rank > config.width:
                found.append(f"{given}: must be 1 to {config.width}, the width of {model.model}")
        return found + self._fused_problems(places)

    def _fused_problems(self, places: list[str]) -> list[str]:
        """Returns a problem where q, k and v of a block differ: they are one matrix, with one rank and one scale."""
        given: dict[str, set[tuple[int, float]]] = {}
        for place in places:
            block, _, target = place.rpartition(".")
            if target in ("q", "k", "v"):
                given.setdefault(block, set()).add((self.rank_at(place), self.alpha_at(place)))
        mixed = [block for block, settings in given.items() if len(settings) > 1]
        if not mixed:
            return []
        return [
            f"--lora-rank-pattern, --lora-alpha-pattern: q, k and v of {', '.join(mixed)} differ; they share one rank "
            "and one alpha, so name all of those that are adapted ('h.0.[qkv]=4')"
        ]


def _last_match(patterns: tuple[str, ...], place: str, otherwise: V, kind: Callable[[str], V]) -> V:
    for pattern in reversed(patterns):
        names, _, value = pattern.rpartition("=")
        if fnmatchcase(place, names):
            return kind(value)
    return otherwise


def _pattern_problems(name: str, patterns: tuple[str, ...], kind: Callable[[str], float], wanted: str) -> list[str]:
    found = []
    for pattern in patterns:
        names, _, value = pattern.rpartition("=")
        try:
            good = bool(names) and 0 < kind(value) < math.inf
        except ValueError:
            good = False
        if not good:
            found.append(f"{flag(name)} {pattern}: must be PATTERN=VALUE with {wanted}, like 'h.5.*=32'")
    return found
