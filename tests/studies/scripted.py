"""A study whose runs take no time: their losses are given by a function of arm, rate and seed. All else is real."""

import itertools
import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from heapq import heappop, heappush

import numpy as np

import studies.page
import workers.local
from scripts import study
from studies import baselines, question
from training.flags.cli import note
from training.flags.command_line import parse
from training.storage.run_folder import SCHEMA
from workers.job import Done

# The tests compare with TF-IDF on the same few examples again and again, and half a study's time is its regressions.
predictions = cache(baselines.predictions)
Loss = Callable[[str, float, int], float]  # of arm, rate and seed; nan: training diverges


@dataclass
class Engine:
    """`loss` says how a run of so many `updates` ends, `best` when its loss was the lowest. `made` has the folders
    of the runs in order, `seconds` what each has taken."""

    loss: Loss
    seconds: float = 1.0
    count: int = 2
    best: Callable[[int], int] = lambda updates: updates // 2
    made: list[str] = field(default_factory=list)
    updates: int = 0
    cut: int = 0  # texts that are too long
    general: float = 0.0  # is added to what the loss of a piece of general text rises by
    now: float = 0.0  # on its own clock
    most: int = 0  # runs at a time
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, jobs, on_one=False):
        coming, running = iter(jobs), []  # (when it ends, its number, job)
        while True:
            while len(running) < self.count and (job := next(coming, None)):
                heappush(running, (self.now + self.takes(job), next(self.numbers), job))
            self.most = max(self.most, len(running))
            if not running:
                return
            self.now, _, job = heappop(running)
            yield self.done(job)

    def takes(self, job):
        """As long as it is asked to, a tenth more or less by its folder."""
        return self.seconds * (0.9 + 0.2 * (zlib.crc32(str(job.folder.parts[-4:]).encode()) % 1000) / 1000)

    def done(self, job):
        words = {name: value for name, value in zip(job.words, job.words[1:], strict=False) if name[:2] == "--"}
        job.log.parent.mkdir(parents=True, exist_ok=True)
        if "--dry-run" in job.words:
            said = f"  train 9; tokens: median 1, 95% 2, longest 3, cut {self.cut}\n"
            job.log.write_text(f"{said}  in all   {self.seconds}\n  peak   {500 + ('full' in job.words)}\n")
            return Done(job, 0, 0.0)
        self.made.append(str(job.folder))
        arm, self.updates = job.folder.parts[-3], int(words["--max-steps"])
        loss = self.loss(arm, float(words["--lr"]), int(words["--seed"]))
        if math.isnan(loss):
            job.log.write_text("error: the gradient is nan: training diverged; lower --lr or warm up longer\n")
        else:
            self.leave(job.folder, arm, loss, words)
        return Done(job, 2 * math.isnan(loss), self.seconds)

    def leave(self, folder, arm, loss, words):
        """Writes what a finished run leaves."""
        asked, all_scored = self.question, words["--score"] != "validation"
        rng = np.random.default_rng(sum(map(ord, f"{arm} {words['--lr']} {words['--seed']}")))
        classes = sorted({e.label for e in asked.splits.examples()})

        def rows(part):
            of_example = np.random.default_rng(1).uniform(-0.3, 0.3, len(part))
            losses = np.maximum(loss + of_example + 0.05 * rng.normal(size=len(part)), 0.01)
            for example, value in zip(part, losses, strict=True):
                other = classes[(classes.index(example.label) + 1) % len(classes)]
                given = example.label if rng.uniform() < math.exp(-value) else other
                yield {"id": example.id, "label": example.label, "prediction": given, "loss": float(value)}

        for name, part in (("validation", asked.splits.validation), ("predictions", asked.splits.test * all_scored)):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(part)))
        for name in ("model", "checkpoint"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "model" / "w").write_bytes(b"0" * (2_000_000 if arm.startswith("full") else 100_000))
        (folder / "checkpoint" / "state.pt").touch()
        if all_scored:
            shutil.rmtree(folder / "checkpoint")
        results = {
            "schema": SCHEMA, "script": "finetune_cls", "model": {"sha256": ""},
            "data": {"sha256": "", "rows": {name: len(part) for name, part in asked.splits.named().items()}},
            "args": {"score": words["--score"]}, "best_step": self.best(self.updates), "before": {},
            "val": {"loss": {"value": loss}}, "seconds": {"train": 5.0, "eval": 1.0}, "peak_memory_mib": 100.0,
            "parameters": {"trainable": 10, "share": 0.1}, "curve": [{"step": self.updates, "val_loss": loss}],
        }  # fmt: skip
        if all_scored:
            lost = rng.uniform(0, 5, 9) + self.general
            pieces = {"tokens": [10] * 9, "before": [30.0] * 9, "after": (30 + lost).tolist()}
            results["forgetting"] = {"sha256": "", "pieces": pieces}
        (folder / "results.json").write_text(json.dumps(results))


def studied(monkeypatch, engine, folder, *words, page=False):
    """Makes the study, without its page, which takes a second, unless asked for; returns its answer."""
    ask = question.ask

    def remembering(asked):
        engine.question = ask(asked)
        return engine.question

    monkeypatch.setattr(study, "ask", remembering)
    monkeypatch.setattr(baselines, "predictions", lambda *parts: predictions(*map(tuple, parts)))
    monkeypatch.setattr(workers.local, "local", lambda count, threads: engine)
    monkeypatch.setattr(workers.local, "usable_cores", lambda: 8)
    if not page:
        monkeypatch.setattr(studies.page, "as_html", lambda _: "")
    engine.made.clear()
    note.cache_clear()  # each study is a process of its own
    columns = ["--text-column", "text", "--label-column", "label"]
    study.main(
        parse(study.Args, [*columns, "--output-dir", str(folder), "--workers", str(engine.count), *map(str, words)])
    )
    return (folder / "answer.md").read_text()
