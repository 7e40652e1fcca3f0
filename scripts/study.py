"""Answers for your own data: LoRA or full fine-tuning, which rank, which learning rate, at what cost?

    python scripts/study.py --data tickets.csv --text-column body --label-column topic --model gpt2 --minutes 60
    python scripts/study.py --data qa.jsonl --prompt-column question --response-column answer --model gpt2-nano
    python scripts/study.py --dataset enron --train-examples 500 --model gpt2-nano --dry-run

Arms and learning rates race on validation examples, each seed with its own draw of the training examples. Test examples
choose nothing. The answer is the last screen, answer.md and study.html. The same command goes on where it was stopped.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from studies.arms import NAMED, RANKLESS
from studies.question import Asked, Question, ask, check_folder, held, problem_of_drawing
from training.flags.cli import at_least, changed_flags, flag, given_flags, note, refuse, run
from training.flags.common import DataArgs, ModelArgs
from training.flags.compute import SpeedArgs
from training.flags.fields import AsPublished, Help, Rare
from training.flags.task import PromptArgs, TextArgs

if TYPE_CHECKING:
    from studies.making import Clock, Forecast, Maker
    from studies.outcome import Outcome
    from studies.runs import Recipe


@dataclass(frozen=True)
class StudyArgs:
    """What is compared"""

    arms: Annotated[tuple[str, ...], Help(
        "ways of training: " + "; ".join(f"{name}: {said}" for name, said in NAMED.items())
        + "; or any --method. None given: these, in the order in which a short --minutes drops them from the end"
    )] = ()  # fmt: skip
    ranks: tuple[int, ...] = (16, 4)
    """ranks of LoRA, alpha being 16 at each; other arms with adapters have the first of them"""
    train_sizes: tuple[int, ...] = ()
    """numbers of training examples, at which the winner, full fine-tuning and TF-IDF are compared too"""
    seeds: int = 5
    """seeds, each with its own training examples, start and order"""
    updates: Rare[int | None] = None
    """optimizer steps of every run; None: two epochs or 200, whichever is more, doubled until the validation loss of
    the better of full and LoRA has stopped falling, or halved where it has risen and until half of them raise it"""
    batch_size: Rare[int] = 8
    """examples of an optimizer step"""
    complete: Rare[bool] = False
    """stop nothing: every arm has seven rates with every seed"""
    every_seed: Rare[bool] = False
    """give each arm every seed at its best rate, also one that the race has stopped with too few to tell it apart"""

    def problems(self) -> list[str]:
        found = at_least(self, 1, "seeds", "updates", "batch_size")
        ranks = f"--ranks {' '.join(map(str, self.ranks))}"
        if not self.ranks or min(self.ranks) < 1 or len({*self.ranks}) < len(self.ranks):
            found.append(f"{ranks}: name at least one, each once and 1 or more")
        if self.arms and "lora" not in self.arms and "ranks" in given_flags(self):
            if {*self.arms} <= RANKLESS:
                found.append(f"{ranks}: no arm of --arms has adapters; leave it out")
            elif len(self.ranks) > 1:
                found.append(f"{ranks}: only the arm lora has several ranks; name one, or add lora to --arms")
        twice = {name for name in self.arms if self.arms.count(name) > 1}
        if self.train_sizes and min(self.train_sizes) < 2:
            found.append(f"--train-sizes {' '.join(map(str, self.train_sizes))}: each must be at least 2")
        return found + [f"--arms {name}: is named twice" for name in sorted(twice)]

    def problems_with(self, question: Question) -> list[str]:
        """Returns what does not go with the examples that there are."""
        over = [str(size) for size in self.train_sizes if size > question.train]
        if over:
            return [f"--train-sizes {' '.join(over)}: a seed has {question.train:,} examples; give fewer"]
        sizes = {f"--train-sizes {size}": size for size in self.train_sizes}
        own = "--train-examples" if question.data.train_examples else "--train-examples was not given, and is"
        sizes[f"{own} {question.train}"] = question.train
        return [f"{name}: {why}" for name, size in sizes.items() if (why := problem_of_drawing(question, size))]


@dataclass(frozen=True)
class PoolArgs(DataArgs):
    """Where the examples come from, and how many are for what"""

    subset: AsPublished[Literal["all", "report"]] = "all"
    """the study sets it itself"""
    validation_share: Rare[float] = 0.1
    """share of the examples held out for validation, where the source has no validation part; a fifth below 1,000 rows
    if not given, else a tenth"""
    test_share: Rare[float] = 0.1
    """share held out for the test, where the source has no test part; a quarter below 1,000 rows if not given, else a
    tenth"""
    train_examples: int | None = None
    """as many training examples as each seed draws; None: four fifths of those that are not held out"""
    val_examples: Rare[int | None] = None
    """at most this many validation examples; None: 400"""
    test_examples: Rare[int | None] = None
    """at most this many test examples; None: 2,000"""
    draw_seed: Rare[int | None] = None
    """the study sets it itself"""
    train_on: Rare[Literal["train", "all"]] = "train"
    """the study sets it itself"""


@dataclass(frozen=True)
class WorkArgs:
    """Where, and for how long"""

    minutes: float | None = None
    """time for this command; a short one drops arms, rates or seeds, never updates. None: as long as it takes"""
    workers: int | None = None
    """runs at a time on this machine; None: as many as memory and cores allow"""
    ray: str | None = None
    """address of a Ray cluster, or auto; docs/cluster.md"""
    threads: Rare[int] = 1
    """threads of each run on a CPU"""
    output_dir: Path | None = None
    """folder of the study; None: one in runs/study/, named after data and base"""
    keep_models: Rare[bool] = False
    """keep the weights of all runs that are tested, not only of the winner's"""
    dry_run: bool = False
    """forecast runs, minutes and memory, and what could be told apart, and stop"""

    def problems(self) -> list[str]:
        found = at_least(self, 1, "workers", "threads")
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            found.append(f"--minutes {self.minutes:g}: must be above 0 and finite")
        if self.ray is not None and not self.ray.strip():
            found.append("--ray: is empty; give the address of a cluster, or auto, or leave it out")
        elif self.workers is not None and self.ray is not None:
            found.append(f"--workers {self.workers}, --ray {self.ray}: choose one; the cluster decides for itself")
        return found


