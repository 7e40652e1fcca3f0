"""The fault run of benchmarks/judge_faults.py, small: both SDKs, killed once, nothing lost and nothing sent twice."""

import os
import subprocess
import sys

from conftest import ROOT

import judge_faults


def test_a_run_with_every_fault_that_is_killed_and_resumed_loses_nothing_and_asks_nothing_twice():
    words = [sys.executable, str(ROOT / "benchmarks" / "judge_faults.py"), "--items", "48", "--concurrency", "4"]
    done = subprocess.run(
        [*words, "--slow", "0.1", "--timeout", "1"],
        capture_output=True,
        text=True,
        env=os.environ,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith(("| gemini", "| openai"))
    ]
    assert len(rows) == 2
    for row in (dict(zip(judge_faults.COLUMNS, row, strict=True)) for row in rows):
        assert row["items"] == "48" and int(row["stored at the kill"]) >= 24
        assert int(row["requests"]) == 48 + int(row["again"]) and int(row["again"]) > 0
        assert sum(int(row[name]) for name in ("parsed", "unparsed", "blocked", "failed")) == 48
        assert int(row["unparsed"]) > 0 and int(row["on their way at the kill"]) <= 4
        assert [row[name] for name in (judge_faults.LOST, judge_faults.TWICE, judge_faults.SHOWN)] == ["0", "0", "0"]
