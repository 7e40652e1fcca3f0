"""Counts what one training step asks of a GPU: kernels, copies, waits of the host; ours, and transformers with PEFT.

    python benchmarks/operator_counts.py --task cls --model gpt2-medium
    python benchmarks/operator_counts.py --task ift --attention padded

It needs neither a GPU nor data: tensors have shapes, but no numbers (_launches.py). The step has 8 texts of 400 tokens,
of which half are targets, and is the second one, in which the optimizer has its states.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from _work import CLASSES, PRECISIONS, Work, random_examples
from gpt2_scratch.config import GPT2Config
from training.flags.cli import run
from training.flags.common import MethodArgs
from training.flags.compute import ComputeArgs

if TYPE_CHECKING:
    from collections.abc import Callable

    from _launches import Launches

TEXTS, TOKENS = 8, 400
# Parts of the table, each with how the names of its operations begin; the first that fits counts.
PARTS = {
    "clipping and optimizer": ("_foreach_norm", "_foreach_mul_", "_foreach_add_", "_fused", "linalg_vector_norm"),
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "attention": ("_flash_attention", "_scaled_dot_product"),
    "norms": ("native_layer_norm",),
    "casts and copies": ("_to_copy", "_foreach_copy_", "copy_", "clone", "cat", "stack", "index", "new_zeros", "zeros"),
    "element-wise and other": ("",),
}


@dataclass(frozen=True)
class Args:
    method: MethodArgs
    task: Literal["cls", "ift"] = "cls"
    """a class of each text, or the second half of each text as targets"""
    model: str = "gpt2-medium"
    """a size of GPT-2"""
    precision: Literal["fp32", "bf16"] = "bf16"
    """precision of the matrix products, by autocast"""
    attention: Literal["flash", "padded"] = "flash"
    """ours: variable-length flash attention (Ampere and later, half precision) or padded rows"""

    @property
    def work(self) -> Work:
        return Work(self.task, self.model, self.precision, device="cpu")

    def problems(self) -> list[str]:
        return [*self.work.problems(), *self.work.problems_given(self.method)]


def main(args: Args) -> None:
    from _launches import as_on_a_gpu
    from _steps import use_device

    use_device(args.work)
    with as_on_a_gpu(args.attention) as fake:
        ours = counted(fake, our_step(fake, args.work, args.method, args.work.config), args.task)
        theirs = counted(fake, peer_step(fake, args.work, args.method), args.task)
    rows = [(name, _part(ours, name), _part(theirs, name)) for name in PARTS]
    rows += [
        ("all kernels", ours.kernels.total(), theirs.kernels.total()),
        ("copies to it", ours.copies, theirs.copies),
    ]
    rows += [("waits for it", ours.waits.total(), theirs.waits.total())]
    for name, *numbers in [("", "ours", "PEFT"), *rows]:
        print(f"{name:<24}" + "".join(f"{x:>8}" for x in numbers))


def _part(launches: "Launches", part: str) -> int:
    def place(name: str) -> str:
        return next(p for p, starts in PARTS.items() if name.startswith(starts))

    return sum(n for name, n in launches.kernels.items() if place(name) == part)


def our_step(fake: Any, work: Work, method: MethodArgs, config: GPT2Config) -> "Callable[[Any], Any]":
    from _steps import Training
    from gpt2_scratch.model import Classifier, LanguageModel

    with fake:
        model = Classifier(config, len(CLASSES)) if work.task == "cls" else LanguageModel(config)
        return Training(work, method, ComputeArgs(mixed_precision=PRECISIONS[work.precision]), model).update


def peer_step(fake: Any, work: Work, method: MethodArgs) -> "Callable[[Any], Any]":
    from _peer import PeerTraining, untrained

    with fake:
        return PeerTraining(work, method, untrained(work.task == "cls", work.config, use_cache=False)).update


def counted(fake: Any, step: "Callable[[Any], Any]", task: Literal["cls", "ift"]) -> "Launches":
    """Returns the counts of the second step."""
    from _launches import Launches, Transfers

    texts = random_examples(task, [TOKENS] * TEXTS, vocabulary=TOKENS)  # whichever; no number is looked at
    for _ in range(2):
        with (launches := Launches(fake)), Transfers(launches):
            step(texts)
    return launches


if __name__ == "__main__":
    run(main, Args, __doc__)
