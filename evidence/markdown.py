"""The page as Markdown: what is generated stands between two comments, what is outside them is a person's and stays."""

import html
import re
from typing import NamedTuple

from evidence.document import WARNINGS, Block, Grid, Page, Section

START = "# Results\n\n"
HEAD = "head"


def escaped(text: str) -> str:
    """For a cell of a table: nothing in it ends the cell or begins markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", " ".join(text.split()))


def table(grid: Grid) -> str:
    """Numbers to the right, under a header that says so."""
    lines = [[escaped(word) for word in grid.header], [":---", *["---:"] * (len(grid.header) - 1)]]
    lines += [[_value(cell.text) for cell in row] for row in grid.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(text: str) -> str:
    """Brackets of an interval need no escape: no link follows them."""
    return escaped(text).replace("\\[", "[").replace("\\]", "]")


def block(part: Block) -> str:
    texts = [f"**{escaped(part.title)}**", table(part.grid)]
    for note in part.notes:
        begins = f"**{WARNINGS[note.kind]}.** " if note.kind in WARNINGS else ""
        texts.append(f"{begins}{_value(note.text)}")
    if part.details is not None:
        texts.append(folded("Seeds, spread, tests and cost", table(part.details)))
    if part.commands:
        texts.append(folded("Commands", f"```bash\n{part.script()}\n```"))
    return "\n\n".join(texts)


def folded(title: str, text: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>\n\n{text}\n\n</details>"


def section(part: Section, pictures: str) -> str:
    """`pictures`: the folder of the pictures, as seen from the file."""
    texts = [f"![{escaped(part.caption)}]({pictures}/{part.name}.svg)"] if part.picture else []
    texts += [block(one) for one in part.blocks]
    for example in part.examples:
        lines = [f"> {escaped(example.instruction)}"]
        lines += [f"- **{escaped(who)}**: {escaped(text) or '(nothing)'}" for who, text in example.answers]
        texts.append(lines[0] + "\n\n" + "\n".join(lines[1:]))
    return "\n\n".join(texts)


def head(page: Page) -> str:
    return "\n".join(f"- {name}: {f'`{value}`' if name == 'commands' else value}" for name, value in page.facts)


def between(name: str, text: str) -> str:
    return f"<!-- begin {name} -->\n{text}\n<!-- end {name} -->"


class Written(NamedTuple):
    """A person's Markdown above a generated part: what comes before its heading, and what stands under it."""

    before: str = ""
    under: str = ""


def parts(text: str) -> dict[str, Written]:
    """By the name of the generated part; what follows the last one is that of ""."""
    found = [*re.split(r"<!-- begin (\S+) -->.*?<!-- end \1 -->", text, flags=re.DOTALL), ""]
    written = {}
    for chunk, name in zip(found[::2], found[1::2], strict=True):
        chunk = re.sub(r"^# .*$", "", chunk, flags=re.MULTILINE)
        headings = [*re.finditer(r"^## .*$", chunk, flags=re.MULTILINE)]
        if not name:
            written[name] = Written(before=chunk)
        elif headings:
            written[name] = Written(chunk[: headings[-1].start()], chunk[headings[-1].end() :])
        else:
            written[name] = Written(under=chunk)
    return written


def filled(page: Page, old: str, pictures: str) -> str:
    """`old` with its generated parts renewed; sections that it lacks come at the end.

    Raises ValueError where a part begins and does not end.
    """
    new = {HEAD: head(page)} | {part.name: section(part, pictures) for part in page.sections}
    titles = {part.name: part.title for part in page.sections}
    text = old or START + between(HEAD, "") + "\n"
    for name, content in new.items():
        whole = re.compile(rf"<!-- begin {re.escape(name)} -->.*?<!-- end {re.escape(name)} -->", re.DOTALL)
        if found := whole.search(text):
            text = text[: found.start()] + between(name, content) + text[found.end() :]
        elif f"<!-- begin {name} -->" in text:
            raise ValueError(f"RESULTS.md: '<!-- begin {name} -->' has no '<!-- end {name} -->'; put it back")
        else:
            heading = f"## {titles[name]}\n\n" if name in titles else ""
            text = f"{text.rstrip()}\n\n{heading}{between(name, content)}\n"
    return text


def paragraphs(text: str) -> str:
    """A person's Markdown as HTML: headings, paragraphs and lists with code, bold, emphasis and links; nothing else."""
    found = []
    for part in re.split(r"\n\s*\n", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)):
        lines = part.strip().splitlines()
        if heading := re.fullmatch(r"(##+) (.*)", part.strip()):
            level = len(heading[1])
            found.append(f"<h{level}>{_inline(heading[2])}</h{level}>")
        elif lines and all(line.startswith(("- ", "  ")) for line in lines):
            items = re.split(r"^- ", part.strip(), flags=re.MULTILINE)[1:]
            found.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
        elif lines:
            found.append(f"<p>{_inline(part)}</p>")
    return "\n".join(found)


def _inline(text: str) -> str:
    text = html.escape(" ".join(text.split()))
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)
    return re.sub(r"\[([^\]]+)\]\((https?://[^)\s]+|[#\w./][^)\s:]*)\)", r'<a href="\2">\1</a>', text)
