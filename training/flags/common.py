"""The flags that several scripts have, in groups that check their own values.

Nothing heavy is imported, so that `--help` and a refusal come at once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

from gpt2_scratch.config import GPT2Config
from training.flags.cli import at_least, changed_flags, flag, given_flags, note
from training.flags.fields import AsPublished, Rare
from training.flags.method import BLOCK_TARGETS as BLOCK_TARGETS
from training.flags.method import MethodArgs as MethodArgs
from training.flags.method import ModelArgs as ModelArgs
from training.flags.update import UpdateArgs as UpdateArgs

E = TypeVar("E")
G = TypeVar("G")
Tracker = Literal[
    "tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "none"
]


def fitted(group: G, config: GPT2Config) -> G:
    """Returns the group with the context of the base as --max-length, where its default is longer than that."""
    flags: Any = group
    if flags.max_length <= config.context or "max_length" in given_flags(group):
        return group
    note(f"--max-length is {config.context}, the context of the base (by default {flags.max_length})")
    return replace(flags, max_length=config.context)


@dataclass(frozen=True)
class DataArgs:
    """Where the examples come from and how they are split"""

    dataset: str | None = None
    """a file in tasks/, or a data set OWNER/NAME of the hub. For one of the hub, name its columns too"""
    dataset_config: Rare[str | None] = None
    """configuration of a data set of the hub, where it has several"""
    split: Rare[tuple[str, ...]] = ()
    """splits of a data set of the hub as PART=SPLIT (train=train_sft test=test_sft); a split without PART is for
    training; none given: chosen by their names"""
    data: Path | None = None
    """csv, tsv, json, jsonl, parquet or arrow file, or a folder of them. A file may end in .gz, a folder may be what
    save_to_disk wrote; None: the dataset's file in $DATA_DIR, else the bundled one, else the hub's"""
    encoding: Rare[str | None] = None
    """encoding of text files, like cp1252; None: UTF-8, or what a byte order mark says"""
    subset: AsPublished[Literal["all", "report"]] = "all"
    """report: choose the examples by the rule that the report used for this dataset"""
    validation_share: Rare[float] = 0.1
    """share of the examples held out for validation (where the source has no validation part)"""
    test_share: Rare[float] = 0.1
    """share held out for the test (where the source has no test part)"""
    train_examples: int | None = None
    """at most this many training examples; None: all"""
    val_examples: Rare[int | None] = None
    """at most this many validation examples; None: all"""
    test_examples: Rare[int | None] = None
    """at most this many test examples; None: all"""
    split_seed: Rare[int] = 0
    """seed of the split alone, so that runs with different --seed are tested on the same examples"""
    draw_seed: Rare[int | None] = None
    """draw the training examples with a seed of their own, --train-examples of them or else four fifths; validation and
    test stay those of --split-seed. So runs with other seeds say how much the training sample matters. None: all, or
    --split-seed draws them"""
    train_on: Rare[Literal["train", "all"]] = "train"
    """all: train on the validation and test examples too, for use once everything is chosen; nothing is left to test"""
    max_length: int = 512
    """most tokens of an example. Longer ones are cut, and counted. The default is at most the context of the base"""
    special_tokens: Rare[Literal["text", "tokens"]] = "text"
    """how to read what spells <|endoftext|> or another special token of the base: as ordinary text, or as that token;
    then other models' end markers (</s>, <|im_end|>) are the end of text too, and a response with one gets no second"""

    def problems(self) -> list[str]:
        found = []
        if self.dataset is None and self.data is None:
            found.append("--dataset or --data: one of them is needed (--dataset spamassassin works offline)")
        if self.data is not None and self.dataset is not None and "/" in self.dataset:
            found.append(f"--dataset {self.dataset}, --data {self.data}: choose one; --data names files")
        for name in ("validation_share", "test_share"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"{flag(name)} {getattr(self, name)}: must be at least 0 and below 1")
        if self.validation_share + self.test_share >= 1:
            found.append("--validation-share and --test-share: together they must be below 1")
        held_out = {"val_examples", "test_examples", "validation_share", "test_share"} & {*changed_flags(self)}
        if self.train_on == "all" and (limits := sorted(held_out)):
            found.append(f"--train-on all: leaves nothing for {flag(limits[0])}; leave one of the two out")
        found += at_least(self, 0, "split_seed", "draw_seed")
        found += at_least(self, 1, "train_examples", "val_examples", "test_examples", "max_length")
        return found

    def problems_given(self, model: ModelArgs, config: GPT2Config) -> list[str]:
        if self.max_length > config.context and "max_length" in given_flags(self):
            return [f"--max-length {self.max_length}: the context of {model.model} is {config.context} tokens"]
        return []


