"""Merges adapters into their base, and writes a folder in Hugging Face's format, which transformers loads as it is.

    python scripts/merge_lora.py --run runs/x --output merged
    python scripts/merge_lora.py --model gpt2-nano --adapter runs/x/adapter --output merged --dtype bf16
    python scripts/merge_lora.py --adapter runs/x/adapter runs/y/adapter --weights 0.7 0.3 --output merged
    python scripts/merge_lora.py --model gpt2-nano --untied-base --output untied

It merges in fp32, rounds once, and says how far the merged model is from the unmerged one. Adapters may be ours or
PEFT's. An adapted LM head becomes a matrix of its own beside the embedding. PEFT's own merge_and_unload adds it to the
embedding too, where the two are one matrix, as in GPT-2: load such an adapter on what --untied-base writes.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpt2_scratch.own_tokenizer import FILES, find_tokenizer
from gpt2_scratch.tokenizer import Tokenizer
from tasks import Columns, Task, find, join_lines
from training.data.hub_upload import check_upload
from training.data.sources import base_model, locate_rows
from training.data.special_tokens import texts_in
from training.flags.cli import run
from training.flags.preference import PairArgs, RatingArgs
from training.flags.task import PromptArgs, TextArgs, group_of
from training.storage.run_folder import ADAPTER, MODEL, RESULTS, nearest, read_run

if TYPE_CHECKING:
    from training.model.facts import Facts

Chosen = list[tuple[Path, float]]  # folders of adapters with their weights
TEXTS, LENGTH = 32, 128  # texts compared at most, tokens of each
WRITTEN = {"config.json", "model.safetensors", "README.md", "config.yaml", *FILES}


@dataclass(frozen=True)
class Args:
    output: Path
    """folder for the merged model"""
    adapter: tuple[Path, ...] = ()
    """folders of adapters, ours or PEFT's"""
    run: Path | None = None
    """folder of a finished run, in place of --adapter"""
    model: str | None = None
    """the base; None: where it was when the adapter was trained"""
    weights: tuple[float, ...] = ()
    """weight of each adapter; none given: 1. With weights of 0 the result is the base, bit for bit"""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """precision of the written weights"""
    untied_base: bool = False
    """write the base alone, with an LM head that is a matrix of its own"""
    data: Path | None = None
    """texts to compare merged and unmerged on; None: those of the training, if still there, else bundled ones"""
    encoding: str | None = None
    """encoding of --data, like cp1252; None: UTF-8, or what a byte order mark says"""
    text_column: tuple[str, ...] = ()
    """column or columns of the text in --data"""
    overwrite: bool = False
    """replace a model that --output holds"""
    push_to_hub: str | None = None
    """repository OWNER/NAME of the hub for the model. It is created if need be, and gets a card too"""

    def problems(self) -> list[str]:
        found = []
        if bool(self.adapter) + (self.run is not None) + self.untied_base != 1:
            found.append("--adapter, --run or --untied-base: give exactly one of them")
        if self.untied_base and self.model is None:
            found.append("--untied-base: which base? add --model")
        if self.untied_base and self.weights:
            found.append("--weights: --untied-base writes the base alone, without adapters; leave one of them out")
        elif self.weights and len(self.weights) != max(len(self.adapter), 1):
            found.append(f"--weights: {len(self.weights)} for {max(len(self.adapter), 1)} adapters; give one each")
        if not all(math.isfinite(weight) for weight in self.weights):
            found.append("--weights: must be finite")
        if self.data is not None and not self.text_column:
            found.append("--data: which column is the text? add --text-column")
        if self.text_column and self.data is None:
            found.append("--text-column: needs --data (the bundled texts have their own columns)")
        if self.encoding and self.data is None:
            found.append("--encoding: needs --data; the training texts are read as they were")
        return found + output_problems(self.output, self.overwrite)


def output_problems(output: Path, overwrite: bool) -> list[str]:
    output = output.resolve()
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if output.exists() and not output.is_dir():
        return [f"--output {output}: is a file"]
    if names - WRITTEN:
        return [f"--output {output}: holds other files ({', '.join(sorted(names - WRITTEN)[:3])}); choose a new folder"]
    if names and not overwrite:
        return [f"--output {output}: holds a model; add --overwrite or choose another folder"]
    if output == Path.cwd():
        return ["--output: is the current folder, which a model would replace; name a new one"]
    if not nearest(output).is_dir():
        return [f"--output {output}: {nearest(output)} is a file"]
    if output.name in (ADAPTER, MODEL) and (output.parent / RESULTS).exists():
        return [f"--output {output}: is where the run {output.parent} keeps what it trained; choose another folder"]
    place = nearest(output.parent)  # where the new folder is made before it takes the place of an old one
    return [] if os.access(place, os.W_OK) else [f"--output {output}: {place} cannot be written; choose another folder"]


