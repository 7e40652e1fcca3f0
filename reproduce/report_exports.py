"""The cells as CSV, with ten digits, and the grids as LaTeX (booktabs)."""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

from report_cells import Cell
from report_document import Grid, Page
from report_metrics import COSTS
from report_words import number, on_any_machine

COLUMNS = ["table", "label", "column", "version", "scale", "metric", "report", "record", "value", "low", "high", "n"]
COLUMNS += ["seeds", "sd", "difference", "difference_low", "difference_high", "p_holm", "detectable", *COSTS]
COLUMNS += ["commits", "missing", "command"]
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$", "–": "--", "−": "$-$",
}  # fmt: skip


def commits(cell: Cell) -> str:
    return " ".join(sorted({run.results.get("environment", {}).get("commit", "") for run in cell.runs} - {""}))


def as_csv(cells: Iterable[tuple[str, Cell]], scale: str) -> str:
    """A line a cell and version; `cells`: (table, cell). What is missing is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, cell in cells:
        given = [number(x) if number(x) is not None else x for x in (cell.report, cell.record)]
        row: list[Any] = [
            name,
            cell.label,
            cell.column,
            cell.version,
            scale,
            cell.metric.name if cell.metric else "",
            *given,
        ]
        row += [cell.value, cell.low, cell.high, cell.n, " ".join(cell.seeds), cell.sd]
        row += list(cell.comparison or [""] * 6)[:4] + [cell.comparison.detectable if cell.comparison else ""]
        row += [cell.cost.get(cost) for cost in COSTS]
        row += [commits(cell), cell.reason, cell.command]
        writer.writerow("" if value is None else on_any_machine(value) for value in row)
    return text.getvalue()


def latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found[0]], text)


def tabular(grid: Grid) -> str:
    lines = [" & ".join(map(latex, grid.header)) + r" \\", r"\midrule"]
    lines += [" & ".join(latex(shown.text) for shown in row) + r" \\" for row in grid.rows]
    body = "\n".join(["\\toprule", *lines, "\\bottomrule"])
    return f"\\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}\n{body}\n\\end{{tabular}}"


def as_latex(page: Page) -> str:
    """A table environment for each column; notes stand under it."""
    found = ["% \\usepackage{booktabs}"]
    for section in page.sections:
        for i, block in enumerate(section.blocks, 1):
            notes = " ".join(latex(note.text) for note in block.notes)
            caption = f"\\caption{{{latex(section.title)}. {latex(block.title)}.}}\n\\label{{tab:{section.name}-{i}}}"
            under = f"\n\\par\\smallskip\\footnotesize {notes}" if notes else ""
            found.append(f"\\begin{{table}}\n\\centering\n{caption}\n{tabular(block.grid)}{under}\n\\end{{table}}")
    return "\n\n".join(found) + "\n"
