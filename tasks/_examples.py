"""What a dataset becomes: examples, whose `id` is the row number in their source."""

from dataclasses import dataclass

# Alpaca's template (Taori et al. 2023) in the form of the report, appendix 5.1: one preamble with and without an input.
PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
RESPONSE_HEADER = "\n\n### Response:\n"


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
    def label(self) -> str | None:
        """What a record without is worth nothing for training."""
        return self.response

    @property
    def stratum(self) -> str:
        return self.kind


Example = Labelled | Instruction
