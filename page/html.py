"""What the playground shows, as HTML: every text of a person or a model is escaped here, and nowhere else.

Colours mark the columns of answers, and whether a token speaks for a class (blue) or against it (orange), a pair that
people who do not tell red from green can tell apart.
"""

from collections.abc import Sequence
from html import escape

from page.models import Reading, Written, heaviest
from training.evaluation.attribution import Piece

LISTED = 6  # tokens per side
ENDINGS = {
    "waiting": "",
    "writing": "writing",
    "ended": "ended by itself",
    "full": "cut off at the limit",
    "stopped": "stopped by you",
}

CSS = """
.gradio-container { max-width: 1240px !important; width: 100%; margin: 0 auto !important; }
.html-container { padding: 0 !important; }
.replies :is(.html-container, .html-container > *) { height: 100%; }
.head h1 { font-size: 1.7rem; font-weight: 700; margin: .2rem 0 .1rem; }
.head p, .hint { color: var(--body-text-color-subdued); margin: 0; }
.reply { border: 1px solid var(--border-color-primary); border-radius: 8px; box-shadow: inset 0 4px 0 var(--tint);
  background: var(--block-background-fill); padding: .7rem 1rem; min-height: 12.5rem; height: 100%; display: flex;
  flex-direction: column; }
.reply.c0 { --tint: #8a8f98; } .reply.c1 { --tint: #2f6fde; } .reply.c2 { --tint: #d97706; }
.reply.c3 { --tint: #12866f; } .reply.c4 { --tint: #8b4fc6; }
.reply h3 { margin: 0; font-size: 1.05rem; font-weight: 700; }
.reply .from { color: var(--body-text-color-subdued); font-size: .85rem; margin-bottom: .6rem;
  overflow-wrap: anywhere; }
.reply .strength { float: right; font-size: .85rem; color: var(--tint); }
.reply .text { flex: 1; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; }
.reply .foot { color: var(--body-text-color-subdued); font-size: .85rem; margin-top: .6rem; min-height: 1.3em; }
.reply .text.writing::after { content: ""; display: inline-block; width: .5em; height: 1em; margin-left: 1px;
  vertical-align: -.15em; background: var(--tint); animation: blink 1s steps(2) infinite; }
@keyframes blink { to { opacity: 0; } }
.replies { flex-wrap: wrap !important; } .replies > * { min-width: min(280px, 100%) !important; }
.verdict { font-size: 1.3rem; margin: 0 0 .4rem; } .verdict, .legend, .sides th { overflow-wrap: anywhere; }
.bar { display: grid; grid-template-columns: 7rem 1fr 4rem; gap: .6rem; align-items: center; margin: .2rem 0; }
.bar .name { overflow-wrap: anywhere; } .bar .value { text-align: right; font-variant-numeric: tabular-nums; }
.bar .track { background: var(--border-color-primary); border-radius: 4px; height: .7rem; overflow: hidden; }
.bar .fill { background: #2f6fde; height: 100%; }
.bar.other .fill { background: #8a8f98; }
.read { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .7rem 1rem; line-height: 1.75;
  background: var(--block-background-fill); white-space: pre-wrap; overflow-wrap: anywhere; max-height: 22rem;
  overflow-y: auto; }
.read span { border-radius: 3px; padding: .1em 0; }
.legend { font-size: .9rem; color: var(--body-text-color-subdued); margin: .8rem 0 .4rem; }
.legend i { font-style: normal; padding: .1em .45em; border-radius: 3px; color: var(--body-text-color); }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; margin-top: .9rem; }
.sides table { width: 100%; border-collapse: collapse; }
.sides th, .sides td { border: none; border-bottom: 1px solid var(--border-color-primary); padding: .2rem .3rem;
  font-size: .92rem; }
.sides th { text-align: left; }
.sides td.weight { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.sides td.weight span { border-radius: 3px; padding: .15em 0; }
.sides code { white-space: pre-wrap; overflow-wrap: anywhere; background: none; border: none; padding: 0; }
.for { background: rgb(47 111 222 / var(--a)); } .against { background: rgb(230 126 20 / var(--a)); }
"""


def safe(text: str) -> str:
    """Escapes text for the inside of an element, and the signs of gradio's templates too."""
    return escape(text).replace("$", "&#36;").replace("{", "&#123;").replace("@", "&#64;")


