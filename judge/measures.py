"""Measures of an answer that need no judge, and how well two numbers on the same items agree.

ROUGE-L: Lin (2004), F of the longest common subsequence of words (letters a-z and digits only), without stemming. chrF:
Popovic (2015), character n-grams up to 6, here of each answer, 0 to 100. Repetition: Welleck et al. (2020), the share
of 4-grams that occurred before. Reference perplexity is the model's own, on the answer that was wanted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from evidence.intervals import LEVEL, Interval, bootstrap_ratio, bounded_mean, perplexity, share
from judge.generations import Generation

Metric = dict[str, float | int]
LEAST = 4  # items: the interval's width has n - 3 in it


def rank_correlation(a: np.ndarray, b: np.ndarray) -> Metric | None:
    """Returns Spearman's correlation over items (n,) where both are finite, with Bonett and Wright's (2000) interval.

    tanh(artanh r +- z sqrt((1 + r^2 / 2) / (n - 3))). None for fewer than four items, or if one does not vary; without
    low and high if r is 1 or -1, since the formula then gives an interval of no width.
    """
    both = np.isfinite(a) & np.isfinite(b)
    a, b, n = a[both], b[both], int(both.sum())
    if n < LEAST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    r = float(stats.spearmanr(a, b).statistic)
    if math.isclose(abs(r), 1):
        return {"value": r, "n": n}
    centre = math.atanh(r)
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * math.sqrt((1 + r * r / 2) / (n - 3))
    return {"value": r, "low": math.tanh(centre - half), "high": math.tanh(centre + half), "n": n}


def agreement(measures: Mapping[str, np.ndarray], scores: np.ndarray) -> dict[str, Metric]:
    """Correlates each measure with a judge's scores (n,), nan for an item without one; leaves out those without r."""
    found = {name: rank_correlation(values, scores) for name, values in measures.items()}
    return {name: value for name, value in found.items() if value is not None}


def variance_components(scores: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """Estimates the variance of items and of the judge from repeated scores of each item: one-way random effects.

    With a items, k_i scores each and N in all: judge = within-item mean square, items = (between - within) / k0, k0 =
    (N - sum k_i^2 / N) / (a - 1), at least 0 (Searle, Casella and McCulloch 1992, section 3.6). `reliability`: the
    items' share in the variance of a mean over the usual number of repeats. None without two items and a repeat.
    """
    groups = [np.asarray(item, dtype=np.float64) for item in scores if len(item)]
    sizes = np.array([len(group) for group in groups])
    a, n = len(groups), int(sizes.sum())
    if a < 2 or n <= a:
        return None
    means = np.array([group.mean() for group in groups])
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups)) / (n - a)
    grand = float((sizes * means).sum()) / n
    between = float((sizes * (means - grand) ** 2).sum()) / (a - 1)
    k0 = (n - float((sizes**2).sum()) / n) / (a - 1)
    items = max(0.0, (between - within) / k0)
    total = items + within / k0
    return {"items": items, "judge": within, "reliability": items / total if total else None, "n": a, "scores": n}


HEADERS = ("### Instruction:", "### Input:", "### Response:")
GRAM = 4  # words
PERPLEXITY = "reference_perplexity"
SHARES = ("exact_match", "empty", "repeats_prompt", "contains_header", "ended")  # of answers: yes or no of each
MOST = {"rouge_l": 1.0, "chrf": 100.0, "repetition": 1.0, "length_ratio": math.inf}  # of an answer; the least is 0


def exact_match(answer: str, reference: str) -> float:
    """Returns 1 if the two differ at most in white space."""
    return float(answer.split() == reference.split())


def length_ratio(answer: str, reference: str) -> float:
    """Divides the number of words of the answer by that of the reference."""
    return len(answer.split()) / len(reference.split())


def repetition(answer: str) -> float:
    """Returns 1 - distinct / all word 4-grams; 0 for an answer without a 4-gram."""
    words = answer.split()
    grams = [tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repeats_prompt(answer: str, instruction: str) -> float:
    """Returns 1 if the whole instruction stands in the answer, whatever its case and spaces."""
    said, asked = (" ".join(text.lower().split()) for text in (answer, instruction))
    return float(bool(asked) and asked in said)


def contains_header(answer: str) -> float:
    """Returns 1 if the answer contains a header of the prompt."""
    return float(any(header in answer for header in HEADERS))


def overlap_scorers() -> tuple[Callable[[str, str], float], Callable[[str, str], float]]:
    """Returns two functions of (answer, reference): ROUGE-L from 0 to 1, and chrF from 0 to 100."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import CHRF

    rouge, chrf = RougeScorer(["rougeL"]), CHRF()
    return (
        lambda answer, reference: float(rouge.score(reference, answer)["rougeL"].fmeasure),
        lambda answer, reference: float(chrf.sentence_score(answer, [reference]).score),
    )


def measure(generations: Sequence[Generation]) -> dict[str, np.ndarray]:
    """Returns each measure as (n,), nan where an answer has none; a measure that no answer has is absent."""
    rouge_l, chrf = overlap_scorers()
    columns: dict[str, list[float]] = {}
    for question, answer, stopped, loss, tokens in generations:
        assert question.response is not None, "read_generations refuses a record without reference"
        wanted = question.response
        row = {"rouge_l": rouge_l(answer, wanted), "chrf": chrf(answer, wanted)}
        row |= {"exact_match": exact_match(answer, wanted), "length_ratio": length_ratio(answer, wanted)}
        row |= {"empty": float(not answer.strip()), "repeats_prompt": repeats_prompt(answer, question.instruction)}
        row |= {"contains_header": contains_header(answer), "repetition": repetition(answer)}
        row["ended"] = math.nan if stopped is None else float(stopped)
        row[PERPLEXITY] = math.nan if loss is None or not tokens else perplexity(loss / tokens)
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    arrays = {name: np.array(values) for name, values in columns.items()}
    return {name: values for name, values in arrays.items() if np.isfinite(values).any()}


def reference_perplexity(generations: Sequence[Generation]) -> Metric:
    """Returns the perplexity over all tokens of all references that were scored, as {value, low, high, n}."""
    known = [(g.reference_loss, g.reference_tokens) for g in generations if g.reference_loss is not None]
    losses, tokens = np.array([pair for pair in known if pair[1]], dtype=np.float64).T
    value, low, high, n = bootstrap_ratio(losses, tokens)
    return Interval(perplexity(value), perplexity(low), perplexity(high), n).entry()


def summarise(generations: Sequence[Generation], measures: Mapping[str, np.ndarray]) -> dict[str, Metric]:
    """Returns {value, low, high, n} of each measure: a mean over answers, or the perplexity."""
    found: dict[str, Metric] = {}
    for name, values in measures.items():
        known = values[np.isfinite(values)]
        if name == PERPLEXITY:
            found[name] = reference_perplexity(generations)
        elif name in SHARES:
            found[name] = share(known).entry()
        else:
            found[name] = bounded_mean(known, MOST[name]).entry()
    return found
