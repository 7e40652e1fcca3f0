"""The sections of the page: a table's columns beside the report's values, the cost of each cell, and a picture."""

import re
from collections.abc import Mapping

from evidence.cells import p_remark, p_text
from evidence.document import MISSING, NONE, Block, Example, Grid, Section, Shown
from evidence.kinds import ENDS, NAMED, Kind
from evidence.pictures import Panel, curves, data_sizes, dots, examples
from reproduce import notes
from reproduce.cells import SPELLED, Cell, Column, by_size, given, number
from reproduce.tables import Table, size_in

# A question and its answers, as generate.py prints them.
COMPARED = re.compile(r"^> (.*?)\nbase: (.*?)\nfine-tuned: (.*?)(?=\n\n> |\s*\Z)", re.MULTILINE | re.DOTALL)
TITLES = {"ift": "Instructions", "nle": "Entailment", "lr": "Learning rate", "batch": "Batch size"}
TITLES |= {"weight-decay": "Weight decay"}
COLOURS = {"as published": "#d9711c", "corrected": "#1f5fa8"}
DETAILS = ["", "version", "n", "seeds", "sd", "difference", "p", "trained", "share", "peak MiB", "train s", "tokens/s"]
DETAILS += ["forgetting, nats"]


def title_of(name: str) -> str:
    title = NAMED[name].unit if name in NAMED else TITLES.get(name, name)
    return title[:1].upper() + title[1:]


def shown_kind(column: Column) -> Kind:
    everything = [cell for cells in column.values() for cell in cells]
    kinds = [cell.kind for cell in everything if cell.kind is not None]
    return kinds[0].as_given(given(everything)) if kinds else Kind()


def _quoted(text: str, kind: Kind) -> Shown:
    """Shows a value of the report as printed there, but counts in full."""
    value = number(text)
    if value is None:
        return Shown(text or NONE)
    return Shown(text if kind.digits else kind.text(value), value)


def _ours(kind: Kind, cell: Cell | None) -> Shown:
    if cell is None:
        return Shown(NONE)
    if cell.value is None:
        return Shown(MISSING, remark=cell.reason)
    found = cell.comparison
    return Shown(cell.mark + cell.text(kind), cell.value, p_remark(found.p) if found and found.claims else "")


def main_grid(column: Column, kind: Kind) -> Grid:
    """The report's and the authors' values beside ours, in each version; without the former two if no row has any."""
    by_label = {version: {cell.label: cell for cell in cells} for version, cells in column.items()}
    first = {label: cell for cells in reversed([*by_label.values()]) for label, cell in cells.items()}
    labels = dict.fromkeys(label for cells in by_label.values() for label in cells)
    told = any(cell.report or cell.record for cell in first.values())
    whose = " (judge)" if kind.ratio else ""
    rows = []
    for label in labels:
        cell, row = first[label], [Shown(label, label)]
        if told:
            record = _quoted(cell.record, kind) if cell.record else Shown(MISSING, remark="there is no record")
            row += [_quoted(cell.report, kind), record]
        rows.append([*row, *(_ours(kind, cells.get(label)) for cells in by_label.values())])
    others = (f"report{whose}", f"authors' record{whose}") if told else ()
    return Grid(["", *others, *(SPELLED[version] for version in column)], rows)


def details(column: Column, kind: Kind) -> Grid | None:
    """What is behind each measured cell: seeds, spread, tests and cost."""
    rows = []
    for cell in [cell for cells in column.values() for cell in cells if cell.value is not None]:
        cost, found, difference = cell.cost, cell.comparison, NONE
        if found:
            value, low, high = (kind.change(x) for x in found[:3])
            difference = f"{value} [{low}, {high}]"
        row = [Shown(cell.label, cell.label), Shown(SPELLED[cell.version], cell.version), _shown(cell.n)]
        row += [Shown(f"{len(cell.seeds)}", len(cell.seeds), f"seeds {' '.join(cell.seeds)}")]
        row += [Shown(kind.text(cell.sd), cell.sd) if cell.sd is not None else Shown(NONE)]
        row += [Shown(difference, found.value if found else None, cell.why_alone)]
        row += [Shown(p_text(found.p), found.p) if found and found.claims else Shown(NONE)]
        row += [_shown(cost.get("trained")), _shown(cost.get("share"), ".2%")]
        row += [_shown(cost.get(name)) for name in ("peak_mib", "seconds", "tokens_per_second")]
        rows.append([*row, _forgetting(cost)])
    return Grid(DETAILS, rows) if rows else None


def _shown(value: float | None, pattern: str = ",.0f") -> Shown:
    return Shown(NONE) if value is None else Shown(format(value, pattern), value)


def _forgetting(cost: Mapping[str, float]) -> Shown:
    if "forgetting" not in cost:
        return Shown(NONE)
    value, low, high = (cost[f"forgetting{end}"] for end in ENDS)
    return Shown(f"{value:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−"), value)


