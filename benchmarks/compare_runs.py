"""Finished classification runs on the same test examples -> a Markdown table: mean over seeds, interval, cost.

    python benchmarks/compare_runs.py runs/mail/lora-* runs/mail/full-*

Runs of one method make up a row. Each row is compared with the first by the paired bootstrap, Holm adjusted.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from training.statistics import bootstrap_mean, detectable_difference, holm, paired_bootstrap


def scores(run: Path) -> dict[int, bool]:
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    return {line["id"]: line["label"] == line["prediction"] for line in lines}


def title(results: dict[str, Any]) -> str:
    args = results["args"]
    return f"{args['method']}" + (f" rank {args['lora_rank']}" if args["method"] == "lora" else "")


def main(runs: list[Path]) -> None:
    rows: dict[str, list[Path]] = defaultdict(list)
    for run in runs:
        path = run / "results.json"
        rows[title(json.loads(path.read_text())) if path.exists() else run.name].append(run)
    right = {run: scores(run) for run in runs}
    ids = sorted(right[runs[0]])
    if any(sorted(found) != ids for found in right.values()):
        sys.exit("error: the runs were not tested on the same examples")
    table = {name: np.array([[right[run][i] for i in ids] for run in group], float) for name, group in rows.items()}
    reference = next(iter(table.values()))
    others = list(table)[1:]
    p_values = holm([paired_bootstrap(table[name], reference).p for name in others])
    print("| method | accuracy, 95% interval | sd | seeds | p, against the first | trained | train s | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, values in table.items():
        value, low, high, n = bootstrap_mean(values.mean(0))
        spread = f"{values.mean(1).std(ddof=1):.4f}" if len(values) > 1 else ""
        p = f"{p_values[others.index(name)]:.4f}" if name in others else ""
        cost = [json.loads(f.read_text()) for run in rows[name] if (f := run / "results.json").exists()]
        trained = f"{cost[0]['parameters']['trainable']:,}" if cost else ""
        seconds = f"{np.mean([c['seconds']['train'] for c in cost]):.0f}" if cost else ""
        memory = f"{np.mean([c['peak_memory_mib'] for c in cost]):.0f}" if cost else ""
        accuracy = f"{value:.4f} [{low:.4f}, {high:.4f}]"
        print(f"| {' | '.join([name, accuracy, spread, str(len(values)), p, trained, seconds, memory])} |")
    smallest = max((detectable_difference(table[name], reference, len(others)) for name in others), default=0.0)
    print(f"\nn = {n:,} test examples; a difference of {smallest:.4f} would have been found in four of five tries")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
