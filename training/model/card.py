"""Writes model cards: what an adapter or model is, how to load it, and the data, metrics and flags of its run."""

import json
from collections.abc import Mapping
from typing import Any

from evidence.intervals import shown
from gpt2_scratch.sources import on_hub, reachable, repository_of
from gpt2_scratch.tokenizer import END_OF_TEXT
from training.model.facts import Facts

CARD = "README.md"
LIBRARIES = ("peft", "transformers")
BITS = {4: 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True', 8: "load_in_8bit=True"}
PARTS = {"before": "before", "val": "validation", "test": "test"}


def _code(facts: Facts, place: str, peft: bool) -> str:
    """Returns code that loads it with PEFT or transformers; an adapter's class names can stand nowhere else."""
    labels, bits = facts.labels, facts.args.get("base_bits")
    kind = f"Auto{'Peft' * peft}ModelFor{'CausalLM' if labels is None else 'SequenceClassification'}"
    lines, more = [f"from {'peft' if peft else 'transformers'} import {kind}", ""], ""
    if labels is not None and peft:
        lines.append(f"id2label = {dict(enumerate(labels))!r}")
        more = ", id2label=id2label, label2id={name: i for i, name in id2label.items()}"
        more += f", pad_token_id={END_OF_TEXT if facts.pad_token_id is None else facts.pad_token_id}"
    if bits and peft:
        lines.insert(0, "from transformers import BitsAndBytesConfig")
        lines.append(f"quantised = BitsAndBytesConfig({BITS[bits]})")
        more += ", quantization_config=quantised"
    return "\n".join([*lines, f"model = {kind}.from_pretrained({place!r}{more})"])


def _metrics(results: Mapping[str, Any]) -> str:
    """Returns a table of the metrics with their intervals."""
    parts = {title: results[name] for name, title in PARTS.items() if results.get(name)}
    if not parts:
        return "It was trained on all examples; none were held out to measure it."
    every = [(name, m) for part in parts.values() for name, m in part.items() if isinstance(m, dict)]
    names = dict.fromkeys(name for name, m in every if isinstance(m.get("value"), int | float))  # not a table by class
    rows = [f"| | {' | '.join(parts)} |", "|---" * (len(parts) + 1) + "|"]
    rows += [f"| {n} | {' | '.join(shown(p[n]) if n in p else '' for p in parts.values())} |" for n in names]
    counts = ", ".join(
        f"{next(m['n'] for m in part.values() if isinstance(m, dict) and isinstance(m.get('n'), int)):,} of {title}"
        for title, part in parts.items()
    )
    return "\n".join([*rows, "", f"In brackets: 95% intervals over examples ({counts})."])


def _training(results: Mapping[str, Any]) -> list[str]:
    """Returns what results.json says: metrics, data, and the command that repeats the run."""
    data = results["data"]
    rows = ", ".join(f"{count:,} {part}" for part, count in data["rows"].items())
    found = ["## Results", _metrics(results), "## Data", f"{data['source']}: {rows} (sha256 {data['sha256']})."]
    return [*found, "## Training", f"    python scripts/{results['script']}.py --config config.yaml"]


def _base_line(base: str) -> str:
    """Returns the line of the head that names the base; none for a folder, with which the hub refuses a card."""
    try:
        return f"base_model: {json.dumps(base)}\n" if on_hub(base) and repository_of(base) else ""
    except ValueError:  # a folder that is no longer there
        return ""


def card(facts: Facts, place: str, library: str, results: Mapping[str, Any] | None = None) -> str:
    """Returns the text of README.md.

    `place`: the folder or repository to load; `library`: peft or transformers if one of them loads it, else the flag of
    our own scripts; `results`: those of the run, if there was one.
    """
    assert facts.base is not None, "a card names the base"
    base, labels = facts.base.name, facts.labels
    about = "a language model" if labels is None else f"a classifier of {len(labels)} classes"
    what = "An adapter that makes" if library in ("peft", "--adapter") else "A model that was trained to be"
    load = f"    python scripts/predict.py {library} FOLDER --data FILE"
    if labels is None:
        load = f"    python scripts/generate.py {library} FOLDER --prompt TEXT"
    if library in LIBRARIES:
        load = f"```python\n{_code(facts, place, library == 'peft')}\n```"
    head = _base_line(base) + f"library_name: {library}\n" * (library in LIBRARIES)
    head += f"pipeline_tag: text-{'generation' if labels is None else 'classification'}\n"
    parts = [f"---\n{head}---", f"{what} {about} of {base}.", load]
    if facts.base.tokenizer is not None:
        parts.append("Nothing stands around a text: call the base's tokenizer with add_special_tokens=False.")
    if library == "peft" and not on_hub(base):
        place = reachable(base)
        parts.append(f"The base is the folder {place}; where it is elsewhere, change its place in adapter_config.json.")
    if facts.args.get("base_bits") and library in ("peft", "--adapter"):
        parts.append(f"It was trained beside a base in {facts.args['base_bits']} bits, and fits that one alone.")
    return "\n\n".join(parts + (_training(results) if results else [])) + "\n"
