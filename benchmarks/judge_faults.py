"""Judges a run with everything going wrong: slow, 429, 500, dropped, cut off, blocked, prose, nothing; killed, resumed.

    python benchmarks/judge_faults.py --items 300
    python benchmarks/judge_faults.py --by openai --items 1000 --seed 1

scripts/judge_ift.py with the real SDKs against tests/judge_server.py, which writes down what it was sent. The items are
bundled instructions, answered by the first half of their references. Prints a table; ends with status 1 if a reply was
lost, asked for again although it was stored, or if a file or the screen shows the key. A reply that was on its way at
the kill is asked for again, since nobody has it: at most --concurrency of them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from _results import ROOT
from tasks import Instructions, find, read_rows
from training.flags.cli import at_least, run

KEY = "key-of-the-fault-run-0123"
WAIT = 300.0  # seconds, for as many replies as the kill waits for
LOST, TWICE, SHOWN = "lost", "stored and sent again", "places with the key"  # must be 0
COLUMNS = ["back end", "items", "requests", "again", "stored at the kill", "on their way at the kill"]
COLUMNS += ["parsed", "unparsed", "blocked", "failed", LOST, TWICE, SHOWN]


@dataclass(frozen=True)
class Args:
    by: Literal["gemini", "openai", "both"] = "both"
    """whose SDK asks"""
    items: int = 300
    """answers that are judged"""
    concurrency: int = 8
    """requests in flight at a time"""
    slow: float = 0.5
    """seconds that a slow reply takes"""
    timeout: float = 2.0
    """seconds until a request is given up"""
    seed: int = 0
    """seed of the faults"""

    def problems(self) -> list[str]:
        return at_least(self, 20, "items") + at_least(self, 1, "concurrency")


def write_generations(path: Path, items: int) -> None:
    """Writes bundled instructions, over and over, each answered by the first half of its reference."""
    task = find("instructions", Instructions)
    assert task.bundled is not None
    rows = read_rows(ROOT / "tasks" / "bundled" / task.bundled).rows
    with open(path, "w") as file:
        for i in range(items):
            row, again = rows[i % len(rows)], i // len(rows)
            words = row["response"].split()
            line = {"id": i, "instruction": row["instruction"] + " Again." * again, "input": row["input"]}
            line |= {
                "reference": row["response"],
                "response": " ".join(words[: (len(words) + 1) // 2]),
                "stopped": True,
            }
            file.write(json.dumps(line) + "\n")


@contextmanager
def server(args: Args, log: Path) -> Iterator[str]:
    """Runs a server that misbehaves in a process of its own, and yields its address."""
    words = [sys.executable, str(ROOT / "tests" / "judge_server.py"), "--log", str(log), "--seed", str(args.seed)]
    process = subprocess.Popen([*words, "--slow", str(args.slow)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Reads the whole lines of a file that may still be written."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n") if line]


def judge_until_killed(command: list[str], env: dict[str, str], replies: Path, wanted: int) -> float:
    """Kills the run once so many replies are stored, and returns the time of that."""
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT
    while len(lines_of(replies)) < wanted:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise ValueError(f"the run ended or took {WAIT:.0f} seconds before {wanted} replies were stored")
        time.sleep(0.02)
    process.kill()
    process.wait()
    return time.time()


def measure(by: str, args: Args, folder: Path) -> tuple[dict[str, Any], str]:
    """Returns a row of the table, and what the resumed run printed."""
    write_generations(folder / "generations.jsonl", args.items)
    out, log = folder / "judge" / "fault-judge-published", folder.parent / f"{by}-requests.jsonl"
    with server(args, log) as root:
        env = os.environ | {"GEMINI_API_KEY": KEY, "OPENAI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": root}
        command = [sys.executable, str(ROOT / "scripts" / "judge_ift.py"), "--generations", str(folder)]
        command += ["--judge-model", "fault-judge", "--concurrency", str(args.concurrency), "--backoff", "0.1"]
        command += ["--timeout", str(args.timeout), *(["--judge-url", f"{root}/v1"] if by == "openai" else [])]
        killed = judge_until_killed(command, env, out / "replies.jsonl", args.items // 2)
        stored = {line["prompt_sha256"] for line in lines_of(out / "replies.jsonl")}
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"the resumed run failed: {done.stderr}")
    sent, outcome = lines_of(log), json.loads((out / "judge.json").read_text())
    replies = {line["prompt_sha256"] for line in lines_of(out / "replies.jsonl")}
    answered = Counter(line["prompt_sha256"] for line in sent if line["answered"])
    written = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    row = {"back end": by, "items": args.items, "requests": len(sent), "again": len(sent) - args.items}
    row |= {"stored at the kill": len(stored)}
    row |= {name: outcome["counts"][name] for name in ("parsed", "unparsed", "blocked", "failed")}
    row[LOST] = args.items - len(replies)
    row[TWICE] = sum(line["prompt_sha256"] in stored and line["at"] > killed for line in sent)
    row["on their way at the kill"] = sum(count - 1 for count in answered.values())
    row[SHOWN] = sum(KEY in text for text in (*written, done.stdout, done.stderr))
    return row, done.stdout


def main(args: Args) -> None:
    rows, shown = [], ""
    with tempfile.TemporaryDirectory() as folder:
        for by in ("gemini", "openai") if args.by == "both" else (args.by,):
            run_folder = Path(folder) / by
            run_folder.mkdir()
            row, shown = measure(by, args, run_folder)
            rows.append(row)
    print(shown)
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for row in rows:
        print(f"| {' | '.join(f'{row[name]:,}' if name != 'back end' else row[name] for name in COLUMNS)} |")
    if any(row[name] for row in rows for name in (LOST, TWICE, SHOWN)):
        sys.exit(1)


if __name__ == "__main__":
    run(main, Args, __doc__)
