"""Writes study.html: the answer, its pictures and tables, and every run's command, in one file that loads nothing."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from evidence.cells import Cell, p_text
from evidence.crossed import crossed_mean
from evidence.document import NONE, Fold, Grid, Shown
from evidence.kinds import macro_f1
from evidence.page import document, figure, folded, table
from evidence.pictures import new_figure, svg_of
from evidence.racing import Trial
from studies.answer import marked_up, scope
from studies.outcome import COMMONEST, Outcome

HERE = Path(__file__).parent
# Each can be told from the others, and stands out by 3 to 1 from white and from the dark page (WCAG 2.2, 1.4.11). Full
# fine-tuning is orange and LoRA blue, as in the tables' pictures.
COLOURS = {"full": "#d9711c", "full-blocks": "#b0544f", "head": "#3a8a4d", "lora-embedding": "#168c99"}
COLOURS |= {"lora-lm-head": "#8c6bd1"}
RANKS = ((84, 148, 216), (40, 105, 186))  # of LoRA, from the lowest to the highest
OTHERS = ("#c4569b", "#8a8330", "#7b8794", "#a9743a", "#5f8f2f", "#cf4a6a", "#5b7f9e", "#9a6f8f")
INK = "#010203"  # stands for the colour of the page's text
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
WIDTH, HEIGHT = 4.4, 3.1  # inches of a panel
FEWEST_SEEDS = 3  # for an interval; of two it is wider than the picture
HIGHEST = 1.6  # times the lowest loss of an arm; what is above may lie outside the picture


def colours(arms: Sequence[str]) -> dict[str, str]:
    """Returns the colour of each arm."""
    ranks = sorted((arm for arm in arms if arm.startswith("lora r")), key=lambda arm: int(arm.removeprefix("lora r")))
    shades = np.linspace(*RANKS, max(len(ranks), 2)).round().astype(int)[-len(ranks) :]
    found = {arm: "#{:02x}{:02x}{:02x}".format(*shade) for arm, shade in zip(ranks, shades, strict=False)}
    found |= {arm: COLOURS[kind] for arm in arms if (kind := re.sub(r" r\d+$", "", arm)) in COLOURS}
    rest = [arm for arm in arms if arm not in found]
    return {arm: found.get(arm) or OTHERS[rest.index(arm) % len(OTHERS)] for arm in arms}


class Panel:
    """One graph, whose text and axes take the colours of the page."""

    def __init__(self, x: str, y: str, height: float = HEIGHT) -> None:
        self.figure, ((self.axes,),) = new_figure(WIDTH, height, 1, 1, dict.fromkeys(INKED, INK))
        self.axes.set_xlabel(x)
        self.axes.set_ylabel(y)
        self.axes.grid(color="#8888", linewidth=0.4)

    def svg(self, caption: str) -> str:
        picture = svg_of(self.figure).replace(INK, "currentColor").replace("<text ", '<text fill="currentColor" ')
        return figure(picture, caption)


def rates(found: Outcome, paint: Mapping[str, str]) -> str:
    panel, race = Panel("peak learning rate", "validation loss, nats"), found.race
    shown: list[float] = []
    for arm in race.arms:
        x, means = list[float](), list[float]()
        for rate in race.tried(arm):
            every = [race.found[Trial(arm, rate, seed)] for seed in race.seeds_of((arm, rate))]
            if known := [one for one in every if one is not None]:
                place, mean = found.recipe.arms[arm].rate(rate), crossed_mean(np.array(known))
                x, means = [*x, place], [*means, mean.value]
                values = [float(one.mean()) for one in known]
                panel.axes.plot([place] * len(values), values, "o", color=paint[arm], markersize=2.5, alpha=0.7)
                if len(known) >= FEWEST_SEEDS:
                    panel.axes.plot([place] * 2, mean.ends(), "-", color=paint[arm], linewidth=0.8, alpha=0.6)
        panel.axes.plot(x, means, "-", color=paint[arm], linewidth=1.4)
        shown += [mean for mean in means if mean <= HIGHEST * min(means)]
    panel.axes.set_xscale("log")
    low, high = min(shown), max(shown)
    panel.axes.set_ylim(low - 0.3 * (high - low), high + 0.3 * (high - low))
    return panel.svg(
        "Validation loss against the learning rate: a dot a seed, lines through the means, 95% intervals from "
        f"{FEWEST_SEEDS} seeds on. Lower is better."
    )


def differences(found: Outcome, paint: Mapping[str, str]) -> str:
    cells = [c for c in [*found.arms.values(), *found.others.values()] if c.comparison is not None]
    kind, middle, factor = found.kind, 1.0 if found.kind.ratio else 0.0, found.kind.factor
    better = "higher is better" if kind.higher_is_better else "lower is better"
    unit = f"{kind.unit},\n{'over' if kind.ratio else 'minus'} that of {found.winner}"
    panel = Panel(unit, "", height=1.05 + 0.34 * max(len(cells), 1))
    for place, cell in enumerate(cells):
        one, colour = cell.comparison, paint.get(cell.label, "#8a8a8a")
        assert one is not None, "only those that were compared are drawn"
        panel.axes.plot([one.low * factor, one.high * factor], [place, place], "-", color=colour, linewidth=1.4)
        panel.axes.plot(
            one.value * factor,
            place,
            "o",
            color=colour,
            markersize=5,
            markerfacecolor=colour if one.differs else "none",
        )
    panel.axes.axvline(middle, color=INK, linewidth=0.8)
    panel.axes.set_yticks(range(len(cells)), [cell.label for cell in cells])
    panel.axes.set_ylim(max(len(cells), 1) - 0.5, -0.5)
    return panel.svg(
        f"Difference from {found.winner} on the same test examples and seeds, with 95% intervals ({better}); "
        "filled: told apart."
    )


def against(found: Outcome, paint: Mapping[str, str], name: str, unit: str, places: Mapping[str, float]) -> str:
    """Returns the panel of the score against what an arm costs."""
    panel = Panel(unit, found.kind.unit)
    for arm, place in places.items():
        cell = found.arms[arm]
        if cell.value is not None:
            ends = [cell.value if end is None else end for end in (cell.low, cell.high)]
            values = [end * found.kind.factor for end in ends]
            panel.axes.plot([place, place], values, "-", color=paint[arm], linewidth=1, alpha=0.6)
            panel.axes.plot(place, cell.value * found.kind.factor, "o", color=paint[arm], markersize=6, clip_on=False)
    for label, cell in found.others.items():
        if cell.value is not None:
            panel.axes.axhline(
                cell.value * found.kind.factor,
                color="#8a8a8a",
                linestyle="--" if label == COMMONEST else ":",
                linewidth=1,
            )
    low, high = min(0.0, *places.values()), max(0.0, *places.values())
    room = 0.1 * (high - low or 1.0)
    panel.axes.set_xlim(low - room * (low < 0), high + room)
    return panel.svg(f"{name} and {found.kind.name}, each arm at its best rate, with 95% intervals.")


def sizes(found: Outcome, paint: Mapping[str, str]) -> str:
    panel = Panel("training examples", found.kind.unit)
    every = {**found.sizes, found.question.train: {**found.arms, **found.others}}
    for name in dict.fromkeys(name for cells in found.sizes.values() for name in cells):
        known = [
            (n, cells[name]) for n, cells in sorted(every.items()) if name in cells and cells[name].value is not None
        ]
        ends = [[c.value if end is None else end for end in (c.low, c.value, c.high)] for _, c in known]
        low, value, high = np.array(ends, dtype=float).T * found.kind.factor
        style: dict[str, Any] = {
            "color": paint.get(name, "#8a8a8a"),
            "linestyle": "-" if name in paint else ":",
            "linewidth": 1.3,
        }
        panel.axes.errorbar(
            [n for n, _ in known], value, np.clip([value - low, high - value], 0, None), capsize=2, **style
        )
    panel.axes.set_xscale("log", base=2)
    panel.axes.set_xticks(sorted(every), [f"{n:,}" for n in sorted(every)])
    panel.axes.minorticks_off()
    return panel.svg(f"{found.kind.name.capitalize()} against the number of training examples, with 95% intervals.")


def curves(found: Outcome, paint: Mapping[str, str]) -> str:
    panel = Panel("updates", "validation loss, nats")
    for arm, cell in found.arms.items():
        known = [{p["step"]: p["val_loss"] for p in run.curve if "val_loss" in p} for run in cell.runs]
        steps = sorted(set.intersection(*map(set, known)))
        means = [float(np.mean([one[step] for one in known])) for step in steps]
        panel.axes.plot(steps, means, "o-", color=paint[arm], markersize=3, linewidth=1.4)
    return panel.svg("Validation loss while training, mean over seeds, each arm at its best rate.")


def mean_of(cell: Cell, *path: str) -> float:
    return float(np.mean([run.number(*path) or 0.0 for run in cell.runs]))


def arm_table(found: Outcome) -> str:
    kind = found.kind
    header = ["arm", "rate", "seeds", kind.unit, *(["macro F1"] if found.question.classes else [])]
    header += [f"against {found.winner}", "p", "forgetting, nats", "trained", "MiB", "s"]
    rows = []
    for name, cell in {**found.arms, **found.others}.items():
        one, lost = cell.comparison, found.forgetting.get(name)
        ours = name in found.arms
        remarks = ["stopped"] * (ours and found.is_stopped(name)) + ["one class"] * (ours and cell.of_one_class > 0)
        row = [Shown(", ".join([name, *remarks]), name)]
        row.append(Shown(f"{found.rate(name):.3g}", found.rate(name)) if ours else Shown(NONE))
        row.append(Shown(str(len(cell.runs)), len(cell.runs)))
        row.append(Shown(cell.text(kind), cell.value) if cell.value is not None else Shown(cell.reason))
        if found.question.classes:
            known = [value for run in cell.runs if (value := macro_f1(run)) is not None]
            row.append(Shown(f"{np.mean(known):.3f}", float(np.mean(known))) if known else Shown(NONE))
        change = f"{kind.change(one.value)} [{kind.change(one.low)}, {kind.change(one.high)}]" if one else NONE
        row.append(Shown(change, one.value if one else None))
        row.append(Shown(p_text(one.p), one.p) if one and one.claims else Shown(NONE))
        has_lost = lost is not None and lost.value is not None and lost.kind is not None
        row.append(Shown(lost.text(lost.kind), lost.value) if has_lost and lost and lost.kind else Shown(NONE))
        costs = [(("parameters", "trainable"), ",.0f"), (("peak_memory_mib",), ",.0f"), (("seconds", "train"), ",.1f")]
        row += [Shown(format(mean_of(cell, *p), form), mean_of(cell, *p)) if ours else Shown(NONE) for p, form in costs]
        rows.append(row)
    return table(Grid(header, rows))


def stops(found: Outcome) -> Grid:
    rows = []
    for stop in found.race.stopped.values():
        name, leader = map(found.recipe.named, (stop.cell, stop.leader))
        row = [Shown(name, name), Shown(str(stop.seeds), stop.seeds)]
        if stop.leader == stop.cell:
            rows.append([*row, Shown("diverged"), Shown(NONE), Shown(NONE)])
        else:
            test = [Shown(f"{stop.worse:.4f}", stop.worse), Shown(p_text(stop.p), stop.p)]
            rows.append([*row, *test, Shown(leader, leader)])
    return Grid(["stopped", "seeds", "loss higher by", "p", "than that of"], rows)


def as_html(found: Outcome) -> str:
    paint = colours(found.race.arms)
    keys = [f'<li><i style="background:{paint[arm]}"></i>{escape(arm)}</li>' for arm in found.arms]
    keys += [
        f'<li><i class="line" style="border-color:#8a8a8a;border-style:{style} none none"></i>{escape(name)}</li>'
        for name, style in zip(found.others, ("dotted", "dashed"), strict=False)
    ]
    said = marked_up(found, escape, lambda command: f"<code>{escape(command)}</code>")
    seconds = {arm: mean_of(cell, "seconds", "train") for arm, cell in found.arms.items()}
    memory = {arm: mean_of(cell, "peak_memory_mib") for arm, cell in found.arms.items()}
    lost = {arm: c.value for arm, c in found.forgetting.items() if c.value is not None}
    costs = [
        against(found, paint, "Training time of runs side by side, a rough measure,", "seconds", seconds),
        against(found, paint, "Peak memory", "MiB", memory),
        against(found, paint, "Forgetting", "rise of the loss of general text, nats", lost),
    ]
    pictures = [rates(found, paint), differences(found, paint), curves(found, paint)]
    pictures += [sizes(found, paint)] if found.sizes else []
    title = f"{found.question.task.name}: which way of training?"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(scope(found))}</p>',
        f"<ol><li>{'</li><li>'.join(said)}</li></ol>",
        f'<h2>Learning rates and differences</h2><ul class="keys">{"".join(keys)}</ul>',
        f'<div class="panels">{"".join(pictures)}</div>',
        f"<h2>What it costs</h2><div class='panels'>{''.join(costs)}</div>",
        f"<h2>Arms</h2>{arm_table(found)}",
        folded(
            Fold("What was stopped, and why", grid=stops(found)) if found.race.stopped else Fold("Nothing was stopped")
        ),
        folded(Fold("Every run's command", code="\n".join(command for _, command in sorted(found.commands.items())))),
    ]
    style = (HERE / "page.css").read_text(encoding="utf-8")
    return document(title, style, f"<main>\n{''.join(parts)}\n</main>")
