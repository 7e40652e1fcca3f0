"""Finished classification runs on the same test examples -> a Markdown table: mean over seeds, interval, cost.

    python benchmarks/compare_runs.py runs/mail/lora-* runs/mail/full-*

Runs of one method make up a row. Each row is compared with the first by the paired bootstrap, Holm adjusted. Forgetting
is the loss on general text after training minus before, averaged over seeds, its interval over pieces of the text.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.method_args import WITHOUT_ADAPTERS
from training.run_folder import RESULTS
from training.statistics import (
    Interval,
    bootstrap_mean,
    detectable_difference,
    holm,
    mean_forgetting,
    paired_bootstrap,
)

COLUMNS = ["method", "accuracy, 95% interval", "sd", "seeds", "p, against the first", "forgetting, nats", "trained"]
COLUMNS += ["train s, fastest", "peak MiB"]


def results_of(run: Path) -> dict[str, Any]:
    """results.json; a run of another program (benchmarks/tfidf.py) may have none."""
    path = run / RESULTS
    return json.loads(path.read_text()) if path.exists() else {}


def title(run: Path) -> str:
    args = results_of(run).get("args")
    if args is None:
        return run.name
    return args["method"] + ("" if args["method"] in WITHOUT_ADAPTERS else f" rank {args['lora_rank']}")


def accuracies(runs: Sequence[Path]) -> np.ndarray:
    """(runs, n): whether each test example was right. Raises ValueError when the examples are not the same."""
    found = []
    for run in runs:
        lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
        found.append({line["id"]: float(line["label"] == line["prediction"]) for line in lines})
    ids = sorted(found[0])
    if any(sorted(right) != ids for right in found):
        raise ValueError("the runs were not tested on the same examples")
    return np.array([[right[i] for i in ids] for right in found])


def forgetting(runs: Sequence[Path]) -> Interval | None:
    """Averaged over runs; None where it was not measured. Raises ValueError when the texts are not the same."""
    return mean_forgetting([results_of(run).get("forgetting", {}).get("pieces", {}) for run in runs])


def number_of(runs: Sequence[Path], of: Callable[[list[float]], Any], *path: str) -> str:
    """The mean, least or other of a number of results.json over the runs that have one."""
    found = []
    for run in runs:
        value: Any = results_of(run)
        for name in path:
            value = value.get(name, {})
        found += [value] if value != {} else []
    return f"{of(found):,.0f}" if found else ""


def compare(runs: Sequence[Path]) -> None:
    """Prints the table."""
    rows: dict[str, list[Path]] = defaultdict(list)
    for run in runs:
        rows[title(run)].append(run)
    right = accuracies(runs)
    table = {name: right[[runs.index(run) for run in group]] for name, group in rows.items()}
    reference, others = next(iter(table.values())), list(table)[1:]
    p_values = holm([paired_bootstrap(table[name], reference).p for name in others])
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for name, values in table.items():
        value, low, high, n = bootstrap_mean(values.mean(0))
        spread = f"{values.mean(1).std(ddof=1):.4f}" if len(values) > 1 else ""
        p = f"{p_values[others.index(name)]:.4f}" if name in others else ""
        lost = forgetting(rows[name])
        cells = [name, f"{value:.4f} [{low:.4f}, {high:.4f}]", spread, str(len(values)), p]
        cells += ["" if lost is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*lost)]
        cells += [number_of(rows[name], np.mean, "parameters", "trainable")]
        cells += [number_of(rows[name], min, "seconds", "train")]  # what else a machine does only adds to it
        cells += [number_of(rows[name], np.mean, "peak_memory_mib")]
        print(f"| {' | '.join(cells)} |")
    smallest = max((detectable_difference(table[name], reference, len(others)) for name in others), default=0.0)
    print(f"\nn = {n:,} test examples; a difference of {smallest:.4f} would have been found in four of five tries")


if __name__ == "__main__":
    try:
        compare([Path(word) for word in sys.argv[1:]])
    except ValueError as error:
        sys.exit(f"error: {error}")
