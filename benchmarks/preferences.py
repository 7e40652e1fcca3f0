"""Cross-validates preference tuning over all pairs: reward accuracy and margin, ranking before and after.

    DATA_DIR=data python benchmarks/preferences.py
    python benchmarks/preferences.py --dataset preferences --folds 2 --flags='--max-steps 4'

Each pair is tested once, by a model that has seen neither it nor another pair with its prompt. Every fold is a run of
scripts/finetune_dpo.py in a process of its own; finished ones are not repeated (and refused if they had other
flags), interrupted ones go on.
"""

import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _runs import finish_runs
from compare_runs import interval, results_of, risen
from evidence.intervals import Interval, bootstrap_mean, share, shown
from evidence.kinds import FORGETTING
from evidence.runs import json_lines
from tasks import Preference, Preferences, find
from training.data.sources import locate_rows, split_rows
from training.evaluation.preference import wins
from training.flags.cli import at_least, run
from training.flags.common import DataArgs
from training.storage.files import write_lines

COLUMNS = ["method", "pairs", "reward accuracy", "reward margin", "chosen", "rejected", "ranking accuracy before"]
COLUMNS += ["after", "forgetting, nats"]
SHARES = ("accuracy", "ranking before", "ranking after")  # of the scores: the others have no bounds


@dataclass(frozen=True)
class Args:
    dataset: str = "dpo_pairs"
    """pairs of tasks/, from $DATA_DIR or bundled"""
    folds: int = 5
    """parts that the pairs are dealt into, each the test part once"""
    methods: tuple[str, ...] = ("lora", "full")
    """methods of finetune_dpo, one row each"""
    seeds: tuple[int, ...] = (0,)
    """seeds of initialisation and order; the folds are the same for all"""
    model: str = "gpt2-nano"
    """base model"""
    flags: str = "--max-length 1024"
    """flags of every run; '--start-from runs/tutor' to begin with an instruction-tuned model"""
    folder: Path = Path("runs/preferences")
    """where folds and runs are kept"""

    def problems(self) -> list[str]:
        return at_least(self, 2, "folds") + ["--methods: name at least one"] * (not self.methods)


def deal(examples: Sequence[Preference], folds: int) -> list[list[Preference]]:
    """Deals the pairs into `folds` parts of about equal size; those of one prompt stay together. Raises ValueError for
    too few prompts."""
    prompts = list(dict.fromkeys(e.group for e in examples))
    if len(prompts) < folds:
        raise ValueError(f"--folds {folds}: the data has {len(prompts)} prompts")
    random.Random(0).shuffle(prompts)
    fold_of = {prompt: i % folds for i, prompt in enumerate(prompts)}
    return [[e for e in examples if fold_of[e.group] == fold] for fold in range(folds)]


def write_folds(args: Args) -> list[Path]:
    """Writes a folder with train.jsonl and test.jsonl for each fold."""
    task = find(args.dataset, Preferences)
    source = locate_rows(task, None)
    splits = split_rows(task, source, DataArgs(validation_share=0, test_share=0))
    print(f"{source.origin}: {len(splits.train):,} pairs, left out {splits.skipped}")
    parts, folders = deal(splits.train, args.folds), []
    for fold, tested in enumerate(parts):
        trained = [e for part in parts if part is not tested for e in part]
        folders.append(args.folder / f"{args.dataset}-fold{fold + 1}of{args.folds}")
        for name, part in (("train", trained), ("test", tested)):
            lines = [{"prompt": e.prompt, "chosen": e.chosen, "rejected": e.rejected} for e in part]
            write_lines(folders[-1] / f"{name}.jsonl", lines)
    return folders


def place(args: Args, fold: Path, method: str, seed: int) -> Path:
    return args.folder / f"{fold.name}-{Path(args.model).name}-{method}-seed{seed}"


def command(args: Args, fold: Path, method: str, seed: int) -> list[str]:
    words = ["scripts/finetune_dpo.py", "--data", str(fold.resolve()), "--model", args.model]
    return [*words, *shlex.split(args.flags), "--method", method, "--seed", str(seed)]


def tested(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Reads the predictions of all runs, one after the other."""
    return [row for each in runs for row in json_lines(each / "predictions.jsonl")]


def scores(runs: Sequence[Path]) -> dict[str, np.ndarray]:
    """Returns the scores of the pairs that the runs were tested on: (n,) by name; a tie counts half."""
    rows = tested(runs)
    chosen, rejected, chosen_before, rejected_before = (
        np.array([row[name] for row in rows])
        for name in ("chosen_reward", "rejected_reward", "chosen_reference", "rejected_reference")
    )
    beta = results_of(runs[0])["args"]["beta"]
    margins, before = chosen - rejected, chosen_before - rejected_before
    found = {"accuracy": wins(margins), "margin": margins, "chosen": chosen, "rejected": rejected}
    return found | {"ranking before": wins(before), "ranking after": wins(before + margins / beta)}


def forgetting(runs: Sequence[Path]) -> Interval | None:
    """Returns forgetting, averaged over the runs, with an interval over the pieces of text alone: folds, whose training
    pairs are mostly the same, are no seeds. None where it was not measured."""
    found = risen(runs)
    return None if found is None else interval(FORGETTING, found[0].mean(0, keepdims=True), found[1])


def table(args: Args, folds: Sequence[Path]) -> None:
    """Prints a row per method: each pair's scores are averaged over seeds, intervals are over pairs, and of forgetting
    over pieces of text. Before training, reward accuracy is 1/2 and the margin 0 by definition."""
    print(f"\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for method in args.methods:
        by_seed = [[place(args, fold, method, seed) for fold in folds] for seed in args.seeds]
        each = [scores(runs) for runs in by_seed]
        averaged = {name: np.mean([found[name] for found in each], axis=0) for name in each[0]}
        means = {name: (share if name in SHARES else bootstrap_mean)(values) for name, values in averaged.items()}
        lost = forgetting([one for runs in by_seed for one in runs])
        cells = [method, f"{means['accuracy'].n:,}", *(shown(interval.entry(), ".3f") for interval in means.values())]
        print(f"| {' | '.join([*cells, '' if lost is None else shown(lost.entry(), '.3f')])} |")


def main(args: Args) -> None:
    folds = write_folds(args)
    runs = [(fold, method, seed) for seed in args.seeds for method in args.methods for fold in folds]
    finish_runs({place(args, *run): command(args, *run) for run in runs})
    print(f"\n`--model {args.model} {args.flags}`, {args.folds} folds, seeds {' '.join(map(str, args.seeds))}")
    table(args, folds)


if __name__ == "__main__":
    run(main, Args, __doc__)
