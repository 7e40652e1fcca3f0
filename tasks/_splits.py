"""Splits examples into train, validation and test: without duplicates, seeded, stratified and disjoint."""

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from tasks._examples import Instruction, Labelled, Preference
from tasks._skipped import Skipped

E = TypeVar("E", Labelled, Instruction, Preference)
DRAWN = 0.8  # of the training examples, where each seed draws its own


@dataclass(frozen=True)
class Limits:
    """Shares of the examples held out, and the most examples taken of each split (None: all of them)."""

    validation_share: float = 0.1
    test_share: float = 0.1
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    draw: int | None = None  # seed of the training examples alone; without `train` it draws DRAWN of them
    everything: bool = False  # train on all examples; nothing is held out


@dataclass(frozen=True)
class Splits(Generic[E]):
    train: list[E]
    validation: list[E]
    test: list[E]
    skipped: Skipped = field(default_factory=Skipped)
    notes: list[str] = field(default_factory=list)  # what the user should know of the data, one sentence each
    given: tuple[str, ...] = ()  # the held-out parts that the source has

    def named(self) -> dict[str, list[E]]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def examples(self) -> list[E]:
        return self.train + self.validation + self.test

    def fingerprint(self) -> str:
        """Returns sha256 over every example of every split, in order: two runs with the same one saw the same data."""
        digest, comma = hashlib.sha256(), ""  # of [[name, [[identity, label], ...]], ...], never whole in memory
        for name, part in self.named().items():
            digest.update(f'{comma or "["}["{name}", ['.encode())
            for i, example in enumerate(part):
                digest.update((", " * (i > 0) + json.dumps((example.identity, example.label))).encode())
            digest.update(b"]]")
            comma = ", "
        digest.update(b"]")
        return digest.hexdigest()


def balance(parts: Mapping[str, Sequence[E]]) -> dict[str, dict[str, int]]:
    """Returns how many examples each part has of each stratum: class, kind of instruction, good and bad answers."""
    return {name: dict(sorted(Counter(str(e.stratum or "") for e in part).items())) for name, part in parts.items()}


def split_examples(
    given: dict[str, list[E]],
    limits: Limits,
    seed: int,
    skipped: Skipped,
    subset: Callable[[dict[str, list[E]]], dict[str, list[E]]] | None = None,
) -> Splits[E]:
    """Splits the examples `given` by part ("all" or what the source calls train, validation, test).

    A test or validation part of the source stays one, duplicates aside; what is missing is drawn from the rest, groups
    whole. An example that occurs in several parts stays in the first of test, validation, train. `subset` is a rule of
    the report. Raises ValueError when nothing is left to train on, or all groups are too large for a part to be drawn.
    """
    parts = {name: given.get(name, []) for name in ("test", "validation")}
    parts["all"] = given.get("train", []) + given.get("all", [])
    kept = _deduplicated(parts, skipped)
    parts = kept if limits.everything else _refused_if_emptied(parts, kept)
    if subset is not None:
        parts = {"test": [], "validation": []} | subset(parts)
    if limits.everything:
        parts = {"test": [], "validation": [], "all": [e for part in parts.values() for e in part]}
        limits = replace(limits, validation_share=0.0, test_share=0.0)
    parts = _refused_if_emptied(parts, _without_held_out_prompts(parts, skipped))
    rest = parts.pop("all", [])
    total, own_parts = len(rest), tuple(name for name, part in parts.items() if part)
    shares = {"test": limits.test_share, "validation": limits.validation_share}
    wanted = 1 + sum(not parts[name] and share > 0 for name, share in shares.items())
    prompts = len({e.group for e in rest if not isinstance(e, Labelled)})
    for name, share in shares.items():
        if not parts[name] and share > 0:
            parts[name], rest = _draw(rest, share * total, f"{seed}/{name}", whole_groups=True)
            if not parts[name] and round(share * total) > 0 and any(not isinstance(e, Labelled) for e in rest[:1]):
                why = "no prompt has so few; give a larger share, or 0"
                if prompts < wanted:
                    why = f"the file has {prompts} prompts for {wanted} parts; give it more prompts, or a share of 0"
                raise ValueError(
                    f"--{name}-share {share}: would be {round(share * total):,} of {total:,} examples, but answers to "
                    f"one prompt stay together and {why}"
                )
    parts["train"] = parts.get("train", []) + rest
    train, own = limits.train, f"{seed}/train/limit"
    if limits.draw is not None:
        train, own = train or round(DRAWN * len(parts["train"])), f"{seed}/train/draw {limits.draw}"
    seeds = {"train": own, "validation": f"{seed}/validation/limit", "test": f"{seed}/test/limit"}
    for name, most in (("train", train), ("validation", limits.validation), ("test", limits.test)):
        if most is not None and most < len(parts[name]):
            parts[name], over = _draw(parts[name], most, seeds[name])
            skipped.over_limit += len(over)
    if not parts["train"]:
        raise ValueError(_nothing_to_train_on(given, parts, skipped))
    return Splits(parts["train"], parts["validation"], parts["test"], skipped, given=own_parts)


def _refused_if_emptied(before: dict[str, list[E]], after: dict[str, list[E]]) -> dict[str, list[E]]:
    """Returns the parts `after` some examples have been left out. Raises ValueError if a held-out part has lost all,
    since another would be drawn in its place."""
    for name in ("test", "validation"):
        if before.get(name) and not after[name]:
            raise ValueError(
                f"all {len(before[name]):,} examples of the {name} part are in another part too, or contradict it; "
                f"give another {name} part, or none: then one is drawn"
            )
    return after