def trained_texts(flags: dict[str, Any]) -> tuple[list[str], str] | None:
    """Returns texts and source as `texts_of` does, of a run with these flags; None where they are unknown or gone."""
    kinds = {"dpo_loss": PairArgs, "desirable_weight": RatingArgs, "label_column": TextArgs}
    kind: Any = next((kind for flag, kind in kinds.items() if flag in flags), PromptArgs)
    data = Path(flags["data"]) if flags.get("data") else None
    if data is None and flags.get("dataset") is None:
        return None
    try:
        task: Task = group_of(kind, flags).task(flags.get("dataset"), data)
        source = locate_rows(task, data, flags.get("encoding"))
        columns = task.columns_of(source.rows, target_needed=False)
        examples = [task.example(i, row, columns) for i, row in enumerate(source.rows[:TEXTS])]
    except ValueError:
        return None
    return [text for e in examples if (text := "\n".join(filter(None, texts_in(e))))], source.origin


def texts_of(args: Args, facts: "Facts") -> tuple[list[str], str]:
    """Returns texts and their source: those of --data, else those of the training, else bundled ones."""
    if args.data is None and (found := trained_texts(facts.args)):
        return found
    task: Task = find("instructions" if facts.labels is None else "spamassassin", Task)
    if args.text_column:
        task = replace(task, columns=(Columns(args.text_column, ""),))
    source = locate_rows(task, args.data, args.encoding)
    inputs = task.columns_of(source.rows, target_needed=False).inputs
    texts = (join_lines(tuple(str(row[name] or "") for name in inputs))[0] for row in source.rows)
    return [text for text in texts if text][:TEXTS], source.origin


def write(args: Args, facts: "Facts", chosen: Chosen, base: tuple[Path, Any], tokenizer: Tokenizer) -> None:
    """Writes the model of the `chosen` adapters on `base` (folder, shape), or without any the base alone."""
    from gpt2_scratch.precision import DTYPES
    from gpt2_scratch.pretrained import save_pretrained
    from training.flags.common import ModelArgs
    from training.model.merging import combined, merge_for_good
    from training.model.methods import build_language_model
    from training.storage.files import replace_folder

    if chosen:
        model = combined(chosen, args.model)
        merge_for_good(model)
    else:
        model = build_language_model(*base, ModelArgs(untie_head=args.untied_base))
    names = facts.label_names if chosen else {}
    dtype, output = DTYPES[args.dtype], args.output.resolve()
    replace_folder(output, lambda new: save_pretrained(model, new, tokenizer, dtype, **names))
    print(f"model   {args.output}, {args.dtype}" + ("" if chosen else ": the base alone"), flush=True)


def foreign_texts(folder: Path, texts: list[str], tokenizer: Tokenizer) -> int:
    """Returns how many texts transformers tokenises differently from the folder than training did."""
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    split = tokenizer.meaning == "text"
    return sum(
        read(text, split_special_tokens=split, verbose=False)["input_ids"] != tokenizer.encode(text) for text in texts
    )


def report(args: Args, facts: "Facts", chosen: Chosen, texts: list[str], source: str, tokenizer: Tokenizer) -> None:
    """Prints how far the written model, computed in fp32, is from base and adapters."""
    from training.model.facts import Facts
    from training.model.merging import combined, compare
    from training.model.saved import whole_model

    tokens = [some[:LENGTH] for some in tokenizer.encode_all(texts) if some]
    found = compare(combined(chosen, args.model), whole_model(args.output, Facts(labels=facts.labels)), tokens)
    print(f"texts   {len(tokens)} of {source}, {sum(map(len, tokens)):,} tokens")
    print(f"logits  differ from the unmerged model's by {found.logit:.2g} at most; the largest is {found.largest:.3g}")
    what = "likeliest next tokens" if facts.labels is None else "labels"
    print(f"        {found.changed:,} of {found.choices:,} {what} differ")
    if tokenizer.sha256 is not None:
        others = foreign_texts(args.output, texts, tokenizer)
        print(f"tokens  differ in transformers for {others} of {len(texts)} texts")


def merge(args: Args, folders: tuple[Path, ...], weights: tuple[float, ...]) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    from training.model.facts import BaseFacts, Facts
    from training.model.merging import common_facts
    from training.model.saved import find_base

    facts = common_facts(folders, args.model) if folders else Facts()
    base = find_base(folders[0], facts, args.model) if folders else base_model(args.model or "")
    if base[0].resolve() == args.output.resolve():
        raise ValueError(f"--output {args.output}: is the base itself; choose another folder")
    chosen = [(folder, weight) for folder, weight in zip(folders, weights, strict=True) if weight != 0]
    texts, source = texts_of(args, facts)
    tokenizer = find_tokenizer(*base)
    write(args, facts, chosen, base, tokenizer)
    if chosen:
        report(args, facts, chosen, texts, source, tokenizer)
    if args.push_to_hub is not None:
        from training.run.publish import publish

        facts = replace(facts, base=facts.base or BaseFacts(args.model or ""))
        publish(args.output, args.push_to_hub, facts, "transformers", args.run)


def main(args: Args) -> None:
    folders = args.adapter
    check_upload(args.push_to_hub)
    if args.run is not None:
        if read_run(args.run)["args"]["method"] == "full" or (args.run / "model").is_dir():
            raise ValueError(f"--run {args.run}: has no adapter; {args.run / 'model'} is the whole model already")
        folders = (args.run / "adapter",)
    merge(args, folders, args.weights or tuple(1.0 for _ in folders))


if __name__ == "__main__":
    run(main, Args, __doc__)
