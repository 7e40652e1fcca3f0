"""What a study has found: the test scores of each arm at its best rate, compared with the winner's, and their costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from evidence.cells import Cell, compared, measured
from evidence.kinds import ACCURACY, FORGETTING, PERPLEXITY, Kind
from evidence.racing import Race, Trial
from evidence.runs import Run
from studies.question import Question
from studies.runs import Recipe, tested_run

HELD_OUT = {"--train-examples", "--draw-seed", "--val-examples", "--test-examples"}  # not for training on all rows
HELD_OUT |= {"--validation-share", "--test-share", "--eval-every", "--eval-batches"}
TFIDF, COMMONEST = "TF-IDF + logistic regression", "commonest class"


@dataclass(frozen=True)
class Cost:
    """Of one arm: seconds of an update, measured in turn with the other's, the highest peak of its runs, and the bytes
    of the weights that one leaves."""

    seconds: float
    memory_mib: float
    bytes: int


@dataclass(frozen=True)
class Outcome:
    """`arms` are the cells of the arms by name, each at its best rate; `others` those of the baselines. For lack of
    time arms are `dropped`, there are fewer seeds than were `asked`, and `unmade` runs were still wanted."""

    question: Question
    recipe: Recipe
    race: Race
    kind: Kind
    winner: str
    arms: Mapping[str, Cell]
    others: Mapping[str, Cell]
    forgetting: Mapping[str, Cell]
    base: Mapping[str, Any]  # metrics of the untouched base
    costs: Mapping[str, Cost]
    minutes: float
    runs: int
    commands: Mapping[Path, str]  # of all runs, by their folders
    sizes: Mapping[int, Mapping[str, Cell]] = field(default_factory=dict)  # scores by number of training examples
    dropped: Sequence[str] = ()
    asked: int = 0
    unmade: int = 0
    unmade_sizes: Sequence[int] = ()

    def rate(self, arm: str) -> float:
        return self.recipe.arms[arm].rate(self.race.best(arm))

    def is_stopped(self, arm: str) -> bool:
        """Whether the arm had fewer seeds than there are, since it was worse than another."""
        cell = arm, self.race.best(arm)
        stop = self.race.stopped.get(cell)
        return stop is not None and stop.leader != stop.cell and len(self.race.seeds_of(cell)) < self.race.seeds

    def diverged(self, arm: str) -> int:
        """Returns how many seeds of an arm diverged at its best rate."""
        cell = arm, self.race.best(arm)
        return sum(self.race.found[Trial(*cell, seed)] is None for seed in self.race.seeds_of(cell))

    def best_update(self, arm: str) -> int:
        """Returns after how many updates the loss of the tested weights was the lowest, in the median over seeds."""
        return round(median(run.number("best_step") or 0.0 for run in self.arms[arm].runs))

    def differing(self, told_apart: bool) -> list[Cell]:
        """The other arms and TF-IDF, as compared with the winner: those that differ from it, or those that do not."""
        every = [*self.arms.values(), *self.others.values()]
        return [cell for cell in every if cell.comparison is not None and cell.comparison.differs == told_apart]

    def command(self, arm: str, on_all: bool = False) -> str:
        """Returns the command of an arm at its best rate, with the first seed or on all examples."""
        words = self.recipe.flags(Trial(arm, self.race.best(arm), 0))
        if on_all:
            for name in HELD_OUT:
                if name in words:
                    at = words.index(name)
                    words = words[:at] + words[at + 2 :]
            words += ["--train-on", "all"]
        return self.recipe.command(words)


def winner_of(race: Race, arms: Sequence[str]) -> str:
    """Returns the arm with the lowest validation loss among those with the most seeds; one that has diverged only where
    all have."""
    arms = [arm for arm in arms if race.loss((arm, race.best(arm))) < inf] or arms
    seeds = {arm: len(race.seeds_of((arm, race.best(arm)))) for arm in arms}
    last = [arm for arm, count in seeds.items() if count == max(seeds.values())]
    return min(last, key=lambda arm: race.loss((arm, race.best(arm))))


def chosen(race: Race, arm: str) -> list[Trial]:
    """Returns the runs of an arm at its best rate that ended."""
    cell = arm, race.best(arm)
    return [Trial(*cell, seed) for seed in race.seeds_of(cell) if race.found[Trial(*cell, seed)] is not None]


def cell_of(recipe: Recipe, arm: str, trials: Sequence[Trial]) -> Cell:
    runs = tuple(tested_run(recipe.place(trial)) for trial in trials)
    places = tuple(str(recipe.place(trial)) for trial in trials)
    return Cell(label=arm, runs=runs, seeds=tuple(str(trial.seed) for trial in trials), keys=places)


def compare(
    arms: Mapping[str, Cell], baselines: Mapping[str, Sequence[Run]], winner: str, kind: Kind
) -> tuple[dict[str, Cell], dict[str, Cell]]:
    """Returns the cells of the arms and of the baselines with their scores and differences from the winner's."""
    every = dict(arms)
    for name, runs in baselines.items():
        every[name] = Cell(label=name, runs=tuple(runs), seeds=tuple(map(str, range(len(runs)))), keys=(name,))
    known = {name: measured(cell, kind) for name, cell in every.items()}
    others = [name for name in known if name not in (winner, COMMONEST) and known[name].scored]
    known |= dict(zip(others, compared([known[name] for name in others], known[winner]), strict=True))
    return {name: known[name] for name in arms}, {name: known[name] for name in baselines}


def forgotten(arms: Mapping[str, Cell], winner: str) -> dict[str, Cell]:
    """Returns the cells of forgetting, compared with the winner's."""
    known = {name: measured(replace(cell, kind=None), FORGETTING) for name, cell in arms.items()}
    others = [name for name in known if name != winner]
    return known | dict(zip(others, compared([known[name] for name in others], known[winner]), strict=True))


def kind_for(question: Question) -> Kind:
    return ACCURACY if question.classes else PERPLEXITY
