"""LoRA on convolutions: a small network that learnt upright digits adapts to digits turned by a quarter.

    python benchmarks/digits.py --method lora --lora-rank 4
    python benchmarks/digits.py --method full --seed 1 --output-dir runs/digits/full-seed1

Beyond the report (its section 4). The images are scikit-learn's, 8 by 8, none of them in two parts; the base network
and the parts are the same for every seed. Writes a run folder as the scripts do; forgetting is the loss on upright
digits. Seconds on one core. B: images.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from evidence.intervals import bootstrap_mean, shown
from lora.adapter import Spec
from lora.conv import ConvLoRA
from training.evaluation.metrics import Row, classification_metrics, mean_loss
from training.flags.cli import at_least, flag, resolved, run
from training.flags.common import FolderArgs
from training.model.methods import parameter_counts
from training.run.results import Results, environment, peak_memory_mib, write_results
from training.step.seeds import generator
from training.storage.files import write_lines
from training.storage.run_folder import check_folder, prepare_folder

CLASSES = tuple("0123456789")
SIZES = {"base": 800, "train": 200, "validation": 200, "test": 597}  # images by part
BATCH, BASE_EPOCHS, BASE_LR = 20, 30, 3e-3
# Peak learning rate of each method: of 1e-3, 3e-3, 1e-2, 3e-2 the one with the least mean validation loss (3 seeds).
DEFAULTS = {"lora": 1e-2, "full": 3e-3, "head": 3e-2}


@dataclass(frozen=True)
class AdaptArgs:
    """What is trained"""

    method: Literal["lora", "full", "head"] = "lora"
    """lora: adapters beside frozen convolutions, and the last layer; full: everything; head: the last layer alone"""
    lora_rank: int = 4
    """rank of every adapter"""
    lora_alpha: float = 16.0
    """strength of the adapters, divided by their rank"""
    lr: float | None = None
    """peak learning rate; None: the method's default"""
    epochs: int = 30
    """passes over the training images"""
    seed: int = 0
    """seed of the adapters' start and of the order of the images"""

    def problems(self) -> list[str]:
        found = at_least(self, 1, "lora_rank", "epochs") + at_least(self, 0, "seed")
        for name in ("lora_alpha", "lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                found.append(f"{flag(name)} {value}: must be above 0 and finite")
        return found


@dataclass(frozen=True)
class Args:
    adapt: AdaptArgs
    run: FolderArgs


class Part(NamedTuple):
    ids: Sequence[int]
    images: Tensor  # (B, 1, 8, 8), 0 to 1
    labels: Tensor  # (B,)

    def turned(self) -> "Part":
        return self._replace(images=self.images.rot90(1, (2, 3)))


def read_parts() -> dict[str, Part]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (B, 1, 8, 8)
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=generator(0, "digits"))
    drawn = order[: sum(SIZES.values())].split(list(SIZES.values()))
    return {name: Part(ids.tolist(), images[ids], labels[ids]) for name, ids in zip(SIZES, drawn, strict=True)}


