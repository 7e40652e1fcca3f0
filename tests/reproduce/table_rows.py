"""The rows of reproduce/ as its files have them, and what their commands mean to the scripts."""

import os
import shlex
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from helpers import ROOT, Ended

from reproduce.environment import DEFAULTS
from reproduce.run import main, to_the_end
from reproduce.tables import KINDS, SCRIPTS, arguments_of, plans, read_table
from training.flags.cli import problems_in
from training.flags.command_line import parse
from training.flags.fields import flags_of

FILES = sorted(path for kind in KINDS for path in ROOT.glob(f"reproduce/{kind}*.sh"))
RATES = ROOT / "reproduce" / "learning_rates.sh"
ON_DISK = ("enron_spam_data.parquet", "imdb_train.parquet", "sick_nli.csv", "alpaca_data.json")
COLUMNS = ("table", "label", "column", "version", "scale", "seed", "report", "record", "status", "folder", "command")


class Line(NamedTuple):
    """A cell in one version with its run of one seed. `flags`: all of its script, as it resolves them."""

    table: str
    label: str
    column: str
    version: str
    scale: str
    report: str
    record: str
    status: str
    key: str
    command: str
    flags: dict[str, Any]
    draws: int


def env_of(settings):
    """The environment with these settings of a table, and none of the caller's own."""
    return {name: value for name, value in os.environ.items() if name not in DEFAULTS} | settings


def shell(path, **settings):
    """The finished process of a table file."""
    env = env_of({"PYTHON": sys.executable} | settings)
    return subprocess.run(["bash", str(path)], env=env, capture_output=True, text=True, check=False)


def here(path, **settings):
    """What `shell` returns, of a program in this process, which has imported the parser and knows many rows."""
    out, err = StringIO(), StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        env = patch.dict(os.environ, env_of(settings), clear=True)
        with env, chdir(ROOT), redirect_stdout(out), redirect_stderr(err):
            status = to_the_end(lambda: main(path))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Ended(status, out.getvalue(), err.getvalue())


table_of = cache(read_table)


@cache
def listed(path, scale="report", data="nowhere"):
    table = table_of(path)
    found = plans(table, scale, Path(data))
    return [Line(table.name, p.row.label, p.row.column, p.row.version, scale, p.row.report, p.row.record, p.status,
                 p.key, p.command, p.flags, p.draws) for p in found]  # fmt: skip


def arguments_with(arguments, flags):
    """The arguments of a script that resolve to these flags."""
    known, values = flags_of(arguments), {}
    for field in fields(arguments):
        if is_dataclass(field.type):
            values[field.name] = arguments_with(field.type, flags)
        else:
            value, types = flags[field.name], known[field.name.replace("_", "-")].types
            value = tuple(value) if isinstance(value, list) else value
            values[field.name] = Path(value) if isinstance(value, str) and Path in types and str not in types else value
    return arguments(**values)


@cache
def understood(command):
    """(script, its flags as it resolves them). A flag that is wrong fails the test."""
    _, path, *words = shlex.split(command)
    args = parse(arguments_of(path), words)
    assert not (problems := problems_in(args)), (command, problems)
    assert path.startswith((SCRIPTS, "benchmarks/"))
    return path, args