def block_of(name: str, column: Column) -> Block:
    """Builds the block of one column of a table."""
    everything, kind = [cell for cells in column.values() for cell in cells], shown_kind(column)
    said = notes.kind_notes(everything) + notes.comparison_notes(column, kind) + notes.baseline_notes(column)
    said += notes.missing_notes(column) + notes.identical_notes(column) + notes.rate_notes(column)
    if name != "answers" and NAMED.get(name, kind).compares:
        for version, cells in column.items():
            said += notes.confound_notes(version, cells) + notes.size_notes(version, cells)
            said += notes.small_notes(version, cells, kind)
    said += notes.disagreements(column)
    commands = [(f"{c.label}, {SPELLED[c.version]}", c.command) for c in everything if c.command]
    title = title_of(name) + (f": {kind.unit}" if kind.unit and name not in NAMED else "")
    return Block(title, main_grid(column, kind), said, details(column, kind), commands)


def _panel(name: str, column: Column) -> Panel:
    """Our values in both versions; the report's are hollow diamonds, the authors' records are bars."""
    kind = shown_kind(column)
    first = {cell.label: cell for cells in reversed([*column.values()]) for cell in cells}
    values = [{label: number(getattr(c, who)) for label, c in first.items()} for who in ("report", "record")]
    theirs = [{label: v for label, v in one.items() if v is not None} for one in values]
    # A judge's points have no place beside a perplexity.
    marks = {} if kind.ratio else {"report": ("D", 5, theirs[0]), "authors' record": ("|", 9, theirs[1])}
    series = {SPELLED[version]: cells for version, cells in column.items()}
    return Panel(title_of(name), kind, series, COLOURS, marks)


def picture(table: Table, columns: Mapping[str, Column]) -> tuple[str, str]:
    """Returns (SVG, caption), both empty if there is nothing to show."""
    caption = "mean over seeds, 95% intervals over seeds and test examples"
    if table.kind == "figure":
        what = "lr" if "peak-lr" in columns else "loss"
        words = "Learning rate" if what == "lr" else "Training and validation loss"
        drawn: dict[str, list[Cell]] = {}
        for version, title in SPELLED.items():
            cells = [c for column in columns.values() for c in column.get(version, ()) if c.runs and c.runs[0].curve]
            drawn |= {title: [*{cell.label: cell for cell in cells}.values()]} if cells else {}
        return (curves(drawn, what), f"{words} against the epoch, mean over seeds") if drawn else ("", "")
    if table.kind == "appendix":
        return "", ""
    if any(size_in(name)[1] for name in columns):
        panels = _size_panels(columns)
        return (data_sizes(panels), f"Score against the number of training examples, {caption}") if panels else ("", "")
    pictured = {name: column for name, column in columns.items() if NAMED.get(name, Kind()).pictured}
    shown = [_panel(n, c) for n, c in pictured.items() if any(cell.value is not None for x in c.values() for cell in x)]
    theirs = any(c.report for col in pictured.values() if not shown_kind(col).ratio for x in col.values() for c in x)
    caption = f"{caption[0].upper()}{caption[1:]}" + "; hollow: the report's values" * theirs
    return (dots(shown), caption) if shown else ("", "")


def _size_panels(columns: Mapping[str, Column]) -> list[Panel]:
    """Returns a panel for each task and version, in which the rows of one label are a line."""
    found: dict[tuple[str, str], dict[str, list[Cell]]] = {}
    for name, column in columns.items():
        for version, cells in column.items():
            for cell in [cell for cell in cells if cell.value is not None and examples(cell)]:
                found.setdefault((size_in(name)[0], version), {}).setdefault(cell.label, []).append(cell)
    kinds = {key: next(cells[0].kind for cells in series.values()) or Kind() for key, series in found.items()}
    return [Panel(f"{title_of(key[0])}, {SPELLED[key[1]]}", kinds[key], series) for key, series in found.items()]


def section_of(table: Table, columns: Mapping[str, Column]) -> Section:
    drawn, caption = picture(table, columns)
    shown = by_size(columns)
    answers = [e for column in shown.values() for e in examples_of(column)] if table.kind == "appendix" else []
    blocks = [block_of(name, column) for name, column in shown.items()]
    return Section(table.name, table.title, blocks, drawn, caption, answers)


def examples_of(column: Column) -> list[Example]:
    """Every cell's first seed answers the report's own questions, then test prompts."""
    measured = [(f"{c.label}, {SPELLED[c.version]}", c.runs[0]) for cells in column.values() for c in cells if c.runs]
    asked: dict[str, list[tuple[str, str]]] = {}

    def show(who: str, question: str, before: str, response: str, wanted: str | None = None) -> None:
        shown = asked.setdefault(question, [("wanted", wanted)] if wanted is not None else [])
        if before not in [text for name, text in shown if name != "wanted"]:  # one base has one answer
            shown.append((f"before ({who})", before))
        shown.append((who, response))

    for who, run in measured:
        for question, before, response in COMPARED.findall(run.asked):
            show(who, question, before, response)
    for who, run in measured:
        for answer in run.answers:
            question = "\n".join(part for part in (answer["instruction"], answer["input"]) if part)
            show(who, question, answer["before"], answer["response"], answer["reference"])
    return [Example(question, answers) for question, answers in asked.items()]