def _nothing_to_train_on(given: dict[str, list[E]], parts: dict[str, list[E]], skipped: Skipped) -> str:
    """Says why no training example remains, and what to do."""
    held_out: dict[str, int] = {name: len(part) for name, part in parts.items() if part}
    if held_out and not (given.get("train") or given.get("all")) and not skipped.said():
        return (
            f"there is only a {' and a '.join(held_out)} part ({sum(held_out.values()):,} rows), and nothing to train "
            "on; add a train file, or give that file itself as --data, of which all parts are drawn"
        )
    counts = [*([skipped.said()] if skipped.said() else []), *(f"{n:,} in {name}" for name, n in held_out.items())]
    return f"no training examples remain; left out of all rows: {', '.join(counts) or 'none read'}"


def _digest(example: Labelled | Instruction | Preference) -> bytes:
    """Hashes what makes two examples the same, since the keys themselves would hold all texts a second time."""
    text = "".join(f"{len(part)} {part}" for part in example.key)  # repr would look at each character
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _deduplicated(parts: dict[str, list[E]], skipped: Skipped) -> dict[str, list[E]]:
    """Keeps the first of the examples with one key, and none of them if their labels disagree."""
    keys = {name: [_digest(example) for example in part] for name, part in parts.items()}
    labels, contradictory = dict[bytes, str | None](), set[bytes]()
    for name, part in parts.items():
        for key, example in zip(keys[name], part, strict=True):
            if labels.setdefault(key, example.label) != example.label:
                contradictory.add(key)
    seen = set[bytes]()
    kept: dict[str, list[E]] = {}
    for name, part in parts.items():
        kept[name] = []
        for key, example in zip(keys[name], part, strict=True):
            if key in contradictory:
                skipped.contradictory += 1
            elif key in seen:
                skipped.duplicate += 1
            else:
                seen.add(key)
                kept[name].append(example)
    return kept


def _without_held_out_prompts(parts: dict[str, list[E]], skipped: Skipped) -> dict[str, list[E]]:
    """Drops the prompts of the test part from training and validation, and those of validation from training."""
    held_out: set[Any] = set()
    kept: dict[str, list[E]] = {}
    for name in ("test", "validation", *(parts.keys() - {"test", "validation"})):
        kept[name] = [e for e in parts[name] if isinstance(e, Labelled) or e.group not in held_out]
        skipped.prompt_held_out += len(parts[name]) - len(kept[name])
        held_out |= {e.group for e in kept[name] if name in ("test", "validation")}
    return kept


def _draw(examples: list[E], size: float, seed: str, whole_groups: bool = False) -> tuple[list[E], list[E]]:
    """Draws about `size` examples with the strata in proportion; returns them and the rest, both in the order given.

    Largest remainders decide who gets the examples that proportions leave over, so the sizes add up exactly, or with
    `whole_groups` as nearly as these allow. Groups with examples of several strata are a stratum of their own.
    """
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        groups[example.group if whole_groups else i].append(i)
    strata: dict[Any, list[list[int]]] = defaultdict(list)
    for group in groups.values():
        own = {examples[i].stratum for i in group}
        strata[own.pop() if len(own) == 1 else ""].append(group)
    wanted, sizes = round(size), Counter({key: sum(map(len, found)) for key, found in strata.items()})
    if whole_groups and len(sizes) > 1:  # the only example of a class is to be trained on: a test of it tells nothing
        sizes.subtract(key for key in strata if sizes[key] == 1)
    shares = {key: wanted * sizes[key] / max(sizes.total(), 1) for key in strata if sizes[key]}
    counts = {key: int(share) for key, share in shares.items()}
    for key in sorted(shares, key=lambda key: (counts[key] - shares[key], str(key)))[: wanted - sum(counts.values())]:
        counts[key] += 1
    drawn = {i for key in sorted(counts, key=str) for i in _take(strata[key], counts[key], f"{seed}/{key}")}
    return [e for i, e in enumerate(examples) if i in drawn], [e for i, e in enumerate(examples) if i not in drawn]


def _take(groups: list[list[int]], count: int, seed: str) -> list[int]:
    """Draws groups at random and returns their members, `count` together or as near to it as whole groups come.

    Example: of groups of 4, and `count` 10, three are taken.
    """
    drawn = random.Random(seed).sample(range(len(groups)), min(count, len(groups)))
    taken, larger = list[int](), list[list[int]]()
    for i in dict.fromkeys([*drawn, *range(len(groups))]):  # groups not drawn fill what is left
        if len(taken) + len(groups[i]) <= count:
            taken += groups[i]
        else:
            larger.append(groups[i])
    smallest = min(larger, key=len, default=[])
    return taken + smallest if len(smallest) <= 2 * (count - len(taken)) else taken


def balanced(
    examples: list[Labelled], size: int, labels: tuple[str, ...], seed: int
) -> tuple[list[Labelled], list[Labelled]]:
    """Draws the report's subset of `size` examples, equally many of each class; returns it and the rest, in order."""
    each = size // len(labels)
    chosen: set[int] = set()
    for label in labels:
        group = [e.id for e in examples if e.label == label]
        if len(group) < each:
            raise ValueError(f"--subset report needs {each:,} examples of {label!r}, the data has {len(group):,}")
        chosen |= set(random.Random(f"{seed}/{label}").sample(group, each))
    return [e for e in examples if e.id in chosen], [e for e in examples if e.id not in chosen]
