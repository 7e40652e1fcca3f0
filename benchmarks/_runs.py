"""Makes runs of a fine-tuning script, each in a process of its own; a finished run with the same flags is kept."""

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from _results import ROOT
from training.data.sources import base_model
from training.flags.cli import flag, refuse, resolved
from training.flags.scripts import load_script
from training.storage.run_folder import FREE_FLAGS, RESULTS, STATE, read_run


def finish_runs(commands: Mapping[Path, Sequence[str]]) -> None:
    """Leaves a finished run of its command in every folder; interrupted runs go on.

    A command is a script and its flags, without those of the folder. Raises ValueError when a run fails, and before
    anything is started when a folder holds a finished run with other flags, be they given or defaults.
    """
    finished = [folder for folder in commands if (folder / RESULTS).exists()]
    others = {folder: found for folder in finished if (found := differences(folder, commands[folder]))}
    refuse(
        [
            f"--folder {folder.parent}: {folder.name} is another run ({'; '.join(found)}); "
            f"choose another --folder, or delete {folder}"
            for folder, found in others.items()
        ]
    )
    for folder, words in commands.items():
        if not (folder / RESULTS).exists():
            _run([*words, "--output-dir", str(folder.resolve())], folder)


def differences(folder: Path, words: Sequence[str]) -> list[str]:
    """Says which flags of the finished run in `folder` differ from those of the command `words`, with both values."""
    results = read_run(folder, "--folder")
    before, (asked, default) = results["args"], flags_of(words, results["data"]["rows"]["train"])
    found = [(name, before.get(name, default[name]), value) for name, value in asked.items() if name not in FREE_FLAGS]
    found = [(name, old, new) for name, old, new in found if not (name == "micro_batch_size" and new in (None, "auto"))]
    return [f"{flag(name)} {_shown(old)}, now {_shown(new)}" for name, old, new in found if new != old]


def flags_of(words: Sequence[str], examples: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns all flags of a command that trains on so many `examples`, as results.json has them, and the defaults of
    the script. The learning rate is missing if it follows from the width of a base that cannot be read."""
    script, prefix = load_script(ROOT / words[0]), (tyro.conf.OmitArgPrefixes,)
    args, plain = (tyro.cli(script.Args, args=given, prog=words[0], config=prefix) for given in (words[1:], ()))
    width = _width(args.model.model)
    update = args.update.with_defaults(*script.DEFAULTS[args.method.method], width or 1, examples)
    asked = resolved(replace(args, update=update))
    if args.update.lr is None and width is None:
        del asked["lr"]
    return asked, resolved(plain)


def _width(model: str) -> int | None:
    try:
        return base_model(model)[1].width
    except (OSError, ValueError):  # the hub is out of reach, or the folder has gone since
        return None


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _run(words: Sequence[str], folder: Path) -> None:
    words = [*words, "--resume" if (folder / STATE).exists() else "--overwrite"]
    print(f"{time.strftime('%H:%M:%S')} python {shlex.join(words)}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"python {shlex.join(words)} failed:\n{done.stderr[-2000:]}")
