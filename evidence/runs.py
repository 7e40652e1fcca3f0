"""Finished runs are read from their folders, or from one file that holds many as gzipped JSON lines, a run a line.

A packed run is its key and script, results.json without what no table shows, a column for each number of an example,
the curve, and a few answers in full. A folder is read into the same form, so that both give the same page.
"""

import gzip
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = "results.json"
KEPT = ["schema", "args", "environment", "model", "parameters", "best_step", "before", "val", "test", "forgetting"]
KEPT += ["judge", "seconds", "tokens_per_second", "peak_memory_mib"]
OF_DATA = ("source", "sha256", "rows", "labels")
OF_A_MACHINE = ("output_dir", "cache_dir")  # flags that are not kept
OF_CURVE = ("step", "epoch", "train_loss", "val_loss", "val_accuracy", "lr")
OF_AN_ANSWER = ("instruction", "input", "reference", "before", "response")
ANSWERS, LONGEST = 4, 600  # answers kept in full, and characters of each


@dataclass(frozen=True)
class Run:
    """`script` is finetune_cls, for example, and empty where results.json is too old to say. `examples` has columns of
    equal length: id and either label, prediction (and loss) or loss, tokens of the response. `scores` are a judge's, by
    id. `general` has the tokens of each piece of the general text, and its loss before and after.
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
        """This is a number of results.json, None where it was not measured."""
        found: Any = self.results
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return None if found is None else float(found)


def read_run(folder: Path) -> Run:
    """Raises ValueError when a file of the run folder is damaged."""
    place = folder / RESULTS
    try:
        results = json.loads(place.read_text(encoding="utf-8"))
        if not isinstance(results["args"], dict):
            raise TypeError("args is not an object")
        place = folder / "predictions.jsonl"
        if not place.exists():
            place = folder / "generations.jsonl"
        rows = _lines(place)
        columns = _columns(rows)
        answers = [row for row in rows[:ANSWERS] if "response" in row]
        place = folder / RESULTS
        scores = {item: float(score) for item, score in counting_judge(results).get("scores", {}).items()}
        curve = [{k: float(f"{point[k]:.5g}") for k in OF_CURVE if k in point} for point in results.get("curve", [])]
        asked = folder.with_name(f"{folder.name}.answers.txt")
        return Run(
            results.get("script", ""),
            _compact(results),
            columns,
            scores,
            curve,
            [{name: str(row.get(name, ""))[:LONGEST] for name in OF_AN_ANSWER} for row in answers],
            results.get("forgetting", {}).get("pieces", {}),
            asked.read_text(encoding="utf-8") if asked.exists() else "",
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{place}: damaged ({what}); delete {folder} and run its table again") from error


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines, whose texts may hold what `str.splitlines` takes for the end of one."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _lines(path: Path) -> list[dict[str, Any]]:
    return json_lines(path) if path.exists() else []


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Losses (nats of a whole example) keep four decimals."""
    if not rows:
        return {}
    if "prediction" in rows[0]:
        names = [name for name in ("id", "label", "prediction", "loss") if name in rows[0] or name != "loss"]
    elif "reference_loss" in rows[0]:
        names = ["id", "reference_loss", "reference_tokens"]
    else:  # rewards of preferred or rated answers, which no column shows yet
        names = ["id"]
    columns = {name.removeprefix("reference_"): [row[name] for row in rows] for name in names}
    return columns | ({"loss": [round(loss, 4) for loss in columns["loss"]]} if "loss" in columns else {})


def counting_judge(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entry of the judge whose scores count, the first by name that scored answers of the fine-tuned model;
    empty without one."""
    judges = [one for _, one in sorted(results.get("judge", {}).items()) if "score" in one]
    return next((one for one in judges if one["judge"]["text"] == "response"), {})


def _some(entries: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return {name: entries[name] for name in names if name in entries}


def _compact(results: dict[str, Any]) -> dict[str, Any]:
    kept = _some(results, KEPT)
    kept["args"] = {name: value for name, value in kept["args"].items() if name not in OF_A_MACHINE}
    if "data" in results:
        kept["data"] = _some(results["data"], OF_DATA)
        if "source" in kept["data"]:
            kept["data"]["source"] = Path(str(kept["data"]["source"])).name
    for part in {"before", "val", "test"} & kept.keys():
        kept[part] = {k: v for k, v in kept[part].items() if isinstance(v, dict) and "value" in v}
    if "forgetting" in kept:
        kept["forgetting"] = {name: value for name, value in kept["forgetting"].items() if name != "pieces"}
    if "judge" in kept:
        kept["judge"] = {name: _some(one, ("judge", "counts", "score")) for name, one in kept["judge"].items()}
    return kept


def read_packed(path: Path) -> dict[str, Run]:
    """The runs are by key; there are none where there is no such file. Raises ValueError when it is damaged."""
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        return {row.pop("key"): Run(**row) for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError) as error:
        raise ValueError(f"{path}: damaged ({type(error).__name__}: {error}); check it out again") from error


def write(path: Path, content: bytes) -> None:
    """The file is replaced in one step, so that whoever is interrupted leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    os.replace(new, path)


def write_packed(path: Path, runs: Mapping[str, Run]) -> None:
    """The same runs give the same bytes."""
    rows = [{"key": key} | asdict(run) for key, run in sorted(runs.items())]
    text = "".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows)
    write(path, gzip.compress(text.encode(), mtime=0))


class Store:
    """A run is looked for by its key in the folder of runs, then among the packed ones."""

    def __init__(self, runs: Path, packed: Path) -> None:
        self.runs, self.packed = runs, read_packed(packed)
        self.known = dict[str, Run | None]()

    def get(self, key: str) -> Run | None:
        """It is None for a run that has not finished. Raises ValueError when it is damaged."""
        if key not in self.known:
            folder = self.runs / key
            self.known[key] = read_run(folder) if (folder / RESULTS).exists() else self.packed.get(key)
        return self.known[key]
