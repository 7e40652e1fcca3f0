"""The data: one dataset a file, each with a `TASK`. Knows no torch and no tokenizer.

The listing of this folder is the registry; files that start with `_` are shared.
"""

from importlib import import_module
from pathlib import Path
from typing import TypeVar

from tasks._examples import RESPONSE_HEADER, Instruction, Labelled, Preference
from tasks._rows import Source, read_rows
from tasks._splits import Limits, Splits, split_examples
from tasks._task import Classification, Columns, Instructions, Preferences, Skipped, Task, join_lines

T = TypeVar("T", bound=Task)
NAMES = tuple(sorted(f.stem for f in Path(__file__).parent.glob("[!_]*.py")))


def find(name: str, kind: type[T]) -> T:
    """The task in `tasks/<name>.py`. Raises ValueError, with the list, when there is none of this kind."""
    task = import_module(f"tasks.{name}").TASK if name in NAMES else None
    if not isinstance(task, kind):
        fitting = [n for n in NAMES if isinstance(import_module(f"tasks.{n}").TASK, kind)]
        raise ValueError(
            f"--dataset {name}: this script knows {', '.join(fitting)}; for your own file give --data and its columns"
        )
    return task


__all__ = [
    "NAMES",
    "RESPONSE_HEADER",
    "Classification",
    "Columns",
    "Instruction",
    "Instructions",
    "Labelled",
    "Limits",
    "Preference",
    "Preferences",
    "Skipped",
    "Source",
    "Splits",
    "Task",
    "find",
    "join_lines",
    "read_rows",
    "split_examples",
]
