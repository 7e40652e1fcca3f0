"""Rows as questions to a model: what can be read of a row is, whatever else it holds."""

from pathlib import Path

import pytest

from tasks import Source
from training.evaluation.applied import Applied
from training.evaluation.questions import ask, notes, tally
from training.flags.task import PromptArgs, TextArgs

NOWHERE = Path("mine.jsonl")  # rows that are in no file
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": 7}]


@pytest.mark.parametrize(
    ("args", "row", "label"),
    [
        (TextArgs(("text",), "label"), {"text": 7, "label": " ham "}, "ham"),
        (TextArgs(("text",), "label"), {"text": ["a"], "label": 1}, "1"),
        (TextArgs(("text",), "label"), {"text": 7, "label": ["a"]}, "a"),
        (TextArgs(("text",), "label"), {"text": 7, "label": ["a", "b"]}, "['a', 'b']"),
        (TextArgs(("text",), "label"), {"text": 7, "label": None}, None),
        (PromptArgs(), {"instruction": ["a"], "response": " b"}, " b"),
        (PromptArgs(), {"messages": TALK}, None),
    ],
)
def test_a_row_whose_text_cannot_be_read_has_its_label(args, row, label):
    source = Source({"all": [row]}, "mine", {"all": ["mine.jsonl"]})
    (question,) = ask(args.task(None, NOWHERE), source, ("--text-column", "--label-column"), None)
    assert (question.mark, question.label) == ("unreadable", label)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (PromptArgs(), ["the prompt includes column 'document' and 'system' because of its name"]),
        (PromptArgs(input_column="document"), ["the prompt includes column 'system' because of its name"]),
        (PromptArgs(input_column=""), ["the prompt includes column 'system' because of its name"]),
    ],
)
def test_a_column_that_is_taken_along_by_its_name_is_said(args, said):
    source = Source({"all": [{"question": "a", "document": "b.pdf", "system": "v2"}]}, "mine", {"all": ["mine.jsonl"]})
    questions = ask(args.task(None, NOWHERE), source, ("--prompt-column", "--response-column"), None)
    applied = Applied(Path("run"), "run", None)
    found = [note for note in notes(questions, tally(questions, applied), applied, "response") if "its name" in note]
    assert [note.split("; --input-column names another, '' none")[0] for note in found] == said
