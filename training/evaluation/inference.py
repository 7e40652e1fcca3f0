"""Evaluates examples on all processes and gathers a row for each; no number depends on the batching."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.nn import functional as F

from gpt2_scratch.generate import Sampling, generate
from gpt2_scratch.model import Classifier, LanguageModel, Model
from gpt2_scratch.tokenizer import Tokenizer
from gpt2_scratch.transfer import to_device
from lora.adapter import merge, unmerge
from tasks import RESPONSE_HEADER, Instruction
from training.data.batches import (
    IGNORED,
    TOKENS_PER_BATCH,
    Batch,
    Encoded,
    collate,
    encode_prompt,
    inference_plan,
    with_all_tokens_labelled,
)
from training.data.examples import Data
from training.data.sources import Inputs
from training.evaluation.metrics import Row, name_of
from training.step.sharding import generating, is_sharded, pass_through, whole_root
from training.step.side_by_side import at_a_time, side_by_side

R = TypeVar("R")


class Answer(NamedTuple):
    """A response, and whether the model ended it by itself."""

    text: str
    stopped: bool


@torch.no_grad()
def classify(model: Classifier, examples: Sequence[Encoded], accelerator: Accelerator, classes: int) -> list[Row]:
    """Returns a row for each example in order, with the probabilities of the first `classes` outputs."""

    def rows(batch: Batch) -> list[Row]:
        logits = model(batch.tokens, batch.lengths, batch.hidden).float()  # (B, n)
        losses = F.cross_entropy(logits, to_device(batch.labels, logits.device), reduction="none").tolist()
        probabilities = logits.softmax(1)[:, :classes].tolist()
        columns = zip(
            batch.example_ids, batch.labels.tolist(), losses, logits.argmax(1).tolist(), probabilities, strict=True
        )
        return [Row(id, label, loss, 1, predicted, tuple(p)) for id, label, loss, predicted, p in columns]

    return _evaluate(model, examples, accelerator, rows)


@torch.no_grad()
def score_targets(model: LanguageModel, examples: Sequence[Encoded], accelerator: Accelerator) -> list[Row]:
    """Returns a row for each example in order, with the loss summed over its targets."""

    def rows(batch: Batch) -> list[Row]:
        log_probabilities = model(batch.tokens, batch.lengths, batch.labels, batch.hidden).cpu().double()  # (M,)
        counts = [int(part.sum()) for part in (batch.labels != IGNORED).split(batch.lengths.tolist())]
        sums = [-float(part.sum()) for part in log_probabilities.split(counts)]
        return [Row(id, -1, loss, count) for id, loss, count in zip(batch.example_ids, sums, counts, strict=True)]

    return _evaluate(model, examples, accelerator, rows)


@torch.no_grad()
def score_texts(
    model: LanguageModel, examples: Sequence[Encoded], accelerator: Accelerator
) -> tuple[list[Row], list[Row], list[Row]]:
    """Returns rows with the loss of each example's targets, of its response, and of its whole text, from one pass."""
    known = {e.id: e for e in examples}

    def rows(batch: Batch) -> list[Row]:
        log_probabilities = model(batch.tokens, batch.lengths, batch.labels, batch.hidden).cpu().double()  # (N,)
        found = []
        for id, part in zip(batch.example_ids, log_probabilities.split(batch.lengths.tolist()), strict=True):
            targets = torch.from_numpy(known[id].labels != IGNORED)
            for chosen in (part[targets], part[known[id].response_from :], part):
                found.append(Row(id, -1, -float(chosen.sum()), len(chosen)))
        return found

    found = _evaluate(model, [with_all_tokens_labelled(e) for e in examples], accelerator, rows)
    return found[::3], found[1::3], found[2::3]


