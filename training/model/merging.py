"""Merges adapters into their base, and measures how far the result is from the unmerged model.

The update of every adapter is relative to the untouched base, is multiplied by a weight, and is added in fp32.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt2_scratch.attention import layout_of
from gpt2_scratch.model import Classifier, LanguageModel, Model
from gpt2_scratch.sources import HUB
from lora.adapter import Adapter, adapters, set_strength
from lora.frozen import dense, with_matrix
from lora.quantised import dequantise
from tasks._cells import listed
from training.flags.task import HeadArgs, group_of
from training.model.facts import Facts, read_facts
from training.model.methods import own_state
from training.model.saved import adapted, build, find_base, note_base
from training.storage.run_folder import FACTS, base_of

Chosen = Sequence[tuple[Path, float]]  # folders of adapters with their weights


class Sum(nn.Module):
    """A frozen layer under several adapters of strength t: W + sum of t * (W' - W)."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear, self.adapters = linear, nn.ModuleList()

    def add(self, adapter: Adapter) -> None:
        adapter.linear = self.linear  # type: ignore[assignment]
        self.adapters.append(adapter)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return sum((adapter(x) - y for adapter in self.adapters), start=y)

    def merged_weight(self) -> Tensor:
        """Returns the sum, (out, in) in fp32."""
        return sum((a.strength * a.update() for a in self.adapters), start=dense(self.linear))  # type: ignore[operator, union-attr]


def common_facts(folders: Sequence[Path], asked: str | None = None) -> Facts:
    """Returns the facts of the first adapter, once those that must agree for one model do.

    Raises ValueError when they do not, for different bases as far as known, and for a head that transformers lacks.
    PEFT's adapters know a name alone, which does not count where the user has `asked` for a base.
    """
    found = [(folder, read_facts(folder)) for folder in folders]
    (first, facts), *others = found
    bases = [(folder, one.base) for folder, one in found if one.base is not None]
    for folder, base in bases[1:]:
        known, its = bases[0]
        differing = [name for name in ("sha256", "tokenizer") if getattr(base, name) != getattr(its, name)]
        if differing:
            what = "weights" if "sha256" in differing else "tokenizers"
            raise ValueError(
                f"--adapter {known} {folder}: were trained on different {what} ({its.name}; {base.name}); "
                "merge adapters of one base"
            )
    unknown = [folder for folder, one in found if one.base is None and asked is None]
    named = {folder: named_base(folder) for folder in unknown}
    if len({*named.values()}) > 1:
        raise ValueError(
            f"--adapter {' '.join(map(str, named))}: were trained on different bases "
            f"({listed([*map(str, named.values())], 3)}); merge adapters of one base, or name it with --model"
        )
    place = asked or (bases[0][1].name if bases else base_of(first))
    for folder, one in found if place else ():
        note_base(folder, one, str(place))
    for folder, other in others:
        bits = facts.args.get("base_bits"), other.args.get("base_bits")
        for what, ours, theirs in (("classes", facts.labels, other.labels), ("--base-bits", *bits)):
            if ours != theirs:
                raise ValueError(f"--adapter {first} {folder}: {what} differ ({ours or 'none'}; {theirs or 'none'})")
    for folder, one in found:
        if not group_of(HeadArgs, one.args).exportable:
            raise ValueError(f"--adapter {folder}: transformers has no such head (--head-bias, --head lm-token)")
    return facts


def named_base(folder: Path) -> str | None:
    """Returns the name of the base in PEFT's settings, as the hub spells it."""
    name = base_of(folder)
    return HUB.get(name, name) if name else None


def combined(chosen: Chosen, base: str | None) -> Model:
    """Returns the base with all adapters in it, each with its weight; class heads are added with the same weights."""
    facts = common_facts([folder for folder, _ in chosen], base)
    place = base or facts.base_name  # one place for all: the weights are the same
    model = build(*find_base(chosen[0][0], facts, base), facts)
    if isinstance(model, Classifier):
        nn.init.zeros_(model.score.weight)  # built with random numbers
    changes: dict[str, Any] = defaultdict(float)
    for folder, weight in chosen:
        one = adapted(folder, place if (folder / FACTS).exists() else base)
        set_strength(one, weight)
        found = list(adapters(one))
        for path, adapter in found:
            if path == "score":  # a head is a sum of heads, whole
                changes["score.weight"] += weight * dense(adapter.linear) + adapter.strength * adapter.update()
            else:
                _sum_at(model, path).add(adapter)
        inside = tuple(f"{path}." for path, _ in found)
        for name, trained in own_state(one).items():
            if not name.startswith(inside):
                changes[name] += weight * (trained - _value(model, name))
    if "lm_head.weight" in changes and isinstance(model, LanguageModel) and model.config.tied_head:
        model.untie()
    with torch.no_grad():
        for name, change in changes.items():
            _value(model, name).add_(change)
    return model.eval()


def _sum_at(model: nn.Module, path: str) -> Sum:
    layer = model.get_submodule(path)
    if not isinstance(layer, Sum):
        layer = Sum(layer)
        model.set_submodule(path, layer)
    return layer


def _value(model: nn.Module, name: str) -> Tensor:
    """Returns the parameter, which is one level deeper where adapters have been added to its layer."""
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    return (layer.linear if isinstance(layer, Sum) else layer).get_parameter(leaf)  # type: ignore[operator, union-attr]


def merge_for_good(model: Model) -> None:
    """Replaces sums and quantised layers by plain fp32 layers; an adapted LM head is untied from the embedding."""
    if isinstance(model, LanguageModel) and isinstance(model.lm_head, Sum):
        model.config = replace(model.config, tied_head=False)
    for path, layer in list(model.named_modules()):
        if isinstance(layer, Sum):
            model.set_submodule(path, with_matrix(layer.linear, layer.merged_weight()))
    dequantise(model)


@dataclass
class Difference:
    """How two models differ on the same texts. A choice is a text for a classifier, a position for a language model."""

    logit: float = 0.0  # the largest difference
    largest: float = 0.0  # the largest logit of the first model, to compare with
    choices: int = 0
    changed: int = 0  # choices that the models make differently


@torch.no_grad()
def compare(a: Model, b: Model, texts: Sequence[list[int]]) -> Difference:
    """Compares two models on `texts`, given as tokens."""
    found = Difference()
    for text in texts:
        x, y = logits(a, text), logits(b, text)
        found.logit = max(found.logit, float((x - y).abs().max()))
        found.largest = max(found.largest, float(x.abs().max()))
        found.choices += len(x)
        found.changed += int((x.argmax(1) != y.argmax(1)).sum())
    return found


def logits(model: Model, text: list[int]) -> Tensor:
    """Returns the logits of a text: (1, classes) from a classifier, (T, V) from a language model."""
    tokens, lengths = torch.tensor(text), torch.tensor([len(text)])
    if isinstance(model, Classifier):
        return model(tokens, lengths)
    return model.lm_head(model.transformer(tokens, layout_of(lengths, tokens.device)))
