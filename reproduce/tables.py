"""The rows of the table files, and the runs that each row needs at a scale.

A row's command is parsed by its script's own parser. `nano` maps the report's scale to two cores.
"""

import hashlib
import importlib
import itertools
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gpt2_scratch.config import SIZES
from training.flags.command_line import parse
from training.flags.fields import flags_of as fields_of
from training.flags.fields import resolved

KINDS = ("table", "figure", "inline", "appendix", "beyond")
SCRIPTS = "scripts/"  # only these commands have a scale; benchmarks are the same at every scale
TASKS = {"enron": "spam", "imdb": "sentiment", "nli_med": "nle", "alpaca": "ift"}
# At nano scale: the data set, its file in DATA_DIR, and the bundled data for the same task.
DATA = {
    "enron": ("enron", "enron_spam_data.parquet", "spamassassin"),
    "imdb": ("imdb", "imdb_train.parquet", ""),
    "nli_med": ("sick", "sick_nli.csv", ""),
    "alpaca": ("alpaca", "alpaca_data.json", "instructions"),
}
RATES = ("lr", "lr_init", "lr_min")
SEEDS = 3  # of rows that do not say how many
ENTAILMENT = 4000  # training examples at nano scale: from 500, gpt2-nano learns little of it

Flags = dict[str, Any]


class Row(NamedTuple):
    """A cell in one version. `report` and `record` are the report's and the authors' recorded values, or empty."""

    version: str  # published, corrected
    column: str
    label: str
    report: str
    record: str
    command: str


class Table(NamedTuple):
    """The rows of a table file. `questions` are the report's own, which every run is asked; `answers` has what the
    report prints to each, as (whose, text). What all columns show is claimed `together` where one sentence says it.
    Where there are `draws`, each of so many seeds of the corrected rows draws its own training examples."""

    name: str
    title: str
    rows: list[Row]
    questions: list[str]
    answers: dict[str, list[tuple[str, str]]] = {}
    together: bool = False
    draws: int = 0

    @property
    def kind(self) -> str:
        return next((kind for kind in KINDS if self.name.startswith(kind)), "")


@dataclass(frozen=True)
class Plan:
    """A row at a scale: it needs a run per seed, or `why` says why there is none. `flags` are all of its script's.

    Where there are `draws`, there are so many seeds, and each draws its own training examples.
    """

    row: Row
    flags: Flags
    command: str
    key: str  # scale/task-hash, from all that determines the run
    why: str = ""
    draws: int = 0
    same_as: str = ""  # label of the row that has its run, where they differ in the model's size only

    @property
    def status(self) -> str:
        return f"not available at this scale: {self.why}" if self.why else "run"

    def seeds(self, asked: str) -> list[str]:
        """Returns the seeds that are `asked` for, or where that is empty, the row's own."""
        return asked.split() or [str(seed) for seed in range(self.draws or SEEDS)]

    def place(self, seed: str) -> str:
        """Returns the folder of a seed's run, inside the folder of all runs."""
        return f"{self.key}/seed{seed}"

    def run_command(self, seed: str, runs: Path) -> str:
        drawn = f" --draw-seed {seed}" if self.draws else ""
        return f"{self.command} --seed {seed}{drawn} --output-dir {shlex.quote(str(runs / self.place(seed)))}"


def title_of(path: Path) -> str:
    """Returns the first sentence of a table file's comments, or its name in words if it has none."""
    lines = [line.rstrip() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if not line.startswith(("#!", "# shellcheck"))]
    paragraph = list(itertools.takewhile(lambda line: line.startswith("# "), lines))
    words = " ".join(line.removeprefix("# ") for line in paragraph) or path.stem.replace("_", " ").capitalize()
    return words.split(". ")[0].rstrip(".")


