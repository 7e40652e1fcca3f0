"""Numbers as they are printed. Accuracies keep the report's unit: percent where a column of it has percents."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from report_cells import Cell
from report_metrics import ACCURACY, JUDGE, OF_A_RUN, Metric

TITLES = {"ift": "Instructions", "nle": "Entailment", "lr": "Learning rate", "batch": "Batch size"}
TITLES |= {"weight-decay": "Weight decay", "answers": "Answers"}
SPELLED = {"published": "as published", "corrected": "corrected"}
MISSING, NONE = "missing", "–"


class Unit(NamedTuple):
    """How the numbers of a column are printed; as a percentage they are 100 times what is stored."""

    name: str
    factor: float = 1.0
    digits: int = 3
    ratio: bool = False  # differences are ratios

    def text(self, value: float) -> str:
        """With its digits, fewer for large numbers."""
        scaled = value * self.factor
        if 0 < abs(scaled) < 0.001:
            return f"{scaled:.2e}"
        digits = 0 if abs(scaled) >= 10_000 else min(self.digits, 1) if abs(scaled) >= 100 else self.digits
        return f"{scaled:,.{digits}f}"

    def size(self, value: float) -> str:
        """Of a difference, whatever its sign."""
        points = " points" if self.factor != 1 else ""
        return f"a factor of {value:.3f}" if self.ratio else f"{value * self.factor:.{self.digits}f}{points}"

    def difference(self, value: float) -> str:
        return f"×{value:.3f}" if self.ratio else f"{value * self.factor:+.{self.digits}f}".replace("-", "−")


def number(text: str) -> float | None:
    """A value of the report, like 92.4, 92.4% or 7,898,384; the first of several (36.35/38.10)."""
    found = re.match(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?", text)
    return float(found[0].replace(",", "")) if found else None


def on_any_machine(value: Any) -> str:
    """A number with the digits that do not depend on the processor (its exp and log differ in the last of 16)."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def unit_of(column: str, metric: Metric | None, given: Sequence[str]) -> Unit:
    """`given`: the column's values in the report and the authors' records."""
    known = [value for text in given if (value := number(text)) is not None]
    if column in OF_A_RUN:
        digits = {"parameters": 0, "memory": 2, "minutes": 2}.get(column, 3)
        return Unit(OF_A_RUN[column][0], digits=digits)
    if metric is ACCURACY:
        percent = any(value > 1 for value in known)
        return Unit("accuracy, %", 100.0, 1) if percent else Unit("accuracy")
    if metric is JUDGE:
        return Unit("judge's score, 0 to 100", digits=1)
    return Unit("perplexity of the response", digits=2, ratio=True) if metric else Unit("")


def column_title(column: str) -> str:
    title = OF_A_RUN[column][0] if column in OF_A_RUN else TITLES.get(column, column)
    return title[:1].upper() + title[1:]


def size_in(column: str) -> tuple[str, str | None]:
    """("spam", "125") of the column "spam 125"; a million and more examples are all there are."""
    found = re.fullmatch(r"(.+) (\d+)", column)
    if not found:
        return column, None
    return found[1], "all" if int(found[2]) >= 1_000_000 else f"{int(found[2]):,}"


def sized(label: str, column: str) -> str:
    """A row's label where columns of several sizes stand as one: "125, full" in "spam 125"."""
    size = size_in(column)[1]
    return label if size is None else f"{size}, {label}"


def interval(unit: Unit, cell: Cell) -> str:
    """Mean with its interval, where there is one."""
    assert cell.value is not None, "a missing cell has no interval"
    value = unit.text(cell.value)
    return (
        value if cell.low is None or cell.high is None else f"{value} [{unit.text(cell.low)}, {unit.text(cell.high)}]"
    )


def verdict(cell: Cell) -> int:
    """1 better than the reference, -1 worse, 0 not told apart."""
    found = cell.comparison
    if found is None or not found.differs or cell.metric is None:
        return 0
    above = found.value > (1.0 if cell.metric.logarithmic else 0.0)
    return 1 if above == cell.metric.higher_is_better else -1


def mark(cell: Cell) -> str:
    """An arrow for a row that differs from its reference: up for higher."""
    if not verdict(cell) or cell.comparison is None or cell.metric is None:
        return ""
    return "↑ " if cell.comparison.value > (1.0 if cell.metric.logarithmic else 0.0) else "↓ "


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_remark(p: float) -> str:
    """With its name: p = 0.123, p < 0.001."""
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def listing(words: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
