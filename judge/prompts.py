"""What the judge is asked: the report's question (appendix 5.2), as published or as in its authors' code, and pairs."""

import hashlib
from typing import Any

from tasks import Instruction

# The authors' code puts back-ticks around the three texts; the report prints the prompt without them.
MARKS = {"published": "", "authors": "`"}
SCORE = (
    "Given the input {m}{question}{m} and correct output {m}{reference}{m}, score the model response {m}{answer}{m} on "
    "a scale from 0 to 100, where 100 is the best score. Respond with the integer number only."
)
CHOICE = (
    "Given the input {m}{question}{m} and correct output {m}{reference}{m}, compare the model response A "
    "{m}{answer}{m} with the model response B {m}{other}{m}. Which one is better? Respond with A, B or tie only."
)
TIE = "tie"
SCORE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 100}},
    "required": ["score"],
    "additionalProperties": False,
}
CHOICE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"winner": {"type": "string", "enum": ["A", "B", TIE]}},
    "required": ["winner"],
    "additionalProperties": False,
}


def score_prompt(question: Instruction, answer: str, style: str) -> str:
    """Asks for a score from 0 to 100. `question.response` is the reference; the prompt has no response header."""
    return _fill(SCORE, question, style, answer=answer)


def choice_prompt(question: Instruction, first: str, second: str, style: str) -> str:
    """Asks which of two answers is better; the words and marks are those of `score_prompt`."""
    return _fill(CHOICE, question, style, answer=first, other=second)


def prompt_hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


def _fill(template: str, question: Instruction, style: str, **answers: str) -> str:
    shown = question.prompt(response_header=False)
    return template.format(m=MARKS[style], question=shown, reference=question.response, **answers)
