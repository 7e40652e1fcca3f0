"""What a run says of its data, model and length before it starts."""

from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from training.data.corpus import CorpusFacts
from training.data.examples import Data
from training.evaluation.metrics import commonest
from training.flags.update import UpdateArgs
from training.model.methods import parameter_counts

MOST_CLASSES = 12  # named on one line
LENGTHS = "; tokens: median {median}, 95% {p95}, longest {longest}, cut {cut}"


def _counts(balance: Mapping[str, int]) -> str:
    """Example: "ham 40, spam 20"; of very many classes the commonest, and what the others have."""
    ranked = sorted(balance.items(), key=lambda pair: -pair[1])
    shown, others = ([*balance.items()], []) if len(ranked) <= MOST_CLASSES else (ranked[:8], ranked[8:])
    text = ", ".join(f"{label or 'all'} {n:,}" for label, n in shown)
    return text + (f", {len(others):,} others with {others[-1][1]:,} to {others[0][1]:,}" if others else "")


def print_facts(
    accelerator: Accelerator, data: Data, model: nn.Module, update: UpdateArgs, steps: int, folder: Path
) -> None:
    """Prints the table above the progress line, and above a dry run's forecast; on the main process."""
    if not accelerator.is_main_process:
        return
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
    trained, share, epochs = (
        parameters["trainable"],
        parameters["share"],
        steps / update.steps_per_epoch(len(data.train)),
    )
    print(f"model      {parameters['total']:,} parameters, {trained:,} trained ({share:.2%})")
    print(f"plan       updates {steps:,}, epochs {epochs:.3g}, lr {update.lr:.3g}, output {folder}", flush=True)


def print_corpus(accelerator: Accelerator, facts: CorpusFacts, model: nn.Module) -> None:
    """Prints the same of a run of pretraining."""
    if not accelerator.is_main_process:
        return
    print("".join(f"note       {note}\n" for note in facts.notes), end="")
    print(f"data       {sum(facts.documents.values()):,} documents, sha256 {facts.sha256[:12]}")
    for name, count in facts.tokens.items():
        print(f"  {name:<10} {count:>12,} tokens in {facts.documents[name]:,} documents")
    print(f"model      {parameter_counts(model)['total']:,} parameters", flush=True)
