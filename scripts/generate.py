"""Generates answers: those of a base model, of a fine-tuned one, or both side by side.

    python scripts/generate.py --model gpt2-nano --prompt "The movie was" --raw
    python scripts/generate.py --run runs/tutor --prompt "What is the plural of 'mouse'?" --compare
    python scripts/generate.py --adapter trained-by-peft --prompt "Name a bird." --compare

An answer that the model did not end by itself is followed by [...]. A prompt that does not fit is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.sources import load_config
from gpt2_scratch.tokenizer import Tokenizer
from tasks import Instruction
from tasks._cells import writable
from training.data.hub import HubError, without_network
from training.data.sources import base_model
from training.evaluation.applied import refuse_classifier
from training.flags.cli import at_least, refuse, run
from training.flags.common import ModelArgs
from training.flags.task import GenerationArgs
from training.storage.run_folder import MODEL, base_of, read_run

OFFLINE = "python scripts/generate.py --model gpt2-nano --prompt 'The movie was' --raw"


Place = tuple[Path, GPT2Config]  # folder and shape of a model


@dataclass(frozen=True)
class What:
    """The prompts and the model"""

    prompt: tuple[str, ...]
    """one or more instructions"""
    input: str = ""
    """the input that belongs to the instruction"""
    raw: bool = False
    """continue the prompt as it stands, without Alpaca's template around it"""
    model: str | None = None
    """gpt2-nano (bundled), gpt2 and its larger sizes up to gpt2-xl, a hub repository, or a folder in HF format"""
    run: Path | None = None
    """folder of a finished run of finetune_ift, finetune_dpo or finetune_kto"""
    adapter: Path | None = None
    """folder of an adapter, ours or PEFT's, in place of --run; --model: its base, when that has moved"""
    compare: bool = False
    """with --run or --adapter: answer with the base model too"""
    special_tokens: Literal["text", "tokens"] | None = None
    """how to read what spells <|endoftext|> or another special token: as text or that token; None: as in training"""
    seed: int = 0
    """seed of sampling"""

    def problems(self) -> list[str]:
        found = at_least(self, 0, "seed")
        if self.model is None and self.run is None and self.adapter is None:
            found.append("--model, --run or --adapter: give one of them, and --model too when the base has moved")
        if self.compare and self.run is None and self.adapter is None:
            found.append("--compare: compares a run with its base; add --run or --adapter")
        if self.run is not None and self.adapter is not None:
            found.append("--run and --adapter: choose one; a run has its own adapter")
        if not all(text.strip() for text in self.prompt):
            found.append("--prompt: is empty")
        if self.raw and self.input:
            found.append(
                "--input: --raw continues the prompt as it stands; put the input into --prompt, or leave it out"
            )
        found += [
            f"--{name}: holds bytes that are not UTF-8; check the encoding of your terminal or file"
            for name, text in (("prompt", "".join(self.prompt)), ("input", self.input))
            if text != writable(text)
        ]
        return found


@dataclass(frozen=True)
class Args:
    what: What
    generation: GenerationArgs


def main(args: Args) -> None:
    what = args.what
    if args.generation.new_tokens == 0:
        raise ValueError("--new-tokens 0: nothing would be written")
    results = read_run(what.run) if what.run else None
    if results and results["script"] == "finetune_cls":
        raise ValueError(f"--run {what.run}: is a classifier; scripts/predict.py applies it")
    answer_all(args, results, place_of(what, results))


def base_of_adapter(adapter: Path, model: str | None) -> Place:
    """Returns `model`, or the base that the adapter was trained on. Raises ValueError for a classifier's adapter."""
    from training.model.facts import read_facts  # takes seconds
    from training.model.saved import find_base

    facts = read_facts(adapter)
    if facts.labels is not None:
        raise ValueError(f"--adapter {adapter}: is a classifier's, which writes no text")
    return find_base(adapter, facts, model)


