"""The phases of a study: how long to train, the race or the complete grid, the test of what was chosen, the timing."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import median
from typing import Any

from evidence.cells import Cell, measured
from evidence.racing import COARSE, FINE, Race, Stop, Trial
from gpt2_scratch.sources import read_json
from studies.baselines import as_run, tfidf
from studies.making import Clock, Maker, Making, nothing
from studies.outcome import (
    COMMONEST,
    TFIDF,
    Cost,
    Outcome,
    cell_of,
    chosen,
    compare,
    forgotten,
    kind_for,
    winner_of,
)
from studies.question import Question, draws_of
from studies.runs import MADE_AGAIN, Recipe, results_of
from tasks import balance
from training.evaluation.metrics import commonest
from training.storage.files import write_json

STOPPED_FALLING = 0.01  # nats: a loss that twice the updates lower by less has stopped falling
MOST_DOUBLINGS = 3
SHORTEST = 25  # updates
GRID = range(-3, 4)  # rates of a complete grid
# Runs of an arm in a race beside those of its best rate, in the mean: a third of a grid of five seeds (docs/racing.md).
RACED = 6
TIMED, TIMES = 12, 3  # updates that are timed, and how often


def pilots_of(recipe: Recipe) -> list[Trial]:
    """Returns the first runs of a study: full fine-tuning and LoRA, or where there is no such arm the first others,
    each at its middle rate and with the first seed."""
    known = ["full"] * ("full" in recipe.arms) + [*recipe.arms]
    first = [next((name for name in known if name.startswith(kind)), "") for kind in ("full", "lora r")]
    return [Trial(arm, 0, 0) for arm in [*dict.fromkeys([*filter(None, first), *recipe.arms])][:2]]


def settled(maker: Maker, recipe: Recipe, seeds: int) -> Recipe:
    """Returns the recipe with as many updates as stop the fall of the validation loss of the better pilot, and
    `is_settled` off where more were not tried."""
    pilots = pilots_of(recipe)
    maker.make(recipe, pilots)
    best = min(pilots, key=lambda trial: loss_of(recipe, trial))
    if not recipe.has_diverged(best) and recipe.best_update(best) <= recipe.updates // 2:
        return shortened(maker, recipe, pilots)
    return lengthened(maker, recipe, pilots, best, seeds)


def shortened(maker: Maker, recipe: Recipe, pilots: Sequence[Trial]) -> Recipe:
    """Halves the updates until that raises the loss of a pilot; it always pays, since all runs to come take half."""
    while recipe.updates // 2 >= SHORTEST:
        shorter = replace(recipe, updates=recipe.updates // 2)
        maker.make(shorter, pilots)
        rise = max(loss_of(shorter, trial) - loss_of(recipe, trial) for trial in pilots)
        maker.say(f"length     {effect(shorter, pilots, rise)}")
        if not rise < STOPPED_FALLING:  # neither does one that has diverged
            shorter.drop_weights(pilots)
            break
        recipe.drop_weights(pilots)
        recipe = shorter
    return recipe


def lengthened(maker: Maker, recipe: Recipe, pilots: Sequence[Trial], best: Trial, seeds: int) -> Recipe:
    """Doubles the updates as long as that lowers the loss of the better pilot, and more than half of them are used.

    A longer run that was best in its first half owes its gain to another schedule, not to more updates. Where there was
    no time to try more before the race began, the study stays at its length.
    """
    for _ in range(MOST_DOUBLINGS):
        longer = replace(recipe, updates=2 * recipe.updates)
        has_raced = any(seed > 0 for made in recipe.begun().values() for _, seed in made)
        room = maker.clock.has_room_for(2 * expected_runs(seeds), longer.updates, tested_later=2 * seeds)
        if not longer.is_trained(best) and (has_raced or not room):
            begun = f"{longer.updates:,} updates are not tried, since the race has begun"
            maker.say(f"length     {begun if has_raced else f'there is no time to try {longer.updates:,} updates'}")
            break
        maker.make(longer, [best], likely=partial(beside, recipe, pilots))
        gain = loss_of(recipe, best) - loss_of(longer, best)
        early = not longer.has_diverged(best) and longer.best_update(best) <= recipe.updates
        only = ", the best of which lies in their first half" if early else ""
        maker.say(f"length     {effect(longer, [best], -gain)}{only}")
        if early or not gain >= STOPPED_FALLING:  # neither does one that has diverged
            longer.drop_weights([best])
            return recipe
        maker.stop()
        recipe.drop_other_weights(pilot.arm for pilot in pilots)
        recipe = longer
    return replace(recipe, is_settled=False)


def beside(recipe: Recipe, pilots: Sequence[Trial]) -> list[Making]:
    """Returns the first rates that a race tries beside those of the pilots."""
    return [Making(recipe, pilot._replace(rate=rate)) for rate in (-COARSE, COARSE) for pilot in pilots]


def loss_of(recipe: Recipe, trial: Trial) -> float:
    scores = recipe.scores(trial)
    return float("inf") if scores is None else float(scores.mean())


def effect(recipe: Recipe, trials: Sequence[Trial], rise: float) -> str:
    """Says what the updates of `recipe` do to the loss of these trials, of which none rises by more than `rise`."""
    updates, names = f"{recipe.updates:,} updates", " and ".join(trial.arm for trial in trials)
    if not math.isfinite(rise):
        return f"{updates} are not compared, since training diverged"
    bound = "" if len(trials) == 1 else "at most " if rise > 0 else "at least "
    return f"{updates} {'raise' if rise > 0 else 'lower'} the loss of {names} by {bound}{abs(rise):.4f}"


def expected_runs(seeds: int, complete: bool = False) -> int:
    """Returns how many runs an arm takes in a race, or in a complete grid."""
    return len(GRID) * seeds if complete else RACED + seeds


def affordable(recipe: Recipe, clock: Clock, seeds: int, complete: bool = False) -> tuple[list[str], int]:
    """Returns as many arms, from the first, as the time allows, and the seeds; two arms get at least two seeds. What
    has been begun stays, but for pilots and what was begun early beside them."""
    first, known = {pilot.arm: 3 for pilot in pilots_of(recipe)}, recipe.begun()
    begun = {arm: made for arm, made in known.items() if len(made) > first.get(arm, 1)}
    names = [*recipe.arms]

    def fits(seeds: int) -> bool:
        missing = sum(max(expected_runs(seeds, complete) - len(known.get(name, ())), 0) for name in names)
        return clock.has_room_for(missing, recipe.updates, seeds * len(names))

    while len(names) > 2 and names[-1] not in begun and not fits(seeds):
        names.pop()
    while seeds > max(2, *(1 + seed for made in begun.values() for _, seed in made), 0) and not fits(seeds):
        seeds -= 1
    return names, seeds


def grid(race: Race) -> Iterator[list[Trial]]:
    """Yields a complete grid, a seed at a time, and further rates until each arm's best lies inside."""
    for seed in range(race.seeds):
        yield [Trial(arm, rate, seed) for arm, rate in product(race.arms, GRID)]
    while edges := [(arm, rate) for arm in race.arms for rate in race.beyond(arm, step=FINE)]:
        yield [Trial(*cell, seed) for cell in edges for seed in range(race.seeds)]


