"""Tables and curves as SVG, the same bytes from the same results."""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from report_cells import Cell
from report_notes import Column
from report_words import SPELLED, Unit, column_title, number, size_in, unit_of

COLOURS = {"published": "#d9711c", "corrected": "#1f5fa8"}
SERIES = ("#1f5fa8", "#d9711c", "#3a8a4d", "#9b4f96", "#767676", "#b8860b")
GREY = "#767676"
PER_LINE = 4  # panels
ALIKE = ("parameters", "memory", "peak-lr")  # columns whose numbers a picture does not make clearer
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 9, "axes.titlesize": 9.5,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY,
    "xtick.color": "#444444", "ytick.color": "#222222",
}  # fmt: skip


def _figure(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    matplotlib.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **options)


def _svg(figure: Any) -> str:
    """The svg element alone, as wide as the page lets it be."""
    from matplotlib import pyplot as plt

    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :].strip()


def unit_in(name: str, column: Column) -> Unit:
    everything = [cell for cells in column.values() for cell in cells]
    metric = next((cell.metric for cell in everything if cell.metric is not None), None)
    return unit_of(name, metric, [text for cell in everything for text in (cell.report, cell.record)])


def dots(columns: Mapping[str, Column]) -> str:
    """A panel a column, a line a row: ours with interval in both versions, the report's value hollow, the record a bar.

    Empty where nothing was measured.
    """
    shown = [(name, column) for name, column in columns.items() if name not in ALIKE and _measured(column)]
    if not shown:
        return ""
    across = min(len(shown), PER_LINE)
    down = -(-len(shown) // across)
    most = max(len(_labels(column)) for _, column in shown)
    figure, panels = _figure(2.6 + 2.1 * across, down * (1.15 + 0.34 * most) + 0.4, down, across)
    for axes, (name, column) in zip(panels.flat, shown, strict=False):
        _dots_panel(axes, name, column)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for line in panels:
        for axes in line[1:]:
            if _same_labels(axes, line[0]):
                axes.set_yticklabels([])
    known: dict[str, Any] = {}
    for axes in panels.flat:
        handles, labels = axes.get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True)) | known
    figure.legend(
        known.values(),
        known.keys(),
        loc="outside lower center",
        ncols=4 if across > 1 else 2,
        frameon=False,
        fontsize=9,
    )
    return _svg(figure)


def _same_labels(a: Any, b: Any) -> bool:
    return [t.get_text() for t in a.get_yticklabels()] == [t.get_text() for t in b.get_yticklabels()]


def shows_report(columns: Mapping[str, Column]) -> bool:
    """Whether a panel of `dots` has values of the report."""
    shown = [(unit_in(name, column), column) for name, column in columns.items() if name not in ALIKE]
    return any(c.report for unit, column in shown if not unit.ratio for cells in column.values() for c in cells)


def _measured(column: Column) -> bool:
    return any(cell.value is not None for cells in column.values() for cell in cells)


def _labels(column: Column) -> list[str]:
    return list(dict.fromkeys(cell.label for cells in column.values() for cell in cells))


def _dots_panel(axes: Any, name: str, column: Column) -> None:
    labels, unit = _labels(column), unit_in(name, column)
    ours_are_theirs = not unit.ratio  # a judge's points have no place beside a perplexity
    first = {cell.label: cell for cells in reversed([*column.values()]) for cell in cells}
    for place, label in enumerate(labels):
        axes.axhline(place, color="#e8e8e8", linewidth=0.8, zorder=0)
        if ours_are_theirs:
            for text, marker, title in (
                (first[label].report, "D", "report"),
                (first[label].record, "|", "authors' record"),
            ):
                if (value := number(text)) is not None:
                    style = {"markerfacecolor": "none", "color": GREY, "linestyle": "none"}
                    axes.plot(value, place, marker=marker, markersize=5 if marker == "D" else 9, label=title, **style)
    offsets = (-0.16, 0.16) if len(column) > 1 else (0.0,)
    for offset, (version, cells) in zip(offsets, column.items(), strict=True):
        measured = [cell for cell in cells if cell.value is not None]
        if measured:
            places = [labels.index(cell.label) + offset for cell in measured]
            _points(axes, measured, places, unit, color=COLOURS[version], label=SPELLED[version], horizontal=True)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_title(column_title(name))
    axes.set_xlabel(unit.name)
    axes.margins(x=0.08)


