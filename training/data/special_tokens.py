"""Notes, before training, on the base's tokenizer and on special tokens that the data spell."""

from collections.abc import Iterable, Iterator
from typing import Any

from gpt2_scratch.tokenizer import Tokenizer, special_tokens_in
from tasks import Instruction, Labelled, Preference, Splits

SHOWN = 4  # of the special tokens


def texts_in(example: Any) -> Iterator[str]:
    """Yields the parts of an example that become tokens."""
    if isinstance(example, Labelled):
        yield from (example.text, example.kept)
    elif isinstance(example, Instruction):
        yield from (example.instruction, example.input, example.response or "")
    elif isinstance(example, Preference):
        yield from (example.prompt, example.input, example.chosen, example.rejected)


def special_tokens_note(tokenizer: Tokenizer, texts: Iterable[str], unit: str) -> list[str]:
    """Returns a note where texts spell special tokens. `unit`: what `texts` are called there."""
    counts = sorted(special_tokens_in(texts, tokenizer).items(), key=lambda item: -item[1])
    if not counts:
        return []
    shown = ", ".join(f"{text} {count:,}" for text, count in counts[:SHOWN])
    more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    if tokenizer.meaning == "text":
        read = "ordinary text; --special-tokens tokens reads those that the base has, and end markers, as tokens"
    else:
        read = "tokens where the base has them, end markers of other models as the end of text"
    return [f"{unit} that spell special tokens ({shown}{more}): read as {read}"]


def notes_on(tokenizer: Tokenizer, splits: Splits[Any]) -> list[str]:
    """Returns the notes on the base's tokenizer and on special tokens in the data."""
    found = special_tokens_note(
        tokenizer, (text for part in splits.named().values() for e in part for text in texts_in(e)), "texts"
    )
    return [*tokenizer.notes, *found]
