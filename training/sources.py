"""Finds the data and the base model before anything heavy is loaded; knows no torch.

Order for data: --data, the dataset's usual file in $DATA_DIR (default data/), the bundled file, the hub.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.sources import BUNDLED as BUNDLED_MODELS
from gpt2_scratch.sources import load_config, resolve
from gpt2_scratch.tokenizer import Tokenizer
from tasks import Limits, Skipped, Source, Splits, Task, read_rows, split_examples
from tasks._rows import read_hub
from tasks._task import BUNDLED
from training.args import DataArgs
from training.cli import refuse
from training.special_tokens import notes_on

HUB_TIMEOUT = 3.0  # seconds; the hub library itself would retry for 23
K = TypeVar("K", bound=Task)


@dataclass(frozen=True)
class Inputs(Generic[K]):
    """All that a run reads: the task, its examples, where they came from; folder, shape and tokenizer of the base."""

    task: K
    splits: Splits[Any]
    source: str
    model_folder: Path
    config: GPT2Config
    tokenizer: Tokenizer


def find_inputs(data: DataArgs, model: str, find_task: Callable[[], K], offline: str) -> Inputs[K]:
    """Raises one ValueError with all that is wrong with data and model.

    `offline` is a command that works without a network, for the message when something is only on the hub.
    """
    problems: list[str] = []
    found: dict[str, Any] = {}

    def attempt(name: str, act: Callable[[], Any], unreachable: str) -> None:
        try:
            found[name] = act()
        except ValueError as error:
            problems.append(str(error))
        except OSError:
            problems.append(unreachable)

    def base() -> tuple[Path, GPT2Config, Tokenizer]:
        folder, config = base_model(model)
        return folder, config, find_tokenizer(folder, config).reading(data.special_tokens)

    def examples() -> tuple[K, Splits[Any], str]:
        task = find_task()
        source = locate_rows(task, data.data, data.encoding)
        return task, split_rows(task, source, data), source.origin

    data_folder = os.environ.get("DATA_DIR", "data")
    attempt(
        "examples",
        examples,
        f"--dataset {data.dataset}: neither in {data_folder}/ nor to be had from the hub; give --data, or set DATA_DIR",
    )
    attempt("model", base, f"--model {model}: not to be had from the hub; give --model FOLDER")
    if any("from the hub" in problem for problem in problems):
        problems.append(f"this works without a network, with bundled data and weights:\n         {offline}")
    refuse(problems)
    task, splits, source = found["examples"]
    *base_found, tokenizer = found["model"]
    splits = replace(splits, notes=[*splits.notes, *notes_on(tokenizer, splits)])
    return Inputs(task, splits, source, *base_found, tokenizer)


def base_model(source: str, asked: str = "--model") -> tuple[Path, GPT2Config]:
    """Folder and shape of a base model, downloaded if need be. Raises ValueError when it is none of ours, OSError when
    the hub does not give it; `asked` is the flag that named it."""
    if source not in BUNDLED_MODELS and not Path(source).is_dir():
        prefer_cache_when_offline()
    folder = resolve(source, asked)
    return folder, load_config(folder, asked)


def locate_rows(task: Task, data: Path | None, encoding: str | None = None) -> Source:
    """The rows of `data`, else of the dataset's usual place."""
    usual = Path(os.environ.get("DATA_DIR", "data")) / task.file if task.file else None
    if data is not None:
        return read_rows(data, encoding)
    if usual is not None and usual.exists():
        return replace(read_rows(usual, encoding), origin=f"$DATA_DIR/{task.file}")
    if task.bundled is not None:
        return replace(read_rows(BUNDLED / task.bundled), origin=f"bundled {task.bundled}")
    if task.hub is not None:
        prefer_cache_when_offline()
        return read_hub(task.hub)
    raise ValueError(f"--dataset {task.name}: not on the hub; give --data, or put {task.file} into $DATA_DIR")


def split_rows(task: Task, source: Source, data: DataArgs) -> Splits[Any]:
    if data.subset == "report" and task.report_subset is None:
        raise ValueError(f"--subset report: the report has no rule for {task.name}")
    skipped = Skipped()
    limits = Limits(data.validation_share, data.test_share, data.train_examples, data.val_examples, data.test_examples)
    subset = task.report_subset if data.subset == "report" else None
    splits = split_examples(task.parts(source.parts, skipped), limits, data.split_seed, skipped, subset)
    return replace(splits, notes=[*source.notes, *splits.notes])


def prefer_cache_when_offline() -> None:
    """Without a hub within reach, its libraries use what is cached at once instead of retrying for half a minute."""
    import datasets
    import huggingface_hub
    from huggingface_hub import constants

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if constants.HF_HUB_OFFLINE:
        return
    answered = threading.Event()

    def ask() -> None:
        # Any answer will do; the HTTP library behind the hub, and with it its errors, change between versions.
        with contextlib.suppress(Exception):
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # its own thread, since looking up a name knows no timeout
    asking.start()
    asking.join(HUB_TIMEOUT)
    if not answered.is_set():
        constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True
