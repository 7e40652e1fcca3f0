"""Finds the data and the base model before anything heavy is loaded, torch included.

Data is looked for in: --data, the dataset's usual file in $DATA_DIR (default data/), the bundled file, the hub.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.sources import BUNDLED as BUNDLED_BASES
from gpt2_scratch.sources import load_config, on_hub, repository_of, resolve, resolve_config
from gpt2_scratch.tokenizer import Tokenizer
from tasks import NAMES, Limits, Skipped, Source, Splits, Task, read_rows, split_examples
from tasks._cells import listed
from tasks._classification import OneClass
from tasks._hub import choose_splits, open_hub, read_splits
from tasks._task import BUNDLED
from training.data.hub import HubError, from_hub, used_as_cached, without_network
from training.data.hub_upload import check_upload
from training.data.special_tokens import notes_on
from training.flags.cli import given_flags, problems_in, refuse, say
from training.flags.common import DataArgs
from training.flags.finetuning import FineTuneArgs

K = TypeVar("K", bound=Task)


@dataclass(frozen=True)
class Inputs(Generic[K]):
    """All that a run reads: the task, its examples and their source; folder, shape and tokenizer of the base."""

    task: K
    splits: Splits[Any]
    source: str
    model_folder: Path
    config: GPT2Config
    tokenizer: Tokenizer
    weights: Path | None  # the same folder if it holds weights; for a dry run they stay on the hub


def _asking(source: str, asked: str) -> AbstractContextManager[None]:
    """Returns a context that explains errors of the hub; those of a folder or a name need no explanation."""
    if not on_hub(source):
        return nullcontext()
    repository_of(source, asked)
    return from_hub(asked, source, "model")


def base_model(source: str, asked: str = "--model", weights: bool = True) -> tuple[Path, GPT2Config]:
    """Returns folder and shape of a base model, downloaded if need be, without its weights if `weights` is off. Raises
    ValueError, naming the flag `asked`, when there is none that we can use."""
    with _asking(source, asked):
        folder = resolve_config(source, asked)
    if source in BUNDLED_BASES and (Path(source) / "config.json").is_file():
        say(f"note    {asked} {source} is the bundled model, not the folder of that name; ./{source} is the folder")
    config = load_config(folder, asked)
    if weights or not on_hub(source):
        with _asking(source, asked):
            folder = resolve(source, asked)
    if on_hub(source) and (cached := used_as_cached(source)):
        say(f"note    {cached}")
    return folder, config


def _hub_rows(name: str, repository: str, encoding: str | None, config: str | None, splits: Sequence[str]) -> Source:
    """Reads those splits of a data set of the hub that are train, validation and test by their names or by --split."""
    with from_hub("--dataset", name, "dataset"):
        found = open_hub(repository, config)
    chosen = choose_splits(name, list(found.splits), splits)
    with from_hub("--dataset", name, "dataset"):
        source = read_splits(found, chosen, encoding)
    if empty := [part for part, rows in source.parts.items() if not rows]:
        raise ValueError(f"--dataset {name}: {' and '.join(empty)} hold no rows of text; choose others with --split")
    cached = used_as_cached(repository)
    if found.why_last_seen and not cached:
        cached = f"{name} is used as it was last seen: {found.why_last_seen[:120]}"
    return replace(source, notes=[*source.notes, cached] if cached else source.notes)


def locate_rows(
    task: Task, data: Path | None, encoding: str | None = None, config: str | None = None, splits: Sequence[str] = ()
) -> Source:
    """Reads the rows of `data`, else of the dataset's usual place; `config` and `splits` are for a data set of the hub.
    Raises ValueError when there are none."""
    usual = Path(os.environ.get("DATA_DIR") or "data") / task.file if task.file else None
    if data is not None:
        source = read_rows(data, encoding)
    elif usual is not None and usual.exists():
        source = replace(read_rows(usual, encoding), origin=f"$DATA_DIR/{task.file}")
    elif task.bundled is not None and encoding is not None:
        raise ValueError(f"--encoding {encoding}: the bundled {task.bundled} is UTF-8; leave it out")
    elif task.bundled is not None:
        source = replace(read_rows(BUNDLED / task.bundled), origin=f"bundled {task.bundled}")
    elif task.hub is not None:
        return _hub_rows(task.name if task.name in NAMES else task.hub, task.hub, encoding, config, splits)
    else:
        raise ValueError(f"--dataset {task.name}: not on the hub; give --data, or put {task.file} into $DATA_DIR")
    if config or splits:
        flags = f"--split {' '.join(splits)}" if splits else f"--dataset-config {config}"
        raise ValueError(f"{flags}: chooses from a data set of the hub, but {source.origin} is read; leave it out")
    return source


def asked_rows(task: Task, data: DataArgs) -> Source:
    """Reads the rows that the flags name. Raises the errors of `locate_rows`."""
    return locate_rows(task, data.data, data.encoding, data.dataset_config, data.split)


def split_rows(task: Task, source: Source, data: DataArgs) -> Splits[Any]:
    if data.subset == "report" and task.report_subset is None:
        raise ValueError(f"--subset report: the report has no rule for {task.name}")
    skipped = Skipped()
    most = data.train_examples, data.val_examples, data.test_examples
    limits = Limits(data.validation_share, data.test_share, *most, data.draw_seed, data.train_on == "all")
    subset = task.report_subset if data.subset == "report" else None
    notes = list(source.notes)
    parts = task.parts(source.parts, skipped, notes, source.counted)
    if not any(parts.values()):
        raise ValueError(task.nothing_left(source.parts, skipped))
    splits = split_examples(parts, limits, data.split_seed, skipped, subset)
    if splits.given == ("validation",) and splits.test and "test" not in source.parts:
        files = listed(source.files["validation"], quoted=False)
        notes.append(f"the validation part is {files}; a test part is drawn from the training rows")
    try:
        remarks = task.remarks(splits.named(), limited=data.train_examples is not None)
    except OneClass as error:
        raise ValueError(f"{error}; left out: {skipped.said()}" if skipped.said() else str(error)) from error
    return replace(splits, notes=[*notes, *splits.notes, *remarks])


def unused_shares(data: DataArgs, splits: Splits[Any]) -> list[str]:
    """Returns a note for each share that was given for a part that the data has."""
    given = given_flags(data)
    unused = {name: given[f"{name}_share"] for name in splits.given if f"{name}_share" in given}
    return [f"--{name}-share {share:g} is not used, since the data has a {name} part" for name, share in unused.items()]


def find_inputs(args: FineTuneArgs, find_task: Callable[[str | None, Path | None], K], offline: str) -> Inputs[K]:
    """Finds all that a run reads. Raises ValueError for the repository of --push-to-hub, or one error with all that is
    wrong with data and model, or with flags that do not fit the model.

    `find_task` makes the task of --dataset and --data; `offline` is a command that works without a network, for the
    message when the hub cannot be reached. A dry run leaves weights on the hub.
    """
    check_upload(args.run.push_to_hub)
    data, model, weights = args.data, args.model.model, not args.compute.dry_run
    problems: list[ValueError] = []
    try:
        task = find_task(data.dataset, data.data)
        source = asked_rows(task, data)
        splits = split_rows(task, source, data)
    except ValueError as error:
        problems.append(error)
    try:
        folder, config = base_model(model, weights=weights)
        tokenizer = find_tokenizer(folder, config).reading(data.special_tokens)
    except ValueError as error:
        problems.append(error)
    words = [str(problem) for problem in problems]
    if any(isinstance(problem, HubError) and problem.unreachable for problem in problems):
        words[-1] += without_network(offline)
    refuse(words)
    refuse(problems_in(args, config=config))
    splits = replace(splits, notes=[*splits.notes, *unused_shares(data, splits), *notes_on(tokenizer, splits)])
    with_weights = folder if weights or not on_hub(model) else None
    return Inputs(task, splits, source.origin, folder, config, tokenizer, with_weights)
