"""How often the intervals of evidence/ hold: 95% ones over seeds and examples, on scores whose truth is known.

    python benchmarks/coverage.py --repetitions 10000
    python benchmarks/coverage.py --stopped --repetitions 4000 --accuracies 0.7 0.9 --examples 150 500 2000

A study has four arms with one truth. An example is right with a probability that is its own (beta distributed, so that
two seeds agree as often as recorded ones do) and that the seed moves; perplexities are of losses resampled from
recorded runs. Prints, as Markdown, how often the first arm's interval holds the truth, its width over that of an
interval that is told the true variances, how often the interval of a difference holds 0 (of the worst pair), and how
often a study claims any difference.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from _flags import each_at_least
from _results import ROOT
from evidence.crossed import crossed_mean, family
from evidence.intervals import LEVEL, Z
from evidence.kinds import ACCURACY, PERPLEXITY, Kind
from evidence.runs import read_packed
from training.flags.cli import at_least, run

ARMS, AGREEMENT = 4, 0.56  # arms of a study; share of the variance within seeds that is the examples' own (median)
RECORDED = ROOT / "reproduce" / "results" / "nano.jsonl.gz"
LEFT = (5, 5, 3, 2)  # seeds of the arms after a race, of which the first is the winner
SPREADS = {"none": (0, 0, 0, 0), "equal": (1, 1, 1, 1), "unequal": (3, 1, 1, 1), "one unequal": (1, 1, 1, 3)}


@dataclass(frozen=True)
class Args:
    repetitions: int = 10_000
    """studies of each cell"""
    seeds: tuple[int, ...] = (3, 5, 10)
    """numbers of seeds"""
    examples: tuple[int, ...] = (40, 150, 500, 5000)
    """numbers of test examples"""
    accuracies: tuple[float, ...] = (0.5, 0.7, 0.9, 0.95, 0.99, 1.0)
    """true accuracies"""
    odds: float = 0.15
    """standard deviation of a seed's log-odds of being right"""
    loss: float = 0.01
    """standard deviation of a seed's loss, nats a token"""
    perplexity: bool = True
    """simulate perplexities too"""
    overlap: bool = False
    """simulate instead what it does that seeds draw their training examples from one pool"""
    of_seeds: float = 1 / 6
    """with --overlap: the seeds' share of the variance of a mean"""
    stopped: bool = False
    """simulate instead arms that a race has left with fewer seeds than the first"""

    def problems(self) -> list[str]:
        found = at_least(self, 1, "repetitions") + each_at_least(self, 1, "seeds") + each_at_least(self, 2, "examples")
        wrong = [truth for truth in self.accuracies if not 0 < truth <= 1]
        found += [f"--accuracies {' '.join(map(str, wrong))}: must be above 0 and at most 1"] * bool(wrong)
        if not 0 < self.of_seeds < 1 or (self.of_seeds != Args.of_seeds and not self.overlap):
            found.append(f"--of-seeds {self.of_seeds:g}: must be above 0 and below 1, and beside --overlap")
        return found + at_least(self, 0, "odds", "loss")


class Draw(NamedTuple):
    """`sums` (arms, seeds, n), `weights` (n,), the true mean, and the true standard deviation of the first arm's."""

    sums: np.ndarray
    weights: np.ndarray
    truth: float
    deviation: float


Study = Callable[[np.random.Generator], Draw]


