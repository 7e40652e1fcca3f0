"""Keeps measurements in a file, one line of JSON each: what is in it is not measured again."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evidence.runs import json_lines

ROOT = Path(__file__).parent.parent


def measured(words: Sequence[str], **changed: str) -> dict[str, Any]:
    """Returns the numbers of `words`, a script and its flags, run with --json in a process and a `changed` environment
    of its own. Raises ValueError when the process fails."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = Path(folder) / "numbers.json"
        all_words = [sys.executable, *words, "--json", str(numbers)]
        done = subprocess.run(all_words, cwd=ROOT, env=os.environ | changed, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"python {shlex.join(words)} failed:\n{done.stdout}{done.stderr}")
        return json.loads(numbers.read_text())


def measure_once(
    identity: dict[str, Any],
    words: Sequence[str],
    results: Path,
    holds: Callable[[dict[str, Any]], bool] = lambda numbers: True,
) -> None:
    """Adds a line with the numbers of `words`, a script and its flags, to `results`.

    Does nothing if a line with `identity` is there that still `holds`. Raises ValueError when the process fails.
    """
    if any(identity.items() <= found.items() and holds(found) for found in read(results)):
        return
    print(f"{time.strftime('%H:%M:%S')} python {shlex.join(words)}", file=sys.stderr, flush=True)
    found = identity | {"date": time.strftime("%Y-%m-%d")} | measured(words)
    results.parent.mkdir(parents=True, exist_ok=True)
    with open(results, "a") as file:
        file.write(json.dumps(found) + "\n")


def read(results: Path) -> list[dict[str, Any]]:
    return json_lines(results) if results.exists() else []