@dataclass(frozen=True)
class FolderArgs:
    """The run folder"""

    output_dir: Path | None = None
    """folder of the run; None: one in runs/<script>/. It is named after data or size, base, method and seed"""
    overwrite: bool = False
    """delete what the output folder holds"""
    resume: bool = False
    """go on from the checkpoint in the output folder"""
    report_to: tuple[Tracker, ...] = ("tensorboard",)
    """trackers that get flags, curves, results and sample answers. TensorBoard writes into the output folder"""

    def problems(self) -> list[str]:
        found = ["--overwrite and --resume: choose one"] if self.overwrite and self.resume else []
        if not self.report_to or ("none" in self.report_to and len(self.report_to) > 1):
            found.append("--report-to: name trackers, or none alone")
        if len({*self.report_to}) < len(self.report_to):
            found.append(f"--report-to {' '.join(self.report_to)}: names a tracker twice; name each once")
        return found + [
            f"--report-to {name}: needs {name}; pip install {name.replace('_', '-')}"
            for name in self.report_to
            if name != "none" and find_spec(name) is None
        ]


@dataclass(frozen=True)
class RunArgs(FolderArgs):
    """Evaluation and the run folder"""

    eval_every: int | None = None
    """optimizer steps between evaluations; None: a tenth of the run"""
    eval_batches: AsPublished[int | None] = None
    """evaluate on only n batches of the validation set while training (as the report's authors did); None: on all"""
    keep: Rare[Literal["best", "last"]] = "best"
    """weights to save and test: those of the lowest validation loss, or the last (as the report's authors did)"""
    score: Rare[Literal["all", "trained", "validation"]] = "all"
    """what is measured: all: the test examples before the training too; trained: after it alone; validation: neither
    them nor the general text. Then the same command with --resume and one of the others measures the rest, of the
    weights that were kept (so scripts/study.py tests only what it has chosen)"""
    early_stop: int | None = None
    """stop after n evaluations without a lower validation loss"""
    save_every: Rare[int | None] = None
    """optimizer steps between checkpoints; None: at every evaluation"""
    log_every: Rare[int | None] = None
    """optimizer steps between points of the training curve; None: a hundredth of the run"""
    push_to_hub: str | None = None
    """repository OWNER/NAME of the hub for the adapter or model. It is created if need be, and gets a card and the
    run's flags too"""

    def check_examples(self, validation: Sequence[object]) -> None:
        """Raises ValueError when --early-stop is given and there are no validation examples."""
        if self.early_stop is not None and not validation:
            raise ValueError(f"--early-stop {self.early_stop}: there are no validation examples to stop by")

    def notes(self, steps: int, validation: Sequence[object]) -> list[str]:
        """Returns what a user should know, before training, of flags that change nothing in so many steps."""
        if not validation:
            given = [name for name in ("eval_every", "eval_batches") if getattr(self, name) is not None]
            return [f"{flag(name)} changes nothing, since there are no validation examples" for name in given]
        evaluations = -(-steps // self.evaluates_every(steps))
        if self.early_stop is not None and self.early_stop >= evaluations:
            asked = f"--early-stop {self.early_stop}"
            return [f"{asked} stops nothing, since there are {evaluations} evaluations: lower it or --eval-every"]
        return []

    def evaluates_every(self, steps: int) -> int:
        """Returns the steps between evaluations: by default a tenth of the run."""
        return self.eval_every or max(1, -(-steps // 10))

    def watched(self, validation: Sequence[E], batch_size: int) -> Sequence[E]:
        """Returns the validation examples that are evaluated while training: always the same ones."""
        wanted = len(validation) if self.eval_batches is None else self.eval_batches * batch_size
        return validation if wanted >= len(validation) else random.Random(0).sample(validation, wanted)

    def problems(self) -> list[str]:
        found = at_least(self, 1, "eval_every", "eval_batches", "early_stop", "save_every", "log_every")
        return found + super().problems()
