"""The rows of reproduce/ as its files list them, and what their commands mean to the scripts."""

import importlib.util
import os
import shlex
import subprocess
import sys
from functools import cache
from typing import NamedTuple

import tyro
from conftest import ROOT

from training.flags.cli import problems_in

KINDS = ("table", "figure", "inline", "appendix", "beyond")
FILES = sorted(path for kind in KINDS for path in ROOT.glob(f"reproduce/{kind}*.sh"))
RATES = ROOT / "reproduce" / "learning_rates.sh"
ON_DISK = ("enron_spam_data.parquet", "imdb_train.parquet", "sick_nli.csv", "alpaca_data.json")


class Line(NamedTuple):
    """What LIST=1 prints of a cell, version and seed."""

    table: str
    label: str
    column: str
    version: str
    scale: str
    seed: str
    report: str
    record: str
    status: str
    folder: str
    command: str

    @property
    def flags(self):
        """Flag -> its words."""
        found: dict[str, list[str]] = {}
        for word in shlex.split(self.command)[2:]:
            if word.startswith("--"):
                last = found.setdefault(word, [])
            else:
                last.append(word)
        return found


def shell(path, **settings):
    """The finished process of a table file; nothing of the caller's own settings reaches it."""
    ours = ("SEEDS", "SCALE", "VERSION", "ONLY", "RUNS", "LIST", "DRY_RUN", "MODEL", "DATA_DIR", "JUDGE_MODEL")
    env = {name: value for name, value in os.environ.items() if name not in ours} | settings
    return subprocess.run(["bash", str(path)], env=env, capture_output=True, text=True, check=False)


@cache
def listed(path, **settings):
    done = shell(path, LIST="1", **settings)
    assert done.returncode == 0, done.stderr
    return [Line(*line.split("\t")) for line in done.stdout.splitlines()]


@cache
def load(path):
    specification = importlib.util.spec_from_file_location(f"row_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # where the flag parser looks for the types of the fields
    specification.loader.exec_module(module)
    return module


@cache
def understood(command):
    """(script, its flags as it resolves them, the place of the run aside). A flag that is wrong fails the test."""
    _, path, *words = shlex.split(command)
    place = words.index("--output-dir")
    del words[place : place + 2]
    args = tyro.cli(load(ROOT / path).Args, args=words, config=(tyro.conf.OmitArgPrefixes,))
    assert not problems_in(args), (command, problems_in(args))
    return path, args
