"""Finished runs, as a training script left them or packed: all runs of a scale in one file, results/nano.jsonl.gz.

A line of that file is a run: its key and script, results.json without what no table shows, a column for each number of
an example, the curve, and a few answers in full. A folder and a line are read into the same form, so that a page made
from either is the same page.
"""

import gzip
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = "results.json"
KEPT: tuple[str, ...] = (
    "args",
    "environment",
    "model",
    "parameters",
    "best_step",
    "before",
    "val",
    "test",
    "forgetting",
    "judge",
)
KEPT += ("seconds", "tokens_per_second", "peak_memory_mib")
OF_DATA = ("source", "sha256", "rows", "labels")
OF_A_MACHINE = ("output_dir", "cache_dir")  # flags that are not kept
OF_CURVE = ("step", "epoch", "train_loss", "val_loss", "val_accuracy", "lr")
ANSWERS, LONGEST = 4, 600  # answers kept in full, and characters of each


@dataclass(frozen=True)
class Run:
    """`script`: finetune_cls, for example; empty where results.json is of a version that does not say.
    `examples`: columns of equal length, id and either label, prediction (and loss) or loss, tokens of the response.
    `scores`: a judge's, by id. `general`: tokens of each piece of the general text, and its loss before and after.
    """

    script: str
    results: dict[str, Any]
    examples: dict[str, list[Any]]
    scores: dict[str, float]
    curve: list[dict[str, float]]
    answers: list[dict[str, str]]
    general: dict[str, list[float]]
    asked: str = ""  # answers to the report's own questions, as they were printed

    def number(self, *path: str) -> float | None:
        """A number of results.json; None where it was not measured."""
        found: Any = self.results
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return None if found is None else float(found)


def read_run(folder: Path) -> Run:
    """A run folder. Raises ValueError when a file of it is damaged."""
    place = folder / RESULTS
    try:
        results = json.loads(place.read_text(encoding="utf-8"))
        if not isinstance(results["args"], dict):
            raise TypeError("args is not an object")
        place = folder / "predictions.jsonl"
        if not place.exists():
            place = folder / "generations.jsonl"
        rows = _lines(place)
        columns, answers = _columns(rows), _answers(rows)
        place = folder / "judge"
        scores = _scores(place, results)
        place = folder / RESULTS
        curve = [{k: _short(point[k]) for k in OF_CURVE if k in point} for point in results.get("curve", [])]
        place = folder.with_name(f"{folder.name}.answers.txt")
        asked = place.read_text(encoding="utf-8") if place.exists() else ""
        general = results.get("forgetting", {}).get("pieces", {})
        return Run(results.get("script", ""), _compact(results), columns, scores, curve, answers, general, asked)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{place}: damaged ({what}); delete {folder} and run its table again") from error


def read_packed(path: Path) -> dict[str, Run]:
    """Runs by key; none where there is no such file. Raises ValueError when it is damaged."""
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        return {row.pop("key"): Run(**row) for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError) as error:
        raise ValueError(f"{path}: damaged ({type(error).__name__}: {error}); check it out again") from error


def write_packed(path: Path, runs: Mapping[str, Run]) -> None:
    """In one step, and the same bytes for the same runs."""
    rows = [{"key": key} | asdict(run) for key, run in sorted(runs.items())]
    text = "".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(gzip.compress(text.encode(), mtime=0))
    os.replace(new, path)


class Store:
    """Runs by key: first from the folder of runs, then from the packed ones."""

    def __init__(self, runs: Path, packed: Path) -> None:
        self.runs, self.packed = runs, read_packed(packed)
        self.known = dict[str, Run | None]()

    def get(self, key: str) -> Run | None:
        """None for a run that has not finished. Raises ValueError when it is damaged."""
        if key not in self.known:
            folder = self.runs / key
            self.known[key] = read_run(folder) if (folder / RESULTS).exists() else self.packed.get(key)
        return self.known[key]

    def has(self, key: str) -> bool:
        return self.get(key) is not None


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _compact(results: dict[str, Any]) -> dict[str, Any]:
    kept = {name: results[name] for name in KEPT if name in results}
    kept["args"] = {name: value for name, value in kept["args"].items() if name not in OF_A_MACHINE}
    if "data" in results:
        kept["data"] = {name: results["data"][name] for name in OF_DATA if name in results["data"]}
        if "source" in kept["data"]:
            kept["data"]["source"] = Path(str(kept["data"]["source"])).name
    for part in ("before", "val", "test"):
        kept |= (
            {part: {k: v for k, v in kept[part].items() if isinstance(v, dict) and "value" in v}}
            if part in kept
            else {}
        )
    if "forgetting" in kept:
        kept["forgetting"] = {name: value for name, value in kept["forgetting"].items() if name != "pieces"}
    if "judge" in kept:
        kept["judge"] = {
            name: {k: v for k, v in one.items() if k in ("judge", "counts", "score")}
            for name, one in kept["judge"].items()
        }
    return kept


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Losses to four decimals (nats of a whole example)."""
    if not rows:
        return {}
    if "prediction" in rows[0]:
        columns = {name: [row[name] for row in rows] for name in ("id", "label", "prediction")}
        return columns | ({"loss": [round(row["loss"], 4) for row in rows]} if "loss" in rows[0] else {})
    losses = {
        "loss": [round(row["reference_loss"], 4) for row in rows],
        "tokens": [row["reference_tokens"] for row in rows],
    }
    return {"id": [row["id"] for row in rows]} | losses


def _answers(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    names = ("instruction", "input", "reference", "before", "response")
    return [{name: str(row.get(name, ""))[:LONGEST] for name in names} for row in rows[:ANSWERS] if "response" in row]


def _scores(folder: Path, results: dict[str, Any]) -> dict[str, float]:
    """The first judge's mean score of each answer; answers without a verdict are absent."""
    judges = results.get("judge", {})
    names = [name for name in sorted(judges) if "score" in judges[name] and judges[name]["judge"]["text"] == "response"]
    found: dict[str, list[float]] = {}
    for reply in _lines(folder / names[0] / "replies.jsonl") if names else []:
        if reply["value"] is not None:
            found.setdefault(str(reply["item"]), []).append(float(reply["value"]))
    return {item: sum(values) / len(values) for item, values in found.items()}


def _short(value: float) -> float:
    """Five significant digits: more than a picture shows."""
    return float(f"{value:.5g}")
