"""Columns, sweeps and curves are drawn as SVG; the same results give the same bytes.

A colour is a method, in every picture. What the tables test is drawn as they test it: the paired difference from the
reference, or the ratio to it. A filled dot is told apart from the reference, a hollow one is not.
"""

import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evidence.cells import Cell
from evidence.kinds import Kind

METHODS = {
    "full": ("full fine-tuning", "#d9711c"), "lora": ("LoRA", "#1f5fa8"), "head": ("head alone", "#3a8a4d"),
    "dora": ("DoRA", "#6fb1e0"), "pissa": ("PiSSA", "#8c6bb1"), "bitfit": ("BitFit", "#b8860b"),
}  # fmt: skip
OTHER = "#9b4f96"
GREY, FAINT = "#767676", "#e8e8e8"
LINES = ("-", "--", ":", "-.")
PER_LINE = {True: 2, False: 4}  # panels, by whether labels are long
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 9, "axes.titlesize": 9.5,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY,
    "xtick.color": "#444444", "ytick.color": "#222222",
}  # fmt: skip


class Panel(NamedTuple):
    """This is one graph of a picture: the rows of a column, the first of which is the reference."""

    title: str
    kind: Kind
    cells: Sequence[Cell]
    theirs: Mapping[str, float] = {}  # differences that others found, by the row's label
    across: str = ""  # what `at` gives, for a sweep
    at: Callable[[Cell], float] = lambda cell: 0.0


def method_of(cell: Cell) -> tuple[str, str]:
    """Returns the name and the colour of the cell's method."""
    method = str(cell.runs[0].results["args"].get("method", "")) if cell.runs else ""
    return METHODS.get(method, (method, OTHER))


def new_figure(
    width: float, height: float, rows: int, columns: int, style: dict[Any, Any] | None = None, **options: Any
) -> tuple[Any, Any]:
    """Returns a figure and its axes (rows, columns), with `style` beside that of all pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcdefaults()  # nothing is left of another picture's style
    matplotlib.rcParams.update(STYLE | (style or {}))
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **options)


def svg_of(figure: Any, places: Any = None) -> str:
    """One legend is below all panels. Only the svg element is kept, and it is as wide as the page lets it be."""
    from matplotlib import pyplot as plt

    known: dict[str, Any] = {}
    for axes in places.flat if places is not None else ():
        handles, labels = axes.get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True)) | known
    if known:
        below = {"loc": "outside lower center", "ncols": 4 if len(places.flat) > 1 else 2, "frameon": False}
        figure.legend(known.values(), known.keys(), fontsize=9, **below)
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :].strip()


def _scale(kind: Kind) -> tuple[str, float, float]:
    """Returns the words, the place of no difference, and the factor of a difference."""
    name, better = kind.name.split(" of ")[0], "\n(lower is better)" * (not kind.higher_is_better)
    if kind.ratio:
        return f"ratio of {name}{better}", 1.0, 1.0
    return f"{'points' if kind.factor != 1 else 'difference'} of {name}{better}", 0.0, kind.factor


def _difference(axes: Any, cell: Cell, place: float, factor: float, *, across: bool) -> None:
    """The difference from the reference is drawn with its interval; `across` is left to right."""
    found, (name, colour) = cell.comparison, method_of(cell)
    assert found is not None, "only rows that were compared have a difference"
    value, low, high = (factor * x for x in found[:3])
    spread = np.array([[value - low], [high - value]])
    points = {"x": value, "y": place, "xerr": spread} if across else {"x": place, "y": value, "yerr": spread}
    face = colour if found.differs else "white"
    axes.errorbar(**points, fmt="o", markersize=5, capsize=2, elinewidth=1.1, color=colour, mfc=face, label=name)


def dots(panels: Sequence[Panel]) -> str:
    """Each row of a panel is a line with its difference from the first row, and what others found."""
    across = min(len(panels), PER_LINE[max(len(cell.label) for panel in panels for cell in panel.cells) > 15])
    down = -(-len(panels) // across)
    most = max(len(panel.cells) for panel in panels)
    figure, places = new_figure(3.4 + 1.9 * across, down * (0.9 + 0.3 * most) + 0.4, down, across)
    for axes, panel in itertools.zip_longest(places.flat, panels):
        if panel is None:
            axes.set_visible(False)
            continue
        words, none, factor = _scale(panel.kind)
        axes.axvline(none, color=GREY, linewidth=1)
        for place, cell in enumerate(panel.cells):
            axes.axhline(place, color=FAINT, linewidth=0.8, zorder=0)
            if cell.comparison is not None:
                _difference(axes, cell, place, factor, across=True)
            if cell.label in panel.theirs:
                hollow = {"mfc": "none", "color": GREY, "linestyle": "none", "label": "in the report"}
                axes.plot(factor * panel.theirs[cell.label], place, "D", markersize=5, **hollow)
        first = panel.cells[0]
        base, (left, right) = panel.kind.baseline(first.runs[0]) if first.runs else None, axes.get_xlim()
        if base is not None and left < (apart := factor * (base - (first.value or 0.0))) < right:
            axes.axvline(apart, color=GREY, linestyle=":", label="commonest class")
        at = f"{first.label}: {panel.kind.text(first.value)}" if first.value is not None else first.label
        axes.set_yticks(range(len(panel.cells)), [at, *(cell.label for cell in panel.cells[1:])])
        axes.set_ylim(len(panel.cells) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_title(panel.title)
        axes.set_xlabel(words, fontsize=8)
        axes.margins(x=0.08)
    return svg_of(figure, places)


def sweeps(panels: Sequence[Panel]) -> str:
    """Above, each method's score over what is swept, with a line for the commonest class; below, the differences."""
    figure, places = new_figure(min(11, 3.4 * len(panels)), 5.2, 2, len(panels), sharex="col")
    for (above, below), panel in zip(places.T, panels, strict=True):
        words, none, factor = _scale(panel.kind)
        below.axhline(none, color=GREY, linewidth=1)
        ticks = sorted(set(map(panel.at, panel.cells)))
        log = ticks[0] > 0
        points = {tick: tick if log else float(place) for place, tick in enumerate(ticks)}
        compared = [*dict.fromkeys(method_of(cell) for cell in panel.cells if cell.comparison)]
        for name, colour in dict.fromkeys(map(method_of, panel.cells)):
            cells = sorted((cell for cell in panel.cells if method_of(cell) == (name, colour)), key=panel.at)
            at = [points[panel.at(cell)] for cell in cells]
            values = [panel.kind.factor * (cell.value or 0.0) for cell in cells]
            above.plot(at, values, "o-", markersize=4, linewidth=1.4, color=colour, label=name)
            for cell, place in zip(cells, at, strict=True):
                if cell.comparison is not None:  # two methods stand beside each other
                    beside = compared.index((name, colour))
                    apart = place * 1.06**beside if log else place + 0.06 * beside
                    _difference(below, cell, apart, factor, across=False)
        base = panel.kind.baseline(panel.cells[0].runs[0])
        if base is not None:
            above.axhline(panel.kind.factor * base, color=GREY, linestyle=":", label="commonest class")
        if log:
            below.set_xscale("log")
        below.set_xticks([*points.values()], [f"{tick:,g}" for tick in ticks], rotation=45 * (len(ticks) > 5))
        below.minorticks_off()
        below.set_xlabel(panel.across)
        above.set_title(panel.title)
        above.set_ylabel(panel.kind.heading.replace(" (", "\n("), fontsize=8)
        below.set_ylabel(words, fontsize=8)
        for axes in (above, below):
            axes.grid(axis="y", color=FAINT, linewidth=0.8)
    return svg_of(figure, places)