@dataclass(frozen=True)
class Args:
    data: PoolArgs
    model: ModelArgs
    text: TextArgs
    prompt: PromptArgs
    speed: SpeedArgs
    study: StudyArgs
    work: WorkArgs

    def problems(self) -> list[str]:
        given = changed_flags(self.data)
        own = [name for name in ("draw_seed", "train_on", "subset") if name in given]
        return [f"{flag(name)}: the study sets it itself; leave it out" for name in own]


def main(args: Args) -> None:
    study, started = args.study, time.monotonic()
    question = ask(
        Asked(args.data, args.model, args.text, args.prompt, args.speed, study.arms, study.ranks, study.batch_size)
    )
    refuse(study.problems_with(question))
    folder = args.work.output_dir or default_folder(question, Path(args.model.model).name)
    conduct(args, question, folder, started)


def default_folder(question: Question, model: str) -> Path:
    """Returns a folder named after data and base, with a hash of all that the runs share."""
    told = json.dumps([question.words, question.splits.fingerprint()])
    return Path("runs/study") / f"{question.task.name}-{model}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def conduct(args: Args, question: Question, folder: Path, started: float) -> None:
    from evidence.racing import Trial
    from gpt2_scratch.weights import weights_hash
    from studies.answer import cut_texts, screen
    from studies.making import Clock, Forecast, Maker, forecast
    from studies.printed import print_question
    from studies.runs import Recipe
    from training.data.sources import base_model
    from workers.cluster import cluster
    from workers.local import fitting, free_mib, local

    study, work = args.study, args.work
    updates = study.updates or question.updates
    recipe = Recipe(folder, question.script, question.words, question.arms, updates, question.train)
    print_question(question, recipe)

    known = check_folder(folder, question, work.threads)
    recipe = replace(recipe, watched=known["watched"])
    if not work.dry_run:
        base, _ = base_model(args.model.model)  # fetched once, before many runs want it
        known |= check_folder(folder, question, work.threads, weights_hash(base))

    with (
        held(folder, known, work.dry_run),
        local(work.workers or 1, work.threads) as here,
        nullcontext(here) if work.ray is None else cluster(work.ray, work.threads) as workers,
    ):
        # What a run takes.
        largest = ["full"] if "full" in recipe.arms else [*recipe.arms]
        each = [forecast(here, recipe, Trial(name, 0, 0), kept=not work.dry_run) for name in largest]
        expected = Forecast(*map(max, zip(*each, strict=True)))
        recipe = replace(recipe, memory_mib=expected.memory_mib, cut=expected.cut)
        if cut := cut_texts(question, recipe.cut):
            note(cut)
        at_a_time = workers.count
        if work.ray is None:
            here.count = work.workers or fitting(expected.memory_mib, work.threads)
            at_a_time = min(here.count, fitting(0, work.threads))  # any more wait for a core
            tell_crowded(here.count, at_a_time, expected.memory_mib, free_mib())
        clock = Clock(work.minutes, at_a_time, started, {updates: [expected.seconds]})
        if work.dry_run:
            tell_forecast(study, question, recipe, clock, expected)
            return
        maker = Maker(workers, clock)
        try:
            found = outcome(args, question, recipe, maker)
            if study.train_sizes:
                write_answer(found)  # which stays if the sizes are stopped
                found = with_sizes(found, maker, study.train_sizes)
        finally:
            maker.stop()
    write_answer(found)
    print("\n".join(["", *screen(found)]))
    print(f"answer  {folder}/answer.md\npage    {folder}/study.html")


