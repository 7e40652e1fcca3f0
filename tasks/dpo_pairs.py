"""Pairs of answers that you have: prompt, chosen and rejected, the columns of most public sets of preferences."""

from tasks._columns import Columns
from tasks._preferences import Preferences

TASK = Preferences("dpo_pairs", columns=(Columns(("prompt", "rejected"), "chosen"),), file="dpo_pairs.json")