def accuracies(n: int, seeds: int, truth: float, spreads: Sequence[float]) -> Study:
    """All arms answer the same examples. A seed moves the log-odds of all, and each arm's true mean is `truth`."""
    if truth == 1:
        return lambda rng: Draw(np.ones((ARMS, seeds, n), np.float32), np.ones(n), truth, 0.0)
    shape = (1 / AGREEMENT - 1) * truth, (1 / AGREEMENT - 1) * (1 - truth)
    fixed = np.random.default_rng(0)
    odds, moves = special.logit(fixed.beta(*shape, 100_000).clip(1e-9, 1 - 1e-9)), fixed.normal(0, 1, 100_000)
    slope = float((special.expit(odds) * special.expit(-odds)).mean())  # of the mean, by the log-odds
    own = truth * (1 - truth) * (AGREEMENT + (1 - AGREEMENT) / seeds) / n
    deviation = math.sqrt(own + (slope * spreads[0]) ** 2 / seeds)

    def shift(spread: float) -> float:
        """Returns what keeps the mean where it is: seeds that move log-odds apart move the mean towards a half."""
        return float(optimize.brentq(lambda x: special.expit(odds + moves * spread + x).mean() - truth, -5, 5))

    shifts, scales = np.array([shift(spread) for spread in spreads])[:, None, None], np.array(spreads)[:, None, None]

    def draw(rng: np.random.Generator) -> Draw:
        theirs = special.logit(rng.beta(*shape, n).clip(1e-9, 1 - 1e-9)).astype(np.float32)
        moved = (shifts + scales * rng.normal(0, 1, (ARMS, seeds, 1))).astype(np.float32)
        right = rng.random((ARMS, seeds, n), dtype=np.float32) < special.expit(theirs + moved)
        return Draw(right.astype(np.float32), np.ones(n), truth, deviation)

    return draw


@cache
def recorded_losses() -> tuple[np.ndarray, np.ndarray]:
    """Of the runs of one recorded cell: losses (seeds, n) of the responses, and their tokens (n,)."""
    runs: dict[str, list] = {}
    for key, one in read_packed(RECORDED).items():
        if "tokens" in one.examples:
            runs.setdefault(key.rsplit("/", 1)[0], []).append(one.examples)
    found = next(group for _, group in sorted(runs.items()) if len(group) > 2 and len(group[0]["loss"]) > 100)
    return np.array([one["loss"] for one in found]), np.array(found[0]["tokens"], float)


def perplexities(n: int, seeds: int, spreads: Sequence[float]) -> Study:
    """Examples and what is left of them in each seed are drawn from recorded runs; a seed moves the loss a token."""
    losses, tokens = recorded_losses()
    typical, rest = losses.mean(0), losses - losses.mean(0)
    truth = float(typical.sum() / tokens.sum())
    own = (typical - truth * tokens).var() + rest.var() / seeds
    deviation = math.sqrt(own / tokens.mean() ** 2 / n + spreads[0] ** 2 / seeds)
    scales = np.array(spreads)[:, None, None]

    def draw(rng: np.random.Generator) -> Draw:
        drawn, size = rng.integers(0, len(tokens), n), (ARMS, seeds, n)
        noise = rest[rng.integers(0, len(rest), size), rng.integers(0, len(tokens), size)]
        sums = typical[drawn] + noise + scales * rng.normal(0, 1, (ARMS, seeds, 1)) * tokens[drawn]
        return Draw(sums, tokens[drawn], truth, deviation)

    return draw


class Found(NamedTuple):
    """Shares in percent, and `width` over that of the told interval. `each` has one share for each difference."""

    holds: float
    width: float
    each: np.ndarray
    claimed: float

    @property
    def differences(self) -> float:
        """The share of the pair that holds 0 the least often."""
        return float(self.each.min())


def compared(kind: Kind, one: Draw, seeds: Sequence[int]) -> tuple[np.ndarray, bool]:
    """Returns whether the interval of each arm's difference from the first one holds 0, where the arms have the first
    so many `seeds`, and whether any is claimed."""
    arms = zip(one.sums[1:], seeds[1:], strict=True)
    tested = family([kind.difference(sums[:n], one.sums[0, :n], one.weights) for sums, n in arms])
    holds = [low <= 0 <= high for low, high in (mean.ends() for mean, _ in tested)]
    return np.array(holds), min(p for _, p in tested) < 1 - LEVEL


def simulated(
    kind: Kind, draw: Study, repetitions: int, seed: Sequence[int], left: Sequence[int] | None = None
) -> Found:
    """Draws studies whose arms have so many seeds `left` to compare with the first one's; None: all of them."""
    rng, held, width, differences, claimed = np.random.default_rng(seed), 0, 0.0, np.zeros(ARMS - 1), 0
    for _ in range(repetitions):
        one = draw(rng)
        low, high = kind.ends(kind.mean(one.sums[0], one.weights), len(one.weights))
        held += low <= one.truth <= high
        width += (high - low) / (2 * Z * one.deviation) if one.deviation else math.nan
        each, claims = compared(kind, one, left or [len(sums) for sums in one.sums])
        differences, claimed = differences + each, claimed + claims
    percent = 100 / repetitions
    return Found(held * percent, width / repetitions, differences * percent, claimed * percent)