def answer(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    accelerator: Accelerator,
    new_tokens: int,
    sampling: Sampling,
) -> list[Answer]:
    """Returns what the model writes after each prompt, in order; the processes share the prompts, adapters are merged.

    Adapters beside quantised or sharded layers are not merged: that would be faster, but would take the memory that
    these save.
    """
    mine = range(accelerator.process_index, len(prompts), accelerator.num_processes)
    if not is_sharded(model):
        merge(model, dequantise=False)
    try:
        with accelerator.autocast(), generating(accelerator, model):  # frozen weights may be in half precision
            written = generate(model, [prompts[i] for i in mine], tokenizer.vocabulary, new_tokens, sampling)
    finally:
        unmerge(model)
    texts = [response_in(tokenizer.decode(w.tokens)) for w in written]
    found = [(i, Answer(text, w.stopped)) for i, text, w in zip(mine, texts, written, strict=True)]
    return [answer for _, answer in sorted(_gather(found, accelerator))]


def response_in(text: str) -> str:
    """Returns the text after the header, which the model may have had to write itself (--no-response-header). White
    space at the ends stays: a model writes it where the responses that it learnt have it."""
    return text.removeprefix(RESPONSE_HEADER)


def _gather(found: list[R], accelerator: Accelerator) -> list[R]:
    return gather_object(found) if accelerator.num_processes > 1 else found


def _evaluate(
    model: Model, examples: Sequence[Encoded], accelerator: Accelerator, rows: Callable[[Batch], list[Row]]
) -> list[Row]:
    was_training = model.training
    model.eval()
    threads, lengths = at_a_time(accelerator), [len(e.tokens) for e in examples]
    plan = inference_plan(lengths, TOKENS_PER_BATCH // threads, accelerator.num_processes)
    mine = plan[accelerator.process_index]

    def rows_of(batch: list[int]) -> list[Row]:
        return rows(collate([examples[i] for i in batch]).to(accelerator.device))

    with whole_root(model):
        found = [row for part in side_by_side(rows_of, mine, threads) for row in part]
        pass_through(accelerator, model, len(plan[0]) - len(mine))
    model.train(was_training)
    place = {e.id: i for i, e in enumerate(examples)}
    return sorted(_gather(found, accelerator), key=lambda row: place[row.id])


def prediction_lines(rows: Sequence[Row], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the lines of predictions.jsonl, one for each example."""
    return [
        {"id": r.id, "label": classes[r.label], "prediction": name_of(r.prediction, classes)}
        | {"probabilities": dict(zip(classes, r.probabilities, strict=True)), "loss": r.loss}
        for r in rows
    ]


def loss_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns the lines of validation.jsonl for texts: the loss of each response, in nats, and its tokens."""
    return [{"id": row.id, "reference_loss": row.loss, "reference_tokens": row.targets} for row in rows]


def prompts_of(
    inputs: Inputs[Any], data: Data[Encoded], new_tokens: int, response_header: bool
) -> tuple[list[Instruction], list[list[int]]]:
    """Returns the test examples and their encoded prompts, with room for an answer; no prompts without `new_tokens`."""
    asked = {e.id for e in data.test}
    questions = [e for e in inputs.splits.test if e.id in asked]
    longest = inputs.config.context - 1 if new_tokens else 0
    return questions, [encode_prompt(inputs.tokenizer, e, longest, response_header) for e in questions if longest]


def generation_lines(
    questions: Sequence[Instruction],
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    rows: Sequence[Row],
) -> list[dict[str, Any]]:
    """Returns the lines of generations.jsonl: answers `before` and `after`, if any were asked for, and from `rows` the
    references' losses."""
    answers: list[dict[str, Any]] = [
        ({"before": was["text"]} if was else {}) | {"response": now["text"], "stopped": now["stopped"]}
        for was, now in zip(before or [{}] * len(after), after, strict=True)
    ]
    return [
        {"id": e.id, "instruction": e.instruction, "input": e.input, "reference": e.response, "kind": e.kind}
        | answer
        | {"reference_loss": row.loss, "reference_tokens": row.targets}
        for e, answer, row in zip(questions, answers or [{}] * len(rows), rows, strict=True)
    ]
