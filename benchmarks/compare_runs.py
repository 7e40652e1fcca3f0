"""Compares finished runs on the same test examples in a Markdown table: mean over seeds, interval, test, cost.

    python benchmarks/compare_runs.py runs/mail/lora-* runs/mail/full-*

Runs that differ in their seed alone make up a row; flags that change the result are shown where rows differ in them.
Classification is compared by accuracy, instruction tuning by the perplexity of the response that was wanted, preference
tuning by the accuracy of the rewards. Each row is compared with the first by the paired bootstrap, Holm adjusted.
Forgetting is the loss on general text after training minus before, averaged over seeds, its interval over pieces of the
text.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from _scores import KINDS, Scored, results_of, same_examples
from evidence.intervals import (
    Interval,
    bootstrap_ratio,
    detectable_difference,
    holm,
    linearised,
    mean_forgetting,
    paired_bootstrap,
    perplexity,
    share,
    shown,
    with_two_more,
)
from training.flags.cli import flag, run
from training.flags.method import WITHOUT_ADAPTERS
from training.storage.run_folder import FREE_FLAGS

COLUMNS = ["method", "accuracy, 95% interval", "sd", "seeds", "p, against the first", "forgetting, nats", "trained"]
COLUMNS += ["train s, fastest", "peak MiB"]
# Flags that change how long a run takes or what else it measures, but not its result.
OF_NO_RESULT = {*FREE_FLAGS, "seed", "micro_batch_size", "checkpoint_activations", "cache_frozen", "dry_run"}
OF_NO_RESULT |= {"log_every", "forgetting_data", "forgetting_tokens", "forgetting_curve"}
OF_NO_RESULT |= {"data", "encoding"}  # the content of the data, not its place, tells whether it is the same
IN_TITLE = ("method", "lora_rank")


@dataclass(frozen=True)
class Args:
    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """folders of finished runs, the first row's first"""

    def problems(self) -> list[str]:
        return (
            [] if self.runs else ["RUNS: name the folders of finished runs, such as runs/mail/lora-* runs/mail/full-*"]
        )


def flags_of(folder: Path) -> dict[str, Any]:
    """Returns the flags that can change the result; those of adapters only if there are any."""
    args = results_of(folder).get("args", {})
    alone = args.get("method") in WITHOUT_ADAPTERS
    kept = {name: value for name, value in args.items() if name not in OF_NO_RESULT}
    return {name: value for name, value in kept.items() if not (alone and name.startswith("lora_"))}


def titles(runs: Sequence[Path]) -> dict[Path, str]:
    """Names each run by method, rank, and the flags in which the runs differ; one without results.json goes by its
    folder's name. A flag that an older run does not know does not set it apart."""
    flags = {folder: flags_of(folder) for folder in runs}
    names = [name for name in dict.fromkeys(name for one in flags.values() for name in one) if name not in IN_TITLE]
    differing = [n for n in names if len({str(one[n]) for one in flags.values() if n in one}) > 1]
    found = {}
    for folder, one in flags.items():
        rank = f" rank {one['lora_rank']}" if "lora_rank" in one else ""
        words = [f"{flag(name).removeprefix('--')} {_plain(one[name])}" for name in differing if name in one]
        found[folder] = ", ".join([one["method"] + rank, *words]) if "method" in one else folder.name
    return found


def _plain(value: Any) -> str:
    return (
        " ".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if type(value) is float else f"{value}"
    )


