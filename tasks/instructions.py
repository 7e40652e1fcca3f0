"""Short instructions of the kinds the report tests, written for this project; 100 of them are the fixed test.

Half of the test is simple (spelling, grammar, voice, synonyms, antonyms, plurals, arithmetic, facts), half open-ended
(tweets, advice, descriptions, explanations), as the report's section 1.2 describes its own.
"""

from tasks._columns import Columns
from tasks._instructions import Instructions

TASK = Instructions(
    "instructions",
    columns=(Columns(("instruction", "input"), "response"), Columns(("instruction",), "response")),
    bundled="instructions.jsonl",
    fixed_columns=("kind", "split"),
)
