"""The arms of a study: ways of training, each with the flags that make it, and its middle learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.flags.method import BLOCK_TARGETS, METHODS, WITHOUT_ADAPTERS

ALPHA = 16  # of every rank, so that alpha / rank falls as the rank grows
NAMED = {
    "full": "every weight",
    "lora": "LoRA at each of the ranks",
    "full-blocks": "every weight of the blocks; the embedding, which is the LM head too, is frozen",
    "head": "the head alone",
    "lora-embedding": "LoRA and the embedding itself",
    "lora-lm-head": "LoRA on the LM head too, for instructions",
}
INSTRUCTIONS = tuple(NAMED)  # a short time drops them from the end
CLASSES = INSTRUCTIONS[:-1]
RANKLESS = {*WITHOUT_ADAPTERS, "full-blocks"}


@dataclass(frozen=True)
class Arm:
    """`words` are the flags of its method; its rates are factors of two above and below `middle`. An arm with adapters
    has its rank in its name."""

    name: str
    method: str
    words: tuple[str, ...]
    middle: float

    def rate(self, steps: int) -> float:
        return float(f"{self.middle * 2.0**steps:.4g}")


def _lora(rank: int, *more: str, method: str = "lora") -> tuple[str, ...]:
    return "--method", method, "--lora-rank", str(rank), "--lora-alpha", str(ALPHA), *more


def arms_of(
    names: Sequence[str], ranks: Sequence[int], blocks: int, classes: bool, middles: dict[str, float]
) -> list[Arm]:
    """Returns the arms in the order of `names`; those with adapters have the first of `ranks`, lora has all of them.

    `blocks` is how many the base has, `middles` the default learning rate of each method. Raises ValueError for a name
    that is neither an arm nor a method, and for an arm that a classifier does not have.
    """
    found: dict[str, Arm] = {}

    def add(name: str, method: str, *words: str) -> None:
        found[name] = Arm(name, method, words or ("--method", method), middles[method])

    for name in names:
        if name == "lora":
            for rank in ranks:
                add(f"lora r{rank}", "lora", *_lora(rank))
        elif name == "full-blocks":
            add(name, "full", "--method", "full", "--last-blocks", str(blocks))
        elif name == "lora-embedding":
            add(f"{name} r{ranks[0]}", "lora", *_lora(ranks[0], "--train-embedding"))
        elif name == "lora-lm-head" and classes:
            raise ValueError("--arms lora-lm-head: a classifier has no LM head; leave it out")
        elif name == "lora-lm-head":
            add(f"{name} r{ranks[0]}", "lora", *_lora(ranks[0], "--lora-targets", *BLOCK_TARGETS, "lm-head"))
        elif name == "head" and not classes:
            add(name, "head", "--method", "head", "--untie-head")
        elif name in WITHOUT_ADAPTERS:
            add(name, name)
        elif name in METHODS:
            add(f"{name} r{ranks[0]}", name, *_lora(ranks[0], method=name))
        else:
            known = [*NAMED, *(method for method in METHODS if method not in NAMED)]
            raise ValueError(f"--arms {name}: must be among {', '.join(known)}")
    return [*found.values()]
