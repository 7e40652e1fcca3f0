"""What a dataset becomes: examples, whose `id` is the row number in their source."""

from dataclasses import dataclass

# Alpaca's template (Taori et al. 2023) in the form of the report, appendix 5.1: one preamble with and without an input.
PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
RESPONSE_HEADER = "\n\n### Response:\n"


def normalised(text: str) -> str:
    """What is the same for texts that differ in case and white space alone."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
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
    def group(self) -> tuple[str, str]:
        """What no split parts: one of two examples with the same may not be trained on to test the other."""
        return self.identity

    @property
    def stratum(self) -> str | None:
        return self.label


@dataclass(frozen=True)
class Instruction:
    """An instruction, what it is about (may be empty), and the response wanted (None when only asked)."""

    id: int
    instruction: str
    input: str = ""
    response: str | None = None
    kind: str = ""

    def prompt(self, response_header: bool = True) -> str:
        about = f"\n\n### Input:\n{self.input}" if self.input else ""
        return f"{PREAMBLE}\n\n### Instruction:\n{self.instruction}{about}" + RESPONSE_HEADER * response_header

    @property
    def identity(self) -> tuple[str, str]:
        return self.instruction, self.input

    @property
    def group(self) -> tuple[str, str]:
        return self.identity

    @property
    def label(self) -> str | None:
        """What a record without is worth nothing for training."""
        return self.response

    @property
    def stratum(self) -> str:
        return self.kind


@dataclass(frozen=True)
class Preference:
    """A prompt with two answers, of which one is preferred to the other."""

    id: int
    prompt: str
    chosen: str
    rejected: str

    def records(self) -> tuple[Instruction, Instruction]:
        """Each answer as the response to the prompt: chosen, rejected."""
        chosen, rejected = (Instruction(self.id, self.prompt, response=text) for text in (self.chosen, self.rejected))
        return chosen, rejected

    @property
    def identity(self) -> tuple[str, str, str]:
        """The prompt and both answers in alphabetical order: which is the better one is the label."""
        first, second = sorted((self.chosen, self.rejected), key=lambda answer: (answer.casefold(), answer))
        return self.prompt, first, second

    @property
    def group(self) -> str:
        """Pairs of one prompt often share an answer too."""
        return normalised(self.prompt)

    @property
    def label(self) -> str | None:
        if not (self.chosen and self.rejected):
            return None
        return "first" if self.chosen == self.identity[1] else "second"

    @property
    def stratum(self) -> None:
        return None


Example = Labelled | Instruction | Preference