def curves(panels: Mapping[str, Sequence[Cell]], what: str) -> str:
    """Each title has a panel, and each row of a method its kind of line. `what` is loss (training is faint) or lr."""
    figure, places = new_figure(5.2 * len(panels), 3.6, 1, len(panels))
    for axes, (title, cells) in zip(places.flat, panels.items(), strict=True):
        before: list[str] = []
        for cell in cells:
            name, colour = method_of(cell)
            line = {"color": colour, "linestyle": LINES[before.count(name) % len(LINES)], "linewidth": 1.5}
            before.append(name)
            if what == "lr":
                axes.plot(*_mean_curve(cell, "lr"), **line, label=cell.label)
                continue
            axes.plot(*_mean_curve(cell, "train_loss"), **(line | {"linewidth": 1, "alpha": 0.35}))
            axes.plot(*_mean_curve(cell, "val_loss"), **line, marker="o", markersize=3, label=cell.label)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(color="#eeeeee", linewidth=0.8)
        axes.legend(frameon=False, fontsize=8)
        if what == "lr":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    loss = "loss, nats (lower is better)\ndots: validation; faint: training"
    places[0, 0].set_ylabel("learning rate" if what == "lr" else loss)
    return svg_of(figure)


def _mean_curve(cell: Cell, name: str) -> tuple[list[float], list[float]]:
    """The mean over seeds is taken at the epochs that every seed has: (epochs, means)."""
    found = [{point["epoch"]: point[name] for point in run.curve if name in point} for run in cell.runs]
    epochs = sorted(set.intersection(*map(set, found)))
    means = [float(np.mean([one[epoch] for one in found])) for epoch in epochs]
    assert all(math.isfinite(mean) for mean in means), "results.json is strict JSON, which knows no infinity"
    return epochs, means