def heading(title: str, line: str) -> str:
    return f'<div class="head"><h1>{safe(title)}</h1><p>{safe(line)}</p></div>'


def card(column: int, name: str, origin: str, written: Written, strength: float | None) -> str:
    """Shows one answer. `strength` is that of the adapters, None if there are none."""
    at = "" if strength is None else f'<span class="strength">strength {strength:g}</span>'
    ending = ENDINGS[written.state]
    foot = "" if written.state == "waiting" else f"{written.tokens} token{'s' * (written.tokens != 1)}, {ending}"
    instead = {"waiting": "The answer will appear here.", "ended": "An empty answer.", "full": "An empty answer."}
    text = safe(written.text) or f'<span class="hint">{instead.get(written.state, "")}</span>'
    return (
        f'<div class="reply c{column % 5}" data-state="{written.state}"><h3>{at}{safe(name)}</h3>'
        f'<div class="from">{safe(origin)}</div><div class="text {written.state}">{text}</div>'
        f'<div class="foot">{foot}</div></div>'
    )


def _tint(weight: float, largest: float) -> str:
    """Returns class and opacity of the colour; the heaviest can be seen, and the text can still be read."""
    share = abs(weight) / largest if largest else 0.0
    return f'class="{"for" if weight > 0 else "against"}" style="--a: {0.7 * share:.3f}"'


def probabilities(labels: Sequence[str], reading: Reading) -> str:
    found = reading.attribution
    order = sorted(range(len(labels)), key=lambda i: -found.probabilities[i])
    bars = "".join(
        f'<div class="bar{"" if i == found.explained else " other"}"><span class="name">{safe(labels[i])}</span>'
        f'<span class="track"><div class="fill" style="width: {100 * found.probabilities[i]:.1f}%"></div></span>'
        f'<span class="value">{100 * found.probabilities[i]:.1f}%</span></div>'
        for i in order
    )
    share = found.probabilities[found.explained]
    return f'<p class="verdict"><b>{safe(labels[found.explained])}</b>, probability {share:.3f}</p>{bars}'


def coloured(label: str, found: Sequence[Piece], cut: bool) -> str:
    """Shows the text that was read, each token on the colour of its weight."""
    largest = max((abs(piece.weight) for piece in found), default=0.0)
    spans = "".join(f'<span {_tint(p.weight, largest)} title="{p.weight:+.2g}">{safe(p.text)}</span>' for p in found)
    note = "<br>The text was longer than what this classifier reads; it saw this much of it." if cut else ""
    return (
        f'<p class="legend">What it looked at: tokens that speak <i class="for" style="--a: .5">for {safe(label)}</i> '
        f'and <i class="against" style="--a: .5">against</i>, the stronger the colour, the more.{note}</p>'
        f'<div class="read">{spans}</div>'
    )


def visible(text: str) -> str:
    """Returns a token for a list; white space is spelled out."""
    return text.strip() or "".join({" ": "space ", "\n": "line break ", "\t": "tab "}.get(c, c) for c in text).strip()


def _side(title: str, ranked: Sequence[tuple[str, int, float]], largest: float) -> str:
    rows = "".join(
        f"<tr><td><code>{safe(visible(text))}</code>{f' &times; {count}' if count > 1 else ''}</td>"
        f'<td class="weight"><span {_tint(weight, largest)}>&nbsp;{weight:+.2g}&nbsp;</span></td></tr>'
        for text, count, weight in ranked
    )
    return f"<table><thead><tr><th>{title}</th><th></th></tr></thead><tbody>{rows}</tbody></table>"


def listed(label: str, found: Sequence[Piece]) -> str:
    """Lists the tokens that weigh most on either side, those that occur more than once with their sum."""
    sides = heaviest(found, LISTED)
    largest = max((abs(weight) for side in sides for _, _, weight in side), default=0.0)
    tables = _side(f"for {safe(label)}", sides[0], largest) + _side("against", sides[1], largest)
    return (
        f'<div class="sides">{tables}</div><p class="legend">Numbers: by how much the log-odds of {safe(label)} would '
        "fall without the token, to first order (gradient times input). They say what the model looks at, not why.</p>"
    )
