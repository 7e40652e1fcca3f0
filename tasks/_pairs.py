"""Sentence pairs: does the first entail the second, contradict it, or neither? The form is the report authors'."""

from tasks._columns import Columns

LABELS = ("entailment", "contradiction", "neutral")
COLUMNS = (Columns(("sentence1", "sentence2"), "gold_label"), Columns(("premise", "hypothesis"), "label"))


def compose(inputs: tuple[str, ...]) -> tuple[str, str]:
    """Keeps the hypothesis whole: a pair too long for the model loses the end of its premise."""
    premise, hypothesis = inputs
    return f"\n\n### Premise:\n{premise.strip()}", f"\n\n### hypothesis:\n{hypothesis.strip()}"