def tell_forecast(study: StudyArgs, question: Question, recipe: "Recipe", clock: "Clock", expected: "Forecast") -> None:
    """Prints what the study is forecast to make and to take, with the other numbers of training examples."""
    from studies.phases import affordable, expected_runs
    from studies.printed import print_forecast

    arms, seeds = affordable(recipe, clock, study.seeds, study.complete)
    say_left_out(recipe, arms, seeds, study.seeds)
    print_forecast(question, recipe, clock, expected, arms, expected_runs(seeds, study.complete), seeds)
    for size in other_sizes(question, study.train_sizes):
        runs = min(2, len(arms)) * expected_runs(seeds)
        print(f"  {size:>8,} training examples: about {runs} runs more")
    if question.train in study.train_sizes:
        print(f"  {question.train:>8,} training examples: the study itself")


def tell_crowded(count: int, at_a_time: int, memory_mib: float, free: float) -> None:
    """Notes where so many runs have too little memory or too few cores."""
    if count * memory_mib > free:
        runs = "a run is" if count == 1 else f"{count:,} runs at a time are"
        fewer = "" if count == 1 else "; give fewer --workers"
        note(f"{runs} forecast to need {count * memory_mib:,.0f} MiB, and {free:,.0f} are free{fewer}")
    if count > at_a_time:
        note(f"--workers {count:,}: there are cores for {at_a_time:,} runs at a time, for which the time is counted")


def outcome(args: Args, question: Question, recipe: "Recipe", maker: "Maker") -> "Outcome":
    """Makes the runs of the study and compares the arms."""
    from evidence.racing import Race
    from studies.phases import affordable, every_seed, grid, run_race, settled, tested

    study = args.study
    # Length: as many updates as stop the fall of the validation loss.
    recipe = recipe if study.updates else settled(maker, recipe, study.seeds)

    # Race, on validation examples.
    arms, seeds = affordable(recipe, maker.clock, study.seeds, study.complete)
    say_left_out(recipe, arms, seeds, study.seeds)
    race = Race(arms, seeds)
    rounds = grid(race) if study.complete else chain(race.rounds(), every_seed(race) if study.every_seed else ())
    unmade = run_race(maker, recipe, race, rounds, not study.complete)

    # Test, of each arm at its best rate.
    found = tested(maker, recipe, race, question, args.work.keep_models)
    dropped = [arm for arm in recipe.arms if arm not in arms]
    return replace(found, dropped=dropped, asked=study.seeds, unmade=unmade)


def say_left_out(recipe: "Recipe", arms: Sequence[str], seeds: int, asked: int) -> None:
    """Says once which arms and how many seeds --minutes leaves no time for."""
    from evidence.document import listing
    from studies.answer import left_out

    if short := left_out([arm for arm in recipe.arms if arm not in arms], seeds, asked):
        note(f"there is no time for {listing(short)}; give more --minutes")


def other_sizes(question: Question, asked: Sequence[int]) -> list[int]:
    """Returns the numbers of training examples that the study itself does not have."""
    return sorted({*asked} - {question.train})


def with_sizes(found: "Outcome", maker: "Maker", asked: Sequence[int]) -> "Outcome":
    """Compares the winner, full fine-tuning and TF-IDF at other numbers of training examples too."""
    from studies.phases import by_size, rival_of

    arms = list(dict.fromkeys([found.winner, rival_of(found.race, found.winner, [*found.arms])]))
    wanted = other_sizes(found.question, asked)
    sizes = by_size(maker, found.recipe, found.question, wanted, arms, found.race.seeds)
    return replace(found, sizes=sizes, unmade_sizes=[size for size in wanted if size not in sizes])


def write_answer(found: "Outcome") -> None:
    from studies.answer import markdown
    from studies.page import as_html
    from training.storage.files import write_text

    write_text(found.recipe.folder / "answer.md", markdown(found))
    write_text(found.recipe.folder / "study.html", as_html(found))


if __name__ == "__main__":
    run(main, Args, __doc__, goes_on="the same command goes on where it was")
