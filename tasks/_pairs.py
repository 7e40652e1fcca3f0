"""Sentence pairs: does the first entail, contradict or not decide the second? The form is the report authors'."""

from tasks._columns import Columns

LABELS = ("entailment", "contradiction", "neutral")
COLUMNS = (Columns(("sentence1", "sentence2"), "gold_label"), Columns(("premise", "hypothesis"), "label"))


def compose(inputs: tuple[str, ...]) -> tuple[str, str]:
    """The hypothesis is kept whole: a pair too long for the model loses the end of its premise."""
    premise, hypothesis = inputs
    return f"\n\n### Premise:\n{premise.strip()}", f"\n\n### hypothesis:\n{hypothesis.strip()}"
