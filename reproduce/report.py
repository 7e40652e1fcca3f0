"""Turns finished runs into RESULTS.md, report.html, tables.csv, tables.tex and a picture for each table.

    python -m reproduce.report                       # from the packed runs, as in a clean checkout
    python -m reproduce.report --scale report --runs runs/reproduce --output runs/report
    python -m reproduce.report --collect             # first adds new runs to reproduce/results

It covers tables 1 to 8, figures 1 to 5, the inline results and the appendix of the report, and what goes beyond it. The
table files say which cells there are; findings.md has the comments on them at nano scale. SEEDS, DATA_DIR and MODEL are
read from the environment, as bash TABLE.sh reads them.
"""

import csv
import io
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from evidence.document import Fold, Page, on_any_machine
from evidence.kinds import COSTS, Kind
from evidence.latex import as_latex
from evidence.markdown import as_markdown
from evidence.page import as_html
from evidence.runs import Run, Store, write, write_packed
from reproduce.cells import RUNS, Cell, cell_of, columns_of, forgotten, joined, number, reported
from reproduce.environment import settings_in
from reproduce.sections import block_of, mean_macro_f1, section_of, stated
from reproduce.tables import Plan, Table, all_tables, plans

HERE = Path(__file__).parent
PICTURES = "pictures"
TITLE = "LoRA or full fine-tuning: every table and figure"
COLUMNS = ["table", "label", "column", "version", "scale", "metric", "report", "record", "value", "low", "high", "n"]
COLUMNS += ["seeds", "sd", "difference", "difference_low", "difference_high", "p_holm", "detectable", *COSTS]
COLUMNS += ["forgetting", "forgetting_low", "forgetting_high", "macro_f1", "of_one_class"]
COLUMNS += ["commits", "missing", "command"]


@dataclass(frozen=True)
class Args:
    runs: Path = RUNS
    """folder of the runs, as RUNS of the table files"""
    results: Path = HERE / "results"
    """folder of the packed runs, one file a scale"""
    scale: Literal["nano", "report"] = "nano"
    """scale of the runs to show"""
    output: Path = HERE
    """folder for the files"""
    tables: Path = HERE
    """folder of the table files"""
    collect: bool = False
    """first add finished runs to the packed ones"""

    @property
    def packed(self) -> Path:
        return self.results / f"{self.scale}.jsonl.gz"


def chosen_plans(table: Table, scale: str, store: Store) -> list[Plan]:
    """Plans the rows with the data at hand. A row that has only been run with all data is planned with all data."""
    settings = settings_in(os.environ)

    def has_run(plan: Plan) -> bool:
        return any(store.get(plan.place(seed)) is not None for seed in plan.seeds(settings["SEEDS"]))

    both = zip(*(plans(table, scale, d, settings["MODEL"]) for d in (Path(settings["DATA_DIR"]), None)), strict=True)
    return [full if not has_run(here) and has_run(full) else here for here, full in both]


def cells_in(table: Table, args: Args, store: Store) -> dict[str, dict[str, list[Cell]]]:
    """Returns the cells by column and version."""
    seeds = settings_in(os.environ)["SEEDS"]
    return columns_of(table, chosen_plans(table, args.scale, store), lambda plan: cell_of(plan, seeds, store.get))


def distinct(found: Sequence[Mapping[str, Any]], name: str) -> str:
    """Returns all values of an entry, in order."""
    return "; ".join(sorted({str(one[name]) for one in found if name in one}))


def commits(cells: Iterable[Cell]) -> list[str]:
    return sorted({run.results.get("environment", {}).get("commit", "") for c in cells for run in c.runs} - {""})


def origin_of(cells: Sequence[Cell], scale: str) -> Fold:
    """Returns what the numbers come from."""
    runs = [run for cell in cells for run in cell.runs]
    environments = [run.results.get("environment", {}) for run in runs]
    missing = sum(cell.value is None for cell in cells)
    facts = [
        ("scale", scale),
        ("cells", f"{len(cells):,}, of which {missing:,} are missing"),
        ("seeds", ", ".join(sorted({seed for cell in cells for seed in cell.seeds}, key=int))),
        ("device", distinct(environments, "device")),
        ("mixed precision", distinct(environments, "precision")),
        ("threads", distinct(environments, "threads")),
        ("models", distinct([run.results["args"] for run in runs], "model")),
        ("commit of the runs", ", ".join(commits(cells))),
        ("commands", f"SCALE={scale} bash reproduce/all.sh; python -m reproduce.report --scale {scale} --collect"),
    ]
    return Fold("What these numbers come from", [f"{name}: {value}" for name, value in facts if value])


