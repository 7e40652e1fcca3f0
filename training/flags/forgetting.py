"""Flags of the measurement of forgetting. Nothing heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks._task import BUNDLED
from training.flags.cli import at_least, changed_flags, flag
from training.flags.common import MethodArgs
from training.flags.fields import Rare

GENERAL = "general.txt"


@dataclass(frozen=True)
class ForgettingArgs:
    """Forgetting: the loss on general text before training and after"""

    forgetting_data: str = "bundled"
    """a text file; bundled: public speeches; none: do not measure"""
    forgetting_tokens: Rare[int | None] = 10_000
    """tokens of the text that are scored, before the training and after. 10,000 take 3 s each time for gpt2-nano on a
    core, and 206 MB for logits; None: all (80,068 of the bundled text)"""
    forgetting_curve: Rare[bool] = False
    """also measure the task metric (on the validation examples, else the test examples) and the general loss with the
    adapters at 0, 0.25, ... 1.5 of their strength, and draw both: seven more evaluations; 0 is the frozen weights
    alone, from which --lora-init loftq does not start"""

    def source(self) -> str | None:
        """Returns the name of the text in results.json; None when nothing is measured."""
        names = {"bundled": f"bundled {GENERAL}", "none": None}
        return names.get(self.forgetting_data, self.forgetting_data)

    def text(self) -> str:
        """Returns the text. Raises ValueError for a file that cannot be read or holds too little text."""
        asked = f"--forgetting-data {self.forgetting_data}:"
        path = BUNDLED / GENERAL if self.forgetting_data == "bundled" else Path(self.forgetting_data)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ValueError(f"{asked} {error.strerror}; give a text file, bundled or none") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{asked} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
        if len(text.strip()) < 2:
            raise ValueError(f"{asked} holds fewer than two tokens of text; give another file, bundled or none")
        return text

    def problems(self) -> list[str]:
        found = at_least(self, 1, "forgetting_tokens")
        if self.source() is None:
            given = [name for name in changed_flags(self) if name not in ("forgetting_data", "forgetting_curve")]
            found += ["--forgetting-curve: needs --forgetting-data"] * self.forgetting_curve
            return found + [
                f"{flag(name)}: nothing is measured without --forgetting-data; leave it out" for name in given
            ]
        try:
            self.text()
        except ValueError as error:
            found.append(str(error))
        return found

    def problems_given(self, method: MethodArgs) -> list[str]:
        if self.forgetting_curve and not method.adapts:
            return [f"--forgetting-curve: --method {method.method} has no adapters to scale; leave it out"]
        if self.forgetting_curve and method.train_embedding:
            return ["--forgetting-curve: scales adapters, and --train-embedding trains more; leave one of the two out"]
        return []

    def check_examples(self, held_out: Sequence[object]) -> None:
        """Raises ValueError when --forgetting-curve is given and no examples are held out for its task metric."""
        if self.forgetting_curve and not held_out:
            raise ValueError("--forgetting-curve: there are no validation or test examples for the task metric")
