"""Keeps measurements in a file, one line of JSON each: what is in it is not measured again."""

import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def measure_once(identity: dict[str, Any], words: Sequence[str], results: Path) -> None:
    """Runs `words`, a script and its flags, in a process of its own with --json, and adds a line to `results`.

    Does nothing if a line with `identity` is there. Raises ValueError when the process fails.
    """
    if any(identity.items() <= found.items() for found in read(results)):
        return
    command = "python " + shlex.join(words)
    print(f"{time.strftime('%H:%M:%S')} {command}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        numbers = Path(folder) / "numbers.json"
        all_words = [sys.executable, *words, "--json", str(numbers)]
        done = subprocess.run(all_words, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"{command} failed:\n{done.stdout}{done.stderr}")
        found = identity | {"date": time.strftime("%Y-%m-%d")} | json.loads(numbers.read_text())
    results.parent.mkdir(parents=True, exist_ok=True)
    with open(results, "a") as file:
        file.write(json.dumps(found) + "\n")


def read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