def as_csv(cells: Sequence[tuple[str, Cell]], scale: str) -> str:
    """Writes each cell of `cells` (table, cell) as a line, with ten digits. Missing values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    kinds = {(name, cell.column): cell.kind for name, cell in cells if cell.kind}
    for name, cell in cells:
        kind = kinds.get((name, cell.column), Kind())
        row: list[Any] = [name, cell.label, cell.column, cell.version, scale, kind.name]
        row += [given if number(given) is None else reported(given, kind) for given in (cell.report, cell.record)]
        row += [cell.value, cell.low, cell.high, cell.n, " ".join(cell.seeds), cell.sd]
        found = cell.comparison
        row += [*found[:3]] if found else [""] * 3
        row += (
            [found.p, "" if math.isnan(found.detectable) else found.detectable] if found and found.claims else [""] * 2
        )
        row += [cell.cost.get(cost) for cost in COSTS]
        lost = forgotten(cell)
        row += [lost.value, lost.low, lost.high, mean_macro_f1(cell), cell.of_one_class or None]
        row += [" ".join(commits([cell])), cell.reason, cell.command or "-"]
        writer.writerow("" if value is None else on_any_machine(value) for value in row)
    return text.getvalue()


def read_findings(path: Path) -> tuple[str, dict[str, str]]:
    """Returns the text above all tables, and the comments by the `## NAME` of their table."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    above, *rest = re.split(r"^## (\S+)$", text, flags=re.MULTILINE)
    return above.strip(), {name: words.strip() for name, words in zip(rest[::2], rest[1::2], strict=True)}


def filled(text: str, cells: Sequence[tuple[str, Cell]]) -> str:
    """Puts the numbers of a cell in the place of `{table | column | label | what}`, for what see `stated`; "published
    value" is the value of the published row. Raises ValueError if there is no such cell."""
    known: dict[tuple[str, ...], Cell] = {(name, c.column, c.label, c.version): c for name, c in cells}

    def number_of(found: re.Match[str]) -> str:
        *place, what = (word.strip() for word in found[1].split("|"))
        version = "published" if what.startswith("published ") else "corrected"
        cell = known.get((*place, version))
        if cell is None:
            raise ValueError(f"findings.md: {found[0]} names no cell; write table | column | label | what")
        return stated(cell, what.removeprefix("published "))

    return re.sub(r"\{([^{}]*\|[^{}]*)\}", number_of, text)


def collect(args: Args, store: Store, tables: Sequence[Table]) -> None:
    """Adds the finished runs of the tables to the packed ones, whatever their seeds."""
    runs: dict[str, Run] = {}
    found = {plan.key: plan for table in tables for plan in chosen_plans(table, args.scale, store) if not plan.why}
    for key, plan in found.items():
        places = [f"{key}/{folder.name}" for folder in (args.runs / key).glob("seed*") if folder.is_dir()]
        for place in places:
            if (run := store.get(place)) is not None:
                runs[place] = replace(run, script=run.script or Path(plan.command.split()[1]).stem)
    write_packed(args.packed, store.packed | runs)
    print(f"collected  {len(runs):,} runs in {args.packed}")
    for place in sorted(place for place in store.packed if place.rpartition("/")[0] not in found):
        print(f"note       {place} is in no table any more")


def print_table(table: Table, args: Args) -> None:
    """Prints the table of the runs in `args.runs`; packed runs do not count."""
    columns = cells_in(table, args, Store(args.runs, args.runs / "none"))
    print(f"\n{table.title}")
    for block in [block_of(name, column) for name, column in joined(columns).items()]:
        print("", block.title, block.grid.text(), *block.notes, sep="\n")
        for fold in block.folds:
            print("", fold.title, *([fold.grid.text()] if fold.grid else []), *fold.notes, sep="\n")


def main(args: Args) -> None:
    tables, store = all_tables(args.tables), Store(args.runs, args.packed)
    if args.collect:
        collect(args, store, tables)
    columns = {table.name: cells_in(table, args, store) for table in tables}
    cells = [(name, c) for name, found in columns.items() for by in found.values() for p in by.values() for c in p]
    words, findings = read_findings(args.tables / "findings.md") if args.scale == "nano" else ("", {})
    words, findings = filled(words, cells), {name: filled(text, cells) for name, text in findings.items()}
    for name in findings.keys() - columns.keys():
        raise ValueError(f"findings.md: {name!r} is no table; the tables are {', '.join(sorted(columns))}")
    sections = [replace(section_of(t, columns[t.name]), finding=findings.get(t.name, "")) for t in tables]
    page = Page(TITLE, sections, words, [origin_of([cell for _, cell in cells], args.scale)])

    files = {"RESULTS.md": as_markdown(page, PICTURES), "report.html": as_html(page)}
    files |= {"tables.csv": as_csv(cells, args.scale), "tables.tex": as_latex(page)}
    files |= {f"{PICTURES}/{section.name}.svg": section.picture + "\n" for section in sections if section.picture}
    for name, text in files.items():
        write(args.output / name, text.encode())
    measured = sum(cell.value is not None for _, cell in cells)
    print(f"tables     {len(tables)}, cells {len(cells):,}, measured {measured:,}; {args.output / 'report.html'}")


if __name__ == "__main__":
    arguments = tyro.cli(Args, description=__doc__)
    try:
        main(arguments)
    except (ValueError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        sys.exit(2)