def read_table(path: Path) -> Table:
    """Reads the rows that `bash FILE rows` prints. Raises ValueError if the file fails or prints something else."""
    done = subprocess.run(["bash", str(path), "rows"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"bash {path} rows: failed with status {done.returncode}: {done.stderr.strip()[-500:]}")
    rows, answers, known = [], dict[str, list[tuple[str, str]]](), dict[tuple[str, str], list[str]]()
    together, draws = False, 0
    for number, line in enumerate(done.stdout.splitlines(), 1):
        fields = line.split("\t")
        if fields[0] == "question":
            answers[fields[1]] = [*zip(fields[2::2], fields[3::2], strict=True)]
        elif fields == ["together"]:
            together = True
        elif re.fullmatch(r"draws\t[1-9]\d*", line):
            draws = int(fields[1])
        elif len(fields) != len(Row._fields):
            raise ValueError(f"bash {path} rows: line {number} is no row ({', '.join(Row._fields)}): {line[:80]!r}")
        else:
            row = Row(*fields)
            if row.version == "published":
                known[row.column, row.label] = ["" if text == "-" else text for text in (row.report, row.record)]
            report, record = known.get((row.column, row.label), ["", ""])
            rows.append(row._replace(report=report, record=record))
    return Table(path.stem, title_of(path), rows, list(answers), answers, together, draws)


def natural(name: str) -> tuple[int, list[tuple[int, str]]]:
    """A sort key: tables, figures, inline results, the appendix, then what goes beyond; table 10 follows table 9."""
    kind = next(i for i, kind in enumerate(KINDS) if name.startswith(kind))
    return kind, [(int(digits or 0), rest) for digits, rest in re.findall(r"(\d*)(\D*)", name)]


def all_tables(folder: Path) -> list[Table]:
    """Reads the tables in `folder`, in order. Raises ValueError if there are none."""
    paths = [path for path in folder.glob("*.sh") if path.name.startswith(KINDS)]
    if not paths:
        raise ValueError(f"--tables {folder}: holds no table files ({', '.join(f'{kind}*.sh' for kind in KINDS)})")
    return [read_table(path) for path in sorted(paths, key=lambda path: natural(path.stem))]


def parts_of(column: str) -> tuple[str, str]:
    """Splits the column "spam 125" into ("spam", "125"), and "lr full" into ("lr", "full"); a million or more means all
    examples."""
    name, _, part = column.partition(" ")
    return name, part if not part.isdecimal() else "all" if int(part) >= 1_000_000 else f"{int(part):,}"


# --- from a command to its flags and back ---


def arguments_of(path: str) -> Any:
    return importlib.import_module(path.removesuffix(".py").replace("/", ".")).Args


@cache
def flags_of(command: str) -> Flags:
    """Returns the resolved flags of a script's command; a benchmark has none. Raises ValueError for a wrong flag."""
    _, path, *words = shlex.split(command)
    if not path.startswith(SCRIPTS):
        return {}
    try:
        return resolved(parse(arguments_of(path), words))
    except ValueError as error:
        raise ValueError(f"{command[:100]}...: {error}") from error


def spelled(path: str, flags: Mapping[str, Any]) -> str:
    """Writes a command with all flags that are not at their defaults, sorted: equal settings are equal commands."""
    words, fields = ["python", path], fields_of(arguments_of(path))
    for name, value in sorted((name.replace("_", "-"), value) for name, value in flags.items()):
        default = fields[name].default
        if value == default or value == str(default) or isinstance(default, tuple) and value == [*default]:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(f"{v:g}" if isinstance(v, float) else shlex.quote(str(v)) for v in values)]
    return " ".join(words)


# --- scales ---


def nano(flags: Flags, column: str, model: str, data: Path | None, drawn: bool = False) -> tuple[Flags, str]:
    """Maps flags to a model of six blocks of width 192, a quarter of the tokens (at most 128), and few examples.
    Learning rates scale with 1 / width. The second value says why there is no such run. Data files are looked for in
    `data`; if it is None, all are there. Rows whose examples are `drawn` have more of them for entailment."""
    size = SIZES[flags["model"]]
    new = flags | {"model": model, "subset": "all"}
    for name in RATES:
        if flags[name] is not None:
            new[name] = float(f"{flags[name] * size.width / SIZES['gpt2-nano'].width:.4g}")
    if flags["last_blocks"] is not None:
        blocks = SIZES["gpt2-nano"].blocks
        last = -(-blocks * flags["last_blocks"] // size.blocks)
        new["last_blocks"] = None if last == blocks else last
    for name in ("max_length", "pad_to"):
        if flags.get(name) is not None:
            new[name] = min(flags[name] // 4, 128)
    swept = column.split()[-1].isdecimal()  # the number of training examples
    most = {"train_examples": 1000 if swept else 500, "val_examples": 100, "test_examples": 500}
    if drawn and flags["dataset"] == "nli_med":
        most["train_examples"] = ENTAILMENT
    if "new_tokens" in flags:  # an LM head of 50,257 classes takes most of the time
        most |= {"val_examples": 50, "test_examples": 150, "new_tokens": 32}
    new |= {name: limit if flags[name] is None else min(flags[name], limit) for name, limit in most.items()}
    why = "more than 1,000 training examples" if swept and flags["train_examples"] > 1000 else ""
    if flags["dataset"] in DATA:
        new["dataset"], file, bundled = DATA[flags["dataset"]]
        if data is not None and not (data / file).exists():
            new["dataset"] = bundled
            new |= {"text_column": ["body"]} if flags.get("text_column") else {}
            why = why or ("" if bundled else f"{file} is not in DATA_DIR")
    return new, why


def plans(table: Table, scale: str, data: Path | None, model: str = "gpt2-nano") -> list[Plan]:
    """Plans the rows. At nano scale, rows that differ only in the model's size are one run, that of the first."""
    found: list[Plan] = []
    sizes: dict[str, tuple[str, str]] = {}
    for row in table.rows:
        path, flags, why, same_as = row.command.split()[1], flags_of(row.command), "", ""
        draws = table.draws * (row.version == "corrected" and bool(flags))
        command, task = row.command, TASKS.get(flags.get("dataset", ""), Path(path).stem.removeprefix("finetune_"))
        if flags and scale == "nano":
            size = flags["model"]
            flags, why = nano(flags, row.column, model, data, draws > 0)
            alike = repr([row.version, row.column, path, {k: v for k, v in flags.items() if k not in RATES}])
            first, label = sizes.setdefault(alike, (size, row.label))
            same_as = label if first != size else ""
            why = f"differs from '{label}' in size only" if same_as else why
        elif flags.get("text_column") == ["Message"] and data is not None and not (data / DATA["enron"][1]).exists():
            flags = flags | {"text_column": ["message"]}  # as the hub spells it
        command = spelled(path, flags) if flags else row.command
        digest = hashlib.sha256(f"{command}{' --draw-seed' * (draws > 0)}".encode()).hexdigest()[:12]
        found.append(Plan(row, flags, command, f"{scale}/{task}-{digest}", why, draws, same_as))
    return found
