"""Loads our adapters in PEFT and PEFT's here, and prints the largest logit difference as a Markdown table.

    python benchmarks/peft_exchange.py
    python benchmarks/peft_exchange.py --model gpt2 --steps 5

Every adapter is trained for a few steps of AdamW in fp32, saved, and loaded by the other side on the same base. Logits
are compared on whole texts: all positions of a language model, the classes of a classifier. The numbers are relative to
the largest logit; "moves" is how far training moved the logits, and so how much there was to get wrong.
"""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel
from transformers.utils import logging

from _flags import above_zero
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.pretrained import save_pretrained, weights_hash
from gpt2_scratch.tokenizer import END_OF_TEXT, GPT2
from lora.adapter import merge
from tasks import read_rows
from tasks._task import BUNDLED
from training.data.sources import base_model
from training.flags.cli import at_least, run
from training.flags.method import BLOCK_TARGETS, MethodArgs
from training.model.facts import BaseFacts, Facts
from training.model.merging import logits
from training.model.methods import apply_method
from training.model.saved import Model, adapted, build, save_adapter

LABELS = ["no", "yes"]
HEAD = (*BLOCK_TARGETS, "lm-head")
NAMES = ["c_attn", "c_proj", "c_fc"]
GIVES: dict[str, MethodArgs] = {
    "lora, all six matrices": MethodArgs(),
    "lora, q and v": MethodArgs(lora_targets=("q", "v")),
    "lora, last 2 blocks": MethodArgs(last_blocks=2),
    "lora, rslora": MethodArgs(lora_scaling="rslora"),
    "dora": MethodArgs("dora"),
    "pissa": MethodArgs("pissa"),
    "olora": MethodArgs("olora"),
    "lora-fa": MethodArgs("lora-fa"),
    "lora, with lm-head": MethodArgs(lora_targets=HEAD),
}
TAKES: dict[str, dict[str, Any]] = {
    "lora, c_attn": {"target_modules": ["c_attn"]},
    "lora, c_attn c_proj c_fc": {"target_modules": NAMES},
    "lora, all-linear": {"target_modules": "all-linear"},
    "lora, layers_to_transform": {"target_modules": NAMES, "layers_to_transform": [0, 1], "layers_pattern": "h"},
    "lora, rank_pattern, alpha_pattern": {
        "target_modules": NAMES,
        "rank_pattern": {"c_attn": 24},
        "alpha_pattern": {"c_fc": 4},
    },
    "rslora": {"target_modules": NAMES, "use_rslora": True},
    "dora": {"target_modules": NAMES, "use_dora": True},
    "pissa, converted": {"target_modules": NAMES, "init_lora_weights": "pissa"},
    "lora, with lm_head": {"target_modules": [*NAMES, "lm_head"]},
}


@dataclass(frozen=True)
class Args:
    model: str = "gpt2-nano"
    """the base"""
    steps: int = 10
    """steps of AdamW, one text each"""
    lr: float = 5e-3
    """learning rate"""
    texts: int = 8
    """texts to train and compare on, of at most 64 tokens"""

    def problems(self) -> list[str]:
        return at_least(self, 1, "steps", "texts") + above_zero(self, "lr")


