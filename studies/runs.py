"""The runs of a study: what they share, where each lies, what is kept of it, and the scores that are read from it."""

import shlex
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evidence.racing import Trial
from evidence.runs import Run, json_lines
from evidence.runs import read_run as scored_run
from studies.arms import Arm
from training.storage.run_folder import GENERATIONS, RESULTS, STATE, VALIDATION, read_run
from workers.job import Done, Job

SCRIPTS = Path(__file__).parent.parent / "scripts"
EVALUATIONS = 4  # of a run while it trains; the best weights are kept
WATCHED = 16  # batches of validation examples in each of them, since all would take a quarter of a run
DIVERGED = "training diverged"  # as the last line of a log says it
MADE_AGAIN = "delete it, and the same command makes it again"
WEIGHTS = ("adapter", "model", STATE.parent.name)


@dataclass(frozen=True)
class Recipe:
    """What the runs share: script, flags of data and base, updates, and how many examples they are trained on.

    `memory_mib` is the forecast of the largest arm, and `cut` examples are longer than --max-length; `is_settled` says
    whether more updates were seen to be of no use, or their number was given; so many batches of validation examples
    are `watched` while training, or all for None.
    """

    folder: Path
    script: str
    words: tuple[str, ...]
    arms: Mapping[str, Arm]
    updates: int
    train: int
    memory_mib: float = 0.0
    is_settled: bool = True
    watched: int | None = WATCHED
    cut: int = 0

    def named(self, cell: tuple[str, int]) -> str:
        """Returns an arm at a rate in words: lora r4 at 0.002."""
        arm, rate = cell
        return f"{arm} at {self.arms[arm].rate(rate):g}"

    def place(self, trial: Trial) -> Path:
        """Returns the folder of a run, named by all that it does not share with the other runs of the study."""
        rate = self.arms[trial.arm].rate(trial.rate)
        length = f"{self.train}-examples-{self.updates}-updates"
        return self.folder / length / trial.arm.replace(" ", "-") / f"lr-{rate:g}" / f"seed-{trial.seed}"

    def flags(self, trial: Trial) -> list[str]:
        """Returns the flags that anybody needs to train the same."""
        arm, seed = self.arms[trial.arm], str(trial.seed)
        words = [*self.words, *arm.words, "--lr", f"{arm.rate(trial.rate):g}", "--max-steps", str(self.updates)]
        words += ["--eval-every", str(-(-self.updates // EVALUATIONS))]
        words += ["--eval-batches", str(self.watched)] if self.watched is not None else []
        return [*words, "--train-examples", str(self.train), "--seed", seed, "--draw-seed", seed]

    def command(self, words: Sequence[str]) -> str:
        return f"python scripts/{self.script} {shlex.join(words)}"

    def job(self, trial: Trial, score: str) -> Job:
        """Returns the job that trains a run and scores it on the validation examples, again if its weights have been
        deleted, or the one that then scores it on all (`score` is "validation" or "test"). "timing" is one of which the
        time of an update is wanted: it starts anew, so that it is timed in one go, and hardly validates."""
        place = self.place(trial)
        again = score == "validation" and (place / RESULTS).exists() and not self.can_be_tested(trial)
        of_base = self.script == "finetune_ift.py" and trial.seed == 0  # it is the same for all, and needed once
        asked = ("all" if of_base else "trained") if score == "test" else "validation"
        more = ["--score", asked, "--report-to", "none", "--overwrite" if again or score == "timing" else "--resume"]
        more += ["--val-examples", "1"] if score == "timing" else []
        more += ["--new-tokens", "0"] if self.script == "finetune_ift.py" else []  # answers are not compared
        more += ["--output-dir", str(place)]
        return Job(place, (str(SCRIPTS / self.script), *self.flags(trial), *more), self.memory_mib)

    def begun(self) -> dict[str, set[tuple[str, int]]]:
        """Returns the rates and seeds of the runs that have ended, by arm."""
        folder, found = self.place(Trial(next(iter(self.arms)), 0, 0)).parents[2], dict[str, set[tuple[str, int]]]()
        names = {name.replace(" ", "-"): name for name in self.arms}
        for path in [*folder.glob(f"*/lr-*/seed-*/{RESULTS}"), *folder.glob("*/lr-*/seed-*.diverged")]:
            place = path.parent if path.name == RESULTS else path.with_suffix("")
            if (arm := names.get(place.parts[-3])) is not None:
                found.setdefault(arm, set()).add((place.parts[-2], int(place.name.removeprefix("seed-"))))
        return found

    def is_trained(self, trial: Trial) -> bool:
        return (self.place(trial) / RESULTS).exists() or self.has_diverged(trial)

    def has_diverged(self, trial: Trial) -> bool:
        return self._mark(trial).exists()

    def note_divergence(self, trial: Trial, done: Done) -> bool:
        """Returns whether the run failed because its training diverged, and remembers it."""
        lines = done.job.log.read_text(errors="replace").splitlines()[-3:] if done.job.log.exists() else []
        if found := any(DIVERGED in line for line in lines):
            self._mark(trial).touch()
        return found

    def _mark(self, trial: Trial) -> Path:
        place = self.place(trial)
        return place.with_name(f"{place.name}.diverged")

    def is_tested(self, trial: Trial) -> bool:
        """Whether nothing is left to be measured."""
        place = self.place(trial)
        return (place / RESULTS).exists() and results_of(place)["args"]["score"] != "validation"

    def can_be_tested(self, trial: Trial) -> bool:
        return (self.place(trial) / STATE).exists()

    def has_weights(self, trial: Trial) -> bool:
        return self.bytes_of_weights(trial) > 0

    def bytes_of_weights(self, trial: Trial) -> int:
        """Returns the bytes of the best weights that a finished run has left."""
        left = [path for name in WEIGHTS[:2] for path in (self.place(trial) / name).glob("*")]
        return sum(path.stat().st_size for path in left)

    def best_update(self, trial: Trial) -> int:
        """Returns after how many updates the validation loss of a finished run was the lowest."""
        return int(results_of(self.place(trial))["best_step"] or self.updates)

    def seconds_of_update(self, trial: Trial) -> float:
        return float(results_of(self.place(trial))["seconds"]["train"]) / self.updates

    def scores(self, trial: Trial) -> np.ndarray | None:
        """Returns a score of each validation example; their mean is the loss, a mean over tokens for instructions."""
        if self.has_diverged(trial):
            return None
        place = self.place(trial)
        examples = results_of(place)["data"]["rows"]["validation"]
        with undamaged(place / VALIDATION):
            scores, _ = validation_scores(place)
            _check_rows(len(scores), examples)
        return scores

    def drop_other_weights(self, arms: Iterable[str], kept: Collection[Trial] = ()) -> None:
        """Deletes the weights of all runs of these arms but those `kept`, also of runs that were begun and not ended,
        by whichever command."""
        places = {self.place(trial) for trial in kept}
        for folder in (self.place(Trial(arm, 0, 0)).parents[1] for arm in arms):
            for place in {*folder.glob("lr-*/seed-*")} - places:
                _drop_weights(place)

    def drop_weights(self, trials: Iterable[Trial]) -> None:
        """Deletes the weights of runs that have ended; should they be needed, the run is made again."""
        for trial in trials:
            if (self.place(trial) / RESULTS).exists() or self.has_diverged(trial):
                _drop_weights(self.place(trial))


def _drop_weights(place: Path) -> None:
    for name in WEIGHTS:
        shutil.rmtree(place / name, ignore_errors=True)


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Raises ValueError with the remedy where a file of a run cannot be read or lacks something."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        again = f"delete {path.parent}, and the same command makes it again"
        raise ValueError(f"{path}: is damaged, or of another version; {again}") from error


def results_of(place: Path) -> dict[str, Any]:
    """Reads results.json of a finished run, with all that a study needs. Raises ValueError for one that lacks it."""
    with undamaged(place / RESULTS):
        results = read_run(place)
        float(results["seconds"]["train"]), float(results["seconds"]["eval"]), float(results["peak_memory_mib"] or 0)
        results["args"]["score"], int(results["best_step"] or 0)
        results["data"]["rows"]["validation"], results["data"]["rows"]["test"]
        return results


def tested_run(place: Path) -> Run:
    """Reads a run that was tested. Raises ValueError for one that is damaged, or lacks scores of some examples."""
    results = results_of(place)
    with undamaged(place / (GENERATIONS if results["script"] == "finetune_ift" else "predictions.jsonl")):
        found = scored_run(place)
        _check_rows(len(found.examples.get("id", ())), results["data"]["rows"]["test"])
    return found


def _check_rows(count: int, examples: int) -> None:
    if count != examples:
        raise ValueError(f"{count} rows, where there are {examples} examples")


def validation_scores(folder: Path) -> tuple[np.ndarray, bool]:
    """Returns a score of each validation example of a run, whose mean is the loss, and whether there are classes."""
    rows = json_lines(folder / VALIDATION)
    if not rows:
        raise ValueError(f"{folder / VALIDATION}: holds no scores; train again")
    if "prediction" in rows[0]:
        return np.array([row["loss"] for row in rows]), True
    losses, tokens = (np.array([row[name] for row in rows]) for name in ("reference_loss", "reference_tokens"))
    return losses / tokens.mean(), False
