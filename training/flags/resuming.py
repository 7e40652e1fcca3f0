"""--resume --output-dir FOLDER alone: a run that was stopped goes on with the flags that it was started with."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.flags.command_line import parse, typed
from training.flags.fields import flags_of as flags_in
from training.flags.fields import resolved
from training.flags.near_misses import plain
from training.storage.run_folder import FREE_FLAGS, RESULTS, STARTED, finished

DATA = {"dataset", "data"}  # flags without which no run starts


def completed(arguments: type, words: Sequence[str]) -> list[str]:
    """The words of a command line, with those of the folder's run in front of them where it is to go on.

    Raises ValueError when there is no such run, or one of another script or with other flags than those typed.
    """
    given, known = {plain(word) for word in words if word.startswith("--")}, set(flags_in(arguments))
    folder = Path(typed(words, "--output-dir"))
    if not {"resume", "output-dir"} <= given & known:
        return [*words]
    if not (folder / STARTED).exists():
        if (folder / RESULTS).exists():
            raise ValueError(finished(folder, resuming=True))
        if given & DATA or not known & DATA:  # the whole command: it may be a new run
            return [*words]
        raise ValueError(f"--resume --output-dir {folder}: holds no run that was stopped; give the flags of a new one")
    started = _read(folder / STARTED)
    if started["script"] != Path(sys.argv[0]).stem:
        raise ValueError(
            f"--resume --output-dir {folder}: holds a run of {started['script']}.py; go on with that script"
        )
    saved = [word for word in started["command"] if plain(word) not in ("overwrite", "resume", "dry-run")]
    before, now = (resolved(parse(arguments, command)) for command in (saved, [*saved, *words]))
    differing = [
        f"--{name.replace('_', '-')} {before[name]} (now {now[name]})"
        for name in now
        if name not in FREE_FLAGS
        and now[name] != before[name]
        and (name, now[name]) != ("micro_batch_size", "auto")  # which then stands for what the run had
    ]
    if differing:
        raise ValueError(
            f"--resume: the run in {folder} was started with {', '.join(differing[:3])}; leave it out, or start again "
            "with --overwrite"
        )
    return [*saved, *words]


def _read(path: Path) -> dict[str, Any]:
    try:
        started = json.loads(path.read_text(encoding="utf-8"))
        return {"script": started["script"], "command": [*map(str, started["command"])]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--resume: {path} is damaged; type all flags, or start again with --overwrite") from error
