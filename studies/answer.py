"""Says what a study has found, in sentences that need no statistics to be understood."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from evidence.cells import Cell
from evidence.document import listing
from evidence.intervals import LEVEL
from evidence.kinds import Kind
from evidence.markdown import plain
from studies.outcome import COMMONEST, TFIDF, Outcome
from studies.question import Question


def sentences(found: Outcome) -> list[str]:
    """Returns the six parts of the answer."""
    return [
        what_to_use(found),
        by_how_much(found),
        what_is_not_told_apart(found),
        what_it_costs(found),
        what_is_forgotten(found),
        what_does_without(found),
    ]


def named(cell: Cell, found: Outcome) -> str:
    """Returns the name of an arm with its rate, or of a baseline."""
    return f"{cell.label} at lr {found.rate(cell.label):g}" if cell.label in found.arms else cell.label


def shown(cell: Cell, kind: Kind) -> str:
    """Returns a score with its interval: 91.2% [88.9, 93.1]."""
    text = cell.text(kind)
    return text.replace(" [", "% [", 1) if kind.factor == 100 and " [" in text else text


def change(cell: Cell, kind: Kind) -> str:
    """Returns the difference from the winner with its interval: −1.2 points [−2.8, +0.4]."""
    one, points = cell.comparison, " points" if kind.factor == 100 else ""
    assert one is not None, "only arms that were compared are told"
    return f"{kind.change(one.value)}{points} [{kind.change(one.low)}, {kind.change(one.high)}]"


def what_to_use(found: Outcome) -> str:
    words, question, winner = found.recipe.words, found.question, found.arms[found.winner]
    model = words[words.index("--model") + 1] if "--model" in words else "gpt2"
    last, best = found.recipe.updates, found.best_update(found.winner)
    kept = f" (tested were the weights after {best:,} updates in the median; this command keeps those after {last:,})"
    seeds, asked = len(winner.runs), found.asked or found.race.seeds
    return (
        f"Of these ways of training {model} on {question.task.name} use {named(winner, found)}, for {last:,} updates: "
        f"of those with {seeds} of {asked} seeds its validation loss is the lowest. To train it on all rows, with none "
        f"left for a test{kept * (best != last)}: {found.command(found.winner, on_all=True)}"
    )


def by_how_much(found: Outcome) -> str:
    winner, kind = found.arms[found.winner], found.kind
    seeds = f"{len(winner.runs)} seeds" if len(winner.runs) > 1 else "one seed"
    said = [f"On the test its {kind.name} is {shown(winner, kind)} ({seeds}, {winner.n:,} examples)."]
    if winner.of_one_class:
        said.append(
            f"It gives every example one class in {winner.of_one_class} of its seeds: it has learnt nothing there."
        )
    if diverged := found.diverged(found.winner):
        said.append(f"{diverged} of its seeds diverged and {'is' if diverged == 1 else 'are'} left out.")
    apart = found.differing(told_apart=True)
    for word, verdict in (("Worse", -1), ("Better", 1)):
        if cells := [f"{named(cell, found)} ({change(cell, kind)})" for cell in apart if cell.verdict == verdict]:
            said.append(f"{word} than it {'is' if len(cells) == 1 else 'are'} {listing(cells)}.")
    tested = any(cell.comparison and cell.comparison.claims for cell in [*found.arms.values(), *found.others.values()])
    nothing = "Nothing else is told apart from it." if tested else "Nothing could be compared with it."
    return " ".join(said if apart else [*said, nothing])


def what_is_not_told_apart(found: Outcome) -> str:
    alike, kind, said = found.differing(told_apart=False), found.kind, list[str]()
    known = [cell for cell in alike if cell.comparison and cell.comparison.claims]
    unknown = [cell for cell in alike if cell not in known]
    if known:
        least = [one.detectable for cell in known if (one := cell.comparison) and not math.isnan(one.detectable)]
        cells = listing([f"{named(cell, found)} ({change(cell, kind)})" for cell in known])
        ends = f"; four of five such studies would find {kind.size(max(least))}" if least else ""
        said.append(f"Not told apart from it: {cells}{ends}.")
    if unknown:
        cells = listing([f"{named(cell, found)} ({change(cell, kind)})" for cell in unknown])
        said.append(f"Of too few seeds to say anything: {cells}.")
    alone = {arm: cell.why_alone for arm, cell in found.arms.items() if cell.why_alone and arm != found.winner}
    for why in dict.fromkeys(alone.values()):
        why_not = why.removeprefix("not compared, ")
        said.append(f"Not compared: {listing([arm for arm in alone if alone[arm] == why])} ({why_not}).")
    if stopped := [arm for arm in found.arms if found.is_stopped(arm)]:
        said.append(f"Stopped early, since already worse on validation: {listing(stopped)}.")
    said += what_is_missing(found)
    others = "There is no other arm." if len(found.arms) < 2 else "Every other arm is told apart from it."
    return " ".join(said) or others


def what_is_missing(found: Outcome) -> list[str]:
    """Returns sentences on what diverged, on rates at an end of those tried, and on what there was no time for."""
    said, partly = list[str](), {arm: found.diverged(arm) for arm in found.arms if arm != found.winner}
    if gone := [arm for arm in found.race.arms if arm not in found.arms]:
        said.append(f"Diverged at every rate: {listing(gone)}.")
    if cells := [f"{count} of {arm}" for arm, count in partly.items() if count]:
        said.append(f"Seeds that diverged are left out: {listing(cells)}.")
    for place, end in (("lowest", 0), ("highest", -1)):
        if arms := [arm for arm in found.arms if found.race.best(arm) == found.race.tried(arm)[end]]:
            rates = "rate of {} is" if len(arms) == 1 else "rates of {} are"
            said.append(f"The best {rates.format(listing(arms))} the {place} that was tried.")
    short = left_out(found.dropped, found.race.seeds, found.asked)
    short += [f"{found.unmade:,} runs of the race at least"] * bool(found.unmade)
    short += [f"{listing([f'{size:,}' for size in found.unmade_sizes])} training examples"] * bool(found.unmade_sizes)
    said += [f"There was no time for {listing(short)}."] * bool(short)
    more = f"More than {found.recipe.updates:,} updates were not tried, and may lower the loss further."
    return said + [more] * (not found.recipe.is_settled)


def left_out(arms: Sequence[str], seeds: int, asked: int) -> list[str]:
    """Returns the arms and the number of the seeds that there is no time for, in words."""
    dropped = [f"the {'arm' if len(arms) == 1 else 'arms'} {listing(arms)}"] * bool(arms)
    return dropped + [f"{asked - seeds} of {asked} seeds"] * (seeds < asked)


def what_it_costs(found: Outcome) -> str:
    if not found.costs:
        return "What it costs was not measured."
    cells = [
        f"{arm} {cost.seconds:.3g} s an update, {cost.memory_mib:,.0f} MiB at most, {cost.bytes / 1e6:,.1f} MB on disk"
        for arm, cost in found.costs.items()
    ]
    return f"It costs, measured in turn and one at a time: {'; '.join(cells)}."


def what_is_forgotten(found: Outcome) -> str:
    known = [cell for cell in found.forgetting.values() if cell.value is not None and cell.kind is not None]
    if not known:
        return "Forgetting was not measured."
    cells = ", ".join(f"{cell.label} {cell.text(cell.kind)}" for cell in known if cell.kind)
    rises = any(cell.label == found.winner and cell.low is not None and cell.low > 0 for cell in known)
    said = "It forgets: the loss of general text rises" if rises else "The loss of general text changes"
    tested = [cell for cell in known if cell.comparison and cell.comparison.claims]
    apart = [cell.label for cell in tested if cell.comparison and cell.comparison.differs]
    names = f"{listing(apart)} {'are' if len(apart) > 1 else 'is'}" if apart else "none is"
    ends = f"; {names} told apart from {found.winner}" * bool(tested)
    if unknown := [cell.label for cell in known if cell not in tested and cell.label != found.winner]:
        ends += f"; of {listing(unknown)} there are too few seeds to say"
    return f"{said}, in nats a token, by {cells}{ends}."


def what_does_without(found: Outcome) -> str:
    if not found.question.classes:
        base = found.base.get("response_perplexity", {}).get("value")
        return f"The untouched base has a response perplexity of {base:,.1f}." if base else "The base was not tested."
    if TFIDF not in found.others:
        return "There are no test examples, so nothing is known of doing without a language model."
    tfidf, most, kind = found.others[TFIDF], found.others[COMMONEST], found.kind
    verdict = {1: "is better: do without a language model", -1: "is worse", 0: "is not told apart from it"}
    if tfidf.why_alone:
        verdict[0] = f"was {tfidf.why_alone.replace(', ', ' with it (', 1)})"
    elif tfidf.comparison is None or not tfidf.comparison.claims:
        verdict[0] = "is not told apart from it, of which there are too few seeds"
    assert most.value is not None, "a baseline has a score"
    return (
        f"{TFIDF} has {shown(tfidf, kind)} and {verdict[tfidf.verdict]}; always answering the commonest class has "
        f"{kind.text(most.value)}%."
    )


def cut_texts(question: Question, cut: int) -> str:
    """Returns how many examples of the first seed are longer than a run reads, as a sentence; empty for none."""
    if not cut:
        return ""
    rows = question.train + len(question.splits.validation) + len(question.splits.test)
    whole = f"; {TFIDF} reads them whole" * question.classes
    return f"{cut:,} of the {rows:,} examples of a run are longer than --max-length and are cut{whole}"


def where_made(found: Outcome) -> str:
    """Returns a sentence on the machines, torch and commits of the tested runs, which may differ where a study went on
    later or on a cluster; empty where no run says it."""
    runs = [run.results for cell in found.arms.values() for run in cell.runs]
    known = [results["environment"] for results in runs if "environment" in results]
    places = Counter(f"{one['device']} with torch {one['libraries']['torch']}" for one in known)
    if not places:
        return ""
    counted = [f"{count:,} on {place}" if len(places) > 1 else f"on {place}" for place, count in places.most_common()]
    commits = {one.get("commit") for one in known}
    versions = f", by {len(commits)} versions of the project" * (len(commits) > 1)
    return f" The tested runs were made {listing(counted)}{versions}."


def scope(found: Outcome) -> str:
    """Returns what the answer is about."""
    rows = {name: len(part) for name, part in found.question.splits.named().items()}
    single = [arm for arm, cell in found.arms.items() if len(cell.runs) < 2]
    over = "examples, since there is one seed" if len(single) == len(found.arms) else "seeds and examples"
    over += f" ({listing(single)}: over examples alone, of one seed)" * (0 < len(single) < len(found.arms))
    return (
        f"This holds for this pool of {rows['train']:,} rows, of which each seed draws {found.question.train:,}. "
        f"{rows['validation']:,} rows for validation chose arms and rates, {rows['test']:,} were tested. Intervals are "
        f"{LEVEL:.0%}, over {over}. Scores are told apart all together (Holm), and so is forgetting, so that an "
        f"interval may leave out 0 and yet claim nothing. The race had {found.runs} runs, {found.minutes:.0f} minutes "
        f"of one worker.{where_made(found)}"
    ) + (f" {cut}." if (cut := cut_texts(found.question, found.recipe.cut)) else "")


def marked_up(found: Outcome, text: Callable[[str], str], code: Callable[[str], str]) -> list[str]:
    """Returns the sentences with their words as `text` writes them, and the command as `code` does."""
    said = [sentence.partition(found.command(found.winner, on_all=True)) for sentence in sentences(found)]
    return [text(a) + (f" {code(command)}" if command else "") + text(b) for a, command, b in said]


def code(command: str) -> str:
    """Returns the command as a span of code, in a fence that it does not contain."""
    fence = "`" * (1 + max([1, *(len(run) for run in re.findall("`+", command))]))
    return f"{fence} {command} {fence}" if "`" in command else f"{fence}{command}{fence}"


def markdown(found: Outcome) -> str:
    """Returns answer.md, in which the command is code."""
    parts = [f"{i}. {sentence}" for i, sentence in enumerate(marked_up(found, plain, code), 1)]
    name = plain(found.question.task.name)
    return "\n\n".join([f"# {name}: which way of training?", *parts, plain(scope(found))]) + "\n"


def screen(found: Outcome) -> Sequence[str]:
    """Returns the lines of the last screen."""
    return [f"{i}. {sentence}" for i, sentence in enumerate(sentences(found), 1)] + [scope(found)]
