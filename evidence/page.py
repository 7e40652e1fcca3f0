"""A page is written as one HTML file that holds its styles, script and pictures and loads nothing."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from evidence.document import Block, Example, Fold, Grid, Page, Section, Shown, on_any_machine
from evidence.markdown import paragraphs

HERE = Path(__file__).parent
ONLY_FROM_HERE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def cell(shown: Shown) -> str:
    key = "" if shown.key is None else f' data-key="{escape(on_any_machine(shown.key))}"'
    remark = f' title="{escape(shown.remark)}"' if shown.remark else ""
    return f"<td{key}{remark}>{escape(shown.text)}</td>"


def table(grid: Grid) -> str:
    headers = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(word) or "row"}</button></th>'
        for word in grid.header
    )
    rows = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in grid.rows)
    return f'<div class="scroll"><table>\n<thead><tr>{headers}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'


def notes(found: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in found)}</ul>' if found else ""


def folded(part: Fold) -> str:
    grid = table(part.grid) if part.grid is not None else ""
    code = f"<pre>{escape(part.code)}</pre>" if part.code else ""
    return f"<details><summary>{escape(part.title)}</summary>{notes(part.notes)}{grid}{code}</details>"


def block(part: Block) -> str:
    texts = [f"<h3>{escape(part.title)}</h3>", table(part.grid), notes(part.notes), *map(folded, part.folds)]
    return "\n".join(texts)


def example(shown: Example) -> str:
    answers = "".join(
        f'<dt class="who">{escape(who)}</dt><dd>{escape(text) or "<em>nothing</em>"}</dd>'
        for who, text in shown.answers
    )
    return f'<div class="example"><blockquote>{escape(shown.instruction)}</blockquote><dl>{answers}</dl></div>'


def figure(svg: str, caption: str) -> str:
    picture = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def section(part: Section) -> str:
    texts = [f'<section id="{escape(part.name)}">', f"<h2>{escape(part.title)}</h2>", paragraphs(part.finding)]
    if part.picture:
        texts.append(figure(part.picture, part.caption))
    texts += [*map(block, part.blocks), *map(example, part.examples), *map(folded, part.folds)]
    return "\n".join([*texts, "</section>"])


def brief(title: str) -> str:
    """The title loses the place in brackets at its end."""
    return re.sub(r" \([^()]*\)$", "", title)


def document(title: str, style: str, body: str) -> str:
    """The whole file has its `style` and the script that sorts tables."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{ONLY_FROM_HERE}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
<script>
{script}</script>
</body>
</html>
"""


def as_html(found: Page) -> str:
    contents = "".join(f'<li><a href="#{escape(s.name)}">{escape(brief(s.title))}</a></li>' for s in found.sections)
    sections = "\n".join(map(section, found.sections))
    body = f"""<div class="frame">
<nav aria-label="Tables and figures"><ol>{contents}</ol></nav>
<main>
<h1>{escape(found.title)}</h1>
{paragraphs(found.words)}
{"".join(map(folded, found.folds))}
{sections}
</main>
</div>"""
    return document(found.title, (HERE / "page.css").read_text(encoding="utf-8"), body)
