"""Finds rows that differ in more than their table says.

A flag that a table sweeps is confounded if, for two of its values, every pair of rows also differs in something else.
Settings are the resolved flags of a row's script; another script may have others.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lora.spec import Spec
from training.flags.method import WITHOUT_ADAPTERS

Settings = Mapping[str, Any]


def adapts(s: Settings) -> bool:
    return s["method"] not in WITHOUT_ADAPTERS


def effective_scale(s: Settings) -> float:
    """Returns the factor of the adapters' product B A."""
    return Spec(int(s["lora_rank"]), float(s["lora_alpha"]), s["lora_scaling"]).scale


def first_step(s: Settings) -> float:
    """Returns how far Adam's first update moves what an adapter adds, in units of lr |x|, the same for all ranks.

    y = W x + s B A x with B = 0: every entry of B moves by lr, so the output by s lr sum_k |A_k x|, r terms that grow
    with the bound of A's entries: a constant with the standard start, 1/sqrt(r) with the report's. With alpha/r it does
    not depend on the rank (Hu et al. 2021, section 4.1).
    """
    rank = float(s["lora_rank"])
    return effective_scale(s) * (math.sqrt(rank) if s["lora_init"] == "paper" else rank)


class Aspect(NamedTuple):
    """One aspect of a row's settings. Its value is None if it does not apply; then it counts as equal to any other."""

    name: str
    read: Callable[[Settings], Any]
    within: tuple[str, ...] = ()  # compared only between rows that are equal in these flags

    def value(self, s: Settings) -> Any:
        try:
            return self.read(s)
        except KeyError:  # the row's script has no such flag
            return None


def _evaluated(s: Settings) -> str:
    batches = s["eval_batches"]
    return "all" if batches is None else f"{batches * s['batch_size']} while training"


def _schedule(s: Settings) -> str:
    steps, ratio = s["warmup_steps"], s["warmup_ratio"]
    warmup = f"{ratio:.0%} of the steps" if steps is None else f"{steps} step" + "s" * (steps != 1)
    end = float(s["lr_min"]) / float(s["lr"]) if s["lr"] else 0.0
    after = "constant" if s["schedule"] == "constant" else f"cosine to {end:.0%}"
    return after + (f" after a warmup of {warmup}" if (ratio if steps is None else steps) else "")


def _clipping(s: Settings) -> str:
    return (
        "none" if s["max_grad_norm"] is None else f"{s['max_grad_norm']:g}" + ", after warmup" * s["clip_after_warmup"]
    )


def _padding(s: Settings) -> str:
    if s["pad_to"] is None:
        return "none"
    return f"to {'the token count' if s['pad_to'] == s['max_length'] else s['pad_to']} with token {s['pad_id']}"


def _epochs(s: Settings) -> str | None:
    """Returns None for the method's default, which a command does not say."""
    if s["max_steps"] is not None:
        return f"{s['max_steps']} steps"
    return None if s["epochs"] is None else f"{s['epochs']:g}"


def _head(s: Settings) -> str:
    return f"{s['head']}, {s['head_training']}" + ", bias" * bool(s["head_bias"])


def _prompt(s: Settings) -> str:
    return ("masked" if s["mask_prompt"] else "trained on") + ", header" * bool(s["response_header"])


def _step(s: Settings) -> tuple[str, float] | None:
    return (s["lora_init"], round(first_step(s), 6)) if adapts(s) else None


