"""Finished runs -> RESULTS.md, report.html, tables.csv, tables.tex and a picture a table, all from results.json files.

    python reproduce/report.py                       # of the packed runs, as from a clean checkout
    python reproduce/report.py --scale report --runs runs/reproduce --output runs/report
    python reproduce/report.py --collect             # first add what is needed of new runs to reproduce/results

Tables 1 to 8, Figures 1 to 5, the inline results and the appendix of the report, and what goes beyond it. Which cells
there are is asked of the table files. In RESULTS.md, what stands outside the generated parts is kept.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from report_cells import VERSIONS, Cell, cells_of
from report_document import Page, Section
from report_exports import as_csv, as_latex, commits
from report_html import page as as_html
from report_list import Table, all_tables, parse_list, preferred
from report_markdown import filled, parts
from report_notes import Column
from report_pictures import curves, data_sizes, dots, shows_report
from report_runs import Run, Store, write_packed
from report_sections import block_of, by_size, examples_of
from report_words import size_in, sized

HERE = Path(__file__).parent
PICTURES = "pictures"


@dataclass(frozen=True)
class Args:
    runs: Path = Path("runs/reproduce")
    """folder of the runs (RUNS of the table files)"""
    results: Path = HERE / "results"
    """folder of the packed runs, one file a scale"""
    scale: Literal["nano", "report"] = "nano"
    """scale of the runs that are shown"""
    output: Path = HERE
    """folder for the files"""
    tables: Path = HERE
    """folder of the table files"""
    collect: bool = False
    """first add what is needed of finished runs to the packed ones"""


def packed_file(args: Args) -> Path:
    return args.results / f"{args.scale}.jsonl.gz"


def columns_of(table: Table, find: Callable[[str], Run | None]) -> dict[str, dict[str, list[Cell]]]:
    """Cells by column and version, in the order of the list."""
    found: dict[str, dict[str, list[Cell]]] = {}
    for name in dict.fromkeys(line.column for line in table.lines):
        here = [line for line in table.lines if line.column == name]
        by_version = {version: [line for line in here if line.version == version] for version in VERSIONS}
        found[name] = {version: cells_of(lines, find) for version, lines in by_version.items() if lines}
    return found


def picture(table: Table, columns: Mapping[str, Column]) -> tuple[str, str]:
    """(SVG, caption), empty where there is nothing to show."""
    if table.kind == "figure":
        what = "lr" if "peak-lr" in columns else "loss"
        words = "Learning rate" if what == "lr" else "Training and validation loss"
        return curves(columns, what), f"{words} against the epoch, mean over seeds"
    if table.kind == "appendix":
        return "", ""
    caption = "mean over seeds, 95% intervals over test examples"
    if any(size_in(name)[1] for name in columns):
        return data_sizes(columns), f"Score against the number of training examples, {caption}"
    return dots(columns), f"{caption[0].upper()}{caption[1:]}" + "; hollow: the report's values" * shows_report(columns)


def design_of(table: Table, family: str) -> dict[str, dict[str, str]]:
    """Commands of the rows as they are written, by version and label; a row once."""
    found: dict[str, dict[str, str]] = {}
    for line in table.design:
        if size_in(line.column)[0] == family and line.status == "run":
            found.setdefault(line.version, {})[sized(line.label, line.column)] = line.command
    return found


def section_of(table: Table, columns: Mapping[str, Column]) -> Section:
    drawn, caption = picture(table, columns)
    shown = by_size(columns)
    examples = [e for column in shown.values() for e in examples_of(column)] if table.kind == "appendix" else []
    blocks = [block_of(name, column, design_of(table, name)) for name, column in shown.items()]
    return Section(table.name, table.title, blocks, drawn, caption if drawn else "", examples)


def distinct(found: Sequence[Mapping[str, Any]], name: str) -> str:
    """All values of an entry, in order."""
    return "; ".join(sorted({str(one[name]) for one in found if name in one}))


def facts_of(cells: Sequence[Cell], scale: str) -> list[tuple[str, str]]:
    """What the numbers come from."""
    runs = [run for cell in cells for run in cell.runs]
    environments = [run.results.get("environment", {}) for run in runs]
    seeds = sorted({seed for cell in cells for seed in cell.seeds}, key=int)
    missing = sum(cell.value is None for cell in cells)
    facts = [
        ("scale", scale),
        ("cells", f"{len(cells):,}, of which {missing:,} are missing"),
        ("seeds", ", ".join(seeds)),
    ]
    for name in ("device", "precision", "threads"):
        facts.append((name.replace("precision", "mixed precision"), distinct(environments, name)))
    facts.append(("models", distinct([run.results["args"] for run in runs], "model")))
    facts.append(("commit of the runs", ", ".join(sorted({c for cell in cells for c in commits(cell).split()}))))
    facts.append(
        ("commands", f"SCALE={scale} bash reproduce/all.sh; python reproduce/report.py --scale {scale} --collect")
    )
    return [(name, value) for name, value in facts if value]


def write(path: Path, text: str) -> None:
    """In one step, so that an interrupted report leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def collect(args: Args, store: Store, tables: Sequence[Table]) -> None:
    """Packs the finished runs, with their lines, without the folder of runs, which is this machine's."""
    lines = [line for table in tables for line in table.lines if line.status == "run"]
    found = {line.key: (line, run) for line in lines if (run := store.get(line.key)) is not None}
    runs = {
        key: replace(run, script=run.script or Path(line.command.split()[1]).stem) for key, (line, run) in found.items()
    }
    write_packed(packed_file(args), store.packed | runs)
    print(f"collected  {len(runs):,} runs in {packed_file(args)}")
    text = "".join("\t".join(line) + "\n" for line in lines if line.key in runs)
    write(args.results / f"{args.scale}.tsv", text.replace(f"{args.runs}/", "runs/reproduce/"))
    for key in sorted(store.packed.keys() - runs.keys()):
        print(f"note       {key} is in no table any more")


def main(args: Args) -> None:
    store = Store(args.runs, packed_file(args))
    tables = all_tables(args.tables, args.runs, args.scale)
    kept = args.results / f"{args.scale}.tsv"
    if kept.exists():
        known = {line.identity: line for line in parse_list(kept.read_text(encoding="utf-8"), str(kept))}
        tables = [
            table._replace(lines=[preferred(line, known.get(line.identity), store.has) for line in table.lines])
            for table in tables
        ]
    if args.collect:
        collect(args, store, tables)
    columns = {table.name: columns_of(table, store.get) for table in tables}
    cells = [
        (name, c) for name, found in columns.items() for by in found.values() for part in by.values() for c in part
    ]
    sections = [section_of(table, columns[table.name]) for table in tables]
    page = Page(args.scale, facts_of([cell for _, cell in cells], args.scale), sections)

    markdown = args.output / "RESULTS.md"
    text = filled(page, markdown.read_text(encoding="utf-8") if markdown.exists() else "", PICTURES)
    for section in sections:
        if section.picture:
            write(args.output / PICTURES / f"{section.name}.svg", section.picture + "\n")
    write(markdown, text)
    write(args.output / "report.html", as_html(page, parts(text)))
    write(args.output / "tables.csv", as_csv(cells, args.scale))
    write(args.output / "tables.tex", as_latex(page))
    measured = sum(cell.value is not None for _, cell in cells)
    print(f"tables     {len(tables)}, cells {len(cells):,}, measured {measured:,}; {args.output / 'report.html'}")


if __name__ == "__main__":
    arguments = tyro.cli(Args, description=__doc__)
    try:
        main(arguments)
    except (ValueError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        sys.exit(2)
