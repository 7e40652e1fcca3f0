"""The sections of the page: each column beside the report's values with its verdicts, a picture, and what folds."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evidence.cells import p_text
from evidence.document import NONE, Block, Example, Fold, Grid, Section, Shown, listing
from evidence.kinds import FORGETTING, NAMED, Kind, macro_f1
from evidence.pictures import Panel, curves, dots, sweeps
from reproduce import notes
from reproduce.cells import SPELLED, VERSIONS, Cell, Column, forgotten, joined, number, reported
from reproduce.tables import Table, parts_of

# A question and its answers, as generate.py prints them.
COMPARED = re.compile(r"^> (.*?)\nbase: (.*?)\nfine-tuned: (.*?)(?=\n\n> |\s*\Z)", re.MULTILINE | re.DOTALL)
TITLES = {"ift": "Instructions", "sentiment": "Reviews", "spam": "Mail", "nle": "Entailment", "lr": "Learning rate"}
TITLES |= {"batch": "Batch size", "weight-decay": "Weight decay", "best": "Best on validation against best"}
FLAGS = {"lr": "lr", "epochs": "epochs", "batch": "batch_size", "weight-decay": "weight_decay"}  # swept, by column
MOVING, SMALL = "†", "‡"


def title_of(name: str) -> str:
    title = NAMED[name].unit if name in NAMED else TITLES.get(name, name)
    return title[:1].upper() + title[1:]


def shown_kind(column: Column) -> Kind:
    return next((cell.kind for cells in column.values() for cell in cells if cell.kind is not None), Kind())


def _shown(value: float | None, pattern: str = ",.0f") -> Shown:
    return Shown(NONE) if value is None else Shown(format(value, pattern), value)


def _theirs(text: str, kind: Kind) -> Shown:
    """Shows a value of the report as it is printed there, but shares in percent and counts in full."""
    value = reported(text, kind)
    if value is None:
        return Shown(text or NONE)
    same = kind.digits and not (kind.most == 1.0 and (number(text) or 0) <= 1)
    return Shown(text if same else kind.text(value), value)


def _ours(cell: Cell, kind: Kind) -> Shown:
    if cell.value is None:
        return Shown("= " + cell.same_as.split(" (report: ")[0] if cell.same_as else NONE, remark=cell.reason)
    return Shown(cell.text(kind), cell.value)


def _each(cell: Cell, kind: Kind) -> Shown:
    return Shown(" / ".join(map(kind.text, cell.each)) or NONE, remark=f"seeds {' '.join(cell.seeds)}")


def changed(cell: Cell, kind: Kind) -> str:
    """Writes the difference from the reference with its interval."""
    found = cell.comparison
    if found is None:
        return NONE
    value, low, high = (kind.change(x) for x in found[:3])
    return f"{value} [{low}, {high}]"


def mean_macro_f1(cell: Cell) -> float | None:
    found = [value for run in cell.runs if (value := macro_f1(run)) is not None]
    return float(np.mean(found)) if found else None


def _macro_f1(cell: Cell) -> Shown:
    value = mean_macro_f1(cell)
    return _shown(None if value is None else 100 * value, ".1f")


def stated(cell: Cell, what: str) -> str:
    """Writes the cell's value, difference, verdict or forgetting for a sentence."""
    kind = cell.kind
    if kind is None or cell.value is None:
        return "not measured"
    if what == "verdict":
        return verdict(cell, None, kind)
    if what == "forgetting":
        lost = forgotten(cell)
        return f"{lost.text(FORGETTING)} (seeds {_each(lost, FORGETTING).text})" if lost.n else "not measured"
    text, unit = (changed(cell, kind), " points") if what == "difference" else (cell.text(kind), "%")
    return text.replace(" [", f"{unit * (kind.factor != 1)} [", 1)


def verdict(cell: Cell, first: Cell | None, kind: Kind) -> str:
    """Says better, worse, not told apart or no claim; and how many seeds answer one class only."""
    said = []
    if cell.comparison is not None:
        said = [notes.VERDICTS[cell.verdict] if cell.comparison.claims else "no claim"]
        said[0] += f" {SMALL}" * notes.too_small(cell, first, kind)
    if cell.of_one_class:
        said.append(f"one class in {cell.of_one_class} of {len(cell.runs)} seeds")
    return "; ".join(said) or NONE


