"""SICK (Marelli et al. 2014): everyday sentence pairs with the same columns and labels as the medical set."""

from tasks._classification import Classification
from tasks._pairs import COLUMNS, LABELS, compose

TASK = Classification("sick", columns=COLUMNS, file="sick_nli.csv", labels=LABELS, compose=compose, required=all)
