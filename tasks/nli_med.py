"""Medical entailment, 100,000+ sentence pairs (presencesw/all_nli_med_v1); report section 1.2, fourth task."""

from tasks._classification import Classification
from tasks._examples import Labelled
from tasks._pairs import COLUMNS, LABELS, compose
from tasks._splits import balanced

REPORT_SIZES = {"test": 1998, "validation": 1998, "train": 12000}


def report_subset(parts: dict[str, list[Labelled]]) -> dict[str, list[Labelled]]:
    """Draws 12,000 / 1,998 / 1,998 balanced pairs, each from the source's own split if it has one."""
    rest = parts["all"]
    chosen: dict[str, list[Labelled]] = {}
    for name, size in REPORT_SIZES.items():
        if parts.get(name):
            chosen[name], _ = balanced(parts[name], size, LABELS, seed=123)
        else:
            chosen[name], rest = balanced(rest, size, LABELS, seed=123)
    return chosen


TASK = Classification(
    "nli_med",
    columns=COLUMNS,
    file="all_nli_med_v1.parquet",
    hub="presencesw/all_nli_med_v1",
    labels=LABELS,
    compose=compose,
    required=all,
    report_subset=report_subset,
)
