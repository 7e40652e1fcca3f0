"""Prints what a study is about before it starts, and the forecast of --dry-run."""

import math
from collections import Counter
from collections.abc import Sequence

from scipy import special

from evidence.intervals import LEVEL
from studies.making import SCORING, Clock, Forecast
from studies.question import Question
from studies.runs import Recipe

MOST_CLASSES = 8  # named on one line


def print_question(question: Question, recipe: Recipe) -> None:
    splits = question.splits
    print(f"data       {question.rows.origin}; left out: {splits.skipped.said() or 'nothing'}")
    for note in splits.notes:
        print(f"note       {note}")
    for name, part in splits.named().items():
        counts = Counter(e.label for e in part if question.classes).most_common(MOST_CLASSES)
        shown = "  " + ", ".join(f"{label} {n:,}" for label, n in counts) if counts else ""
        print(f"  {name:<11}{len(part):>7,}{shown}")
    print(f"draws      each seed trains on {question.train:,} of {len(splits.train):,}")
    for arm in recipe.arms.values():
        print(f"arm        {arm.name:<16} rates around {arm.middle:.3g}", flush=True)
    print(f"folder     {recipe.folder}", flush=True)


def detectable(question: Question) -> str:
    """Returns what four of five studies would find if seeds did not vary and one in ten examples changed.

    Differences between seeds come on top; the answer of the study knows them.
    """
    n = len(question.splits.test)
    if not question.classes or n < 2:
        return ""
    quantiles = float(special.ndtri((1 + LEVEL) / 2) + special.ndtri(0.8))
    return f"{100 * quantiles * math.sqrt(0.1 / n):.1f} points of accuracy"


def print_forecast(
    question: Question, recipe: Recipe, clock: Clock, one: Forecast, arms: Sequence[str], of_arm: int, seeds: int
) -> None:
    """Prints what so many runs `of_arm` take, of each arm."""
    runs = of_arm * len(arms)
    seconds = clock.needed(runs, recipe.updates) + SCORING * clock.needed(seeds * len(arms), recipe.updates)
    print(f"\nforecast   {len(arms)} arms ({', '.join(arms)}), {seeds} seeds")
    print(f"  runs                {runs:>8,} of {recipe.updates:,} updates, {7 * seeds * len(arms):,} without the race")
    print(f"  one run             {one.seconds:>8,.0f} s, {one.memory_mib:,.0f} MiB, the largest arm")
    print(f"  at a time           {clock.workers:>8,}")
    short = clock.minutes is not None and seconds > 60 * clock.minutes
    over = f"; more than --minutes {clock.minutes:g}" if short else ""
    twice = "or half or twice that with half or twice the updates"
    print(f"  in all              {seconds / 60:>8,.1f} minutes, {twice}{over}")
    if least := detectable(question):
        print(
            f"  could be found      {least} or more, on {len(question.splits.test):,} test examples; more as seeds vary"
        )