def rows_of(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Groups runs by title. Raises ValueError for two runs of one seed in a row: they would count as two seeds."""
    rows: dict[str, list[Path]] = {}
    for folder, title in titles(runs).items():
        rows.setdefault(title, []).append(folder)
    for group in rows.values():
        seeds: dict[Any, Path] = {}
        for folder in group:
            seed = results_of(folder).get("args", {}).get("seed")
            if seed is not None and seed in seeds:
                raise ValueError(
                    f"{seeds[seed]} and {folder} are one run twice: the same flags and seed {seed}; leave one out"
                )
            seeds[seed] = folder
    return rows


def accuracies(runs: Sequence[Path]) -> np.ndarray:
    """Returns (runs, n): whether each test example was right. Raises ValueError when the examples are not the same."""
    return same_examples(runs).sums


def forgetting(runs: Sequence[Path]) -> Interval | None:
    """Averages over runs; None if it was not measured. Raises ValueError when the texts are not the same."""
    return mean_forgetting([results_of(folder).get("forgetting", {}).get("pieces", {}) for folder in runs])


def number_of(runs: Sequence[Path], of: Callable[[list[float]], Any], *path: str) -> str:
    """Returns the mean, the least or what else `of` makes of a number in results.json, over the runs that have it."""
    found = []
    for folder in runs:
        value: Any = results_of(folder)
        for name in path:
            value = value.get(name, {})
        found += [value] if value != {} else []
    return f"{of(found):,.0f}" if found else ""


def mean_of(kind: str, sums: np.ndarray, weights: np.ndarray) -> Interval:
    """Returns the mean of scores (n,) that are averaged over seeds, or their perplexity, with its interval."""
    if kind != "perplexity":
        return share(sums)
    value, low, high, n = bootstrap_ratio(sums, weights)
    return Interval(perplexity(value), perplexity(low), perplexity(high), n)


def detectable(found: Scored, ours: np.ndarray, first: np.ndarray, comparisons: int) -> float:
    """Returns the smallest difference (ratio of perplexities) that is found in four of five tries; nan if not known."""
    difference = ours.mean(0) - first.mean(0)
    if len(difference) < 2:
        return math.nan
    ratio = found.kind == "perplexity"
    each = linearised(difference, found.weights) if ratio else with_two_more(difference)
    least = detectable_difference(each, np.zeros(len(each)), comparisons)
    return perplexity(least) if ratio else least


def compare(runs: Sequence[Path]) -> None:
    """Prints the table. Raises ValueError for runs that cannot be compared."""
    if len({folder.resolve() for folder in runs}) < len(runs):
        raise ValueError("RUNS: a folder is named twice; name each once")
    found, rows = same_examples(runs), rows_of(runs)
    table = {name: found.sums[[runs.index(folder) for folder in group]] for name, group in rows.items()}
    first, others = next(iter(table.values())), list(table)[1:]
    p_values = holm([paired_bootstrap(table[name], first).p for name in others])
    columns = [COLUMNS[0], f"{KINDS[found.kind]}, 95% interval", *COLUMNS[2:]]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, sums in table.items():
        each = [mean_of(found.kind, one, found.weights).value for one in sums]
        spread = f"{np.std(each, ddof=1):.4f}" if len(each) > 1 else ""
        p = f"{p_values[others.index(name)]:.4f}" if name in others else ""
        lost = forgetting(rows[name])
        cells = [name, shown(mean_of(found.kind, sums.mean(0), found.weights).entry()), spread, str(len(sums)), p]
        cells += ["" if lost is None else shown(lost.entry(), "+.3f")]
        cells += [number_of(rows[name], np.mean, "parameters", "trainable")]
        cells += [number_of(rows[name], min, "seconds", "train")]  # other work of the machine only adds to it
        cells += [number_of(rows[name], np.mean, "peak_memory_mib")]
        print(f"| {' | '.join(cells)} |")
    print(f"\nn = {found.sums.shape[1]:,} test examples{_could_be_found(found, table)}")


def _could_be_found(found: Scored, table: dict[str, np.ndarray]) -> str:
    first, *others = table.values()
    if not others:
        return ""
    least = [detectable(found, sums, first, len(others)) for sums in others]
    known = [one for one in least if not math.isnan(one)]
    if not known:
        return "; how small a difference would have been found cannot be told from scores that never differ"
    what = "ratio" if found.kind == "perplexity" else "difference"
    return f"; a {what} of {max(known):.4f} would have been found in four of five tries"


def main(args: Args) -> None:
    compare(args.runs)


if __name__ == "__main__":
    run(main, Args, __doc__)
