"""Measures of an answer that need no judge, one number for each answer.

ROUGE-L: Lin (2004), F of the longest common subsequence of words (letters a-z and digits only), without stemming. chrF:
Popovic (2015), character n-grams up to 6, here of each answer, 0 to 100. Repetition: Welleck et al. (2020), the share
of 4-grams that were there before. Reference perplexity is the model's, of the answer that was wanted.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evidence.intervals import Interval, bootstrap_mean, bootstrap_ratio, bounded_mean, perplexity, share
from judge.generations import Generation

HEADERS = ("### Instruction:", "### Input:", "### Response:")
GRAM = 4  # words
PERPLEXITY = "reference_perplexity"
SHARES = ("exact_match", "empty", "repeats_prompt", "contains_header", "ended")  # of answers: yes or no of each
MOST = {"rouge_l": 1.0, "chrf": 100.0, "repetition": 1.0}  # of an answer, where a measure has bounds
Metric = dict[str, float | int]


def exact_match(answer: str, reference: str) -> float:
    """1 where the two differ in white space at most."""
    return float(answer.split() == reference.split())


def length_ratio(answer: str, reference: str) -> float:
    """Words of the answer over words of the reference."""
    return len(answer.split()) / len(reference.split())


def repetition(answer: str) -> float:
    """1 - distinct / all word 4-grams; 0 for an answer without a 4-gram."""
    words = answer.split()
    grams = [tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repeats_prompt(answer: str, instruction: str) -> float:
    """1 where the whole instruction stands in the answer, whatever its case and spaces."""
    said, asked = (" ".join(text.lower().split()) for text in (answer, instruction))
    return float(asked in said)


def contains_header(answer: str) -> float:
    """1 where the answer goes on with a header of the prompt."""
    return float(any(header in answer for header in HEADERS))


def overlap_scorers() -> tuple[Callable[[str, str], float], Callable[[str, str], float]]:
    """Two functions of (answer, reference): ROUGE-L from 0 to 1, and chrF from 0 to 100."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import CHRF

    rouge, chrf = RougeScorer(["rougeL"]), CHRF()
    return (
        lambda answer, reference: float(rouge.score(reference, answer)["rougeL"].fmeasure),
        lambda answer, reference: float(chrf.sentence_score(answer, [reference]).score),
    )


def measure(generations: Sequence[Generation]) -> dict[str, np.ndarray]:
    """Each measure as (n,), nan where an answer has none; a measure that no answer has is absent."""
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
    """The perplexity over all tokens of all references that were scored, as {value, low, high, n}."""
    known = [(g.reference_loss, g.reference_tokens) for g in generations if g.reference_loss is not None]
    losses, tokens = np.array([pair for pair in known if pair[1]], dtype=np.float64).T
    value, low, high, n = bootstrap_ratio(losses, tokens)
    return Interval(perplexity(value), perplexity(low), perplexity(high), n).entry()


def summarise(generations: Sequence[Generation], measures: Mapping[str, np.ndarray]) -> dict[str, Metric]:
    """{value, low, high, n} of each measure: a mean over answers, or the perplexity."""
    found: dict[str, Metric] = {}
    for name, values in measures.items():
        known = values[np.isfinite(values)]
        if name == PERPLEXITY:
            found[name] = reference_perplexity(generations)
        elif name in SHARES:
            found[name] = share(known).entry()
        else:
            found[name] = (bounded_mean(known, MOST[name]) if name in MOST else bootstrap_mean(known)).entry()
    return found