def network() -> nn.Sequential:
    """Returns a network: (B, 1, 8, 8) -> (B, 10)."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()]
    for inputs, outputs in ((16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]  # (B, outputs, 8/2, 8/2), ...
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 2 * 2, len(CLASSES)))
    start = generator(0, "digits", "network")
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=start)
        else:
            nn.init.zeros_(weight)
    return model


def apply_method(model: nn.Sequential, args: AdaptArgs) -> None:
    """Puts adapters beside the convolutions and freezes what does not train."""
    if args.method == "full":
        return
    model.requires_grad_(False)
    model[-1].requires_grad_(True)
    if args.method == "lora":
        spec = Spec(args.lora_rank, args.lora_alpha)
        for i, layer in enumerate(model):
            if isinstance(layer, nn.Conv2d):
                model[i] = ConvLoRA(layer, spec, generator=generator(args.seed, "digits", i))


def train(model: nn.Module, part: Part, lr: float, epochs: int, seed: int) -> list[dict[str, float]]:
    """Trains, and returns the curve, one point per epoch. The learning rate falls linearly to zero."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
    count, step, curve = len(part.ids), 0, []
    steps = epochs * math.ceil(count / BATCH)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(count, generator=generator(seed, "digits", "order", epoch)).split(BATCH):
            optimizer.param_groups[0]["lr"] = now = lr * (1 - step / steps)
            loss = F.cross_entropy(model(part.images[chosen]), part.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step, total = step + 1, total + loss.item() * len(chosen)
        examples = (epoch + 1) * count
        curve.append({"step": step, "epoch": epoch + 1, "examples": examples, "train_loss": total / count, "lr": now})
    return curve


@torch.no_grad()
def evaluate(model: nn.Module, part: Part) -> list[Row]:
    log_p = model(part.images).log_softmax(1)  # (B, 10)
    losses = -log_p.gather(1, part.labels[:, None])[:, 0]  # (B,)
    columns = (part.ids, part.labels.tolist(), losses.tolist(), log_p.argmax(1).tolist(), log_p.exp().tolist())
    return [Row(id, label, loss, 1, guess, tuple(p)) for id, label, loss, guess, p in zip(*columns, strict=True)]


def forgetting(before: Sequence[Row], after: Sequence[Row]) -> dict[str, Any]:
    """Makes the entry of results.json: losses of the same upright images, with intervals over images."""
    was, now = (torch.tensor([row.loss for row in rows], dtype=torch.float64).numpy() for rows in (before, after))
    losses = {"before": was, "after": now, "difference": now - was}
    found = {"source": "upright digits"} | {name: bootstrap_mean(x).entry() for name, x in losses.items()}
    pieces = {"tokens": [1] * len(was), "before": was.round(4).tolist(), "after": now.round(4).tolist()}
    return found | {"pieces": pieces}


def write_predictions(folder: Path, rows: Sequence[Row]) -> None:
    predictions = [
        {"id": row.id, "label": CLASSES[row.label], "prediction": CLASSES[row.prediction]}
        | {"probabilities": dict(zip(CLASSES, row.probabilities, strict=True)), "loss": row.loss}
        for row in rows
    ]
    write_lines(folder / "predictions.jsonl", predictions)


def main(args: Args) -> None:
    adapt = args.adapt
    folder = args.run.output_dir or Path("runs/digits") / f"{adapt.method}-rank{adapt.lora_rank}-seed{adapt.seed}"
    check_folder(folder, args.run.overwrite, args.run.resume)
    accelerator, parts, model = Accelerator(cpu=True), read_parts(), network()
    train(model, parts["base"], BASE_LR, BASE_EPOCHS, seed=0)
    turned = {name: part.turned() for name, part in parts.items() if name != "base"}
    upright, before = evaluate(model, parts["test"]), evaluate(model, turned["test"])

    apply_method(model, adapt)
    lr, started = adapt.lr or DEFAULTS[adapt.method], time.perf_counter()
    curve = train(model, turned["train"], lr, adapt.epochs, adapt.seed)
    seconds = time.perf_counter() - started
    rows = {"before": before, "val": evaluate(model, turned["validation"]), "test": evaluate(model, turned["test"])}
    curve[-1]["val_loss"] = mean_loss(rows["val"])

    prepare_folder(folder, resuming=False)
    write_predictions(folder, rows["test"])
    sizes = {name: len(part.ids) for name, part in turned.items()}
    metrics = {name: classification_metrics(found, CLASSES) for name, found in rows.items()}
    results = Results(
        script="digits",
        args=resolved(args) | {"lr": lr, "dataset": "digits", "model": "digits"},
        environment=environment(accelerator),
        model={"name": "digits"},
        data={"source": "scikit-learn's digits, turned", "rows": sizes, "labels": list(CLASSES)},
        parameters=parameter_counts(model),
        best_step=int(curve[-1]["step"]),
        seconds={"train": seconds},
        peak_memory_mib=peak_memory_mib(accelerator),
        curve=curve,
        forgetting=forgetting(upright, evaluate(model, parts["test"])),
        before=metrics["before"],
        val=metrics["val"],
        test=metrics["test"],
    )
    write_results(folder, results)
    accuracy = metrics["test"]["accuracy"]
    print(f"test accuracy {shown(accuracy)}, n = {accuracy['n']}; {folder}")


if __name__ == "__main__":
    run(main, Args, __doc__)