def grid(
    name: str, version: str, cells: Sequence[Cell], kind: Kind, *, record: bool = False, alone: bool = False
) -> Grid:
    """Shows the report's values, ours, and how ours differ; and what always answering the commonest class scores. The
    version is named unless it is there `alone`."""
    first, whose = notes.reference(cells), " (judge)" * kind.ratio
    cells = [c for c in cells if c.report or c.record or c.same_as or not c.reason.startswith("not available")]
    tests = any(cell.comparison for cell in cells)
    known = [*dict.fromkeys(cell.reference for cell in cells if cell.comparison)]
    against = "difference" if first and known == [first.label] else f"against {listing(known)}"
    here = "here" if alone else f"here, {SPELLED[version]}"
    mark = f" {MOVING}" if notes.moving(name, version, cells, kind) else ""
    columns: list[tuple[str, Callable[[Cell], Shown], bool]] = [
        ("", lambda cell: Shown(cell.label, cell.label), True),
        (f"report{whose}", lambda cell: _theirs(cell.report, kind), any(cell.report for cell in cells)),
        (f"authors' record{whose}", lambda cell: _theirs(cell.record, kind), record),
        (here, lambda cell: _ours(cell, kind), True),
        (f"verdict{mark}", lambda cell: Shown(verdict(cell, first, kind)), tests or any(c.of_one_class for c in cells)),
        (against, lambda cell: Shown(
            changed(cell, kind), cell.comparison.value if cell.comparison else None, cell.why_alone), tests),
        ("each seed", lambda cell: _each(cell, kind), any(len(set(cell.each)) > 1 for cell in cells)),
        ("macro-F1, %", _macro_f1, any(mean_macro_f1(cell) is not None for cell in cells)),
    ]  # fmt: skip
    columns = [column for column in columns if column[2]]
    rows = [[show(cell) for _, show, _ in columns] for cell in cells]
    base = first.kind.baseline(first.runs[0]) if first and first.kind else None
    if base is not None:
        always = {"": Shown("commonest class"), here: Shown(kind.text(base), base)}
        rows.append([always.get(header, Shown(NONE)) for header, _, _ in columns])
    return Grid([header for header, _, _ in columns], rows)


def costs(column: Column) -> Grid:
    """What is behind each measured cell: n, p, what was trained, what it took, and what was forgotten."""
    header = ["", "version", "n", "p", "trained", "share", "peak MiB", "forgetting, nats", "forgetting of each seed"]
    rows = []
    for cell in [cell for cells in column.values() for cell in cells if cell.value is not None]:
        found, lost = cell.comparison, forgotten(cell)
        rows.append(
            [
                *(Shown(cell.label, cell.label), Shown(SPELLED[cell.version], cell.version), _shown(cell.n)),
                Shown(p_text(found.p), found.p) if found and found.claims else Shown(NONE),
                *(_shown(cell.cost.get("trained")), _shown(cell.cost.get("share"), ".2%")),
                _shown(cell.cost.get("peak_mib")),
                *((Shown(lost.text(FORGETTING), lost.value), _each(lost, FORGETTING)) if lost.n else [Shown(NONE)] * 2),
            ]
        )
    return Grid(header, rows)


def main_version(column: Column) -> str:
    return [version for version in VERSIONS if version in column][-1]


def block_of(name: str, column: Column) -> Block:
    """Builds the block of one column: first the corrected rows, the rest folded."""
    everything, kind, main = [c for cells in column.values() for c in cells], shown_kind(column), main_version(column)
    said = [notes.comparison_note(column[main], kind), kind.about([run for cell in everything for run in cell.runs])]
    folds = []
    if main != VERSIONS[0] and VERSIONS[0] in column:
        published = grid(name, VERSIONS[0], column[VERSIONS[0]], kind, record=any(c.record for c in everything))
        folds.append(Fold("As published: the authors' settings and records", grid=published))
    if warnings := notes.warnings(name, column, kind, main):
        folds.append(Fold("What else is to be known", warnings))
    if kind.scores and any(cell.value is not None for cell in everything):
        folds.append(Fold("Tests, cost and forgetting", grid=costs(column)))
    models = listing(sorted({str(run.results["args"].get("model", "")) for c in everything for run in c.runs} - {""}))
    title, _, unit = title_of(name).partition(", ")
    title += f" with {models}" * (models not in ("", name)) + f", {unit}" * bool(unit)
    title += f": {kind.heading}" if kind.unit and name not in NAMED else ""
    records = main == VERSIONS[0] and any(c.record for c in everything)
    shown = grid(name, main, column[main], kind, record=records, alone=len(column) == 1)
    return Block(title, shown, [text for text in said if text], folds)


