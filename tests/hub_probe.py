"""A process in which the hub's libraries are imported with the settings of a test. It is asked in lines of JSON.

{"model": NAME} or {"data": NAME, "flags": {...}} or {"script": [finetune_cls, FLAG, ...]}, with "env": {...}
"""

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
WAIT = 0.05  # seconds, in place of those for which a real hub is given time


class Probe:
    """The process, seen from a test."""

    def __init__(self, endpoint: str, home: Path, **env: str):
        settings = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | env
        settings |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
        settings |= {"DATA_DIR": str(home / "no data"), "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
        command = [sys.executable, "-P", __file__]  # beside this file, `training` would be its tests
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=settings, text=True, cwd=ROOT)

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def refusal(self, **question: Any) -> str:
        answer = self.ask(**question)
        assert "refusal" in answer, answer
        return answer["refusal"]

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def model(name: str, weights: bool = True) -> dict[str, Any]:
    from training.data.sources import base_model

    folder, config = base_model(name, weights=weights)
    return {"files": sorted(path.name for path in folder.iterdir()), "width": config.width}


def data(name: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    from training.data.sources import asked_rows
    from training.flags.common import DataArgs
    from training.flags.task import TextArgs

    args = DataArgs(dataset=name, **{flag: tuple(v) if isinstance(v, list) else v for flag, v in flags.items()})
    task = TextArgs().task(name, None) if name != "alpaca" else __import__("tasks.alpaca").alpaca.TASK
    source = asked_rows(task, args)
    return {"parts": source.parts, "origin": source.origin, "notes": source.notes}


def script(name: str, *flags: str) -> dict[str, Any]:
    sys.argv, status = [f"{name}.py", *flags], 0
    try:
        runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
    except SystemExit as stopped:
        status = stopped.code
    return {"status": status}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    from training.data.hub_client import HubClient

    for seen in (HubClient.given_up, HubClient.furthest, HubClient.cuts):
        seen.clear()
    os.environ.update(question.get("env", {}))
    started, said, printed = time.monotonic(), io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        try:
            if "model" in question:
                found = model(question["model"], question.get("weights", True))
            elif "data" in question:
                found = data(question["data"], question.get("flags", {}))
            else:
                found = script(*question["script"])
        except ValueError as error:
            found = {"refusal": str(error), "unreachable": getattr(error, "unreachable", None)}
    for name in question.get("env", {}):
        del os.environ[name]
    seconds = time.monotonic() - started
    return found | {"seconds": seconds, "said": said.getvalue(), "printed": printed.getvalue()}


def serve() -> None:
    from training.data import hub_client

    hub_client.UNREACHED, hub_client.BUSY, hub_client.MOST_CUTS = (WAIT,), (WAIT, WAIT), 1
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
