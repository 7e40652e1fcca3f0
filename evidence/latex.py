"""The grids of a page are written as LaTeX tables (booktabs)."""

import re

from evidence.document import Grid, Page

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "×": r"$\times$", "–": "--", "−": "$-$", "†": r"\dag{}", "‡": r"\ddag{}",
}  # fmt: skip


def latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found[0]], text)


def tabular(grid: Grid) -> str:
    lines = [" & ".join(map(latex, grid.header)) + r" \\", r"\midrule"]
    lines += [" & ".join(latex(shown.text) for shown in row) + r" \\" for row in grid.rows]
    body = "\n".join(["\\toprule", *lines, "\\bottomrule"])
    return f"\\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}\n{body}\n\\end{{tabular}}"


def as_latex(page: Page) -> str:
    """Each column becomes a table environment with its notes under it."""
    found = ["% \\usepackage{booktabs}"]
    for section in page.sections:
        for i, block in enumerate(section.blocks, 1):
            notes = " ".join(map(latex, block.notes))
            caption = f"\\caption{{{latex(section.title)}. {latex(block.title)}.}}\n\\label{{tab:{section.name}-{i}}}"
            under = f"\n\\par\\smallskip\\footnotesize {notes}" if notes else ""
            found.append(f"\\begin{{table}}\n\\centering\n{caption}\n{tabular(block.grid)}{under}\n\\end{{table}}")
    return "\n\n".join(found) + "\n"
