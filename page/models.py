"""What the playground does, without its page: it gets answers of several models, and attributions of a classifier."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from gpt2_scratch.generate import Sampling, stream
from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.pretrained import weights_hash
from gpt2_scratch.tokenizer import Tokenizer
from lora.adapter import adapters, set_strength
from lora.variants import VARIANTS
from tasks import RESPONSE_HEADER, Classification, Instruction, Labelled, join_lines
from tasks._cells import writable
from training.data.batches import encode_all_labelled, encode_prompt
from training.data.sources import base_model
from training.evaluation.applied import refuse_classifier
from training.evaluation.attribution import Attribution, Piece, attribute, pieces
from training.evaluation.inference import response_in
from training.flags.common import ModelArgs
from training.flags.task import TextArgs, group_of
from training.model.facts import facts_of
from training.model.methods import build_language_model
from training.model.saved import rebuild, refuse_tokenizer, tokenizer_of

METHODS = {name: variant.title for name, variant in VARIANTS.items()}
METHODS |= {"full": "Full fine-tuning", "bitfit": "Biases alone", "head": "Head alone"}
Results = dict[str, Any]  # results.json of a run


class Written(NamedTuple):
    """An answer so far. `state`: not asked for, growing, ended by the model, by the limit ("full") or by a person."""

    text: str = ""
    tokens: int = 0
    state: Literal["waiting", "writing", "ended", "full", "stopped"] = "waiting"


@dataclass(frozen=True)
class Answerer:
    """A model that answers. `lock` keeps the strength of its adapters as it is while a token is computed."""

    name: str
    origin: str
    model: LanguageModel
    tokenizer: Tokenizer
    response_header: bool = True
    adapters_alone: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def adapts(self) -> bool:
        """Whether the model without its adapters is the base: nothing else of it was trained."""
        return self.adapters_alone and next(adapters(self.model), None) is not None


@dataclass(frozen=True)
class Reader:
    """A classifier. `inputs` names the texts that it takes: one for a mail or review, two for a sentence pair."""

    name: str
    model: Classifier
    labels: list[str]
    task: Classification
    text: TextArgs
    max_length: int
    tokenizer: Tokenizer

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text",) if self.task.compose is join_lines else self.task.columns[0].inputs


class Reading(NamedTuple):
    """`cut`: whether the text was longer than what the classifier reads."""

    attribution: Attribution
    pieces: list[Piece]
    cut: bool


def name_of_method(flags: dict[str, Any]) -> str:
    rank = f", rank {flags['lora_rank']}" if flags["method"] not in ("full", "bitfit", "head") else ""
    return METHODS.get(flags["method"], flags["method"]) + rank


def names_of(folders: Sequence[Path]) -> dict[Path, str]:
    """Returns the name of each folder, all with as many of the folders above as tell them apart."""
    parts = {folder: folder.resolve().parts for folder in folders}
    names: dict[Path, str] = {}
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {folder: "/".join(each[-depth:]) for folder, each in parts.items()}
        if len(set(names.values())) == len(folders):
            break
    return names


def share_frozen(model: LanguageModel, base: LanguageModel) -> None:
    """Lets `model` share the tensors of `base` that equal its own, so that the frozen matrices are in memory once."""
    known = dict(base.named_parameters())
    for name, parameter in model.named_parameters():
        twin = known.get(name.replace(".linear.", "."))
        if twin is not None and twin.dtype == parameter.dtype and torch.equal(twin, parameter):
            parameter.data = twin.data


def open_answerers(runs: Sequence[tuple[Path, Results]], base: str | None, device: torch.device) -> list[Answerer]:
    """Opens the base, then the runs. Raises ValueError when one of them was trained on another base.

    `base`: where it is now, if not where the first run found it; without runs it is the only one.
    """
    name = base or runs[0][1]["args"]["model"]
    source, config = base_model(name)
    sha256 = weights_hash(source)
    for folder, results in runs:
        if results["model"]["sha256"] != sha256:
            raise ValueError(
                f"--instructions {folder}: was trained on other weights than {name}; give runs of one base"
            )
    refuse_classifier(f"--model {name}", source)
    asked = build_language_model(source, config, ModelArgs()).to(device).eval()
    own = find_tokenizer(source, config)
    found, names = [Answerer("Base model", Path(name).name, asked, own)], names_of([folder for folder, _ in runs])
    for folder, results in runs:
        model = rebuild(folder, results, base).to(device).requires_grad_(False)
        assert isinstance(model, LanguageModel)
        share_frozen(model, asked)
        known = facts_of(results).base
        assert known is not None, "a run knows its base"
        refuse_tokenizer(f"--instructions {folder}:", known, own, name)
        flags, reads = results["args"], tokenizer_of(folder, results, base)
        header, alone = flags.get("response_header", True), not flags.get("train_embedding")
        found.append(Answerer(name_of_method(flags), names[folder], model, reads, header, alone))
    return found


def open_readers(runs: Sequence[tuple[Path, Results]], base: str | None, device: torch.device) -> list[Reader]:
    """Opens the classifiers. Raises ValueError for an adapter whose base is not `base`, or has moved."""
    found, names = [], names_of([folder for folder, _ in runs])
    for folder, results in runs:
        flags, model = results["args"], rebuild(folder, results, base).to(device).requires_grad_(False)
        assert isinstance(model, Classifier)
        text = group_of(TextArgs, flags)
        task = text.task(flags["dataset"], Path(flags["data"]) if flags["data"] else None)
        name = f"{names[folder]} ({name_of_method(flags)})"
        reads = tokenizer_of(folder, results, base)
        found.append(Reader(name, model, results["data"]["labels"], task, text, flags["max_length"], reads))
    return found


def prompt_of(answerer: Answerer, question: Instruction, new_tokens: int) -> list[int]:
    """Returns the tokens of the prompt. Raises ValueError, a sentence for the page, if `new_tokens` have no room."""
    prompt = encode_prompt(answerer.tokenizer, question, response_header=answerer.response_header)
    context = answerer.model.config.context
    if len(prompt) + new_tokens > context:
        raise ValueError(
            f"The prompt has {len(prompt):,} tokens and {new_tokens:,} are to be written; the model has room for "
            f"{context:,} in all. Shorten the text or ask for fewer new tokens."
        )
    return prompt


def shown(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Returns an answer as far as it is written: without half a character, or a header that is not yet whole."""
    text = tokenizer.decode(list(tokens)).rstrip("\ufffd")
    return "" if RESPONSE_HEADER.startswith(text) else response_in(text)


