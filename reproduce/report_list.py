"""What the table files say that there is: a line for each cell, version and seed (`LIST=1 bash reproduce/x.sh`).

Asked of the files themselves, so that a row is written down once.
"""

import itertools
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from report_settings import settings_of

KINDS = ("table", "figure", "inline", "appendix", "beyond")
REPORT = "report"
OF_A_MACHINE = ("dataset", "data", "text_column", "seed", "output_dir")  # flags that depend on whose machine it is
NOTHING = ("", "-")  # what stands where the report, or the authors' record, has no value


class Line(NamedTuple):
    """One run that a cell of a table needs, in the order of the list's columns."""

    table: str
    label: str
    column: str
    version: str  # published, corrected
    scale: str
    seed: str
    report: str  # value as printed
    record: str  # value in the authors' records
    status: str  # run, or why not
    folder: str
    command: str

    @property
    def key(self) -> str:
        """The run's place under the folder of all runs: scale/task-hash/seed."""
        return "/".join(Path(self.folder).parts[-3:])

    @property
    def identity(self) -> tuple[str, ...]:
        """What it is a run of, whatever its command."""
        return self.table, self.label, self.column, self.version, self.scale, self.seed


class Table(NamedTuple):
    """`design`: the lines at the report's scale, where no two sizes or lengths have become one."""

    name: str  # the file's, without .sh
    title: str
    lines: Sequence[Line]
    design: Sequence[Line]

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if self.name.startswith(kind))


def parse_list(text: str, source: str) -> list[Line]:
    """Raises ValueError for a line that has not one field for each column."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("\t")
        if len(fields) != len(Line._fields):
            raise ValueError(
                f"{source}, line {number} of its list: {len(fields)} fields instead of {len(Line._fields)} "
                f"({', '.join(Line._fields)}): {line[:80]!r}"
            )
        found.append(Line(*fields))
    return found


def differs_in_data_only(line: Line, kept: Line) -> bool:
    """Whether `line` would be `kept` if this machine had the same data."""
    if line.status != "run":
        return "DATA_DIR" in line.status
    one, other = (settings_of(each.command) for each in (line, kept))
    return all(one.get(flag) == other.get(flag) for flag in {*one, *other} - {*OF_A_MACHINE})


def preferred(line: Line, kept: Line | None, has_run: Callable[[str], bool]) -> Line:
    """`kept`, the line as it was collected, where its run is there and that of `line` only lacks its data here."""
    if kept is None or has_run(line.key) or not has_run(kept.key) or not differs_in_data_only(line, kept):
        return line
    return kept


def natural(name: str) -> tuple[int, list[tuple[int, str]]]:
    """Tables, then figures, inline results, the appendix and what goes beyond; table 10 after table 9."""
    kind = next(i for i, kind in enumerate(KINDS) if name.startswith(kind))
    return kind, [(int(digits or 0), rest) for digits, rest in re.findall(r"(\d*)(\D*)", name)]


def title_of(path: Path) -> str:
    """The first sentence of a table file's comments; without one, its name in words."""
    lines = [line.rstrip() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if not line.startswith(("#!", "# shellcheck"))]
    paragraph = list(itertools.takewhile(lambda line: line.startswith("# "), lines))
    words = " ".join(line.removeprefix("# ") for line in paragraph) or path.stem.replace("_", " ").capitalize()
    return words.split(". ")[0].rstrip(".")


def listed(path: Path, runs: Path, scale: str) -> list[Line]:
    """Raises ValueError when the file cannot be asked."""
    asked = {name: value for name, value in os.environ.items() if name not in ("ONLY", "DRY_RUN")}
    asked |= {"LIST": "1", "SCALE": scale, "RUNS": str(runs), "VERSION": "both"}
    done = subprocess.run(["bash", str(path)], env=asked, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"LIST=1 bash {path} failed with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return parse_list(done.stdout, str(path))


def all_tables(folder: Path, runs: Path, scale: str) -> list[Table]:
    """The tables in `folder`, in order. Raises ValueError when there are none."""
    paths = [path for path in folder.glob("*.sh") if path.name.startswith(KINDS)]
    if not paths:
        raise ValueError(f"--tables {folder}: holds no table files ({', '.join(f'{kind}*.sh' for kind in KINDS)})")
    paths.sort(key=lambda path: natural(path.stem))
    found = []
    for path in paths:
        lines = listed(path, runs, scale)
        design = lines if scale == REPORT else listed(path, runs, REPORT)
        found.append(Table(path.stem, title_of(path), lines, design))
    return found
