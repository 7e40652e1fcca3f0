"""The rows of the comparison, each with the commands of both sides."""

import shlex
from dataclasses import dataclass
from itertools import product

HEAD_TOO = ("--lora-targets", "q", "k", "v", "attn-out", "mlp-in", "mlp-out", "lm-head")
BATCH_SIZE = {"cls": "8", "ift": "4"}
TASKS = {"cls": "classification", "ift": "instructions"}


@dataclass(frozen=True)
class Row:
    """`peer` and `ours` are a script of benchmarks/ and its flags; `form` says what the other side is."""

    name: str
    task: str
    method: str
    precision: str
    form: str
    peer: tuple[str, ...]
    ours: tuple[str, ...]

    def words(self, side: str, device: str) -> list[str]:
        script, *flags = self.peer if side == "peer" else self.ours
        return [f"benchmarks/{script}", *flags, "--device", device]

    def command(self, side: str, device: str) -> str:
        """Returns what a user types to measure one side alone; it identifies a measurement."""
        return "python " + shlex.join(self.words(side, device))


def row_names(precisions: tuple[str, ...]) -> tuple[str, ...]:
    """Names all rows of training against transformers and PEFT in these precisions, as `find_row` understands them."""
    work = ("cls-lora", "cls-full", "ift-lora", "ift-lora-masked", "ift-full")
    default = tuple(f"cls-lora-{precision}-default" for precision in precisions)
    return default + tuple(f"{work}-{precision}-grouped" for precision, work in product(precisions, work))


OTHER_ROWS = ("ours-lora-full", "ours-cached", "generate-nano", "generate-124m")


def find_row(name: str, model: str, steps: int) -> Row:
    """Returns the row of a name such as ift-lora-masked-bf16-grouped: task, method, our precision, the other's form.

    The default form is in fp32 whatever our side does. Raises ValueError for an unknown name.
    """
    known = (*row_names(("fp32", "bf16", "fp16")), *OTHER_ROWS)
    if name not in known:
        raise ValueError(f"--rows {name}: must be among {', '.join(known)}")
    if name.startswith("generate"):
        size = {"nano": "gpt2-nano", "124m": "gpt2"}[name.removeprefix("generate-")]
        sides = (("generate_time.py", "--by", by, "--model", size) for by in ("transformers", "ours"))
        return Row(name, f"generation, {size}", "greedy", "fp32", "transformers", *sides)
    if name.startswith("ours"):
        return _ours_against_ours(name, model, steps)
    task, method, *masked, precision, form = name.split("-")
    flags = ["--task", task, "--method", method, "--model", model, "--batch-size", BATCH_SIZE[task]]
    if task == "ift":
        flags += ["--mask-prompt" if masked else "--no-mask-prompt", *(HEAD_TOO if method == "lora" else ())]
    flags += ["--steps", str(steps), "--precision"]
    peer = ("peft_time.py", *flags, "fp32" if form == "default" else precision, "--form", form)
    shown = {"default": "default, fp32", "grouped": "grouped"}[form]
    title = f"{TASKS[task]}{', prompt masked' if masked else ''}, {model}"
    return Row(name, title, method, precision, shown, peer, ("step_time.py", *flags, precision))


def _ours_against_ours(name: str, model: str, steps: int) -> Row:
    """Returns a row that shows what one method of ours saves against another."""
    common = ("step_time.py", "--task", "cls", "--steps", str(steps), "--model")
    if name == "ours-lora-full":
        lora, full = ((*common, "gpt2-medium", "--method", method) for method in ("lora", "full"))
        return Row(name, "classification, gpt2-medium", "lora", "fp32", "ours, full", full, lora)
    cached = (*common, model, "--last-blocks", "4", "--cache-frozen", "memory")
    title, every = f"classification, {model}", (*common, model)
    return Row(name, title, "lora, last 4 blocks, cached", "fp32", "ours, all blocks", every, cached)