@dataclass
class Exchange:
    args: Args
    source: Path
    config: GPT2Config
    texts: list[list[int]]

    def plain(self, classifies: bool) -> Model:
        return build(self.source, self.config, Facts(labels=LABELS if classifies else None))

    def of_transformers(self, classifies: bool, source: Path | None = None) -> nn.Module:
        classes: dict[str, Any] = {"num_labels": len(LABELS), "pad_token_id": END_OF_TEXT} if classifies else {}
        kind = GPT2ForSequenceClassification if classifies else GPT2LMHeadModel
        return kind.from_pretrained(source or self.source, dtype=torch.float32, **classes).eval()

    def train(self, model: nn.Module, of: Any) -> nn.Module:
        """Trains on `of`(model, text), logits (T, V) or (1, classes); the classes are those of even and odd texts."""
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=self.args.lr)
        for step in range(self.args.steps):
            at = step % len(self.texts)
            text = self.texts[at]
            found = of(model, text)
            labels = torch.tensor([at % 2] if len(found) == 1 else [*text[1:], END_OF_TEXT])
            F.cross_entropy(found, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.eval()

    def all_logits(self, model: nn.Module, of: Any) -> list[Tensor]:
        with torch.no_grad():
            return [of(model, text) for text in self.texts]

    def give(self, method: MethodArgs, classifies: bool, folder: Path) -> list[float]:
        """Returns (moves, difference, difference once PEFT has merged it) for an adapter of ours."""
        ours = self.plain(classifies)
        start = self.all_logits(ours, logits)
        apply_method(ours, method, 0)
        self.train(ours, logits)
        base = BaseFacts(self.args.model, weights_hash(self.source))
        save_adapter(folder, ours, method.method, Facts(base=base, labels=LABELS if classifies else None))
        expected = self.all_logits(ours, logits)
        source = self.source
        if "lm-head" in method.lora_targets:
            source = folder / "untied"
            untied = self.plain(classifies)
            untied.untie()
            save_pretrained(untied, source, GPT2)
        theirs = PeftModel.from_pretrained(self.of_transformers(classifies), folder / "adapter").eval()
        found = self.all_logits(theirs, peft_logits)
        again = PeftModel.from_pretrained(self.of_transformers(classifies, source), folder / "adapter")
        merged = self.all_logits(again.merge_and_unload(), peft_logits)
        return [relative(start, expected), relative(found, expected), relative(merged, expected)]

    def take(self, settings: dict[str, Any], classifies: bool, folder: Path) -> list[float]:
        """Returns the same for an adapter of PEFT's, merged by us."""
        task = "SEQ_CLS" if classifies else "CAUSAL_LM"
        config = LoraConfig(r=16, lora_alpha=16, task_type=task, fan_in_fan_out=True, **settings)
        theirs: Any = get_peft_model(self.of_transformers(classifies), config)
        initial = None
        if "init_lora_weights" in settings:  # PEFT's way to a file that fits the untouched base
            initial = str(folder / "start")
            config.init_lora_weights = True
            theirs.save_pretrained(initial)
            config.init_lora_weights = settings["init_lora_weights"]
        start = self.all_logits(theirs, peft_logits)
        self.train(theirs, peft_logits)
        theirs.save_pretrained(folder / "adapter", path_initial_model_for_weight_conversion=initial)
        expected = self.all_logits(theirs, peft_logits)
        ours = adapted(folder / "adapter", self.args.model)
        found = self.all_logits(ours, logits)
        merge(ours)
        return [relative(x, expected) for x in (start, found, self.all_logits(ours, logits))]


def peft_logits(model: nn.Module, text: list[int]) -> Tensor:
    """Returns logits (T, V), or (1, classes)."""
    found = model(torch.tensor([text])).logits
    return found[0] if found.dim() == 3 else found


def relative(found: list[Tensor], expected: list[Tensor]) -> float:
    largest = max(float(x.abs().max()) for x in expected)
    return max(float((x - y).abs().max()) for x, y in zip(found, expected, strict=True)) / largest


def main(args: Args) -> None:
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    rows = read_rows(BUNDLED / "instructions.jsonl").rows
    texts = [GPT2.encode(f"{row['instruction']} {row['response']}")[:64] for row in rows[: args.texts]]
    exchange = Exchange(args, *base_model(args.model), texts)
    print(f"{args.model}, fp32, {sum(map(len, texts))} tokens in {len(texts)} texts, {args.steps} steps\n")
    print("| adapter of | trained as | model | moves | differs by | merged |\n|---|---|---|---|---|---|")
    work: list[tuple[str, str, Any, Any]] = [
        ("ours, to PEFT", name, exchange.give, method) for name, method in GIVES.items()
    ]
    work += [("PEFT, to ours", name, exchange.take, settings) for name, settings in TAKES.items()]
    for direction, name, act, what in work:
        # A classifier has no LM head; PEFT loses the class head when it converts.
        for classifies in (False,) if "head" in name or "converted" in name else (False, True):
            with tempfile.TemporaryDirectory() as folder:
                moves, difference, merged = act(what, classifies, Path(folder))
            kind = "classifier" if classifies else "language model"
            print(f"| {direction} | {name} | {kind} | {moves:.2f} | {difference:.1e} | {merged:.1e} |", flush=True)


if __name__ == "__main__":
    run(main, Args, __doc__)
