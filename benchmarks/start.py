"""Measures how long a run takes from its command to the end of its first update.

    python benchmarks/start.py

Starts scripts/finetune_cls.py with its defaults on made-up texts, reads its progress line until a batch is done, and
stops it: twice, since the first run on a base and general text leaves in the cache what later ones need. Run it on a
machine that is otherwise idle.
"""

import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from _flags import each_at_least
from start_of_data import Args as TextArgs
from start_of_data import write_texts
from training.flags.cli import at_least, run

SCRIPT = Path(__file__).parents[1] / "scripts" / "finetune_cls.py"
DONE = re.compile(rb"\| +[1-9]\d*/\d+ ")  # of the progress line, where some examples are done


@dataclass(frozen=True)
class Args:
    texts: int = 2000
    """how many texts there are"""
    characters: int = 300
    """characters of each text"""
    max_length: int = 64
    """as in scripts/finetune_cls.py"""
    threads: tuple[int, ...] = (0, 1)
    """how many threads; 0: as many as there are cores"""
    rounds: int = 3
    """measurements of each, in turn; the table has their medians"""

    def problems(self) -> list[str]:
        found = at_least(self, 100, "texts", "characters") + at_least(self, 1, "rounds")
        return found + each_at_least(self, 0, "threads")


def seconds_to_first_update(flags: list[str], threads: int) -> float:
    """Raises ValueError when the run ends before."""
    words = [sys.executable, str(SCRIPT), *flags]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    start, told = time.perf_counter(), b""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        while not DONE.search(told):
            piece = os.read(process.stderr.fileno(), 4096)
            if not piece:
                raise ValueError(f"{' '.join(words)}: ended before an update: {told.decode(errors='replace')[-300:]}")
            told += piece
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def main(args: Args) -> None:
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _, threads in itertools.product(range(args.rounds), args.threads):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "texts.jsonl"
            write_texts(data, TextArgs(args.texts, args.characters))
            flags = ["--data", str(data), "--text-column", "text", "--label-column", "label", "--model", "gpt2-nano"]
            flags += ["--max-length", str(args.max_length), "--cache-dir", f"{folder}/cache"]
            flags += ["--output-dir", f"{folder}/run", "--overwrite"]
            for which in ("first run", "later runs"):
                found[which, threads].append(seconds_to_first_update(flags, threads))
                print(f"{which}, {threads or 'all'} threads: {found[which, threads][-1]:.2f} s", flush=True)
    print("\n| seconds to the first update | " + " | ".join(f"{n or 'all'} threads" for n in args.threads) + " |")
    print("|---|" + "---|" * len(args.threads))
    for which in ("first run", "later runs"):
        cells = (f"{statistics.median(found[which, n]):.1f}" for n in args.threads)
        print(f"| {which} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run(main, Args, __doc__)
