"""What a dataset becomes: examples, whose `id` is the row number in their source.

`identity` and `label` are what an example says; two with the same `key` are one example given twice; two with the same
`group` never lie on two sides of a split, since one of them may not be trained on to test the other. A split keeps the
shares of each `stratum`, and what is said of a part is how many it has of each that is `counted`.
"""

from dataclasses import dataclass

# Alpaca's template (Taori et al. 2023) in the form of the report, appendix 5.1: one preamble with and without an input.
PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
RESPONSE_HEADER = "\n\n### Response:\n"


def normalised(text: str) -> str:
    """A form that texts share when they differ only in case and white space."""
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

    counted = stratum


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction, what it is about (may be empty), and the response wanted (None when only asked).

    `unfit`: why it is none to learn from, as a count of `Skipped`; "" where it is one.
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
    def identity(self) -> tuple[str, str]:
        return self.instruction, self.input

    @property
    def key(self) -> tuple[str, ...]:
        """The response counts as it stands: it can be about case, and two answers to a prompt are two examples."""
        return *self.group, self.response or ""

    @property
    def group(self) -> tuple[str, str]:
        return normalised(self.instruction), normalised(self.input)

    @property
    def label(self) -> str | None:
        """The response; a record without one is worth nothing for training."""
        return self.response

    @property
    def stratum(self) -> str:
        return self.kind

    @property
    def counted(self) -> str | None:
        return self.kind


@dataclass(frozen=True, slots=True)
class Rated(Instruction):
    """An instruction with one answer, and whether that is a good one; None where nothing says so."""

    good: bool | None = None

    @property
    def label(self) -> str | None:
        return None if self.good is None else "good" if self.good else "bad"

    @property
    def counted(self) -> str | None:
        return self.label


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt, what it is about (may be empty), and two answers, one of which is preferred to the other. `unfit` means
    what it means for an `Instruction`."""

    id: int
    prompt: str
    chosen: str
    rejected: str
    input: str = ""
    unfit: str = ""

    def records(self) -> tuple[Instruction, Instruction]:
        """Each answer as the response to the prompt: chosen, rejected."""
        return (
            Instruction(self.id, self.prompt, self.input, self.chosen),
            Instruction(self.id, self.prompt, self.input, self.rejected),
        )

    @property
    def asked(self) -> str:
        return self.prompt + (f"\n{self.input}" if self.input else "")

    @property
    def identity(self) -> tuple[str, str, str]:
        """The prompt and both answers in alphabetical order: which is the better one is the label."""
        first, second = sorted((self.chosen, self.rejected), key=lambda answer: (answer.casefold(), answer))
        return self.asked, first, second

    @property
    def key(self) -> tuple[str, ...]:
        """The answers count as they stand, but for white space at the end."""
        asked, first, second = self.identity
        return normalised(asked), first.rstrip(), second.rstrip()

    @property
    def group(self) -> str:
        """Pairs of one prompt often share an answer too."""
        return normalised(self.asked)

    @property
    def label(self) -> str | None:
        if not (self.chosen and self.rejected):
            return None
        return "first" if self.chosen == self.identity[1] else "second"

    @property
    def stratum(self) -> None:
        return None

    counted = stratum


Example = Labelled | Instruction | Preference