def overlapping(
    seeds: int, drawn: float, share: float, repetitions: int, of_seeds: float = Args.of_seeds
) -> tuple[float, float]:
    """Returns how often, in percent, the interval holds the mean for this pool of rows and the mean for any pool.

    Each seed draws the share `drawn` of the pool; `share` of the variance between seeds that draw from pools of their
    own is their training examples'. What these move is taken to be a sum over examples, so that a draw's part is the
    pool's, with the variance `drawn`, and its own, with the rest. That variance is the share `of_seeds` of a mean's.
    """
    rng, n = np.random.default_rng([seeds, int(100 * drawn), int(100 * share)]), 200
    rest = n * (1 / of_seeds - 1)  # of it examples have four fifths, and each seed's own answers one
    held = np.zeros(2)
    for _ in range(repetitions):
        pool = rng.normal(0, math.sqrt(share * drawn))
        own = rng.normal(0, math.sqrt(share * (1 - drawn) + 1 - share), (seeds, 1))
        examples = rng.normal(0, math.sqrt(0.8 * rest / seeds), n)
        scores = pool + own + examples + rng.normal(0, math.sqrt(0.2 * rest), (seeds, n))
        low, high = crossed_mean(scores).ends()
        held += [low <= pool <= high, low <= 0 <= high]
    return tuple(100 * held / repetitions)


def print_overlap(args: Args) -> None:
    print("| seeds | drawn, % of the pool | training examples' share, % | holds for this pool, % | for any pool, % |")
    print("|---|---|---|---|---|")
    for seeds, drawn, share in itertools.product(args.seeds, (0.02, 0.2, 0.5, 0.8), (0.5, 1.0)):
        this, every = overlapping(seeds, drawn, share, args.repetitions, args.of_seeds)
        print(f"| {seeds} | {100 * drawn:.0f} | {100 * share:.0f} | {this:.1f} | {every:.1f} |", flush=True)


def print_stopped(args: Args) -> None:
    print(f"| accuracy | n | {' | '.join(f'{n} seeds, holds, %' for n in LEFT[1:])} | claimed, % |")
    print(f"|{'---|' * (ARMS + 2)}")
    for truth, n in itertools.product(args.accuracies, args.examples):
        if truth <= 0.95:
            draw = accuracies(n, LEFT[0], truth, [args.odds] * ARMS)
            found = simulated(ACCURACY, draw, args.repetitions, [n], LEFT)
            numbers = " | ".join(f"{x:.1f}" for x in (*found.each, found.claimed))
            print(f"| {truth:g} | {n:,} | {numbers} |", flush=True)


def main(args: Args) -> None:
    if args.overlap or args.stopped:
        (print_overlap if args.overlap else print_stopped)(args)
        return
    error = 100 * math.sqrt(LEVEL * (1 - LEVEL) / args.repetitions)
    print(f"{args.repetitions:,} repetitions; the standard error of 95% is {error:.2f} points\n")
    print("| score | n | seeds | their spread | holds, % | width | difference holds, % | claimed, % |")
    print("|---|---|---|---|---|---|---|---|")
    truths = [("perplexity", 0.0)] * args.perplexity + [(f"accuracy {truth:g}", truth) for truth in args.accuracies]
    for (name, truth), n, seeds, spread in itertools.product(truths, args.examples, args.seeds, SPREADS):
        if truth > 0.95 and spread != "none":
            continue  # a seed hardly moves what is right nearly everywhere
        spreads = [(args.odds if truth else args.loss) * times for times in SPREADS[spread]]
        draw = accuracies(n, seeds, truth, spreads) if truth else perplexities(n, seeds, spreads)
        found = simulated(ACCURACY if truth else PERPLEXITY, draw, args.repetitions, [n, seeds])
        numbers = f"{found.holds:.1f} | {found.width:.2f} | {found.differences:.1f} | {found.claimed:.1f}"
        print(f"| {name} | {n:,} | {seeds} | {spread} | {numbers} |", flush=True)


if __name__ == "__main__":
    run(main, Args, __doc__)
