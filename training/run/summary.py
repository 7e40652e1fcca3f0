"""What a run says of its data, model and length before it starts, and keeps in results.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tasks import Splits
from training.data.batches import Encoded
from training.evaluation.metrics import commonest

MOST_CLASSES = 12  # named on one line


def data_facts(splits: Splits[Any], encoded: Mapping[str, Sequence[Encoded]], source: str) -> dict[str, Any]:
    """Source, counts, balance, hash, and lengths in tokens by split."""
    return {
        "source": source,
        "sha256": splits.fingerprint(),
        "rows": {name: len(part) for name, part in splits.named().items()},
        "skipped": asdict(splits.skipped),
        "balance": splits.balance(),
        "lengths": {name: _lengths(part) for name, part in encoded.items() if part},
        "notes": [*splits.notes],
    }


def _lengths(part: Sequence[Encoded]) -> dict[str, int]:
    lengths = [len(e.tokens) for e in part]
    low, high = np.quantile(lengths, [0.5, 0.95]).astype(int)
    return {"median": int(low), "p95": int(high), "longest": max(lengths), "cut": sum(e.cut for e in part)}


def _counts(balance: Mapping[str, int]) -> str:
    """Example: "ham 40, spam 20"; of very many classes the commonest, and what the others have."""
    ranked = sorted(balance.items(), key=lambda pair: -pair[1])
    shown, others = ([*balance.items()], []) if len(ranked) <= MOST_CLASSES else (ranked[:8], ranked[8:])
    text = ", ".join(f"{label or 'all'} {n:,}" for label, n in shown)
    return text + (f", {len(others):,} others with {others[-1][1]:,} to {others[0][1]:,}" if others else "")


def print_facts(data: Mapping[str, Any], parameters: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """The table above the progress line, and above a dry run's forecast."""
    skipped = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in data["skipped"].items() if count)
    print(f"data       {data['source']}, sha256 {data['sha256'][:12]}; left out: {skipped or 'nothing'}")
    for note in data["notes"]:
        print(f"note       {note}")
    for name, count in data["rows"].items():
        lengths = data["lengths"].get(name)
        tokens = (
            ""
            if lengths is None
            else "; tokens: median {median}, 95% {p95}, longest {longest}, cut {cut}".format(**lengths)
        )
        print(f"  {name:<11}{count:>7,}  {_counts(data['balance'][name])}{tokens}")
    if "labels" in data:
        most = commonest(data["balance"]["train"])
        parts = [(name, data["balance"][name].get(most, 0) / count) for name, count in data["rows"].items() if count]
        shares = ", ".join(f"{share:.1%} of {name}" for name, share in parts)
        print(f"classes    {len(data['labels']):,}; the commonest, {most}, is {shares}")
    trained, share = parameters["trainable"], parameters["share"]
    print(f"model      {parameters['total']:,} parameters, {trained:,} trained ({share:.2%})")
    print("plan       " + ", ".join(f"{name} {value}" for name, value in plan.items()), flush=True)
