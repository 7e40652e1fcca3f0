"""Lays out the page of the playground and defines what a click does; html.py makes what is shown in it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from gpt2_scratch.generate import Sampling
from page.html import card, coloured, heading, listed, probabilities
from page.models import Answerer, Reader, Written, read, side_by_side

TITLE = "LoRA or full fine-tuning?"
UNASKED = Written()
html = partial(gr.HTML, apply_default_css=False)
AT_ONCE = 8  # people whose answers are written at the same time; they take turns at the models, token by token
INSTRUCTIONS = [
    ["What is the plural of 'mouse'?", ""],
    ["Correct the spelling mistake.", "I will definately come tomorrow."],
    ["Turn the given active sentence into a passive sentence.", "The children planted a tree."],
    ["What is 17 + 25?", ""],
]
PASTE = "Paste a mail or a review; the subject of a mail on the first line"
HINT = '<p class="hint">The class, and the tokens that decided it, will appear here.</p>'
TEXTS = [
    "You have been selected!\n\nDear friend, congratulations. Click here now to claim your free prize money. This "
    "offer is 100% guaranteed and ends tonight, so order today!",
    "Re: build fails on the release branch\n\nI think the patch you sent on Tuesday breaks the test of the "
    "parser. Could you have a look before we tag the release? Thanks",
    "The first half hour is slow and the jokes fall flat, but then the two leads meet, and from there on this is one "
    "of the warmest and funniest films I have seen in years.",
]


class Page(gr.Blocks):
    """A page that refuses what only other programs send it, without a traceback in the terminal."""

    async def preprocess_data(self, *args: Any, **named: Any) -> Any:
        try:
            return await super().preprocess_data(*args, **named)
        except Exception as error:  # gradio's own for a number out of range, any for a value of another kind
            why = error.message if isinstance(error, gr.Error) else "This is not what the page asks for."
            raise gr.Error(why, print_exception=False) from error


@dataclass
class Turns:
    """The requests of one open page, by number: a newer one ends the one before, and so does Stop.

    `whole`: what was asked, the strength aside, if the columns without adapters have answered it to the end.
    """

    latest: int = 0
    stopped: int = 0
    whole: tuple[Any, ...] | None = None

    def begin(self) -> int:
        self.latest += 1
        return self.latest

    def stop(self) -> None:
        self.stopped = self.latest


def answers(
    answerers: Sequence[Answerer], turns: Turns, again: bool, strength: float, *asked: Any
) -> Iterator[list[Any]]:
    """Yields what each column shows, after each token; `asked`: instruction, input, temperature, new tokens, seed.

    `again`: the strength alone has changed, so that a column without adapters keeps its answer if that is complete.
    """
    if again and turns.latest == 0:
        return
    kept = again and turns.whole == asked
    chosen = [i for i, a in enumerate(answerers) if a.adapts or not kept]
    instruction, about, temperature, new_tokens, seed = asked
    try:
        sampling = Sampling(temperature, seed=int(seed or 0))
        asking = [answerers[i] for i in chosen]
        rounds = side_by_side(asking, instruction or "", about or "", strength, int(new_tokens), sampling)
    except ValueError as error:
        gr.Warning(str(error))
        return
    number, turns.whole = turns.begin(), asked if kept else None

    def columns(latest: Sequence[Written]) -> list[Any]:
        shown = dict(zip(chosen, latest, strict=True))
        return [column(i, a, strength, shown[i]) if i in shown else gr.skip() for i, a in enumerate(answerers)]

    latest = [Written(state="writing")] * len(chosen)
    yield columns(latest)
    for latest in rounds:
        if turns.latest != number:
            return
        if turns.stopped == number:
            yield columns([w._replace(state="stopped") if w.state == "writing" else w for w in latest])
            return
        yield columns(latest)
    turns.whole = asked


def column(place: int, answerer: Answerer, strength: float, written: Written = UNASKED) -> str:
    return card(place, answerer.name, answerer.origin, written, strength if answerer.adapts else None)


def ask_tab(answerers: Sequence[Answerer]) -> None:
    adapts, turns = any(a.adapts for a in answerers), gr.State(Turns())
    with gr.Row():
        with gr.Column(scale=5, min_width=340):
            instruction = gr.Textbox(label="Instruction", lines=2, max_lines=8, elem_id="instruction")
            about = gr.Textbox(label="Input (may stay empty)", lines=1, max_lines=8, elem_id="about")
            gr.Examples(
                INSTRUCTIONS, [instruction, about], label="For example", example_labels=[i for i, _ in INSTRUCTIONS]
            )
            with gr.Row():
                go = gr.Button("Answer", variant="primary", elem_id="answer", scale=4, min_width=160)
                halt = gr.Button("Stop", elem_id="stop", scale=1, min_width=80)
        with gr.Column(scale=3, min_width=300):
            strength = gr.Slider(
                0, 1.5, 1.0, step=0.05, label="Strength of the adapter", visible=adapts, elem_id="strength",
                info="0: the base model. 1: as trained. Above: exaggerated.",
            )  # fmt: skip
            temperature = gr.Slider(0, 1.5, 0.0, step=0.1, label="Temperature", info="0: always the likeliest token.")
            new_tokens = gr.Slider(1, 256, 64, step=1, label="New tokens at most", elem_id="tokens")
            seed = gr.Number(0, label="Seed of the draws", precision=0, minimum=0)
    with gr.Row(equal_height=True, elem_classes="replies"):
        cards = [html(column(i, a, 1.0), elem_id=f"answer-{i}") for i, a in enumerate(answerers)]

    def ask(again: bool) -> Callable[..., Iterator[list[Any]]]:
        def fn(turns: Turns, strength: float, *asked: Any) -> Iterator[list[Any]]:
            yield from answers(answerers, turns, again, strength, *asked)

        return fn

    inputs = [turns, strength, instruction, about, temperature, new_tokens, seed]
    settings: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple", "concurrency_limit": AT_ONCE}
    gr.on([go.click, instruction.submit, about.submit], ask(False), inputs, cards, **settings)
    strength.release(ask(True), inputs, cards, **settings)
    halt.click(Turns.stop, turns, None, queue=False)


def read_tab(readers: Sequence[Reader]) -> None:
    first = readers[0]
    with gr.Row():
        with gr.Column(scale=4, min_width=340):
            which = gr.Radio([(r.name, i) for i, r in enumerate(readers)], value=0, label="Classifier", elem_id="which")
            text = gr.Textbox(
                label=first.inputs[0].capitalize(), lines=10, max_lines=20, elem_id="text", placeholder=PASTE
            )
            second = gr.Textbox(label=first.inputs[-1].capitalize(), lines=2, visible=len(first.inputs) > 1)
            gr.Examples(
                [[t] for t in TEXTS], [text], label="For example", example_labels=["a prize", "a bug", "a film"]
            )
            go = gr.Button("Classify", variant="primary", elem_id="classify")
        with gr.Column(scale=5, min_width=340):
            verdict = html(HINT, elem_id="verdict")
            colours, table = html(elem_id="coloured"), html(elem_id="listed")

    def classify(number: int, *texts: str) -> Any:
        reader = readers[int(number or 0)]
        try:
            reading = read(reader, *(text or "" for text in texts))
        except ValueError as error:
            gr.Warning(str(error))
            return gr.skip(), gr.skip(), gr.skip()
        label = reader.labels[reading.attribution.explained]
        text = coloured(label, reading.pieces, reading.cut)
        return probabilities(reader.labels, reading), text, listed(label, reading.pieces)

    def fit(number: int) -> Any:
        inputs = readers[int(number or 0)].inputs
        second = gr.update(label=inputs[-1].capitalize(), visible=len(inputs) > 1)
        return gr.update(label=inputs[0].capitalize()), second, HINT, "", ""  # what another one said goes

    which.change(fit, which, [text, second, verdict, colours, table], show_progress="hidden")
    go.click(classify, [which, text, second], [verdict, colours, table], concurrency_limit=AT_ONCE)


def build(answerers: Sequence[Answerer], readers: Sequence[Reader]) -> gr.Blocks:
    """Builds the page; one of the two kinds of models may be missing."""
    with Page(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        html(heading(TITLE, "The same words for every model, side by side. Nothing is sent to the internet."))
        with gr.Tabs():
            if answerers:
                with gr.Tab("Ask for something"):
                    ask_tab(answerers)
            if readers:
                with gr.Tab("Classify a text"):
                    read_tab(readers)
    return page