def place_of(what: What, results: dict[str, Any] | None) -> Place:
    """Returns the base, or a run's whole model where that answers without its base."""
    if results and what.run is not None and (what.run / MODEL).is_dir() and not what.compare:
        if what.model is not None:
            raise ValueError(f"--model {what.model}: the run has a whole model; --compare asks its base too")
        return what.run / MODEL, load_config(what.run / MODEL)
    name = what.model or base_of(what.run or what.adapter or Path()) or ""
    try:
        base = base_of_adapter(what.adapter, what.model) if what.adapter else base_model(name)
    except HubError as error:
        raise ValueError(f"{error}{without_network(OFFLINE) if error.unreachable else ''}") from error
    except ValueError as error:
        moved = f"; {name} was the base in training: if it has moved, name it with --model"
        raise ValueError(f"{error}{moved if results and what.model is None else ''}") from error
    refuse_classifier(f"--model {name}", base[0])
    return base


def encoded(
    questions: list[Instruction], tokenizer: Tokenizer, raw: bool, header: bool, context: int, new_tokens: int
) -> list[list[int]]:
    """Encodes the questions, and says which answers have less room than asked for. Raises ValueError when a prompt
    leaves none."""
    from training.data.batches import encode_prompt

    prompts = [
        tokenizer.encode(q.instruction) if raw else encode_prompt(tokenizer, q, response_header=header)
        for q in questions
    ]
    form = "" if raw else " in its form"
    refuse(
        [
            f"--prompt {question.instruction[:40]!r}: has {len(tokens):,} tokens{form}; the model's context is "
            f"{context:,}, answer included; shorten it" + " or --input" * bool(question.input)
            for question, tokens in zip(questions, prompts, strict=True)
            if len(tokens) >= context
        ]
    )
    for question, tokens in zip(questions, prompts, strict=True):
        if len(tokens) + new_tokens > context:
            print(f"note    the answer to {question.instruction[:40]!r} has room for {context - len(tokens):,} tokens")
    return prompts


def answer_all(args: Args, results: dict[str, Any] | None, place: Place) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    from accelerate import Accelerator

    from gpt2_scratch.generate import Sampling
    from training.data.special_tokens import special_tokens_note
    from training.evaluation.inference import answer
    from training.model.facts import Facts, facts_of, read_facts
    from training.model.methods import build_language_model
    from training.model.saved import adapted, adapter_tokenizer, find_base, rebuild, tokenizer_of

    accelerator, what, generation = Accelerator(), args.what, args.generation
    facts, models = Facts(), dict[str, Any]()
    if what.adapter is not None:
        facts = read_facts(what.adapter)
        tokenizer = adapter_tokenizer(what.adapter, what.model)
    elif what.run is not None and results is not None:
        facts = facts_of(results)
        tokenizer = tokenizer_of(what.run, results, what.model)
        if what.compare and (what.run / MODEL).is_dir():  # of an adapter the base has been checked
            find_base(what.run, facts, what.model)
    else:
        tokenizer = find_tokenizer(*place)
    flags, config = facts.args, place[1]
    refuse(generation.problems_given(ModelArgs(what.model or flags.get("model") or str(place[0])), config))
    tokenizer = tokenizer.reading(what.special_tokens or flags.get("special_tokens", "text"))
    for note in [*tokenizer.notes, *special_tokens_note(tokenizer, [*what.prompt, what.input], "prompts")]:
        print(f"note    {note}")
    header = flags.get("response_header", True)
    questions = [Instruction(i, text, what.input) for i, text in enumerate(what.prompt)]
    prompts = encoded(questions, tokenizer, what.raw, header, config.context, generation.new_tokens)
    sampling = Sampling(generation.temperature, generation.top_k, generation.top_p, what.seed)
    if what.compare or (what.run is None and what.adapter is None):
        models["base"] = build_language_model(*place, ModelArgs())
    if results is not None and what.run is not None:
        models["fine-tuned"] = rebuild(what.run, results, what.model)
    if what.adapter is not None:
        models["fine-tuned"] = adapted(what.adapter, what.model)
    texts = {
        name: answer(
            model.to(accelerator.device).eval(), tokenizer, prompts, accelerator, generation.new_tokens, sampling
        )
        for name, model in models.items()
    }
    for i, question in enumerate(questions):
        print(f"> {question.instruction}" + (f"\n  {question.input}" if question.input else ""))
        for name, answers in texts.items():
            ending = "" if answers[i].stopped else " [...]"
            print((f"{name}: " if len(texts) > 1 else "") + answers[i].text + ending)
        print()


if __name__ == "__main__":
    run(main, Args, __doc__)
