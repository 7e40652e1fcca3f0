"""Flags of one kind of task, and the task that they describe: a dataset of `tasks/` or the user's own file."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from gpt2_scratch.config import GPT2Config
from tasks import Classification, Columns, Instructions, find_or_own, folded, instruction_forms, join_lines
from tasks._cells import short
from tasks._labels import as_arguments, in_order
from training.flags.cli import at_least, flag
from training.flags.common import MethodArgs, ModelArgs
from training.flags.fields import AsPublished, Rare

G = TypeVar("G")


def twice_or_nothing(flags: str, named: list[str]) -> list[str]:
    """Returns a problem where a column is empty or named twice, which would put the answer among the inputs."""
    found = [f"{flags}: one of them is empty; name a column, or leave the flag out"] if "" in named else []
    twice = dict.fromkeys(name for name in named if name and named.count(name) > 1)
    return found + [f"{flags}: name column {short(name)} twice; give each of them another" for name in list(twice)[:1]]


@dataclass(frozen=True)
class TextArgs:
    """Columns and text"""

    text_column: tuple[str, ...] = ()
    """column or columns of the text, in your own file. Several are joined by line breaks"""
    label_column: str | None = None
    """column of the class, in your own file"""
    labels: tuple[str, ...] = ()
    """the classes in order; none given: those found in the file"""
    leave_out_labels: Rare[tuple[str, ...]] = ()
    """labels whose rows are left out and counted, such as - ? N/A; rows without a label are always left out"""
    truncate: Rare[Literal["premise-first", "tail"]] = "premise-first"
    """what to cut from a pair of sentences that is too long: its premise first, or its end"""
    pad_to: AsPublished[int | None] = None
    """append --pad-id up to this many tokens and read the class after them (as the report's authors did)"""
    pad_id: AsPublished[int] = 50256
    """token that --pad-to appends"""

    def problems(self) -> list[str]:
        found = at_least(self, 1, "pad_to")
        if not 0 <= self.pad_id < 50257:
            found.append(f"--pad-id {self.pad_id}: must be 0 to 50256")
        labels, left_out = ([folded(label) for label in names] for names in (self.labels, self.leave_out_labels))
        if twice := in_order({label for label in labels if labels.count(label) > 1}):
            found.append(f"--labels {as_arguments(twice)}: a class is named twice")
        if both := in_order({*labels} & {*left_out}):
            found.append(f"--leave-out-labels {as_arguments(both)}: is among --labels; choose one")
        named = [*self.text_column, *([] if self.label_column is None else [self.label_column])]
        return found + twice_or_nothing("--text-column and --label-column", named)

    def problems_given(self, config: GPT2Config) -> list[str]:
        if self.pad_to is not None and self.pad_to > config.context:
            return [f"--pad-to {self.pad_to}: the context of the model is {config.context} tokens"]
        if self.pad_to is not None and self.pad_id >= config.vocabulary:
            return [f"--pad-id {self.pad_id}: the model has {config.vocabulary:,} tokens; name one of its own"]
        return []

    def task(self, dataset: str | None, data: Path | None) -> Classification:
        """Returns the dataset's task, or that of `data`, with the columns and classes that the flags name."""
        task = find_or_own(dataset, data, Classification, (Columns(("text",), "label"),))
        wanted = len(task.columns[0].inputs)
        if self.text_column and task.compose is not join_lines and len(self.text_column) != wanted:
            raise ValueError(f"--text-column {' '.join(self.text_column)}: {task.name} takes {wanted} of them")
        columns = tuple(Columns(self.text_column or c.inputs, self.label_column or c.target) for c in task.columns)
        labels, left_out = (tuple(map(folded, names)) for names in (self.labels, self.leave_out_labels))
        return replace(task, columns=columns, labels=labels or task.labels, left_out=left_out)


@dataclass(frozen=True)
class HeadArgs:
    """The class head"""

    head: AsPublished[Literal["linear", "lm-token"]] = "linear"
    """linear: one output a class; lm-token: the first tokens of the vocabulary are the classes (the report's NLE)"""
    head_bias: AsPublished[bool] = False
    """give the class head a bias; Hugging Face's has none, so such a model cannot be exported"""
    head_training: Rare[Literal["train", "frozen+lora", "train+lora"]] = "train"
    """train the head itself, an adapter on a frozen one, or both"""

    @property
    def exportable(self) -> bool:
        """Whether Hugging Face's classifier has such a head."""
        return self.head == "linear" and not self.head_bias

    def notes(self) -> list[str]:
        """Returns what a user should know of the head before training."""
        apart = "this head exists here alone: the model cannot be exported to transformers or PEFT"
        return [] if self.exportable else [apart]

    def problems_given(self, method: MethodArgs, model: ModelArgs) -> list[str]:
        found = []
        if self.head_training != "train" and not method.adapts:
            found.append(f"--head-training {self.head_training}: needs a --method with adapters, like lora")
        if self.head == "lm-token" and self.head_training != "frozen+lora" and not model.untie_head:
            found.append(
                "--head lm-token: its weight is the token embedding; add --untie-head or --head-training frozen+lora"
            )
        if (
            self.head == "lm-token"
            and self.head_training == "frozen+lora"
            and method.train_embedding
            and not model.untie_head
        ):
            found.append(
                "--train-embedding: the head of --head lm-token is the token embedding, which --head-training "
                "frozen+lora freezes; leave one out"
            )
        if self.head == "linear" and model.untie_head:
            found.append("--untie-head: a classifier with a linear head has no LM head; leave it out")
        if self.head == "lm-token" and self.head_bias:
            found.append("--head-bias: a vocabulary head has none; leave it out with --head lm-token")
        if "lm-head" in method.lora_targets:
            found.append(
                "--lora-targets lm-head: a classifier has none; --head-training frozen+lora adapts the class head"
            )
        return found


def named_columns(known: Columns, args: Any) -> Columns:
    """Returns the columns of prompt, its input and response that the flags of `args` name, else those `known`."""
    prompt, *about = known.inputs
    about = about if args.input_column is None else [args.input_column] * bool(args.input_column)
    return known._replace(inputs=(args.prompt_column or prompt, *about), target=args.response_column or known.target)


@dataclass(frozen=True)
class PromptArgs:
    """Columns and prompt"""

    prompt_column: str | None = None
    """column of the instruction, or of the conversation (docs/chat.md); None: one with a usual name"""
    input_column: str | None = None
    """column of the instruction's input. None: input, context or passage, if there is one; '': none"""
    response_column: str | None = None
    """column of the response; None: one with a usual name. Usual names are response, output, completion and answer"""
    mask_prompt: AsPublished[bool] = True
    """train on the response only; off: on the prompt too (as the report's authors did)"""
    response_header: AsPublished[bool] = True
    """end the prompt with '### Response:'; off: the model has to write it (as the report's authors had it)"""

    def problems(self) -> list[str]:
        named = [n for n in (self.prompt_column, self.input_column or None, self.response_column) if n is not None]
        return twice_or_nothing("--prompt-column, --input-column and --response-column", named)

    def task(self, dataset: str | None, data: Path | None) -> Instructions:
        """Returns the dataset's task, or that of `data`, with the columns that the flags name."""
        forms = instruction_forms(self.prompt_column, self.response_column)
        task = find_or_own(dataset, data, Instructions, forms)
        columns, is_own = tuple(named_columns(known, self) for known in task.columns), task.columns is forms
        return replace(task, columns=columns, usual_columns=is_own, about=self.input_column is None)

    def problems_given(self, method: MethodArgs, model: ModelArgs) -> list[str]:
        if method.method == "head" and not model.untie_head:
            return ["--method head: the LM head is the token embedding; add --untie-head to train it apart"]
        return []


@dataclass(frozen=True)
class GenerationArgs:
    """Answers to the test prompts"""

    new_tokens: int = 128
    """most tokens of a response; 0: generate nothing"""
    temperature: float = 0.0
    """temperature of sampling; 0 is greedy"""
    top_k: Rare[int | None] = None
    """draw from the k likeliest tokens; None: all"""
    top_p: Rare[float | None] = None
    """draw from the fewest tokens that together reach this probability; None: all"""

    def problems(self) -> list[str]:
        found = at_least(self, 0, "new_tokens", "temperature") + at_least(self, 1, "top_k")
        if self.temperature == math.inf:
            found.append("--temperature inf: must be finite")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            found.append(f"--top-p {self.top_p}: must be above 0 and at most 1")
        for name in [name for name in ("top_k", "top_p") if getattr(self, name) is not None and self.temperature == 0]:
            found.append(
                f"{flag(name)} {getattr(self, name)}: nothing is drawn at --temperature 0; add --temperature 1"
            )
        return found

    def problems_given(self, model: ModelArgs, config: GPT2Config) -> list[str]:
        if self.new_tokens < config.context:
            return []
        limit = f"the context of {model.model} is {config.context} tokens, the prompt included"
        return [f"--new-tokens {self.new_tokens}: {limit}"]


def group_of(kind: type[G], flags: dict[str, Any]) -> G:
    """Builds the group of flags `kind` from the flat flags of results.json."""
    known = {field.name: flags[field.name] for field in fields(kind) if field.name in flags}  # type: ignore[arg-type]
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in known.items()})
