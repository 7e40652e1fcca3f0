"""The examples that a dataset becomes; their `id` numbers the rows of the source (two ids a row in `Unpaired`).

`identity` and `label` are the content of an example. Examples with the same `key` are duplicates; those with the same
`group` stay on one side of a split, so that none is tested on what another one taught. A split keeps the shares of each
`stratum`, by whose values each part is described.
"""

import unicodedata
from dataclasses import dataclass

from tasks._cells import INVISIBLE

# Alpaca's template (Taori et al. 2023) in the form of the report, appendix 5.1: one preamble with and without an input.
PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
RESPONSE_HEADER = "\n\n### Response:\n"


def normalised(text: str) -> str:
    """Returns a form that texts share if they differ only in case, white space, what cannot be seen, and how Unicode
    puts accents together."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(INVISIBLE))
    return " ".join(text.casefold().split())


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with a class. Only `text` may be cut when it is too long; `kept` follows it whole."""

    id: int
    text: str
    kept: str = ""
    label: str | None = None

    @property
    def identity(self) -> tuple[str, str]:
        return self.text, self.kept

    @property
    def key(self) -> tuple[str, ...]:
        return normalised(self.text), normalised(self.kept)

    @property
    def group(self) -> tuple[str, str]:
        return self.identity

    @property
    def stratum(self) -> str | None:
        return self.label


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction, what it is about (may be empty), and the response wanted (None if there is none to learn).

    `unfit` is the field of `Skipped` that says why it cannot be trained on; "" if it can.
    """

    id: int
    instruction: str
    input: str = ""
    response: str | None = None
    kind: str = ""
    unfit: str = ""

    def prompt(self, response_header: bool = True) -> str:
        about = f"\n\n### Input:\n{self.input}" if self.input else ""
        return f"{PREAMBLE}\n\n### Instruction:\n{self.instruction}{about}" + RESPONSE_HEADER * response_header

    @property
    def identity(self) -> tuple[str, ...]:
        return self.instruction, self.input

    @property
    def key(self) -> tuple[str, ...]:
        """Keeps the response as it stands: it can be about case, and two answers to a prompt are two examples."""
        return *self.group, self.response or ""

    @property
    def group(self) -> tuple[str, str]:
        return normalised(self.instruction), normalised(self.input)

    @property
    def label(self) -> str | None:
        """The response; a record without one cannot be trained on."""
        return self.response

    @property
    def stratum(self) -> str:
        return self.kind


@dataclass(frozen=True, slots=True)
class Rated(Instruction):
    """An instruction with one answer, and whether that is a good one (None if nothing says so)."""

    good: bool | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        return self.instruction, self.input, self.response or ""

    @property
    def key(self) -> tuple[str, ...]:
        """Keeps the response as it stands, except white space at the end."""
        return *self.group, (self.response or "").rstrip()

    @property
    def label(self) -> str | None:
        return None if self.good is None else "good" if self.good else "bad"

    @property
    def stratum(self) -> str:
        return self.label or ""


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt, what it is about (may be empty), and two answers, one of which is preferred to the other. `unfit` is as
    in `Instruction`."""

    id: int
    prompt: str
    chosen: str
    rejected: str
    input: str = ""
    unfit: str = ""

    def records(self) -> tuple[Instruction, Instruction]:
        """Returns each answer as the response to the prompt: chosen, rejected."""
        return (
            Instruction(self.id, self.prompt, self.input, self.chosen),
            Instruction(self.id, self.prompt, self.input, self.rejected),
        )

    @property
    def asked(self) -> str:
        return self.prompt + (f"\n{self.input}" if self.input else "")

    @property
    def identity(self) -> tuple[str, str, str]:
        """The prompt, and both answers in alphabetical order, since the label says which is better."""
        first, second = sorted((self.chosen, self.rejected), key=lambda answer: (answer.casefold(), answer))
        return self.asked, first, second

    @property
    def key(self) -> tuple[str, ...]:
        """Keeps the answers as they stand, except white space at the end."""
        asked, first, second = self.identity
        return normalised(asked), first.rstrip(), second.rstrip()

    @property
    def group(self) -> str:
        """The prompt alone, since pairs with one prompt often share an answer too."""
        return normalised(self.asked)

    @property
    def label(self) -> str | None:
        if not (self.chosen and self.rejected):
            return None
        return "first" if self.chosen == self.identity[1] else "second"

    @property
    def stratum(self) -> None:
        return None


Example = Labelled | Instruction | Preference
