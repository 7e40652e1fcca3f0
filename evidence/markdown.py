"""A page is written as Markdown, and what a person wrote in Markdown becomes HTML."""

import html
import re

from evidence.document import Block, Fold, Grid, Page, Section


def escaped(text: str) -> str:
    """Nothing in the text can end a cell of a table or begin markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", " ".join(text.split()))


def table(grid: Grid) -> str:
    """Numbers stand to the right, and the line under the header says so."""
    lines = [[escaped(word) for word in grid.header], [":---", *["---:"] * (len(grid.header) - 1)]]
    lines += [[plain(cell.text) for cell in row] for row in grid.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """Nothing in the text begins markup. The brackets of an interval need no escape, since no link follows them."""
    return re.sub(r"\\([\[\]])(?!\()", r"\1", escaped(text))


def block(part: Block) -> str:
    texts = [f"**{escaped(part.title)}**", table(part.grid), *map(plain, part.notes), *map(folded, part.folds)]
    return "\n\n".join(texts)


def folded(part: Fold) -> str:
    texts = ["\n".join(f"- {plain(note)}" for note in part.notes)] if part.notes else []
    texts += [table(part.grid)] if part.grid is not None else []
    texts += [f"```bash\n{part.code}\n```"] if part.code else []
    return "\n\n".join([f"<details><summary>{html.escape(part.title)}</summary>", *texts, "</details>"])


def section(part: Section, pictures: str) -> str:
    """`pictures` is the folder of the pictures, as seen from the file."""
    texts = [f'<a id="{part.name}"></a>', f"## {part.title}", *([part.finding] if part.finding else [])]
    texts += [f"![{escaped(part.caption)}]({pictures}/{part.name}.svg)"] if part.picture else []
    texts += [block(one) for one in part.blocks]
    for example in part.examples:
        lines = [f"- **{escaped(who)}**: {escaped(text) or '(nothing)'}" for who, text in example.answers]
        texts += [f"> {escaped(example.instruction)}", "\n".join(lines)]
    return "\n\n".join([*texts, *map(folded, part.folds)])


def as_markdown(page: Page, pictures: str) -> str:
    above = ["# Results", *([page.words] if page.words else []), *map(folded, page.folds)]
    return "\n\n".join([*above, *(section(part, pictures) for part in page.sections)]) + "\n"


def paragraphs(text: str) -> str:
    """Headings, paragraphs and lists with code, bold, emphasis and links become HTML; nothing else does."""
    found = []
    for part in re.split(r"\n\s*\n", text):
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
    """In code nothing else is markup: it stands aside until the rest is done."""
    code: list[str] = []

    def aside(found: re.Match[str]) -> str:
        code.append(f"<code>{found[1]}</code>")
        return f"\0{len(code) - 1}\0"

    text = re.sub(r"`([^`]+)`", aside, html.escape(" ".join(text.replace("\0", "").split())))
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)
    text = re.sub(r"\[([^\]]+)\]\((https?://[^)\s]+|[#\w./][^)\s:]*)\)", r'<a href="\2">\1</a>', text)
    return re.sub("\0(\\d+)\0", lambda found: code[int(found[1])], text)
