"""Spam or not: 4,845 real mails of the SpamAssassin public corpus, bundled (source and licence: bundled/README.md)."""

from tasks._task import Classification, Columns

TASK = Classification(
    "spamassassin",
    columns=(Columns(("subject", "body"), "label"),),
    bundled="spamassassin.parquet",
    labels=("ham", "spam"),
)