def every_seed(race: Race) -> Iterator[list[Trial]]:
    """Yields, once the race is over, the seeds that arms lack at their best rates."""
    whole = [Trial(arm, race.best(arm), seed) for arm in race.arms for seed in range(race.seeds)]
    if lacking := [trial for trial in whole if trial not in race.found]:
        yield lacking


def unneeded(race: Race) -> list[Trial]:
    """Returns the runs whose weights will not be tested, unless the race takes a turn."""
    kept = {*race.going_on(), *((arm, race.best(arm)) for arm in race.arms)}
    return [trial for trial in race.found if (trial.arm, trial.rate) not in kept]


def to_be_tested(race: Race) -> int:
    """Returns how many runs will be tested if each arm gets a seed more at its best rate."""
    seeds = [len(race.seeds_of((arm, race.best(arm)))) if race.tried(arm) else 0 for arm in race.arms]
    return sum(min(count + 1, race.seeds) for count in seeds)


def likely(maker: Maker, recipe: Recipe, race: Race, trials: Sequence[Trial]) -> list[Making]:
    """Returns what is likely to be wanted after these trials, as far as those that have ended tell, and if there is
    time."""
    known = {trial: recipe.scores(trial) for trial in trials if recipe.is_trained(trial)}
    left = len(trials) - len(known) + 1
    if not maker.clock.has_room_for(left, recipe.updates, to_be_tested(race)):
        return []
    ahead = replace(race, found=race.found | known)
    return [Making(recipe, trial) for trial in ahead.likely() if trial not in trials]


