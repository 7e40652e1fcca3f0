"""Reads one score per example of finished runs, and checks that runs were tested on the same examples and data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evidence.runs import json_lines
from training.storage.run_folder import RESULTS

# What a run is compared by, and how a table calls it.
KINDS = {"accuracy": "accuracy", "rewards": "reward accuracy", "perplexity": "perplexity of the response"}

MEASURED = TRAINABLE, SECONDS, PEAK = ("parameters", "trainable"), ("seconds", "train"), ("peak_memory_mib",)


class Scored(NamedTuple):
    """`sums` (runs, n), `weights` (n,): 1 for an accuracy, the tokens for a perplexity."""

    kind: str
    sums: np.ndarray
    weights: np.ndarray


class Example(NamedTuple):
    """`told` is what else shows whether it is the same example in another run."""

    score: float
    weight: float
    told: Any


def results_of(run: Path) -> dict[str, Any]:
    """Reads results.json, which runs of other programs (benchmarks/tfidf.py) may lack. Raises ValueError if damaged."""
    path = run / RESULTS
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _check(found)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); run it again or leave it out") from error
    return found


def number_in(results: dict[str, Any], *path: str) -> float | None:
    """Returns a number of results.json, None where it was not measured."""
    found: Any = results
    for name in path:
        found = found.get(name, {})
    return None if found in ({}, None) else float(found)


def _check(results: dict[str, Any]) -> None:
    """Raises whatever reading raises where something that is compared is not what it should be."""
    args, lost = results.get("args", {}), results.get("forgetting") or {}
    hash((*map(args.get, ("seed", "split_seed", "draw_seed", "dataset")), results.get("data", {}).get("sha256")))
    args.get("method", "").lower()
    for path in MEASURED:
        number_in(results, *path)
    if "pieces" in lost:
        np.array([lost["pieces"][name] for name in ("tokens", "before", "after")], dtype=float)  # of one length


def scored(run: Path) -> tuple[str, dict[Any, Example]]:
    """Returns one of KINDS, and test examples by id. Raises ValueError for a folder without a finished run."""
    paths = [path for name in ("predictions", "generations") if (path := run / f"{name}.jsonl").exists()]
    if not paths:
        what = (
            "holds no finished run (neither predictions.jsonl nor generations.jsonl)"
            if run.is_dir()
            else "is not a folder"
        )
        raise ValueError(f"{run} {what}; name folders of finished runs")
    try:
        lines = json_lines(paths[0])
        kind = next((kind for kind, column in _COLUMNS.items() if lines and column in lines[0]), None)
        if kind is not None:
            found = {line["id"]: _example(kind, line) for line in lines}
            return kind, {id: example for id, example in found.items() if example.weight}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{paths[0]} is damaged ({type(error).__name__}); run it again or leave it out") from error
    raise ValueError(
        f"{paths[0]} has no test examples; leave the run out" if not lines else f"{paths[0]} has no scores"
    )


_COLUMNS = {"accuracy": "prediction", "rewards": "chosen_reward", "perplexity": "reference_loss"}


def _example(kind: str, line: dict[str, Any]) -> Example:
    if kind == "accuracy":
        return Example(float(line["label"] == line["prediction"]), 1.0, line["label"])
    if kind == "rewards":
        margin = line["chosen_reward"] - line["rejected_reward"]
        return Example((float(np.sign(margin)) + 1) / 2, 1.0, (line["prompt"], line["chosen"], line["rejected"]))
    return Example(
        float(line["reference_loss"]), float(line["reference_tokens"]), (line["instruction"], line["reference"])
    )


def same_examples(runs: Sequence[Path]) -> Scored:
    """Returns the scores. Raises ValueError for runs of several kinds, tested on other examples, or on other data."""
    kinds, found = zip(*(scored(run) for run in runs), strict=True)
    for run, kind, examples in zip(runs, kinds, found, strict=True):
        if kind != kinds[0]:
            raise ValueError(f"{runs[0]} has {KINDS[kinds[0]]}, {run} has {KINDS[kind]}; compare runs of one kind")
        if {id: one.told for id, one in examples.items()} != {id: one.told for id, one in found[0].items()}:
            raise ValueError(f"{runs[0]} and {run} were not tested on the same examples; compare runs on the same data")
    _same_data(runs)
    ids = sorted(found[0])
    weights = {tuple(examples[id].weight for id in ids) for examples in found}
    if len(weights) > 1:
        raise ValueError("the runs cut or tokenised the test examples differently; compare runs with one --max-length")
    sums = np.array([[examples[id].score for id in ids] for examples in found])
    return Scored(kinds[0], sums, np.array([*weights.pop()]))


def _same_data(runs: Sequence[Path]) -> None:
    """Raises ValueError for another data set, or other content with the same counts of rows and the same seed."""
    known: dict[tuple[Any, ...], tuple[Path, Any]] = {}
    for run in runs:
        results = results_of(run)
        args, data = results.get("args", {}), results.get("data", {})
        same = (args.get("seed"), args.get("split_seed"), json.dumps(data.get("rows"), sort_keys=True))
        for key, content in (((), args.get("dataset")), (same, data.get("sha256"))):
            other, before = known.setdefault(key, (run, content))
            if None not in (before, content) and before != content:
                raise ValueError(f"{other} and {run} are runs on different data; compare runs on the same data")
