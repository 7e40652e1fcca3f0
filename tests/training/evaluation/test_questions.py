"""Rows as questions to a model: what can be read of a row is, whatever else it holds."""

from pathlib import Path

import pytest

from tasks import Source
from training.evaluation.questions import ask
from training.flags.task import PromptArgs, TextArgs

NOWHERE = Path("mine.jsonl")  # rows that are in no file
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": 7}]


@pytest.mark.parametrize(
    ("args", "row", "label"),
    [
        (TextArgs(("text",), "label"), {"text": 7, "label": " ham "}, "ham"),
        (TextArgs(("text",), "label"), {"text": ["a"], "label": 1}, "1"),
        (TextArgs(("text",), "label"), {"text": 7, "label": ["a"]}, "['a']"),
        (TextArgs(("text",), "label"), {"text": 7, "label": None}, None),
        (PromptArgs(), {"instruction": ["a"], "response": " b"}, " b"),
        (PromptArgs(), {"messages": TALK}, None),
    ],
)
def test_a_row_whose_text_cannot_be_read_has_its_label(args, row, label):
    source = Source({"all": [row]}, "mine", {"all": ["mine.jsonl"]})
    (question,) = ask(args.task(None, NOWHERE), source, ("--text-column", "--label-column"), None)
    assert (question.mark, question.label) == ("unreadable", label)
