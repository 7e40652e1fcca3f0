"""Compares finished runs on the same test examples in a Markdown table: mean over seeds, interval, test, cost.

    python benchmarks/compare_runs.py runs/mail/lora-* runs/mail/full-*

Runs that differ in their seed alone make up a row; flags that change the result are shown where rows differ in them.
Classification is compared by accuracy, instruction tuning by the perplexity of the response that was wanted, preference
tuning by the accuracy of the rewards. Intervals and tests are over seeds and examples, p is Holm adjusted, and a row
with three seeds claims nothing unless other rows vary alike (docs/evidence.md). Forgetting is the loss on general text
after training minus before.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from _scores import KINDS, PEAK, SECONDS, TRAINABLE, Scored, number_in, results_of, same_examples
from evidence.crossed import Mean, family
from evidence.intervals import Interval, shown
from evidence.kinds import ACCURACY, FORGETTING, PERPLEXITY, Kind
from training.flags.cli import flag, run
from training.flags.method import WITHOUT_ADAPTERS
from training.storage.run_folder import FREE_FLAGS, LIGHTER_FLAGS

COLUMNS = ["method", "accuracy, 95% interval", "sd", "seeds", "p, against the first", "forgetting, nats", "trained"]
COLUMNS += ["train s, fastest", "peak MiB"]
# Flags that change how long a run takes or what else it measures, but not its result.
OF_NO_RESULT = {*FREE_FLAGS, *LIGHTER_FLAGS, "seed", "cache_frozen", "dry_run"}
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
    seeds = {folder: results_of(folder).get("args", {}).get("seed") for folder in runs}
    drawn = [folder for folder, one in flags.items() if one.get("draw_seed") is not None]
    if len({flags[folder]["draw_seed"] for folder in drawn}) > 1:
        for folder in [folder for folder in drawn if flags[folder]["draw_seed"] == seeds[folder]]:
            flags[folder]["draw_seed"] = "own"  # each seed draws its own examples, so it tells no seeds of a row apart
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


def rows_of(runs: Sequence[Path]) -> dict[str, dict[Any, Path]]:
    """Returns the runs by title and seed; one that does not tell its seed goes by its place.

    Raises ValueError for two runs of one seed in a row: they would count as two seeds.
    """
    rows: dict[str, dict[Any, Path]] = {}
    for place, (folder, title) in enumerate(titles(runs).items()):
        row, seed = rows.setdefault(title, {}), results_of(folder).get("args", {}).get("seed", f"run {place}")
        if seed in row:
            raise ValueError(
                f"{row[seed]} and {folder} are one run twice: the same flags and seed {seed}; leave one out"
            )
        row[seed] = folder
    return rows


def interval(kind: Kind, sums: np.ndarray, weights: np.ndarray) -> Interval:
    """Returns the mean of sums (seeds, n) over seeds and examples, in the unit of the kind."""
    mean = kind.mean(sums, weights)
    value, low, high = map(kind.in_unit, (mean.value, *kind.ends(mean, len(weights))))
    return Interval(value, low, high, len(weights))


def accuracy(runs: Sequence[Path]) -> Interval:
    """Returns the accuracy of runs that differ in their seed. Raises ValueError for runs on other examples."""
    found = same_examples(runs)
    return interval(ACCURACY, found.sums, found.weights)


def risen(runs: Sequence[Path]) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns how much the loss of each piece of general text rose (runs, n), and the pieces' tokens (n,), or None if
    it was not measured. Raises ValueError for different texts."""
    found = [results_of(folder).get("forgetting") or {} for folder in runs]
    if not all("pieces" in one for one in found):
        return None
    pieces = [one["pieces"] for one in found]
    if any(
        (one.get("sha256"), one["pieces"]["tokens"]) != (found[0].get("sha256"), pieces[0]["tokens"]) for one in found
    ):
        raise ValueError("the runs measured forgetting on different texts; compare runs with one --forgetting-data")
    lost = np.array([np.subtract(one["after"], one["before"]) for one in pieces])
    return lost, np.array(pieces[0]["tokens"])


