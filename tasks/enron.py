"""Spam or not: the Enron-Spam mails (Metsis et al. 2006), cleaned by M. Wiechmann; report section 1.2, third task.

The report reads the message alone (`--text-column Message`); a mail filter sees the subject too, so we default to both.
"""

from tasks._classification import Classification
from tasks._columns import Columns
from tasks._examples import Labelled
from tasks._splits import balanced

LABELS = ("ham", "spam")


def report_subset(parts: dict[str, list[Labelled]]) -> dict[str, list[Labelled]]:
    """Draws 1,000 mails of each class. The authors drew before removing duplicates, from a split without a seed."""
    return {"all": balanced([e for part in parts.values() for e in part], 2000, LABELS, seed=42)[0]}


TASK = Classification(
    "enron",
    columns=(Columns(("Subject", "Message"), "Spam/Ham"), Columns(("subject", "message"), "label_text")),
    file="enron_spam_data.parquet",
    hub="SetFit/enron_spam",
    labels=LABELS,
    report_subset=report_subset,
)
