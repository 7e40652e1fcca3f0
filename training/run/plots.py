"""Draws curves.png, which a person looks at first, and forgetting.png."""

from pathlib import Path
from typing import Any

from training.storage.files import replace_file

BLUE, ORANGE, GREY = "#1f5fa8", "#d9711c", "#767676"
# Of curves.png, for numbers of up to eight characters; to fit them to the numbers takes half as long as to draw.
MARGINS = {"left": 0.14, "right": 0.86, "bottom": 0.1, "top": 0.94, "hspace": 0.12}


def plot_curves(path: Path, curve: list[dict[str, Any]], title: str) -> None:
    """Draws losses, learning rate, gradient norm and a validation score, if there is one, against the step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6))
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1), gridspec_kw=MARGINS)
    _line(losses, curve, "train_loss", "training loss", BLUE)
    _line(losses, curve, "val_loss", "validation loss", ORANGE, marker="o")
    losses.set_ylabel("loss (nats)")
    losses.set_title(title, fontsize=10, parse_math=False)
    handles = losses.get_legend_handles_labels()
    metric = next((name for point in curve for name in point if name.startswith("val_") and name != "val_loss"), None)
    if metric is not None:
        scores = losses.twinx()
        _line(scores, curve, metric, metric.removeprefix("val_"), GREY, marker="s", linestyle="--")
        scores.set_ylabel(metric.removeprefix("val_"), color=GREY)
        handles = tuple(a + b for a, b in zip(handles, scores.get_legend_handles_labels(), strict=True))
    losses.legend(*handles, loc="center right", framealpha=0.8, fontsize=9)
    _line(rates, curve, "lr", "learning rate", BLUE)
    rates.set_ylabel("learning rate", color=BLUE)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rates.set_xlabel("optimizer step")
    norms = rates.twinx()
    _line(norms, curve, "grad_norm", "gradient norm", GREY)
    norms.set_ylabel("gradient norm", color=GREY)
    for axes in (losses, rates):
        axes.grid(alpha=0.25)
    replace_file(path, lambda new: figure.savefig(new, dpi=120, format="png"))


def plot_forgetting(path: Path, forgetting: dict[str, Any] | None, title: str, metric: str) -> None:
    """Draws the task metric, named `metric`, and the general loss against the adapters' strength, if measured."""
    if forgetting is None or "curve" not in forgetting:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    scores = figure.subplots()
    losses, curve = scores.twinx(), forgetting["curve"]
    _line(scores, curve, "metric", metric, BLUE, x="strength", marker="o")
    _line(losses, curve, "general_loss", "general loss", ORANGE, x="strength", marker="s", linestyle="--")
    scores.axvline(1.0, color=GREY, linewidth=1, linestyle=":", label="as trained")
    scores.set_xlabel("strength of the adapters (0: the frozen weights alone, 1: as trained)")
    scores.set_ylabel(metric, color=BLUE)
    losses.set_ylabel("loss on general text (nats a token)", color=ORANGE)
    scores.set_title(title, fontsize=10, parse_math=False)
    scores.grid(alpha=0.25)
    handles = zip(scores.get_legend_handles_labels(), losses.get_legend_handles_labels(), strict=True)
    losses.legend(*(a + b for a, b in handles), loc="best", framealpha=0.8, fontsize=9)
    replace_file(path, lambda new: figure.savefig(new, dpi=120, format="png"))


def _line(
    axes: Any, curve: list[dict[str, Any]], key: str, label: str, color: str, x: str = "step", **style: Any
) -> None:
    points = [(point[x], point[key]) for point in curve if key in point]
    axes.plot(*zip(*points, strict=True), label=label, color=color, linewidth=1.4, markersize=3.5, **style)