def forgetting(runs: Sequence[Path]) -> Interval | None:
    """Returns forgetting over seeds and pieces of text, or None where it was not measured.

    Raises ValueError for different texts.
    """
    found = risen(runs)
    return None if found is None else interval(FORGETTING, *found)


def number_of(runs: Sequence[Path], of: Callable[[list[float]], Any], *path: str) -> str:
    """Returns the mean, the least or what else `of` makes of a number in results.json, over the runs that have it."""
    numbers = [number_in(results_of(folder), *path) for folder in runs]
    found = [number for number in numbers if number is not None]
    return f"{of(found):,.0f}" if found else ""


def differences(kind: Kind, found: Scored, rows: dict[str, dict[Any, int]]) -> dict[str, tuple[Mean, float]]:
    """Returns each row's difference from the first one, with its adjusted p.

    A row with fewer than two seeds in common with the first one has none.
    `rows`: by title and seed, the place of the run in `found`.
    """
    first, means = next(iter(rows.values())), {}
    for name, row in [*rows.items()][1:]:
        seeds = [seed for seed in row if seed in first]
        ours, theirs = ([of[seed] for seed in seeds] for of in (row, first))
        if len(seeds) > 1 and len(found.weights) > 1:
            means[name] = kind.difference(found.sums[ours], found.sums[theirs], found.weights)
    return dict(zip(means, family([*means.values()]), strict=True))


def compare(runs: Sequence[Path]) -> None:
    """Prints the table. Raises ValueError for runs that cannot be compared."""
    if len({folder.resolve() for folder in runs}) < len(runs):
        raise ValueError("RUNS: a folder is named twice; name each once")
    found, rows = same_examples(runs), rows_of(runs)
    kind = PERPLEXITY if found.kind == "perplexity" else ACCURACY
    places = {name: {seed: runs.index(folder) for seed, folder in row.items()} for name, row in rows.items()}
    tested = differences(kind, found, places)
    columns = [COLUMNS[0], f"{KINDS[found.kind]}, 95% interval", *COLUMNS[2:]]
    lines = [f"| {' | '.join(columns)} |", f"{'|---' * len(columns)}|"]
    for name, row in rows.items():
        sums, folders = found.sums[[*places[name].values()]], [*row.values()]
        each = [kind.in_unit(float(one.sum() / found.weights.sum())) for one in sums]
        spread = f"{np.std(each, ddof=1):.4f}" if len(each) > 1 else ""
        p = f"{tested[name][1]:.4f}" if name in tested and tested[name][0].claims else ""
        lost = forgetting(folders)
        cells = [name, shown(interval(kind, sums, found.weights).entry()), spread, str(len(sums)), p]
        cells += ["" if lost is None else shown(lost.entry(), "+.3f")]
        cells += [number_of(folders, np.mean, *TRAINABLE)]
        cells += [number_of(folders, min, *SECONDS)]  # other work of the machine only adds to it
        cells += [number_of(folders, np.mean, *PEAK)]
        lines.append(f"| {' | '.join(cells)} |")
    print("\n".join(lines))
    remark = _could_be_found(kind, [mean for mean, _ in tested.values()], len(rows) - 1)
    print(f"\nn = {found.sums.shape[1]:,} test examples{remark}")


def _could_be_found(kind: Kind, means: Sequence[Mean], others: int) -> str:
    if not others:
        return ""
    if not any(mean.claims for mean in means):
        return "; too few seeds to claim a difference (four or more claim one)"
    known = [least for mean in means if not math.isnan(least := mean.detectable(len(means)))]
    if not known:
        return "; how small a difference would have been found cannot be told from scores that never differ"
    what = "ratio" if kind.ratio else "difference"
    return f"; a {what} of {kind.in_unit(max(known)):.4f} would have been found in four of five tries"


def main(args: Args) -> None:
    compare(args.runs)


if __name__ == "__main__":
    run(main, Args, __doc__)
