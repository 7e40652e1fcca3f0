"""Sentiment of film reviews, 0 negative and 1 positive (Maas et al. 2011); report section 1.2, second task."""

import random

from tasks._classification import Classification
from tasks._columns import Columns
from tasks._examples import Labelled


def compose(inputs: tuple[str, ...]) -> tuple[str, str]:
    """Turns the HTML line breaks of the reviews into plain ones."""
    return inputs[0].replace("<br />", "\n"), ""


def report_subset(parts: dict[str, list[Labelled]]) -> dict[str, list[Labelled]]:
    """Draws 15,000 reviews from all. The authors used one fifth of them both for validation and as their test."""
    everything = [e for part in parts.values() for e in part]
    if len(everything) < 15000:
        raise ValueError(f"--subset report needs 15,000 reviews, the data has {len(everything):,}")
    return {"all": random.Random(5).sample(everything, 15000)}


TASK = Classification(
    "imdb",
    columns=(Columns(("text",), "label"), Columns(("review",), "sentiment")),
    file="imdb_train.parquet",
    hub="stanfordnlp/imdb",
    compose=compose,
    report_subset=report_subset,
)
