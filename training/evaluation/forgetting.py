"""Forgetting: what a model has lost of the language it knew, as its loss on a fixed general text before and after.

`before` is the loss of the model that training starts from, so that nothing trained is exactly nothing lost: the base
as it is held (--base-bits), with its adapters, which change nothing yet except with --lora-init loftq. Every interval
is over pieces of the text, that of the difference over the same pieces. What LoRA and full fine-tuning forget: Biderman
et al. 2024, "LoRA Learns Less and Forgets Less".
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import Tensor, nn

from evidence.intervals import bootstrap_ratio
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.pretrained import read_weight, without_storage
from gpt2_scratch.tokenizer import Tokenizer
from gpt2_scratch.weights import has_weights, keys
from lora.adapter import set_strength
from training.data.batches import Encoded
from training.data.corpus import fingerprint, pieces, tokenised
from training.evaluation.inference import score_targets
from training.flags.forgetting import ForgettingArgs

LONGEST = 512  # tokens of a piece
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class General:
    """The text in pieces, none of them if nothing is measured."""

    source: str | None = None
    sha256: str = ""  # of the tokens
    pieces: Sequence[Encoded] = ()
    head: Path | None = None  # folder of the base model, if its LM head is a matrix of its own
    curve: bool = False  # over STRENGTHS too

    @property
    def counts(self) -> np.ndarray:
        return np.array([piece.count for piece in self.pieces])


def general_text(args: ForgettingArgs, folder: Path, config: GPT2Config, tokenizer: Tokenizer) -> General:
    """The first tokens of the text, each but the first one a target. All but `args`: of the base model.

    Raises ValueError when the text has fewer than two tokens.
    """
    source = args.source()
    if source is None:
        return General()
    text = args.text()
    if len(tokenizer.encode(text[:256])) < 2:
        raise ValueError(f"--forgetting-data {source}: holds fewer than two tokens of text; give another file, or none")
    (document,) = tokenised([text], tokenizer)
    if args.forgetting_tokens is not None:
        document = document[: args.forgetting_tokens + 1]
    cut = pieces([document], min(LONGEST, config.context))
    head = None if config.tied_head else folder
    if head is not None and has_weights(folder) and "lm_head.weight" not in keys(folder):
        raise ValueError(
            f"--forgetting-data {source}: {folder} is a classifier's, without a head for language; "
            "add --forgetting-data none"
        )
    return General(source, fingerprint([document]), cut, head, args.forgetting_curve)


def language_model_in(model: LanguageModel | Classifier, head: Tensor | None = None) -> LanguageModel:
    """`model`, or the language model that a classifier shares its transformer with. `head` (V, C): None for the token
    embedding; that of `model` itself counts where there is one."""
    if isinstance(model, LanguageModel):
        return model
    inside = without_storage(LanguageModel, replace(model.config, tied_head=head is None))
    inside.transformer = model.transformer
    if head is not None:
        inside.lm_head.weight = nn.Parameter(head, requires_grad=False)
    inside.tie()
    return inside.train(model.training)


@contextmanager
def adapters_at(model: LanguageModel | Classifier, strength: float) -> Iterator[None]:
    """A class head stays as trained, with an adapter of its own or not: without it there is no task."""
    scaled = model.transformer if isinstance(model, Classifier) else model
    set_strength(scaled, strength)
    try:
        yield
    finally:
        set_strength(scaled, 1.0)


def general_losses(
    model: LanguageModel | Classifier, general: General, accelerator: Accelerator, strength: float = 1.0
) -> list[float]:
    """Loss in nats, summed over each piece; on all processes."""
    head = None
    if general.head is not None and isinstance(model, Classifier):
        head = read_weight(general.head, "lm_head.weight").to(accelerator.device)
    with accelerator.autocast(), adapters_at(model, strength):
        rows = score_targets(language_model_in(model, head), general.pieces, accelerator)
    return [row.loss for row in rows]


def forgetting(
    model: LanguageModel | Classifier,
    general: General,
    accelerator: Accelerator,
    before: list[float],
    task_metric: Callable[[], float],
) -> dict[str, Any] | None:
    """The entry of results.json; None when nothing is measured.

    `before`: losses of the pieces before training; `task_metric`: evaluates `model` as it is when called, for a curve.
    """
    if not general.pieces:
        return None
    was, now, counts = np.array(before), np.array(general_losses(model, general, accelerator)), general.counts
    tokens = int(counts.sum())
    found: dict[str, Any] = {"source": general.source, "tokens": tokens, "sha256": general.sha256}
    for name, losses in (("before", was), ("after", now), ("difference", now - was)):
        found[name] = bootstrap_ratio(losses, counts).entry()
    # So that runs can be averaged piece by piece.
    found["pieces"] = {"tokens": counts.tolist(), "before": was.round(4).tolist(), "after": now.round(4).tolist()}
    if general.curve:
        found["curve"] = []
        for strength in STRENGTHS:
            with adapters_at(model, strength):
                metric = task_metric()
            loss = float(np.sum(general_losses(model, general, accelerator, strength))) / tokens
            found["curve"].append({"strength": strength, "metric": metric, "general_loss": loss})
    return found
