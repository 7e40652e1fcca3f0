"""Pairs of answers to short prompts, of which one is better, written for this project.

The better one is right and to the point; the other is wrong, evasive, repeats itself or misses the form asked for.
"""

from tasks._columns import Columns
from tasks._preferences import Preferences

TASK = Preferences("preferences", columns=(Columns(("prompt", "rejected"), "chosen"),), bundled="preferences.jsonl")
