"""Makes the runs of a study that are missing, within the time there is, and says what it does."""

import re
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import NamedTuple

from evidence.racing import Trial
from gpt2_scratch.sources import read_json
from studies.runs import MADE_AGAIN, Recipe
from training.run.cores import usable_cores
from training.storage.files import write_json
from training.storage.run_folder import read_run
from workers.job import Done, Job, Workers
from workers.local import gpu_mib

SCORING = 0.5  # of a run's time: to test it later


class RunFailed(ValueError):
    """A run of the study has failed."""

    def __init__(self, done: Done) -> None:
        log = done.job.log
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        reason = ended_by(done.status) or (lines or ["it said nothing"])[-1].removeprefix("error: ")[-200:]
        super().__init__(f"a run has failed: {reason} (log: {log})")


def ended_by(status: int) -> str:
    """Returns which signal has ended a process, and what it means; empty for one that ended by itself."""
    memory = "; memory may have run out: give fewer --workers, or a smaller --batch-size or --max-length"
    return f"signal {-status} ended it{memory * (-status == signal.SIGKILL)}" if status < 0 else ""


class Forecast(NamedTuple):
    seconds: float
    memory_mib: float
    cut: int = 0  # examples that are longer than --max-length


def forecast(workers: Workers, recipe: Recipe, trial: Trial, kept: bool) -> Forecast:
    """Forecasts a run by its own --dry-run, once for a study and kind of machine if it is `kept`. Raises ValueError
    where it fails, or where the run does not fit into memory."""
    path = recipe.folder / "forecasts.json"
    name = f"{recipe.place(trial).relative_to(recipe.folder)} on {len(gpu_mib())} GPUs, {usable_cores()} cores"
    known = read_json(path, MADE_AGAIN)
    if name in known:
        return Forecast(**known[name])
    words = [word for word in recipe.job(trial, "validation").words if word not in ("--resume", "--overwrite")]
    with TemporaryDirectory() as place:
        (done,) = workers.run([Job(Path(place) / "forecast", (*words, "--dry-run"))])
        said = done.job.log.read_text(encoding="utf-8", errors="replace")
    found = {
        name: float(one[1].replace(",", ""))
        for name in ("in all", "peak", "available")
        if (one := re.search(rf"^  {name} +([\d,.]+)$", said, re.MULTILINE))
    }
    if done.status == 0 and {"peak", "available"} <= found.keys() and "in all" not in found:
        raise ValueError(
            f"a run of {trial.arm} needs {found['peak']:,.0f} MiB, and {found['available']:,.0f} are free; give a "
            "smaller --model, --batch-size or --max-length, or other --arms"
        )
    if done.status != 0 or not {"in all", "peak"} <= found.keys():
        reason = ended_by(done.status) or said.rpartition("error: ")[2].strip()[-200:] or "it said nothing"
        raise ValueError(f"the forecast of a run has failed: {reason}")
    seconds, memory = found["in all"], found["peak"]
    cut = sum(int(count.replace(",", "")) for count in re.findall(r"; tokens: .* cut ([\d,]+)$", said, re.MULTILINE))
    forecast = Forecast(seconds, memory, cut)
    if kept:
        write_json(path, known | {name: forecast._asdict()})
    return forecast


