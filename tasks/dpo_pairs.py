"""Your own pairs of answers, with the columns of most public sets of preferences: prompt, chosen and rejected."""

from tasks._columns import Columns
from tasks._preferences import Preferences

TASK = Preferences("dpo_pairs", columns=(Columns(("prompt", "rejected"), "chosen"),), file="dpo_pairs.json")
