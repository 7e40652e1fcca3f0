"""Measures what was learnt of preferences: the loss, and how much more the model prefers the better answer.

A reward is beta * (log pi(answer) - log pi_ref(answer)); the margin is the reward of the chosen answer minus that of
the rejected one (Rafailov et al. 2023, section 5). Every interval is over pairs, or over rated answers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from evidence.intervals import bootstrap_mean, share
from tasks import Preference, Rated
from training.data.pairs import Pair, RatedPair
from training.flags.preference import KtoArgs, PreferenceArgs
from training.step.losses import pair_losses, rated_losses


def references(pairs: Sequence[Pair]) -> np.ndarray:
    """Returns the log-probabilities under the reference, (n, 2)."""
    assert all(pair.reference for pair in pairs), "pairs are scored by the reference before they are judged"
    return np.array([pair.reference for pair in pairs]).reshape(-1, 2)


def losses(scores: np.ndarray, pairs: Sequence[Pair], args: PreferenceArgs) -> np.ndarray:
    """Returns the losses (n,) for the model's log-probabilities `scores` (n, 2)."""
    ratios = torch.from_numpy(scores - references(pairs))
    targets = torch.tensor([[text.count for text in pair.texts] for pair in pairs]).view(-1, 2)
    return pair_losses(ratios, targets, args.dpo_loss, args.beta, args.label_smoothing).numpy()


def mean_pair_loss(scores: np.ndarray, pairs: Sequence[Pair], args: PreferenceArgs) -> float:
    return float(losses(scores, pairs, args).mean())


def wins(margins: np.ndarray) -> np.ndarray:
    """Returns 1 where the better answer is ahead and 1/2 for a tie, so that a model that learnt nothing scores 1/2."""
    return (np.sign(margins) + 1) / 2


def pair_metrics(scores: np.ndarray, pairs: Sequence[Pair], args: PreferenceArgs) -> dict[str, Any]:
    """Returns loss, reward_accuracy, reward_margin, chosen_reward and rejected_reward as {value, low, high, n}, and
    ranking_accuracy, which compares the log-probabilities without a reference."""
    rewards = args.beta * (scores - references(pairs))
    margins = rewards[:, 0] - rewards[:, 1]
    found = {
        "loss": bootstrap_mean(losses(scores, pairs, args)),
        "reward_accuracy": share(wins(margins)),
        "reward_margin": bootstrap_mean(margins),
        "chosen_reward": bootstrap_mean(rewards[:, 0]),
        "rejected_reward": bootstrap_mean(rewards[:, 1]),
        "ranking_accuracy": share(wins(scores[:, 0] - scores[:, 1])),
    }
    return {name: interval.entry() for name, interval in found.items()}


def pair_lines(
    scores: np.ndarray, pairs: Sequence[Pair], examples: Sequence[Preference], args: PreferenceArgs
) -> list[dict[str, Any]]:
    """Returns the rows of predictions.jsonl, one for each pair: texts, rewards, log-probabilities of the reference."""
    texts, before = {e.id: e for e in examples}, references(pairs)
    rows = []
    for pair, (chosen, rejected), was in zip(pairs, scores, before, strict=True):
        e = texts[pair.id]
        row = {"id": pair.id, "prompt": e.prompt, "chosen": e.chosen, "rejected": e.rejected}
        row |= {"chosen_reward": args.beta * (chosen - was[0]), "rejected_reward": args.beta * (rejected - was[1])}
        rows.append(row | {"chosen_reference": was[0], "rejected_reference": was[1]})
    return [{name: float(v) if isinstance(v, np.floating) else v for name, v in row.items()} for row in rows]


def rated_losses_of(scores: np.ndarray, examples: Sequence[RatedPair], args: KtoArgs) -> np.ndarray:
    """Returns losses (n,) as `losses` does; the reference point is that of all these examples together."""
    ratios = torch.from_numpy(scores - references(examples))
    good = torch.tensor([e.good for e in examples])
    return rated_losses(ratios[:, 0], good, max(0.0, float(ratios[:, 1].mean())), args).numpy()


def mean_rated_loss(scores: np.ndarray, examples: Sequence[RatedPair], args: KtoArgs) -> float:
    return float(rated_losses_of(scores, examples, args).mean())


def outranked(rewards: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Returns for each answer of the rarer kind the share of the other kind that it is ranked rightly against, good
    above bad; a tie counts half."""
    few, others = sorted((rewards[good], rewards[~good]), key=len)
    places = sum(np.searchsorted(np.sort(others), few, side) for side in ("left", "right")) / (2 * len(others))
    return places if good.sum() <= (~good).sum() else 1 - places


def rated_metrics(scores: np.ndarray, examples: Sequence[RatedPair], args: KtoArgs) -> dict[str, Any]:
    """Returns loss, good_reward, bad_reward and reward_accuracy as {value, low, high, n}, without those that need
    a kind of answers that is missing.

    reward_accuracy: how often a good answer has a higher reward than a bad one, over all pairs of the two (the area
    under the ROC curve), so that 1/2 is a model that has learnt nothing, however many answers are good. Its interval is
    that of a share of as many answers as the rarer kind has, which varies at least as much (Birnbaum and Klose 1957).
    """
    rewards, good = args.beta * (scores - references(examples))[:, 0], np.array([e.good for e in examples])
    found = {"loss": bootstrap_mean(rated_losses_of(scores, examples, args))}
    if good.any() and not good.all():
        found["reward_accuracy"] = share(outranked(rewards, good))._replace(n=len(good))
    for name, kind in (("good_reward", good), ("bad_reward", ~good)):
        if kind.any():
            found[name] = bootstrap_mean(rewards[kind])
    return {name: interval.entry() for name, interval in found.items()}


def rated_lines(
    scores: np.ndarray, rated: Sequence[RatedPair], examples: Sequence[Rated], args: KtoArgs
) -> list[dict[str, Any]]:
    """Returns the rows of predictions.jsonl: each answer's texts, label, reward and reference log-probability."""
    texts, before = {e.id: e for e in examples}, references(rated)[:, 0]
    return [
        {"id": e.id, "prompt": texts[e.id].instruction, "response": texts[e.id].response, "label": texts[e.id].label}
        | {"reward": float(args.beta * (score - was)), "reference": float(was)}
        for e, score, was in zip(rated, scores[:, 0], before, strict=True)
    ]