# What a table is about; where one of these varies, it is what the table sweeps.
SUBJECTS = (
    Aspect("task", lambda s: s["dataset"] or s["data"]),
    Aspect("model", lambda s: s["model"]),
    Aspect("method", lambda s: s["method"]),
    Aspect("rank", lambda s: s["lora_rank"] if adapts(s) else None),
    Aspect("adapted matrices", lambda s: " ".join(s["lora_targets"]) if adapts(s) else None),
    Aspect("trained blocks", lambda s: s["last_blocks"] or "all"),
    Aspect("token count", lambda s: s["max_length"]),
    Aspect("training examples", lambda s: s["train_examples"] or "all"),
)
# Learning rates are chosen per method and size, so only rows that agree in these should share one.
OTHERS = (
    Aspect("adapters' step size", _step),
    Aspect("batch size", lambda s: s["batch_size"]),
    Aspect("validation examples", _evaluated),
    Aspect("test examples", lambda s: s.get("tested")),
    Aspect("epochs", _epochs),
    Aspect("schedule", _schedule),
    Aspect("clipping", _clipping),
    Aspect("optimizer", lambda s: s["optimizer"] + (f" {s['momentum']}" if s["optimizer"] == "sgd-momentum" else "")),
    Aspect("learning rate", lambda s: s["lr"] and float(f"{s['lr']:.4g}"), ("method", "model", "optimizer")),
    Aspect("weight decay", lambda s: f"{s['weight_decay']:g}" + ", all parameters" * bool(s["decay_all"])),
    Aspect("head", _head),
    Aspect("padding", _padding),
    Aspect("subset", lambda s: s["subset"]),
    Aspect("prompt", _prompt),
    Aspect("dropout", lambda s: s["dropout"]),
)  # fmt: skip
ASPECTS = SUBJECTS + OTHERS


def differ(aspect: Aspect, a: Settings, b: Settings) -> bool:
    if any(a.get(flag) != b.get(flag) for flag in aspect.within):
        return False
    one, other = aspect.value(a), aspect.value(b)
    return None not in (one, other) and one != other


def moves_with(swept: Aspect, rows: Sequence[Settings]) -> list[Aspect]:
    """Returns the aspects that change along with `swept`: for some two of its values, even the most similar rows differ
    in them too."""
    found: list[Aspect] = []
    values = dict.fromkeys(map(swept.value, rows))
    for one, other in itertools.combinations([value for value in values if value is not None], 2):
        pairs = [
            [aspect for aspect in ASPECTS if aspect is not swept and differ(aspect, a, b)]
            for a in rows
            for b in rows
            if (swept.value(a), swept.value(b)) == (one, other) and differ(swept, a, b)
        ]
        found += [aspect for aspect in min(pairs, key=len, default=[]) if aspect not in found]
    return found


def values_of(aspect: Aspect, rows: Sequence[Settings]) -> str:
    """Lists the values in the rows' order; of the step size, how far it grows and the scales behind it."""
    if aspect.name != "adapters' step size":
        values = dict.fromkeys(map(aspect.value, rows))
        return " / ".join(str(value) for value in values if value is not None)
    adapted = [s for s in rows if adapts(s)]
    steps = [first_step(s) for s in adapted]
    scales = " / ".join(f"{v:.3g}" for v in dict.fromkeys(map(effective_scale, adapted)))
    scalings = " and ".join(dict.fromkeys(str(s["lora_scaling"]) for s in adapted))
    fold = max(steps) / min(steps)
    return f"effective scale {scales} under --lora-scaling {scalings}; the first step differs {fold:.3g}-fold"


def between(a: Settings, b: Settings) -> list[str]:
    """Lists the aspects in which two rows differ, with both values."""
    return [f"{aspect.name} ({values_of(aspect, (a, b))})" for aspect in ASPECTS if differ(aspect, a, b)]


class Confound(NamedTuple):
    swept: Aspect
    moving: tuple[Aspect, ...]
    rows: Sequence[Settings]

    @property
    def names(self) -> set[tuple[str, str]]:
        return {(self.swept.name, other.name) for other in self.moving}

    @property
    def text(self) -> str:
        parts = "; ".join(f"{other.name} ({values_of(other, self.rows)})" for other in self.moving)
        return f"{self.swept.name} ({values_of(self.swept, self.rows)}) does not change alone; with it: {parts}"


def confounds(rows: Sequence[Settings]) -> list[Confound]:
    """Returns, for each swept aspect of the column, what changes with it; a clean sweep has no confounds."""
    varying = [a for a in ASPECTS if any(differ(a, s, t) for s, t in itertools.combinations(rows, 2))]
    swept = [a for a in varying if a in SUBJECTS] or varying
    found: list[Confound] = []
    told: set[str] = set()
    for aspect in swept:
        moving = tuple(other for other in moves_with(aspect, rows) if {aspect.name, other.name} - told)
        if moving:
            told |= {aspect.name, *(other.name for other in moving)}
            found.append(Confound(aspect, moving, rows))
    return found
