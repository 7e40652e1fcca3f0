"""Runs and rows of a report, as small as they can be."""

import json
from typing import NamedTuple

from evidence.cells import in_columns
from evidence.runs import Store
from reproduce.cells import cell_of
from reproduce.tables import Plan, Row, flags_of, plans, read_table


def write_results(folder, **entries):
    folder.mkdir(parents=True, exist_ok=True)
    results = {"args": {"method": "lora", "lora_rank": 8}, "environment": {"commit": "abc123", "device": "a CPU"}}
    results |= {"parameters": {"total": 9000, "trainable": 1234, "share": 0.1371}, "seconds": {"train": 60.0}}
    results |= {"peak_memory_mib": 700.4, "tokens_per_second": 3210.0}
    (folder / "results.json").write_text(json.dumps(results | entries))
    return folder


def classifier(folder, right, n=40, ham=0, **entries):
    """A run that is right on the examples `right`; the first `ham` are ham."""
    other = {"spam": "ham", "ham": "spam"}
    labels = ["ham" if i < ham else "spam" for i in range(n)]
    lines = [
        {"id": i, "label": label, "prediction": label if i in right else other[label], "loss": 0.25}
        for i, label in enumerate(labels)
    ]
    write_results(folder, **entries)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def tutor(folder, losses, tokens, replies=None, **entries):
    """An instruction run; `replies`: a judge's (item, score) of each reply."""
    lines = [
        {"id": i, "instruction": f"Ask <{i}>", "input": "", "reference": "yes", "before": "no", "response": "ja | ja"}
        | {"reference_loss": loss, "reference_tokens": count}
        for i, (loss, count) in enumerate(zip(losses, tokens, strict=True))
    ]
    if replies is not None:
        outcome = {
            "judge": {"model": "a-judge", "text": "response"},
            "score": {"value": 1, "low": 0, "high": 2, "n": 2},
        }
        values = {item: [v for i, v in replies if i == item and v is not None] for item, _ in replies}
        outcome["scores"] = {str(item): sum(known) / len(known) for item, known in values.items() if known}
        entries = {"judge": {"a-judge-published": outcome}} | entries
    write_results(folder, **entries)
    (folder / "generations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def general(difference, spread):
    """Forgetting on two pieces, of which one loses more than the other by twice the spread."""
    after = [300 + 100 * (difference - spread), 300 + 100 * (difference + spread)]
    return {"pieces": {"tokens": [100, 100], "before": [300.0, 300.0], "after": after}}


CLS = "python scripts/finetune_cls.py"


class Line(NamedTuple):
    """A row's run of one seed, kept in a folder that the test names."""

    row: Row
    seed: int
    place: str
    why: str = ""
    same_as: str = ""

    @property
    def key(self):
        return f"{self.place}/seed{self.seed}"


def line(
    label, key, version="corrected", column="spam", seed=0, given=("", ""), why="", same_as="", flags="--lora-rank 8"
):
    return Line(Row(version, column, label, *given, f"{CLS} {flags}"), seed, f"nano/{key}", why, same_as)


def cells_of(lines, find):
    """The cells of one column and version."""
    rows = {}
    for one in lines:
        rows.setdefault(one.row, []).append(one)
    cells = []
    for row, runs in rows.items():
        plan = Plan(row, flags_of(row.command), row.command, runs[0].place, runs[0].why, same_as=runs[0].same_as)
        cells.append(cell_of(plan, " ".join(str(one.seed) for one in runs), find))
    column = lines[0].row.column if lines else ""
    return in_columns({column: cells})[column]


def table_file(folder, name, rows, comment="A table of tests."):
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join("\t".join(text or "-" for text in row) for row in rows)
    path = folder / f"{name}.sh"
    path.write_text(f"#!/usr/bin/env bash\n# {comment}\n#\n#     bash x.sh\ncat <<'END'\n{text}\nEND\n")
    return path


def places(path, scale="nano", data=None):
    """Where the runs of a table's rows are kept, without the seed, by version, column and label."""
    return {plan.row[:3]: plan.key for plan in plans(read_table(path), scale, data)}


def found_in(runs):
    """Runs by key, from a folder of runs."""
    return Store(runs, runs / "none").get


def of_runs(tmp_path, rights, keys, version="corrected", claims=None):
    """Rows a, b, ... that show the runs `keys`, each right on so many of 200 examples."""
    for key, right in rights.items():
        for seed in range(4):
            classifier(tmp_path / f"nano/{key}/seed{seed}", range(right + seed % 2), 200)
    rows = zip("abcdef", keys, claims or "-" * len(keys), strict=False)
    lines = [line(label, key, version, seed=s, given=(claim, "-")) for label, key, claim in rows for s in range(4)]
    return cells_of(lines, found_in(tmp_path))
