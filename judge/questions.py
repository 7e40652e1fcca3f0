"""What a judge is asked about a run: one question per item, or two per pair, each as often as wanted."""

from collections.abc import Container, Sequence
from typing import NamedTuple

from judge.generations import Generation
from judge.prompts import choice_prompt, prompt_hash, score_prompt
from judge.store import Key

ORDERS = ("ours", "theirs")  # whose answer is A


class Question(NamedTuple):
    """One request. `order`: whose answer is A in a pair, one of ORDERS; "" where one answer is scored."""

    item: int | str
    repeat: int
    order: str
    prompt: str

    def key(self, model: str) -> Key:
        """Returns the key under which judge/store.py keeps the reply."""
        return self.item, self.repeat, self.order, prompt_hash(self.prompt), model


def left_of(questions: Sequence[Question], model: str, replies: Container[Key]) -> list[Question]:
    """Returns the questions without a reply."""
    return [question for question in questions if question.key(model) not in replies]


def score_questions(generations: Sequence[Generation], style: str, repeats: int) -> list[Question]:
    """Returns a question about each item, then all of them again: an interrupted run covers as many items as it can."""
    prompts = [(g.question.id, score_prompt(g.question, g.answer, style)) for g in generations]
    return [Question(id, repeat, "", prompt) for repeat in range(repeats) for id, prompt in prompts]


def choice_questions(
    ours: Sequence[Generation], theirs: Sequence[Generation], style: str, repeats: int
) -> list[Question]:
    """Returns questions on each pair in both orders. `ours` and `theirs` answer the same ones, in the same order."""
    found = []
    for repeat in range(repeats):
        for one, other in zip(ours, theirs, strict=True):
            first, second = one.answer, other.answer
            for order in ORDERS:
                prompt = choice_prompt(one.question, first, second, style)
                found.append(Question(one.question.id, repeat, order, prompt))
                first, second = second, first
    return found
