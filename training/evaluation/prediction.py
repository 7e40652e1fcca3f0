"""Applies a trained model to questions, chunk by chunk: makes a line for each row, and collects the metrics."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from evidence.intervals import share
from gpt2_scratch.generate import Sampling
from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.tokenizer import Tokenizer
from tasks import RESPONSE_HEADER
from training.data.batches import encode_all_instructions, encode_all_labelled, encode_prompt
from training.data.special_tokens import special_tokens_note, texts_in
from training.evaluation.applied import Applied
from training.evaluation.inference import answer, classify, score_texts
from training.evaluation.metrics import Row, classification_metrics, commonest, name_of, perplexities
from training.evaluation.prediction_output import Line
from training.evaluation.questions import Question, Questions, seen_in
from training.flags.cli import refuse
from training.flags.common import ModelArgs
from training.flags.prediction import ApplyArgs
from training.flags.task import GenerationArgs, PromptArgs, TextArgs


def as_read(tokenizer: Tokenizer, text: str, kept: str, tokens: Sequence[int]) -> str:
    """Returns the beginning of `text` that is in `tokens`, and `kept` after it, spelled as in the file.

    If the tokenizer changes case or blanks, it is the longest beginning with as many tokens.
    """
    written = tokenizer.decode(tokens)
    if (text + kept).startswith(written) or (written.endswith(kept) and text.startswith(written.removesuffix(kept))):
        return written
    room = max(len(tokens) - len(tokenizer.encode(kept)), 0)
    fitting = bisect_right(range(len(text)), room, key=lambda end: len(tokenizer.encode(text[:end])))
    return text[: max(fitting - 1, 0)] + kept


def reading_notes(tokenizer: Tokenizer, questions: Questions) -> list[str]:
    """Returns what the user should know of how the rows become tokens, a sentence each."""
    texts = (text for q in questions if q.example is not None for text in texts_in(q.example))
    return [*tokenizer.notes, *special_tokens_note(tokenizer, texts, "texts")]


@dataclass
class Labeller:
    """A classifier. `scored`: the rows with a known label, each with the part of the training that had its text."""

    model: Classifier
    tokenizer: Tokenizer
    accelerator: Accelerator
    labels: tuple[str, ...]
    text: TextArgs
    longest: int  # tokens read of a text
    trained: Mapping[str, int]  # examples of each class that it was trained on; empty where that is not known
    cut: int = 0  # texts that were longer
    chunk = 2048  # rows at a time: enough to batch texts of similar length, too few to be a second copy of the file
    scored: list[tuple[str | None, Row]] = field(default_factory=list)

    def answers(self, asked: list[Question], seen: Mapping[int, str | None]) -> dict[int, Line]:
        """Returns the output lines by row."""
        text, cut_tail = self.text, self.text.truncate == "tail"
        index = {label: i for i, label in enumerate(self.labels)}
        form, targets = (text.pad_to, text.pad_id, cut_tail), [index.get(q.label or "", 0) for q in asked]
        encoded = encode_all_labelled(self.tokenizer, [q.example for q in asked], targets, self.longest, *form)
        found = classify(self.model, encoded, self.accelerator, len(self.labels))
        lines = dict[int, Line]()
        for q, x, row in zip(asked, encoded, found, strict=True):
            read = x.tokens[: len(x.tokens) - x.pads].tolist()
            parts = q.example.text, q.example.kept
            shown = as_read(self.tokenizer, *parts, read) if x.cut else "".join(parts)
            lines[q.row] = {"text": shown, "prediction": name_of(row.prediction, self.labels)}
            lines[q.row]["probabilities"] = dict(zip(self.labels, row.probabilities, strict=True))
            lines[q.row] |= {"cut": True} if x.cut else {}
            if q.label in index:
                self.scored.append((seen[q.row], row._replace(probabilities=())))
        self.cut += sum(x.cut for x in encoded)
        return lines

    def nothing(self, question: Question) -> Line:
        """Returns the line of a row without a text."""
        return {"text": "" if question.mark == "empty" else None, "prediction": None, "probabilities": None}

    def left_out(self) -> dict[str, int]:
        """Returns counts of the labels that are not scored: none."""
        return {}

    def notes(self) -> list[str]:
        return []

    def metrics(self, new_only: bool = False) -> dict[str, Any]:
        """Returns the metrics over all scored rows, or over those that are new to the model; empty without rows."""
        rows = [row for part, row in self.scored if not (new_only and part)]
        if not rows:
            return {}
        found = classification_metrics(rows, self.labels)
        most = commonest(self.trained or Counter(self.labels[row.label] for row in rows))
        always = {"label": most} | share([self.labels[row.label] == most for row in rows]).entry()
        return {"accuracy": found["accuracy"], "commonest_class": always} | found


@dataclass
class Responder:
    """A language model. `scored`: the losses of the rows with a response, from which perplexities follow."""

    model: LanguageModel
    tokenizer: Tokenizer
    accelerator: Accelerator
    prompt: PromptArgs
    max_length: int  # of prompt and response where they are scored
    longest: int  # tokens read of a prompt, which leaves room for the answer
    new_tokens: int
    seed: int
    cut: int = 0  # prompts that were longer
    unscored: int = 0  # responses that have no room behind their prompt
    cut_responses: int = 0  # scored as far as there was room
    chunk = 256
    scored: list[tuple[str | None, tuple[Row, Row, Row]]] = field(default_factory=list)

    def answers(self, asked: list[Question], seen: Mapping[int, str | None]) -> dict[int, Line]:
        """Returns the output lines by row."""
        header = self.prompt.response_header
        whole, prompts = (
            [encode_prompt(self.tokenizer, q.example, n, header) for q in asked] for n in (None, self.longest)
        )
        found = answer(self.model, self.tokenizer, prompts, self.accelerator, self.new_tokens, Sampling(seed=self.seed))
        lines = dict[int, Line]()
        for q, given, prompt, a in zip(asked, whole, prompts, found, strict=True):
            cut, parts = len(prompt) < len(given), (q.example.prompt(False), RESPONSE_HEADER * header)
            shown = as_read(self.tokenizer, *parts, prompt) if cut else "".join(parts)
            lines[q.row] = {"prompt": shown, "response": a.text, "stopped": a.stopped} | ({"cut": True} if cut else {})
        self.cut += sum("cut" in line for line in lines.values())
        flags = self.max_length, self.prompt.mask_prompt, header  # as in training, so that losses compare
        scored = [q.example for q in asked if q.example.response]
        known = encode_all_instructions(self.tokenizer, scored, *flags)
        encoded = [x for x in known if not x.left_out]
        self.unscored += len(known) - len(encoded)
        self.cut_responses += sum(x.cut for x in encoded)
        rows = zip(*score_texts(self.model, encoded, self.accelerator), strict=True)
        self.scored += [(seen[three[0].id], three) for three in rows]
        return lines

    def nothing(self, question: Question) -> Line:
        """Returns the line of a row without a prompt."""
        return {"prompt": None, "response": None, "stopped": None}

    def left_out(self) -> dict[str, int]:
        """Returns counts of the responses that are scored not at all or in part."""
        found = {"response_unscored": self.unscored, "response_cut": self.cut_responses}
        return {name: count for name, count in found.items() if count}

    def notes(self) -> list[str]:
        """Returns a sentence on each of these counts."""
        words = {"response_unscored": "not scored, since their prompts leave no room", "response_cut": "scored in part"}
        at = f"within --max-length {self.max_length}"
        return [f"responses {words[name]} {at}: {count:,}" for name, count in self.left_out().items()]

    def metrics(self, new_only: bool = False) -> dict[str, Any]:
        """Returns the perplexities over all scored rows, or those that are new to the model; empty without rows."""
        rows = [three for part, three in self.scored if not (new_only and part)]
        return perplexities(*zip(*rows, strict=True)) if rows else {}


def predictor(
    applied: Applied, accelerator: Accelerator, what: ApplyArgs, text: TextArgs, prompt: PromptArgs
) -> Labeller | Responder:
    """Loads the model. Raises ValueError where a length is beyond its context."""
    model, tokenizer = applied.load().to(accelerator.device), applied.tokenizer()
    if what.special_tokens is not None:
        tokenizer = tokenizer.reading(what.special_tokens)
    context = model.config.context
    longest = what.max_length or applied.flags.get("max_length") or min(512, context)
    if longest > context:
        raise ValueError(f"--max-length {longest}: the context of the model is {context} tokens")
    if isinstance(model, Classifier):
        refuse(text.problems_given(model.config))
        assert applied.labels is not None, "a classifier has classes"
        return Labeller(model, tokenizer, accelerator, applied.labels, text, longest, applied.training_labels)
    refuse(GenerationArgs(what.new_tokens).problems_given(ModelArgs(str(applied.folder)), model.config))
    room = context - what.new_tokens
    return Responder(
        model, tokenizer, accelerator, prompt, longest, room, what.new_tokens, applied.flags.get("seed", 0)
    )


def lines(by: Labeller | Responder, questions: Questions, applied: Applied, kept: Mapping[str, str]) -> Iterator[Line]:
    """Yields the output's lines in order; `kept`: column of the input -> its name. All processes iterate together."""
    silent = not by.accelerator.is_main_process
    with tqdm(total=len(questions), unit=" rows", dynamic_ncols=True, disable=silent) as bar:
        for chunk in questions.chunks(by.chunk):
            seen = {q.row: seen_in(q, applied) for q in chunk}
            answered = by.answers([q for q in chunk if q.example is not None], seen)
            for q in chunk:
                line: Line = {"row": q.row} | q.place | {name: q.cells.get(column) for column, name in kept.items()}
                line |= answered.get(q.row) or by.nothing(q)
                line |= {"label": q.label} if applied.labels and q.label is not None else {}
                line |= ({q.mark: True} if q.mark else {}) | ({"seen": seen[q.row]} if seen[q.row] else {})
                yield line
            bar.update(len(chunk))