@dataclass
class Clock:
    """How much time a study has taken, and whether more work fits. `minutes` None: any does."""

    minutes: float | None
    workers: int
    started: float = field(default_factory=time.monotonic)
    seconds: dict[int, list[float]] = field(default_factory=dict)  # of finished runs, by their updates
    tests: list[float] = field(default_factory=list)  # seconds of the tests of runs

    def of_run(self, updates: int) -> float:
        """Returns the seconds of one run, as those of so many updates took them, else others in proportion; 0 if there
        was none."""
        others = (seconds * updates / made for made, found in self.seconds.items() for seconds in found)
        known = self.seconds.get(updates) or [*others]
        return mean(known) if known else 0.0

    def needed(self, runs: int, updates: int) -> float:
        """Returns the seconds for so many runs, side by side."""
        return -(-runs // self.workers) * self.of_run(updates)

    def has_room_for(self, runs: int, updates: int, tested_later: int) -> bool:
        """Returns whether the runs fit, with the testing of so many runs after them, and with the timing of short ones,
        which takes about as long as a run."""
        if self.minutes is None:
            return True
        run = self.of_run(updates)
        test = mean(self.tests) if self.tests else SCORING * run
        wanted = self.needed(runs, updates) + -(-tested_later // self.workers) * test + run
        return time.monotonic() - self.started + wanted <= 60 * self.minutes


class Making(NamedTuple):
    """A run that is to be made, or to be tested."""

    recipe: Recipe
    trial: Trial
    score: str = "validation"

    @property
    def place(self) -> Path:
        return self.recipe.place(self.trial)


def nothing() -> Iterable[Making]:
    return ()


class Maker:
    """Makes runs, and begins some early that will probably be wanted while a worker would have to wait."""

    def __init__(self, workers: Workers, clock: Clock, say: Callable[[str], None] = print) -> None:
        self.workers, self.clock, self.say = workers, clock, say
        self.commands = dict[Path, str]()  # of all runs that were asked for, by their folders
        self.waiting, self.running = deque[Making](), dict[Path, Making]()
        self.likely, self.left = nothing, set[Path]()
        self.failed = set[Path]()  # of the runs that were begun early
        self.ended = self._started()

    def _started(self) -> Generator[Done, None, None]:
        return self.workers.run(self._next() for _ in count())

    def stop(self) -> None:
        """Stops what still runs, after which others can be made."""
        self.ended.close()
        self.running.clear()
        self.ended = self._started()

    def make(
        self,
        recipe: Recipe,
        trials: Sequence[Trial],
        score: str = "validation",
        likely: Callable[[], Iterable[Making]] = nothing,
    ) -> None:
        """Makes the runs that have not been made, or tests those that have not been tested. `likely` says what a worker
        may begin that would wait for the last of them, the most probable first.

        A test needs weights: where they have been deleted, the run is made again first. Raises RunFailed for a run that
        fails; one whose training diverges is remembered as such.
        """
        self.commands |= {recipe.place(trial): recipe.command(recipe.flags(trial)) for trial in trials}
        self.likely = likely
        if score == "validation":
            self._run([Making(recipe, trial) for trial in trials if not recipe.is_trained(trial)])
            return
        left = [trial for trial in trials if not recipe.is_tested(trial)]
        self._run([Making(recipe, trial) for trial in left if not recipe.can_be_tested(trial)])
        self._run([Making(recipe, trial, score) for trial in left])

    def _run(self, makings: Sequence[Making]) -> None:
        self.left = {making.place for making in makings}
        self.waiting += [making for making in makings if making.place not in self.running]
        while self.left:
            self._wait()

    def _next(self) -> Job | None:
        """Returns the next job to start, None if there is none now."""
        making: Making | None
        if self.waiting:
            making = self.waiting.popleft()
        elif len(self.running) >= self.workers.count or (making := self._likely()) is None:
            return None
        self.running[making.place] = making
        return making.recipe.job(making.trial, making.score)

    def _likely(self) -> Making | None:
        possible = (one for one in self.likely() if one.place not in self.running and one.place not in self.failed)
        return next((one for one in possible if not one.recipe.is_trained(one.trial)), None)

    def _wait(self) -> None:
        """Waits for a run to end. Raises RunFailed, unless it was begun early: it may never be wanted."""
        done = next(self.ended)
        making = self.running.pop(done.job.folder)
        if done.status != 0 and not making.recipe.note_divergence(making.trial, done):
            if making.place in self.left:
                raise RunFailed(done)
            self.failed.add(making.place)
            self.say(f"note    {RunFailed(done)}; it was begun early, and is made again if it is wanted")
        else:
            self.tell(making, done)
        self.left.discard(making.place)

    def tell(self, making: Making, done: Done) -> None:
        recipe, trial, score = making
        name = f"{trial.arm}, lr {recipe.arms[trial.arm].rate(trial.rate):g}, seed {trial.seed}"
        if done.status != 0:
            outcome = "diverged"
        elif score == "test":
            self.clock.tests.append(done.seconds)
            outcome = "tested"
        else:
            self.clock.seconds.setdefault(recipe.updates, []).append(done.seconds)
            outcome = f"validation loss {read_run(done.job.folder)['val']['loss']['value']:.4f}"
        self.say(f"{time.strftime('%T')}  {name}: {outcome}, {done.seconds:.0f} s")

    def one_after_the_other(self, jobs: Sequence[Job]) -> None:
        """Makes the runs alone, so that their times can be compared. Raises RunFailed."""
        for job in jobs:
            for done in self.workers.run([job], on_one=True):
                if done.status != 0:
                    raise RunFailed(done)
