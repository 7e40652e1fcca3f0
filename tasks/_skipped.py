"""Counts rows that gave no example, by reason. A run prints them before it trains and keeps them in results.json."""

from dataclasses import dataclass


@dataclass
class Skipped:
    """Numbers of rows. People read the names, with spaces for the underscores."""

    empty: int = 0  # no text, prompt or answer to compare
    unlabelled: int = 0  # no label or response
    label_left_out: int = 0  # --leave-out-labels
    tool_calls: int = 0  # conversations with turns of tools
    images: int = 0  # conversations with images or other media
    not_trained: int = 0  # conversations whose last answer is marked as not to be trained on
    no_question: int = 0  # conversations in which the user says nothing
    different_context: int = 0  # pairs of conversations that diverge before the last answer
    duplicate: int = 0
    contradictory: int = 0
    prompt_held_out: int = 0  # training rows that ask what a held-out part asks
    over_limit: int = 0

    def said(self) -> str:
        """Lists the counts, for example "60 unlabelled, 3 duplicate"."""
        return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in vars(self).items() if count)

    def count(self, reason: str) -> None:
        setattr(self, reason, getattr(self, reason) + 1)
