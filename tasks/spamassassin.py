"""Spam or not: 4,845 real mails of the SpamAssassin public corpus, bundled (source and licence: bundled/README.md)."""

from tasks._classification import Classification
from tasks._columns import Columns

TASK = Classification(
    "spamassassin",
    columns=(Columns(("subject", "body"), "label"),),
    bundled="spamassassin.parquet",
    labels=("ham", "spam"),
)