def answer_one(
    answerer: Answerer, prompt: list[int], strength: float, new_tokens: int, sampling: Sampling
) -> Iterator[Written]:
    """Yields the answer after each token. The strength is set anew for each, so that people who ask at the same time,
    with other strengths, take turns at one model and do not disturb each other."""
    tokens: list[int] = []
    tokenizer = answerer.tokenizer
    following = stream(answerer.model, prompt, tokenizer.vocabulary, new_tokens, sampling)
    while True:
        with answerer.lock:
            set_strength(answerer.model, strength if answerer.adapts else 1.0)
            token = next(following)
        if token in tokenizer.vocabulary.ends:
            yield Written(shown(tokenizer, tokens), len(tokens), "ended")
            return
        tokens.append(token)
        state: Literal["full", "writing"] = "full" if len(tokens) == new_tokens else "writing"
        yield Written(shown(tokenizer, tokens), len(tokens), state)
        if state == "full":
            return


def side_by_side(
    answerers: Sequence[Answerer], instruction: str, about: str, strength: float, new_tokens: int, sampling: Sampling
) -> Iterator[list[Written]]:
    """Returns an iterator of all answers, a token longer each time; equal prompts draw equal random numbers. Raises at
    once what `prompt_of` raises, and ValueError for an empty instruction."""
    if not instruction.strip():
        raise ValueError("Write an instruction first.")
    question = Instruction(0, writable(instruction).strip(), writable(about).strip())
    prompts = [prompt_of(answerer, question, new_tokens) for answerer in answerers]
    answers = [
        answer_one(answerer, prompt, strength, new_tokens, sampling)
        for answerer, prompt in zip(answerers, prompts, strict=True)
    ]

    def rounds() -> Iterator[list[Written]]:
        latest = [Written(state="writing")] * len(answers)
        while any(w.state == "writing" for w in latest):
            latest = [next(a) if w.state == "writing" else w for a, w in zip(answers, latest, strict=True)]
            yield latest

    return rounds()


def read(reader: Reader, *texts: str) -> Reading:
    """Classifies a text, or the texts that it takes, and says what decided it. Raises ValueError for an empty one."""
    asked = tuple(writable(text) for text in texts[: len(reader.inputs)])
    if not all(text.strip() for text in asked):
        raise ValueError(f"Paste {' and '.join(f'a {name}' for name in reader.inputs)} first.")
    text, form = Labelled(0, *reader.task.compose(asked)), reader.text
    (encoded,) = encode_all_labelled(
        reader.tokenizer, [text], [0], reader.max_length, form.pad_to, form.pad_id, form.truncate == "tail"
    )
    tokens = encoded.tokens.tolist()
    attribution = attribute(reader.model, tokens, len(reader.labels))
    return Reading(attribution, pieces(tokens, attribution.weights, reader.tokenizer), encoded.cut)


def heaviest(found: Sequence[Piece], most: int) -> tuple[list[tuple[str, int, float]], ...]:
    """Returns (text, occurrences, summed weight) of the `most` heaviest pieces: those for the class, those against."""
    sums: dict[str, tuple[int, float]] = {}
    for piece in found:
        count, weight = sums.get(piece.text, (0, 0.0))
        sums[piece.text] = count + 1, weight + piece.weight
    ranked = sorted(((text, *sum) for text, sum in sums.items()), key=lambda entry: -abs(entry[2]))
    return [r for r in ranked if r[2] > 0][:most], [r for r in ranked if r[2] < 0][:most]
