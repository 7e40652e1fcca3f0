"""Prints data, model and length of a run before it starts, and outcome and cost at its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from evidence.intervals import shown
from gpt2_scratch.model import Model
from training.data.corpus import CorpusFacts
from training.data.examples import Data, DataFacts
from training.evaluation.metrics import commonest
from training.flags.update import UpdateArgs
from training.model.methods import parameter_counts
from training.run.device import device_lines
from training.run.results import Results

MOST_CLASSES = 12  # named on one line
LENGTHS = "; tokens: median {median}, 95% {p95}, longest {longest}, cut {cut}"


def _counts(balance: Mapping[str, int]) -> str:
    """Returns the counts as "ham 40, spam 20"; of very many classes the commonest, and the range of the others."""
    ranked = sorted(balance.items(), key=lambda pair: -pair[1])
    shown, others = ([*balance.items()], []) if len(ranked) <= MOST_CLASSES else (ranked[:8], ranked[8:])
    text = ", ".join(f"{label or 'all'} {n:,}" for label, n in shown)
    return text + (f", {len(others):,} others with {others[-1][1]:,} to {others[0][1]:,}" if others else "")


def print_facts(
    accelerator: Accelerator, data: Data, model: Model, update: UpdateArgs, steps: int, folder: Path
) -> None:
    """Prints the table above the progress line, and above a dry run's forecast; on the main process."""
    if not accelerator.is_main_process:
        return
    print("\n".join(device_lines(accelerator, model.config)))
    facts, parameters = data.facts, parameter_counts(model)
    skipped = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in facts.skipped.items() if count)
    print(f"data       {facts.source}, sha256 {facts.sha256[:12]}; left out: {skipped or 'nothing'}")
    for note in facts.notes:
        print(f"note       {note}")
    for name, count in facts.rows.items():
        tokens = LENGTHS.format(**facts.lengths[name]) if name in facts.lengths else ""
        print(f"  {name:<11}{count:>7,}  {_counts(facts.balance[name])}{tokens}")
    if facts.labels is not None:
        most = commonest(facts.balance["train"])
        parts = [(name, facts.balance[name].get(most, 0) / count) for name, count in facts.rows.items() if count]
        shares = ", ".join(f"{share:.1%} of {name}" for name, share in parts)
        print(f"classes    {len(facts.labels):,}; the commonest, {most}, is {shares}")
    epochs = steps / update.steps_per_epoch(len(data.train))
    print("model      {total:,} parameters, {trainable:,} trained ({share:.2%})".format(**parameters))
    print(f"plan       updates {steps:,}, epochs {epochs:.3g}, lr {update.lr:.3g}, output {folder}", flush=True)


def print_corpus(accelerator: Accelerator, facts: CorpusFacts, model: Model) -> None:
    """Prints the same for a pretraining run."""
    if not accelerator.is_main_process:
        return
    print("".join(f"note       {note}\n" for note in facts.notes), end="")
    print(f"data       {sum(facts.documents.values()):,} documents, sha256 {facts.sha256[:12]}")
    for name, count in facts.tokens.items():
        print(f"  {name:<10} {count:>12,} tokens in {facts.documents[name]:,} documents")
    print(f"model      {parameter_counts(model)['total']:,} parameters", flush=True)


NOISE = 0.01  # share of the highest validation loss; a smaller fall tells nothing
FALLING = 0.1  # share of the whole fall of the validation loss; if the last third of the run has more, it still falls


