"""Columns, curves and sizes are drawn as SVG; the same results give the same bytes."""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evidence.cells import Cell
from evidence.kinds import Kind

SERIES = ("#1f5fa8", "#d9711c", "#3a8a4d", "#9b4f96", "#767676", "#b8860b")
GREY, FAINT = "#767676", "#e8e8e8"
PER_LINE = 4  # panels
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 9, "axes.titlesize": 9.5,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY,
    "xtick.color": "#444444", "ytick.color": "#222222",
}  # fmt: skip


class Panel(NamedTuple):
    """This is one graph of a picture. `series`, `colours` and `marks` are by name; each cell stands in its row, and
    marks are others' values by the row's label, with their marker and its size."""

    title: str
    kind: Kind
    series: Mapping[str, Sequence[Cell]]
    colours: Mapping[str, str] = {}
    marks: Mapping[str, tuple[str, int, Mapping[str, float]]] = {}

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(cell.label for cells in self.series.values() for cell in cells))


def _figure(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    matplotlib.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **options)


def _svg(figure: Any) -> str:
    """Only the svg element is kept, and it is as wide as the page lets it be."""
    from matplotlib import pyplot as plt

    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :].strip()


def dots(panels: Sequence[Panel]) -> str:
    """Each row of a panel is a line, with every series, its interval, and the marks."""
    across = min(len(panels), PER_LINE)
    down = -(-len(panels) // across)
    most = max(len(panel.labels) for panel in panels)
    figure, places = _figure(2.6 + 2.1 * across, down * (1.15 + 0.34 * most) + 0.4, down, across)
    for axes, panel in itertools.zip_longest(places.flat, panels):
        if panel is None:
            axes.set_visible(False)
        else:
            _dots_panel(axes, panel)
    for line in places:
        for axes in line[1:]:
            if [t.get_text() for t in axes.get_yticklabels()] == [t.get_text() for t in line[0].get_yticklabels()]:
                axes.set_yticklabels([])
    known: dict[str, Any] = {}
    for axes in places.flat:
        handles, labels = axes.get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True)) | known
    below = {"loc": "outside lower center", "ncols": 4 if across > 1 else 2, "frameon": False, "fontsize": 9}
    figure.legend(known.values(), known.keys(), **below)
    return _svg(figure)


def _dots_panel(axes: Any, panel: Panel) -> None:
    labels = panel.labels
    for place, label in enumerate(labels):
        axes.axhline(place, color=FAINT, linewidth=0.8, zorder=0)
        for name, (marker, size, values) in panel.marks.items():
            if label in values:
                style = {"markerfacecolor": "none", "color": GREY, "linestyle": "none"}
                axes.plot(values[label], place, marker=marker, markersize=size, label=name, **style)
    offsets = (-0.16, 0.16) if len(panel.series) > 1 else (0.0,)
    for offset, (name, cells) in zip(offsets, panel.series.items(), strict=True):
        measured = [cell for cell in cells if cell.value is not None]
        if measured:
            places = [labels.index(cell.label) + offset for cell in measured]
            _points(axes, measured, places, panel.kind, color=panel.colours[name], label=name, horizontal=True)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.kind.unit)
    axes.margins(x=0.08)


def _points(
    axes: Any, cells: Sequence[Cell], places: Sequence[float], kind: Kind, *, horizontal: bool, **style: Any
) -> None:
    """Values are drawn with their intervals, at `places` along the other axis."""
    ends = [[c.value if end is None else end for end in (c.low, c.value, c.high)] for c in cells]
    lows, values, highs = np.array(ends, dtype=float).T * kind.factor
    spread = np.clip(np.stack([values - lows, highs - values]), 0, None)
    x, y, errors = (values, places, {"xerr": spread}) if horizontal else (places, values, {"yerr": spread})
    fmt = "o" if horizontal else "o-"
    axes.errorbar(x, y, fmt=fmt, markersize=4, linewidth=1.3, capsize=2, elinewidth=1, **errors, **style)


def examples(cell: Cell) -> int:
    """The run was trained on so many examples; 0 where it does not say."""
    return int(cell.runs[0].number("data", "rows", "train") or 0) if cell.runs else 0


def data_sizes(panels: Sequence[Panel]) -> str:
    """The score is drawn against the number of training examples, a line for each series."""
    figure, places = _figure(min(11, 4.4 * len(panels)), 3.4, 1, len(panels))
    for axes, panel in zip(places.flat, panels, strict=True):
        for colour, (name, cells) in zip(itertools.cycle(SERIES), panel.series.items(), strict=False):
            found = sorted(cells, key=examples)
            _points(axes, found, [examples(c) for c in found], panel.kind, horizontal=False, color=colour, label=name)
        axes.set_xscale("log", base=2)
        ticks = sorted({examples(cell) for cells in panel.series.values() for cell in cells})
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
        axes.set_xlabel("training examples")
        axes.set_ylabel(panel.kind.unit)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.legend(frameon=False)
        axes.set_title(panel.title)
    return _svg(figure)


def curves(panels: Mapping[str, Sequence[Cell]], what: str) -> str:
    """Each title has a panel, and each row a colour. `what` is loss (validation has dots, training is faint) or lr."""
    figure, places = _figure(5.2 * len(panels), 3.4, 1, len(panels), sharey=what == "loss")
    for axes, (title, cells) in zip(places.flat, panels.items(), strict=True):
        for colour, cell in zip(itertools.cycle(SERIES), cells, strict=False):
            if what == "lr":
                axes.plot(*_mean_curve(cell, "lr"), color=colour, linewidth=1.4, label=cell.label)
                continue
            faint = {"color": colour, "linewidth": 1, "alpha": 0.35}
            axes.plot(*_mean_curve(cell, "train_loss"), **faint, label=f"{cell.label}, training")
            held_out = _mean_curve(cell, "val_loss")
            axes.plot(*held_out, "o-", color=colour, linewidth=1.5, markersize=3.5, label=f"{cell.label}, validation")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(color="#eeeeee", linewidth=0.8)
        axes.legend(frameon=False, fontsize=8)
        if what == "lr":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    places[0, 0].set_ylabel("learning rate" if what == "lr" else "loss, nats")
    return _svg(figure)


def _mean_curve(cell: Cell, name: str) -> tuple[list[float], list[float]]:
    """The mean over seeds is taken at the epochs that every seed has: (epochs, means)."""
    found = [{point["epoch"]: point[name] for point in run.curve if name in point} for run in cell.runs]
    epochs = sorted(set.intersection(*map(set, found)))
    means = [float(np.mean([one[epoch] for one in found])) for epoch in epochs]
    assert all(math.isfinite(mean) for mean in means), "results.json is strict JSON, which knows no infinity"
    return epochs, means
