"""The datasets, one file each, which defines `TASK`. Nothing here imports torch or a tokenizer.

The listing of this folder is the registry; files that start with `_` are shared.
"""

import difflib
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from tasks._classification import Classification
from tasks._columns import Columns, instruction_forms, preference_forms, rating_forms
from tasks._examples import RESPONSE_HEADER, Instruction, Labelled, Preference, Rated
from tasks._instructions import Instructions
from tasks._labels import folded, refuse_one_kind
from tasks._preferences import Preferences, Unpaired
from tasks._ratings import Ratings
from tasks._rows import Source, read_rows, read_text
from tasks._skipped import Skipped
from tasks._splits import Limits, Splits, balance, split_examples
from tasks._task import Task, join_lines

T = TypeVar("T", bound=Task)
NAMES = tuple(sorted(f.stem for f in Path(__file__).parent.glob("[!_]*.py")))


def find(name: str, *kinds: type[T]) -> T:
    """Returns the task in `tasks/<name>.py`. Raises ValueError, with a list, if there is none of these `kinds`."""
    task = import_module(f"tasks.{name}").TASK if name in NAMES else None
    if not isinstance(task, kinds):
        if Path(name).exists():
            raise ValueError(f"--dataset {name}: is a file or folder; give it as --data, with its columns")
        fitting = [n for n in NAMES if isinstance(import_module(f"tasks.{n}").TASK, kinds)]
        near = difflib.get_close_matches(name.lower(), fitting, n=1)
        meant = f" ({near[0]}?)" if near else ""
        raise ValueError(
            f"--dataset {name}: this script knows {', '.join(fitting)}{meant}; for data of the hub "
            "give owner/name, for your own file --data and its columns"
        )
    return task


def find_or_own(
    dataset: str | None, data: Path | None, kind: type[T], columns: tuple[Columns, ...], *others: type[T]
) -> T:
    """Returns the task of `find`, which may also be one of the `others`, or a task with these columns for a data set
    of the hub (owner/name) or, without `dataset`, for the file `data`."""
    if dataset is not None and ("/" not in dataset or Path(dataset).exists()):
        found = find(dataset, kind, *others)
        return found if data is None else replace(found, fixed_columns=())  # those of the user's file mean other things
    if dataset is not None:
        return kind(dataset.replace("/", "--"), columns, hub=dataset)
    assert data is not None, "DataArgs.problems refuses a run without --dataset and --data"
    return kind(data.stem, columns)


__all__ = ["NAMES", "RESPONSE_HEADER", "Classification", "Columns", "Instruction", "Instructions", "Labelled", "Limits"]
__all__ += ["Preference", "Preferences", "Rated", "Ratings", "Skipped", "Source", "Splits", "Task", "Unpaired"]
__all__ += [
    "balance",
    "find",
    "find_or_own",
    "folded",
    "instruction_forms",
    "join_lines",
    "preference_forms",
    "rating_forms",
]
__all__ += ["read_rows", "read_text", "refuse_one_kind", "split_examples"]
