"""Times greedy answers to Alpaca prompts, all in one batch: ours, or transformers' `generate` with its usual cache.

    python benchmarks/generate_time.py --by ours --model gpt2-nano
    python benchmarks/generate_time.py --by transformers --model gpt2

gpt2-nano has its bundled weights, larger sizes random ones. Both stop a row at its end of text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from _work import Work, shuffled_examples
from gpt2_scratch.config import SIZES
from gpt2_scratch.sources import BUNDLED
from gpt2_scratch.tokenizer import GPT2
from training.flags.cli import at_least, run

if TYPE_CHECKING:
    from gpt2_scratch.model import LanguageModel

Continue = Callable[[list[list[int]]], list[list[int]]]
PROMPT_ROOM = 256  # tokens


@dataclass(frozen=True)
class Args:
    by: Literal["ours", "transformers"] = "ours"
    """whose generation is timed"""
    model: str = "gpt2-nano"
    """a size of GPT-2"""
    prompts: int = 32
    """prompts, all in one batch"""
    new_tokens: int = 128
    """the most new tokens of each prompt"""
    repeats: int = 2
    """passes over the prompts that are timed; one more comes first"""
    device: Literal["cpu", "cuda"] | None = None
    """None: a GPU where there is one"""
    json: Path | None = None
    """file for the numbers"""

    def problems(self) -> list[str]:
        found = Work(model=self.model).problems() + at_least(self, 1, "prompts", "new_tokens", "repeats")
        if not found and SIZES[self.model].context - self.new_tokens < PROMPT_ROOM:
            most = SIZES[self.model].context - PROMPT_ROOM
            found.append(f"--new-tokens {self.new_tokens}: must be at most {most}, which leaves room for a prompt")
        return found


def main(args: Args) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    from accelerate import Accelerator

    from _steps import clock, random_model, report, use_device
    from gpt2_scratch.model import LanguageModel
    from gpt2_scratch.pretrained import load_weights
    from training.data.batches import encode_prompt
    from training.run.device import forget_peak
    from training.run.results import environment, peak_memory_mib

    work = Work(task="ift", model=args.model, device=args.device)
    use_device(work)
    accelerator, longest = Accelerator(), work.config.context - args.new_tokens
    prompts = [encode_prompt(GPT2, e, longest) for e in shuffled_examples("ift")[: args.prompts]]
    model = random_model(work).eval().to(accelerator.device)
    assert isinstance(model, LanguageModel)
    if args.model in BUNDLED:
        load_weights(model, BUNDLED[args.model])
    go_on = (ours if args.by == "ours" else theirs)(model, args.new_tokens)
    del model  # theirs has copied the weights, and whoever generates needs them once
    forget_peak(accelerator.device)  # of building
    texts = go_on(prompts)
    seconds = clock(go_on, [prompts] * args.repeats, accelerator.device)
    tokens = args.repeats * sum(len(text) for text in texts)
    numbers = {"tokens_per_second": tokens / seconds, "seconds": seconds, "tokens": tokens, "texts": texts}
    numbers |= {"peak_memory_mib": peak_memory_mib(accelerator), "environment": environment(accelerator)}
    report(numbers, args.json)


def ours(model: "LanguageModel", new_tokens: int) -> Continue:
    from gpt2_scratch.generate import generate

    return lambda prompts: [
        done.tokens for done in generate(model, prompts, GPT2.vocabulary, new_tokens, rows=len(prompts))
    ]


def theirs(model: "LanguageModel", new_tokens: int) -> Continue:
    """Uses transformers' model with the same weights; pads prompts on the left, as its documentation asks."""
    from typing import cast

    import torch
    from transformers import GPT2LMHeadModel

    from _peer import transformers_model
    from gpt2_scratch.tokenizer import END_OF_TEXT

    device = model.lm_head.weight.device
    peer = cast(GPT2LMHeadModel, transformers_model(model)).eval().to(device)

    def go_on(prompts: list[list[int]]) -> list[list[int]]:
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[END_OF_TEXT] * (longest - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        written = peer.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
        return [
            (row + [END_OF_TEXT])[: [*row, END_OF_TEXT].index(END_OF_TEXT)] for row in written[:, longest:].tolist()
        ]

    return go_on


if __name__ == "__main__":
    run(main, Args, __doc__)
