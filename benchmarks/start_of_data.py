"""Measures how long texts take from file to token ids, and how much memory they hold: the numbers of docs/readers.md.

    python benchmarks/start_of_data.py --texts 100000 --characters 600

Reads, splits and tokenises a jsonl file as finetune_cls does, in this process.
"""

import json
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tasks._task import BUNDLED
from training.data.sources import locate_rows, split_rows
from training.flags.cli import at_least, run
from training.flags.common import DataArgs
from training.flags.task import TextArgs


@dataclass(frozen=True)
class Args:
    texts: int = 100_000
    """how many texts are made"""
    characters: int = 600
    """characters of each text"""

    def problems(self) -> list[str]:
        return at_least(self, 10, "texts", "characters")


def write_texts(path: Path, args: Args) -> None:
    """Writes texts of random words of the bundled speeches."""
    draw, words = random.Random(0), (BUNDLED / "general.txt").read_text(encoding="utf-8").split()
    with path.open("w", encoding="utf-8") as out:
        for i in range(args.texts):
            text = " ".join(draw.choices(words, k=args.characters // 2))[: args.characters]
            out.write(json.dumps({"text": text, "label": f"class {i % 2}"}) + "\n")


def main(args: Args) -> None:
    from gpt2_scratch.tokenizer import GPT2
    from training.data.batches import encode_all_labelled
    from training.run.results import cpu_name

    GPT2.encode("a")  # reads the vocabulary
    process, task = psutil.Process(), TextArgs(("text",), "label").task(None, Path("texts.jsonl"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        write_texts(path, args)
        held, start = process.memory_info().rss, time.process_time()

        def say(what: str) -> None:
            memory = (process.memory_info().rss - held) / args.texts
            print(
                f"{what:<10} {time.process_time() - start:6.1f} s of one core, {memory:8,.0f} bytes a text", flush=True
            )

        print(f"{args.texts:,} texts of {args.characters:,} characters, {cpu_name()}, {time.strftime('%Y-%m-%d')}")
        source = locate_rows(task, path)
        say("read")
        splits = split_rows(task, source, DataArgs(data=path))
        del source
        say("split")
        encoded = [encode_all_labelled(GPT2, part, [0] * len(part), 512) for part in splits.named().values()]
        say("tokenised")
        print(f"{sum(len(e.tokens) for part in encoded for e in part):,} tokens")


if __name__ == "__main__":
    run(main, Args, __doc__)