def still_falling(curve: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether the validation loss is lowest at the end, and fell there by a good part of its whole fall."""
    losses = [point["val_loss"] for point in curve if "val_loss" in point]
    if len(losses) < 4 or losses[-1] > min(losses):
        return False
    fall, before_last_third = max(losses) - losses[-1], losses[-1 - len(losses) // 3]
    return fall > NOISE * max(losses) and before_last_third - losses[-1] > FALLING * fall


def only_answer(test: Mapping[str, Any], labels: Sequence[str]) -> str | None:
    """Returns the one class that is always predicted, if the examples have several."""
    matrix = test.get("confusion_matrix", ())
    used = [i for i, column in enumerate(zip(*matrix, strict=True)) if any(column)]
    several = sum(any(row) for row in matrix) > 1
    return labels[used[0]] if several and len(used) == 1 and used[0] < len(labels) else None


def outcome_notes(results: Results) -> list[str]:
    """Returns what a reader of the metrics should know, a sentence each."""
    notes, labels = [], results.data.labels or ()
    only = only_answer(results.test or {}, labels)
    if only is not None:
        notes.append(f"the model answers {only!r} to every test example: it has learnt no difference")
    elif still_falling(results.curve):
        notes.append(
            "validation loss still falls at the end: with more --epochs (or --max-steps) this method can do better, so "
            "compare it with no other yet"
        )
    return notes


def _shown(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {shown(metrics[name])}" for name in names if name in metrics)


def print_classes(classes: Mapping[str, Mapping[str, float]], file: str = "results.json") -> None:
    """Prints precision, recall and F1 of each class; of very many only those with the lowest F1 (all are in `file`)."""
    ranked = sorted(classes, key=lambda name: classes[name]["f1"])
    named = [*classes] if len(ranked) <= MOST_CLASSES else ranked[:MOST_CLASSES]
    width = max(len("class"), *(len(name) for name in named))
    print(f"        {'class':<{width}}  precision  recall      f1      n")
    for name in named:
        scores = "{precision:9.3f}  {recall:6.3f}  {f1:6.3f}  {n:5,}".format(**classes[name])
        print(f"        {name:<{width}}  {scores}")
    if len(named) < len(ranked):
        print(f"        ({len(ranked) - len(named):,} classes with a higher f1 are in {file})")


def _print_commonest(data: DataFacts) -> None:
    most, test = commonest(data.balance["train"]), data.balance["test"]
    print(f"commonest class, {most}  accuracy {test.get(most, 0) / sum(test.values()):.4f}")


def print_outcome(folder: Path, results: Results, names: Sequence[str], untrained: str = "") -> None:
    """Prints metrics with intervals and by class, costs, and where everything is; `untrained` remarks on `before`."""
    data, test = results.data, results.test or {}
    left = results.args.get("score") == "validation" and data.rows["test"] > 0
    nothing = "not measured yet (--resume --score all)" if left else "no test examples"
    missing = {"before": "not measured (--score trained)"} if results.args.get("score") == "trained" else {}
    for part, metrics, remark in (("before", results.before or {}, untrained), ("test", test, "")):
        print(f"{part:<8}{_shown(metrics, names) or missing.get(part, nothing)}{remark if metrics else ''}")
    if test:
        counts = [test[name]["n"] for name in names if name in test]  # a metric may need answers of two kinds
        if counts:
            print(f"        95% intervals over n = {max(counts):,} test examples")
        if data.labels is not None:
            _print_commonest(data)
        if test.get("classes"):
            print_classes(test["classes"])
    for note in results.notes or ():
        print(f"note    {note}")
    if lost := results.forgetting:
        before, after = (lost[name]["value"] for name in ("before", "after"))
        print(f"general text  loss {before:.3f} -> {after:.3f}, {shown(lost['difference'], '+.3f')}", end=" ")
        print(f"over {lost['tokens']:,} tokens")
    seconds = results.seconds
    print(f"cost    training {seconds['train']:,.1f} s, evaluation while training {seconds['eval']:,.1f} s; ", end="")
    print(f"peak memory {results.peak_memory_mib:,.0f} MiB")
    board = f"; tensorboard --logdir {folder}/tensorboard" if "tensorboard" in results.args["report_to"] else ""
    print(f"curves  {folder}/curves.png{board}")
    print(f"results {folder}/results.json")
