"""What a run says of its data and model before it starts, and keeps in results.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tasks import Splits
from training.batches import Encoded


def data_facts(splits: Splits[Any], encoded: Mapping[str, Sequence[Encoded]], source: str) -> dict[str, Any]:
    """Source, counts, balance, hash, and lengths in tokens by split."""
    return {
        "source": source,
        "sha256": splits.fingerprint(),
        "rows": {name: len(part) for name, part in splits.named().items()},
        "skipped": asdict(splits.skipped),
        "balance": splits.balance(),
        "lengths": {name: _lengths(part) for name, part in encoded.items() if part},
        "notes": splits.notes,
    }


def _lengths(part: Sequence[Encoded]) -> dict[str, int]:
    lengths = [len(e.tokens) for e in part]
    low, high = np.quantile(lengths, [0.5, 0.95]).astype(int)
    return {"median": int(low), "p95": int(high), "longest": max(lengths), "cut": sum(e.cut for e in part)}


def name_of(prediction: int, classes: Sequence[str]) -> str:
    """A class by its name; a token that stands for none of them (head lm-token) by its number."""
    return classes[prediction] if prediction < len(classes) else f"token {prediction}"


def print_outcome(folder: Path, outcome: Mapping[str, Any], names: Sequence[str]) -> None:
    """Test metrics with intervals, and where everything is."""
    for part in ("before", "test"):
        metrics = outcome.get(part) or {}
        shown = ("{} {value:.4f} [{low:.4f}, {high:.4f}]".format(n, **metrics[n]) for n in names if n in metrics)
        print(f"{part:<8}{', '.join(shown) or 'no test examples'}")
    if outcome.get("test"):
        print(f"        95% intervals over n = {outcome['test'][names[0]]['n']:,} test examples")
    if lost := outcome.get("forgetting"):
        print(
            "general text  loss {:.3f} -> {:.3f}, ".format(*(lost[name]["value"] for name in ("before", "after"))),
            end="",
        )
        print("{value:+.3f} [{low:.3f}, {high:.3f}]".format(**lost["difference"]), f"over {lost['tokens']:,} tokens")
    print(f"curves  {folder}/curves.png; tensorboard --logdir {folder}/tensorboard")
    print(f"results {folder}/results.json")


def print_facts(data: Mapping[str, Any], parameters: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """The table above the progress line."""
    skipped = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in data["skipped"].items() if count)
    print(f"data       {data['source']}, sha256 {data['sha256'][:12]}; left out: {skipped or 'nothing'}")
    for note in data["notes"]:
        print(f"note       {note}")
    for name, count in data["rows"].items():
        balance = ", ".join(f"{label or 'all'} {n:,}" for label, n in data["balance"][name].items())
        lengths = data["lengths"].get(name)
        tokens = (
            ""
            if lengths is None
            else "; tokens: median {median}, 95% {p95}, longest {longest}, cut {cut}".format(**lengths)
        )
        print(f"  {name:<11}{count:>7,}  {balance}{tokens}")
    trained, share = parameters["trainable"], parameters["share"]
    print(f"model      {parameters['total']:,} parameters, {trained:,} trained ({share:.2%})")
    print("plan       " + ", ".join(f"{name} {value}" for name, value in plan.items()), flush=True)
