"""The learning rate with the lowest validation loss for each task and method, from the rows of learning_rates.sh.

SCALE=nano LIST=1 bash reproduce/learning_rates.sh | python reproduce/choose_rates.py
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

Losses = dict[str, list[float]]


def losses_of(lines: list[str]) -> dict[str, Losses]:
    """Rows of LIST -> validation losses over seeds, by column (task and method) and label (learning rate).

    Rows that did not run are left out. Raises ValueError for a row that should have and did not.
    """
    found: dict[str, Losses] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        _, rate, column, _, _, _, _, _, status, folder, _ = line.rstrip("\n").split("\t")
        if status != "run":
            continue
        path = Path(folder) / "results.json"
        if not path.exists():
            raise ValueError(f"{path} is missing; run learning_rates.sh to its end first")
        found[column][rate].append(json.loads(path.read_text(encoding="utf-8"))["val"]["loss"]["value"])
    return found


def main() -> None:
    for column, by_rate in losses_of(sys.stdin.readlines()).items():
        means = {rate: sum(losses) / len(losses) for rate, losses in by_rate.items()}
        best = min(means, key=means.__getitem__)
        edge = "  (at the edge of the grid)" if best in (list(means)[0], list(means)[-1]) else ""
        shown = ", ".join(f"{loss:.4f} at {rate}" for rate, loss in means.items())
        print(f"  [{column}]={best}  # {shown}{edge}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
