"""Finished runs, as a training script left them or as they were collected: small enough to be kept beside the tables.

A collected run is results.json without what no table shows, and examples.json.gz with a column for each number of an
example, the curve, and a few answers in full. Both kinds are read through the same form, so that a page made from
either is the same page.
"""

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS, EXAMPLES = "results.json", "examples.json.gz"
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
    """`examples`: columns of equal length, id and either label, prediction (and loss) or loss, tokens of the response.
    `scores`: a judge's, by id. `general`: tokens of each piece of the general text, and its loss before and after.
    """

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
    """A run folder of either kind. Raises ValueError when a file of it is damaged."""
    place = folder / RESULTS
    try:
        results = json.loads(place.read_text(encoding="utf-8"))
        if not isinstance(results["args"], dict):
            raise TypeError("args is not an object")
        if (place := folder / EXAMPLES).exists():
            return Run(results, **json.loads(gzip.decompress(place.read_bytes())))
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
        return Run(_compact(results), columns, scores, curve, answers, general, asked)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{place}: damaged ({what}); delete {folder} and run its table again") from error


def write_run(folder: Path, run: Run) -> None:
    """The collected form; results.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        "examples": run.examples,
        "scores": run.scores,
        "curve": run.curve,
        "answers": run.answers,
        "general": run.general,
    }
    columns |= {"asked": run.asked} if run.asked else {}
    text = json.dumps(columns, separators=(",", ":"), ensure_ascii=False)
    (folder / EXAMPLES).write_bytes(gzip.compress(text.encode(), mtime=0))
    (folder / RESULTS).write_text(json.dumps(run.results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class Store:
    """Runs by key: first from the folder of runs, then from the collected ones."""

    def __init__(self, runs: Path, collected: Path) -> None:
        self.places, self.known = (runs, collected), dict[str, Run | None]()

    def get(self, key: str) -> Run | None:
        """None for a run that has not finished. Raises ValueError when it is damaged."""
        if key not in self.known:
            folders = (place / key for place in self.places)
            self.known[key] = next((read_run(folder) for folder in folders if (folder / RESULTS).exists()), None)
        return self.known[key]

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def collect(self, keys: Iterable[str]) -> int:
        """Copies what has finished into the collected ones; how many."""
        found = {key: run for key in keys if (run := self.get(key)) is not None}
        for key, run in found.items():
            write_run(self.places[1] / key, run)
        return len(found)


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