def _points(
    axes: Any, cells: Sequence[Cell], places: Sequence[float], unit: Unit, *, horizontal: bool, **style: Any
) -> None:
    """Values with intervals, at `places` along the other axis."""
    values = np.array([cell.value for cell in cells], dtype=float) * unit.factor
    lows, highs = (
        np.array(
            [
                v if (bound := getattr(cell, end)) is None else bound * unit.factor
                for cell, v in zip(cells, values, strict=True)
            ]
        )
        for end in ("low", "high")
    )
    spread = np.clip(np.stack([values - lows, highs - values]), 0, None)
    x, y, errors = (values, places, {"xerr": spread}) if horizontal else (places, values, {"yerr": spread})
    fmt = "o" if horizontal else "o-"
    axes.errorbar(x, y, fmt=fmt, markersize=4, linewidth=1.3, capsize=2, elinewidth=1, **errors, **style)


def data_sizes(columns: Mapping[str, Column]) -> str:
    """Score against the number of training examples, a panel a task and version, a line a row of its columns.

    Empty where nothing was measured.
    """
    panels_of: dict[tuple[str, str], list[Cell]] = {}
    for name, column in columns.items():
        for version, cells in column.items():
            measured = [cell for cell in cells if cell.value is not None and _examples(cell)]
            panels_of.setdefault((size_in(name)[0], version), []).extend(measured)
    panels_of = {key: cells for key, cells in panels_of.items() if cells}
    if not panels_of:
        return ""
    figure, panels = _figure(min(11, 4.4 * len(panels_of)), 3.4, 1, len(panels_of))
    for axes, ((name, version), cells) in zip(panels.flat, panels_of.items(), strict=True):
        _sizes_panel(axes, cells, unit_of(name, cells[0].metric, ()))
        axes.set_title(f"{column_title(name)}, {SPELLED[version]}")
    return _svg(figure)


def _sizes_panel(axes: Any, cells: Sequence[Cell], unit: Unit) -> None:
    for colour, label in zip(itertools.cycle(SERIES), dict.fromkeys(cell.label for cell in cells), strict=False):
        found = sorted((cell for cell in cells if cell.label == label), key=_examples)
        _points(axes, found, [_examples(c) for c in found], unit, horizontal=False, color=colour, label=label)
    axes.set_xscale("log", base=2)
    ticks = sorted({_examples(cell) for cell in cells})
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training examples")
    axes.set_ylabel(unit.name)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axes.legend(frameon=False)


def _examples(cell: Cell) -> int:
    """Examples that the run was trained on; 0 where it does not say."""
    return int(cell.runs[0].number("data", "rows", "train") or 0)


def curves(columns: Mapping[str, Column], what: str) -> str:
    """A panel a version, a colour a row. `what`: loss (validation with dots, training faint) or lr. Mean over seeds."""
    shown = {}
    for version in COLOURS:
        cells = [
            cell for column in columns.values() for cell in column.get(version, ()) if cell.runs and cell.runs[0].curve
        ]
        if cells:
            shown[version] = list({cell.label: cell for cell in cells}.values())
    if not shown:
        return ""
    figure, panels = _figure(5.2 * len(shown), 3.4, 1, len(shown), sharey=what == "loss")
    for axes, (version, cells) in zip(panels.flat, shown.items(), strict=True):
        for colour, cell in zip(itertools.cycle(SERIES), cells, strict=False):
            if what == "lr":
                axes.plot(*_mean_curve(cell, "lr"), color=colour, linewidth=1.4, label=cell.label)
                continue
            axes.plot(
                *_mean_curve(cell, "train_loss"), color=colour, linewidth=1, alpha=0.35, label=f"{cell.label}, training"
            )
            held_out = _mean_curve(cell, "val_loss")
            axes.plot(*held_out, "o-", color=colour, linewidth=1.5, markersize=3.5, label=f"{cell.label}, validation")
        axes.set_title(SPELLED[version])
        axes.set_xlabel("epoch")
        axes.grid(color="#eeeeee", linewidth=0.8)
        axes.legend(frameon=False, fontsize=8)
        if what == "lr":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panels[0, 0].set_ylabel("learning rate" if what == "lr" else "loss, nats")
    return _svg(figure)


def _mean_curve(cell: Cell, name: str) -> tuple[list[float], list[float]]:
    """(epochs, mean over seeds) at the points that every seed has."""
    found = [{point["epoch"]: point[name] for point in run.curve if name in point} for run in cell.runs]
    epochs = sorted(set.intersection(*map(set, found)))
    means = [float(np.mean([one[epoch] for one in found])) for epoch in epochs]
    assert all(math.isfinite(mean) for mean in means), "results.json is strict JSON, which knows no infinity"
    return epochs, means
