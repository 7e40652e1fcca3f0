"""Makes judge.json, the entry in results.json, and the lines that a person reads."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from evidence.intervals import shown
from judge.generations import JUDGE, RESULTS, Generation, results_beside
from judge.measures import Metric, measure, summarise
from training.storage.files import write_json

LIBRARIES = ("google-genai", "openai", "rouge-score", "sacrebleu", "numpy", "scipy")


def measured(
    ours: Sequence[Generation], theirs: Sequence[Generation] | None
) -> tuple[dict[str, Metric], dict[str, np.ndarray]]:
    """Returns the measures of `ours`, and what verdicts are compared with: these (n,), or differences from `theirs`."""
    measures = measure(ours)
    summary = summarise(ours, measures)
    if theirs is None:
        return summary, measures
    others = measure(theirs)
    return summary, {name: measures[name] - others[name] for name in measures if name in others}


def environment() -> dict[str, Any]:
    """Returns the versions of Python and of the libraries that computed the numbers."""
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "libraries": libraries}


def write(folder: Path, generations: Path, described: dict[str, Any], outcome: dict[str, Any]) -> None:
    """Writes judge.json, and after it the entry `judge` of a results.json beside the generations, under the folder's
    name, or says that it cannot be written. `described` goes into judge.json alone."""
    write_json(folder / JUDGE, described | outcome)
    beside, results = generations if generations.is_dir() else generations.parent, results_beside(generations)
    if results is None:
        return
    if "files" in results and beside in folder.parents:
        results["files"] = sorted({*results["files"], folder.relative_to(beside).parts[0]})
    judges = results.get("judge", {}) | {folder.name: outcome}
    try:
        write_json(beside / RESULTS, results | {"judge": judges})
    except OSError as error:
        print(f"note    {error}; the outcome is in {folder / JUDGE} alone")


def show(outcome: Mapping[str, Any]) -> None:
    """Prints counts, score or win rate, and the table of measures."""
    agreed = outcome.get("agreement", {})
    lines = [*judge_lines(outcome), ""] if "counts" in outcome else []
    title = "rank correlation with the judge" if agreed else ""
    lines.append(f"{'without a judge':<22}{'value, 95% interval':<34}{'n':>6}  {title}".rstrip())
    for name, metric in outcome["measures"].items():
        beside = f"  {shown(agreed[name], '+.2f')}" if name in agreed else ""
        lines.append(f"{name:<22}{shown(metric, '.3f'):<34}{metric['n']:>6,}{beside}")
    print("\n".join(lines))


def judge_lines(outcome: Mapping[str, Any]) -> list[str]:
    """Says who judged, what was asked, what is missing, and the verdict."""
    count, judge, items = outcome["counts"], outcome["judge"], outcome["items"]
    why = ", ".join(f"{reason} {n:,}" for reason, n in count["why_unparsed"].items())
    asked = ", ".join(f"{name} {count[name]:,}" for name in ("parsed", "unparsed", "blocked", "failed"))
    lines = [f"judge      {judge['model']}, prompt {judge['prompt']}, {judge['output']}; text {judge['text']}"]
    if adapted := judge.get("adapted"):
        told = ", ".join(f"{name} {done}" for name, done in adapted.items())
        lines += [f"adapted    {told}: the model takes it no other way"]
    lines += [f"asked      {count['asked']:,}: {asked}" + (f"; unparsed: {why}" if why else "")]
    sent = f"sent       {outcome['requests']:,} requests now, {outcome['retries']:,} of them retries"
    tokens = outcome.get("tokens")
    lines += [sent + ("; all replies: {prompts:,} tokens in, {replies:,} out".format(**tokens) if tokens else "")]
    if failed := outcome.get("failed"):
        lines += [f"           the same command asks again for what failed; the last: {failed[-1]['why']}"]
    if metric := outcome.get("score"):
        lines += [f"score      {shown(metric, '.2f')} of 100, n = {metric['n']:,} of {items:,} items"]
        if metric["n"] < items:
            bounds = "{low:.2f} to {high:.2f}".format(**outcome["if_missing"])
            lines += [f"           items without a score are left out; if they had 0 or 100: {bounds}"]
    if metric := outcome.get("win_rate"):
        lines += [f"win rate   {shown(metric, '.3f')}, ties half, n = {metric['n']:,} of {items:,} items"]
        first = "; the first answer was chosen {first_position:.0%}" if "first_position" in outcome else ""
        lines += [("pairs      won {wins:,}, tied {ties:,}, lost {losses:,}" + first).format(**outcome)]
    if spread := outcome.get("variance"):
        sds = spread["items"] ** 0.5, spread["judge"] ** 0.5
        lines += ["spread     sd of items {:.2f}, of the judge on one item {:.2f}".format(*sds)]
    return lines