def run_race(maker: Maker, recipe: Recipe, race: Race, rounds: Iterator[list[Trial]], begins_early: bool = True) -> int:
    """Makes the trials, round after round, until the race is over or the time is up; returns how many runs of a round
    there was no time for."""
    told: set[Stop] = set()

    def tell() -> None:
        for stop in [stop for stop in race.stopped.values() if stop not in told]:
            told.add(stop)
            why = (
                f"its loss is higher by {stop.worse:.4f} than that of {recipe.named(stop.leader)} ({stop.seeds} seeds)"
            )
            maker.say(f"stopped    {recipe.named(stop.cell)}: {'it has diverged' if stop.cell == stop.leader else why}")

    for number, trials in enumerate(rounds, 1):
        tell()
        left = [trial for trial in trials if not recipe.is_trained(trial)]
        if left and race.found and not maker.clock.has_room_for(len(left), recipe.updates, to_be_tested(race)):
            maker.say(f"time is up  {len(left)} runs more were wanted")
            maker.stop()
            return len(left)
        maker.say(f"round {number:<4} {len(trials)} runs, {len(left)} of them to be made")
        early = partial(likely, maker, recipe, race, trials) if begins_early else nothing
        maker.make(recipe, trials, likely=early)
        race.found |= {trial: recipe.scores(trial) for trial in trials}
        recipe.drop_weights(unneeded(race))
    maker.stop()
    tell()
    return 0


def tested(maker: Maker, recipe: Recipe, race: Race, question: Question, keep_models: bool) -> Outcome:
    """Tests each arm at its best rate, times the winner and full fine-tuning in turn, and compares all."""
    trials = {arm: chosen(race, arm) for arm in race.arms}
    trials = {arm: runs for arm, runs in trials.items() if runs}
    if not trials:
        raise ValueError("every arm has diverged at every rate; look at the data, or give other --arms")
    winner = winner_of(race, [*trials])
    maker.say(f"test       {sum(map(len, trials.values()))} runs at the best rate of each arm")
    maker.make(recipe, [trial for runs in trials.values() for trial in runs], "test")
    if not recipe.has_weights(kept_one := trials[winner][0]):  # another arm won before this one
        for score in ("validation", "test"):
            maker.one_after_the_other([recipe.job(kept_one, score)])
    costs = measured_costs(maker, recipe, trials, [*dict.fromkeys([winner, rival_of(race, winner, [*trials])])])
    kept = {trial for runs in trials.values() for trial in runs} if keep_models else {kept_one}
    recipe.drop_other_weights(race.arms, kept)
    test, baselines = question.splits.test, {}
    if question.classes and test:
        most = commonest(balance({"train": question.splits.train})["train"])
        baselines = {TFIDF: tfidf(draws_of(question, race.seeds)), COMMONEST: [as_run(test, [most] * len(test))]}
    arms = {arm: cell_of(recipe, arm, runs) for arm, runs in trials.items()}
    cells, others = compare(arms, baselines, winner, kind_for(question))
    first = [results_of(recipe.place(runs[0])) for runs in trials.values()]
    base: dict[str, Any] = next((one["before"] for one in first if one.get("before")), {})  # the same for all
    made = [results_of(recipe.place(trial)) for trial in race.found if not recipe.has_diverged(trial)]
    minutes = sum(one["seconds"]["train"] + one["seconds"]["eval"] for one in made) / 60
    return Outcome(
        question, recipe, race, kind_for(question), winner, cells, others, forgotten(arms, winner), base, costs,
        minutes, len(race.found), maker.commands,
    )  # fmt: skip