def _row_panel(name: str, column: Column) -> Panel:
    """The differences that the table tests, and those of the report in the same unit."""
    kind, cells = shown_kind(column), column[main_version(column)]
    first = notes.reference(cells)
    assert first is not None, "a picture is of rows that were compared"
    rows, base = [first, *(cell for cell in cells if cell.comparison)], reported(first.report, kind)
    theirs = {cell.label: reported(cell.report, kind) for cell in rows[1:] if base is not None and not kind.ratio}
    return Panel(title_of(name), kind, rows, {k: v - (base or 0.0) for k, v in theirs.items() if v is not None})


def _sweep_panel(name: str, column: Column) -> Panel:
    """The measured rows over a flag, or over the number of training examples."""
    cells = [cell for cell in column[main_version(column)] if cell.value is not None]
    if name not in FLAGS:
        at, across = (lambda cell: cell.runs[0].number("data", "rows", "train") or 0.0), "Training examples"
    else:
        at, across = (
            (lambda cell: float(cell.written[FLAGS[name]])),
            title_of(name) + ", as in the labels" * (name == "lr"),
        )
    return Panel(title_of(name), shown_kind(column), cells, {}, across, at)


def _curves(columns: Mapping[str, Column]) -> tuple[str, str]:
    what = "lr" if "peak-lr" in columns else "loss"
    drawn: dict[str, list[Cell]] = {}
    for version in reversed(VERSIONS):
        cells = [c for column in columns.values() for c in column.get(version, ()) if c.runs and c.runs[0].curve]
        drawn |= {SPELLED[version]: [*{cell.label: cell for cell in cells}.values()]} if cells else {}
    words = "Learning rate" if what == "lr" else "Training and validation loss"
    return (curves(drawn, what), f"{words} against the epoch, mean over seeds") if drawn else ("", "")


def picture(table: Table, columns: Mapping[str, Column]) -> tuple[str, str]:
    """Returns (SVG, caption), both empty if there is nothing to show."""
    if table.kind == "figure":
        return _curves(columns)
    shown = {name: column for name, column in joined(columns).items() if table.kind != "appendix"}
    shown = {name: column for name, column in shown.items() if any(c.comparison for c in column[main_version(column)])}
    if not shown:
        return "", ""
    first = [*shown.values()][0]
    version = f", {SPELLED[main_version(first)]}" * (len(first) > 1)
    words = f"ifferences from the first row{version}, with 95% intervals over seeds and examples; "
    words += "a filled dot is told apart"
    swept = [name for name in shown if len([column for column in columns if parts_of(column)[0] == name]) > 1]
    if swept:
        return sweeps([_sweep_panel(n, shown[n]) for n in swept]), f"Above the scores, below the d{words}"
    return dots([_row_panel(name, column) for name, column in shown.items()]), f"D{words}"


def section_of(table: Table, columns: Mapping[str, Column]) -> Section:
    drawn, caption = picture(table, columns)
    shown = joined(columns)
    answers = [e for column in shown.values() for e in examples_of(column, table)] if table.kind == "appendix" else []
    blocks = [block_of(name, column) for name, column in shown.items()]
    commands: dict[str, list[str]] = {}
    for cell in [cell for column in shown.values() for cells in column.values() for cell in cells if cell.command]:
        commands.setdefault(cell.command, []).append(f"{cell.column}: {cell.label}, {SPELLED[cell.version]}")
    code = "\n".join(f"# {'; '.join(what)}\n{command}" for command, what in commands.items())
    folds = [Fold("Commands", code=code)] if code else []
    return Section(table.name, table.title, blocks, drawn, caption, answers, folds=folds)


def examples_of(column: Column, table: Table) -> list[Example]:
    """Every cell's first seed answers the report's own questions, or where it was not asked them, test prompts."""
    ran = [(f"{c.label}, {SPELLED[c.version]}", c.runs[0]) for cells in column.values() for c in cells if c.runs]
    asked = {q: [(f"in the report: {who}", text) for who, text in said] for q, said in table.answers.items()}

    def show(who: str, question: str, before: str, response: str, wanted: str | None = None) -> None:
        shown = asked.setdefault(question, [("wanted", wanted)] if wanted is not None else [])
        if before not in [text for name, text in shown if name != "wanted"]:  # one base has one answer
            shown.append((f"before ({who})", before))
        shown.append((who, response))

    told = [(who, found) for who, run in ran for found in COMPARED.findall(run.asked) if found[0] in (asked or found)]
    for who, (question, before, response) in told:
        show(who, question, before, response)
    for who, run in [] if told else ran:
        for answer in run.answers:
            question = "\n".join(part for part in (answer["instruction"], answer["input"]) if part)
            show(who, question, answer["before"], answer["response"], answer["reference"])
    return [Example(question, answers) for question, answers in asked.items()] if ran else []
