"""The question of a study: which data, of what kind and how much of it, which base, and the flags that say so."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from gpt2_scratch.sources import read_json
from studies.arms import CLASSES, INSTRUCTIONS, Arm, arms_of
from studies.runs import SCRIPTS, WATCHED
from tasks import NAMES, Classification, Instructions, Source, Splits, find
from tasks._splits import DRAWN
from training.data.sources import asked_rows, base_model, split_rows, unused_shares
from training.flags.cli import flag, given_flags, problems_in, refuse
from training.flags.command_line import parse
from training.flags.common import DataArgs, ModelArgs
from training.flags.compute import SpeedArgs
from training.flags.fields import words_of
from training.flags.scripts import load_script
from training.flags.task import PromptArgs, TextArgs
from training.flags.update import FEWEST_UPDATES, UpdateArgs
from training.storage.files import LOCK, alone, write_json
from training.storage.run_folder import nearest, unwritable

SMALL = 1_000  # examples, below which a quarter is tested
SHARES, SMALL_SHARES = (0.1, 0.1), (0.2, 0.25)  # of validation and test
MOST_TESTED, MOST_VALIDATED = 2_000, 400  # examples, unless a flag says otherwise


class Asked(NamedTuple):
    """The flags of the question, as scripts/study.py has them."""

    data: DataArgs
    model: ModelArgs
    text: TextArgs
    prompt: PromptArgs
    speed: SpeedArgs
    arms: tuple[str, ...]
    ranks: tuple[int, ...]
    batch_size: int


@dataclass(frozen=True)
class Question:
    classes: bool
    data: DataArgs  # with the shares and limits of the study
    words: tuple[str, ...]  # of data, base and columns
    splits: Splits[Any]
    task: Classification | Instructions
    rows: Source
    train: int  # examples that each seed draws
    arms: Mapping[str, Arm]
    updates: int  # at first

    @property
    def script(self) -> str:
        return "finetune_cls.py" if self.classes else "finetune_ift.py"


def asks_for_classes(data: DataArgs, text: TextArgs, prompt: PromptArgs) -> bool:
    """Returns whether the task is classification. Raises ValueError where neither data nor columns say so."""
    given = given_flags(text), given_flags(prompt)
    if all(given):
        first = [flag(next(iter(one))) for one in given]
        raise ValueError(f"{first[0]} is of classes, {first[1]} of instructions; leave one of them out")
    if data.dataset in NAMES:
        classes = isinstance(find(str(data.dataset), Classification, Instructions), Classification)
        if wrong := given[classes]:
            kind = "classes" if classes else "instructions"
            raise ValueError(f"{flag(next(iter(wrong)))}: --dataset {data.dataset} has {kind}; leave it out")
        return classes
    if not any(given):
        raise ValueError(
            "--data: name its columns, for classes with --text-column and --label-column, for instructions with "
            "--prompt-column and --response-column"
        )
    return bool(given[0])


def with_shares(data: DataArgs, examples: int) -> DataArgs:
    """Returns `data` with the study's shares and limits where the user has given none."""
    given, shares = given_flags(data), SMALL_SHARES if examples < SMALL else SHARES
    usual: dict[str, Any] = dict(zip(("validation_share", "test_share"), shares, strict=True))
    usual |= {"val_examples": MOST_VALIDATED, "test_examples": MOST_TESTED}
    return replace(data, **{name: value for name, value in usual.items() if name not in given})


def ask(asked: Asked) -> Question:
    """Reads data and base. Raises ValueError with all that is wrong with the flags of a run."""
    data, classes = asked.data, asks_for_classes(asked.data, asked.text, asked.prompt)
    columns = asked.text if classes else asked.prompt
    task = columns.task(data.dataset, data.data)
    source = asked_rows(task, data)
    _, config = base_model(asked.model.model, weights=False)
    whole = replace(data, train_examples=None, draw_seed=None, validation_share=0.0, test_share=0.0)
    every = split_rows(task, source, whole)  # to be counted, whatever shares there are
    data = with_shares(data, len(every.examples()))
    splits = split_rows(task, source, replace(data, train_examples=None))
    splits = replace(splits, notes=[*splits.notes, *unused_shares(asked.data, splits)])
    for name, part, does in (("validation", splits.validation, "chooses"), ("test", splits.test, "compares")):
        if not part:
            raise ValueError(
                f"--{name}-share {getattr(data, f'{name}_share'):g}: a study {does} on {name} examples; give more"
            )
    train = min(data.train_examples or round(DRAWN * len(splits.train)), len(splits.train))
    script = load_script(SCRIPTS / ("finetune_cls.py" if classes else "finetune_ift.py"))
    middles = {name: rate * 192 / config.width for name, (rate, _) in script.DEFAULTS.items()}
    names = asked.arms or (CLASSES if classes else INSTRUCTIONS)
    arms = arms_of(names, asked.ranks, config.blocks, classes, middles)
    words = (*words_of(replace(data, train_examples=None), asked.model, columns, asked.speed),)
    words += () if asked.batch_size == UpdateArgs.batch_size else ("--batch-size", str(asked.batch_size))
    for arm in arms:
        problems = problems_in(parse(script.Args, [*words, *arm.words]), config=config)
        refuse([problem.replace("--lora-rank ", "--ranks ", 1) for problem in problems])
    updates = max(FEWEST_UPDATES, -(-2 * train // asked.batch_size))
    return Question(classes, data, words, splits, task, source, train, {arm.name: arm for arm in arms}, updates)


def check_folder(folder: Path, question: Question, threads: int, base: str = "") -> dict[str, Any]:
    """Returns what the runs of the study share, with `base`, a hash of the weights, if it is known. Nothing is written.
    Raises ValueError for a folder that holds another study, or other files."""
    if not nearest(folder).is_dir():
        refuse(unwritable("--output-dir", folder))
    told = {"flags": [*question.words], "data": question.splits.fingerprint(), "threads": threads}
    told |= {"base": base} if base else {}
    path = folder / "study.json"
    remedy = f"delete {folder}, or give another --output-dir"
    known = read_json(path, remedy) if path.exists() else None
    told["watched"] = WATCHED if known is None else known.get("watched")  # older studies watched all
    if known is None and folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
        raise ValueError(f"--output-dir {folder}: holds other files; choose a new folder")
    for name, what in (("data", "data"), ("flags", "flags"), ("threads", "threads"), ("base", "weights of --model")):
        if known is not None and name in told and known.get(name, told[name]) != told[name]:
            raise ValueError(
                f"--output-dir {folder}: holds a study with other {what}; choose another folder, or delete it"
            )
    return (known or {}) | told


@contextmanager
def held(folder: Path, shared: dict[str, Any], dry_run: bool) -> Iterator[None]:
    """Makes the folder of the study, with what its runs share, and keeps other processes out of it; in a dry run
    neither. Raises ValueError where another study works in it."""
    if dry_run:
        yield
        return
    with alone(folder, "--output-dir", "another study.py"):
        write_json(folder / "study.json", shared)
        yield


def problem_of_drawing(question: Question, train: int) -> str:
    """Returns why a seed cannot be trained on so many examples: draws keep the shares of the classes, so that one of
    them may be left."""
    try:
        draws_of(question, 1, train)
    except ValueError as error:
        return str(error)
    return ""


def draws_of(question: Question, seeds: int, train: int | None = None) -> list[Splits[Any]]:
    """Returns the splits of each seed: validation and test stay, training examples are drawn."""
    data = replace(question.data, train_examples=train or question.train)
    return [split_rows(question.task, question.rows, replace(data, draw_seed=seed)) for seed in range(seeds)]