def rival_of(race: Race, winner: str, arms: Sequence[str]) -> str:
    """Returns full fine-tuning, or what comes next to it where that has won."""
    others = [arm for arm in arms if arm != winner] or [winner]
    return "full" if "full" in others else winner_of(race, others)


def by_size(
    maker: Maker, recipe: Recipe, question: Question, sizes: Sequence[int], arms: Sequence[str], seeds: int
) -> dict[int, dict[str, Cell]]:
    """Returns the test scores of the arms at each number of training examples, with the rate chosen at that size; sizes
    that there is no time for are left out."""
    found: dict[int, dict[str, Cell]] = {}
    for size in sizes:
        smaller, race = replace(recipe, train=size), Race(arms, seeds)
        made = sum(map(len, smaller.begun().values()))
        room = maker.clock.has_room_for(expected_runs(seeds) * len(arms), recipe.updates, seeds * len(arms))
        if not (made or room):
            maker.say(f"size       there is no time for {size:,} training examples")
            continue
        maker.say(f"size       {size:,} training examples")
        if run_race(maker, smaller, race, race.rounds()):
            continue
        trials = {arm: runs for arm in arms if (runs := chosen(race, arm))}
        maker.make(smaller, [trial for runs in trials.values() for trial in runs], "test")
        smaller.drop_other_weights(arms)
        cells = {arm: cell_of(smaller, arm, runs) for arm, runs in trials.items()}
        if question.classes:
            baseline = tuple(tfidf(draws_of(question, seeds, size)))
            cells[TFIDF] = Cell(
                label=TFIDF, runs=baseline, seeds=tuple(map(str, range(seeds))), keys=(TFIDF, str(size))
            )
        found[size] = {name: measured(cell, kind_for(question)) for name, cell in cells.items()}
    return found


def measured_costs(
    maker: Maker, recipe: Recipe, trials: Mapping[str, Sequence[Trial]], arms: Sequence[str]
) -> dict[str, Cost]:
    """Returns what the arms cost at their best rates. The times are those of short runs of these arms in turn, one at a
    time, since runs side by side slow each other down; they are measured once."""
    path = recipe.folder / f"times-of-{recipe.updates}-updates.json"
    known = read_json(path, MADE_AGAIN)
    compared = [trials[arm][0] for arm in arms]
    name = " and ".join(recipe.named((trial.arm, trial.rate)) for trial in compared)
    if name not in known:
        folder = recipe.folder / "timing" / re.sub(r"[^\w.-]+", "-", name)
        short = [replace(recipe, folder=folder / str(i), updates=TIMED) for i in range(TIMES)]
        pairs = [(one, trial) for one in short for trial in compared]
        maker.one_after_the_other([one.job(trial, "timing") for one, trial in pairs if not one.is_trained(trial)])
        seconds = {trial.arm: median(one.seconds_of_update(trial) for one in short) for trial in compared}
        known[name] = {"seconds": seconds, "bytes": {arm: short[0].bytes_of_weights(trials[arm][0]) for arm in arms}}
        write_json(path, known)
        for one, trial in pairs:
            one.drop_weights([trial])
    peaks = {
        arm: max(results_of(recipe.place(trial))["peak_memory_mib"] or 0.0 for trial in trials[arm]) for arm in arms
    }
    return {arm: Cost(known[name]["seconds"][arm], peaks[arm], known[name]["bytes"][arm]) for arm in arms}
