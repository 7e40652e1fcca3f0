"""Where learning from preferences starts, and what it leaves.

A starting adapter is merged into the frozen weights, so that the model without its new adapters is the starting model.
What is saved fits the base that the starting adapter was trained on: one adapter with both updates, or, where no
adapter can express that (DoRA, biases or weights that were trained themselves), a whole model.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import LanguageModel, Model
from gpt2_scratch.pretrained import save_pretrained, weights_hash, without_storage
from gpt2_scratch.sources import load_config
from lora.adapter import Spec, adapters
from lora.peft_format import CONFIG, TENSORS, block_diagonal
from lora.variants import adapter_class
from training.data.sources import Inputs
from training.flags.common import ModelArgs
from training.flags.finetuning import FineTuneArgs
from training.flags.preference import PairArgs, RatingArgs
from training.model.facts import Facts, facts_of, read_facts
from training.model.methods import apply_method, build_language_model, load_own_state, own_state
from training.model.saved import WEIGHTS, Best, adapted, in_peft_format, note_base, refuse_tokenizer, save_adapter
from training.storage.files import replace_folder
from training.storage.run_folder import ADAPTER, FACTS, MODEL, RESULTS, read_run

Updates = Mapping[str, tuple[Tensor, Tensor]]  # path of a matrix -> A (R, in), B (out, R): its update is B A


@dataclass(frozen=True)
class Start:
    """A starting point: `folder` holds an adapter on the base, or if `whole` a model; None: the base itself."""

    base: Path  # folder of the base model
    config: GPT2Config  # of the base
    folder: Path | None = None
    whole: bool = False
    facts: Facts = field(default_factory=Facts)  # of what `folder` holds

    def sha256(self) -> str:
        """Returns the hash of all weights that are frozen in a run that starts here."""
        if self.folder is None:
            return weights_hash(self.base)
        found = hashlib.sha256(weights_hash(self.base).encode())
        names = ("model.safetensors", "config.json") if self.whole else (CONFIG, TENSORS, WEIGHTS, FACTS)
        for path in (self.folder / name for name in names):
            found.update(path.read_bytes() if path.exists() else b"")
        return found.hexdigest()

    def trained_shape(self) -> GPT2Config:
        """Returns the shape of the model that trains. A merged adapter of the LM head unties it from the embedding."""
        if self.folder is None:
            return self.config
        if self.whole:
            return load_config(self.folder)
        if not (self.folder / TENSORS).exists():
            return self.config
        try:
            with safe_open(self.folder / TENSORS, "pt") as file:
                apart = any(".lm_head." in key for key in file.keys())  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise ValueError(f"{self.folder / TENSORS} is damaged ({error}); copy it again") from error
        return replace(self.config, tied_head=self.config.tied_head and not apart)


def find_start(folder: Path | None, prompt: PairArgs | RatingArgs, model: ModelArgs, inputs: Inputs[Any]) -> Start:
    """Finds what --start-from names. Raises ValueError when that is no start, or one that does not fit --model."""
    if folder is None:
        return Start(inputs.model_folder, inputs.config)
    asked, whole, place = f"--start-from {folder}:", False, folder
    if (folder / RESULTS).exists():
        results = read_run(folder, "--start-from")
        facts = facts_of(results)
        whole = (folder / MODEL).is_dir()
        place = folder / (MODEL if whole else ADAPTER)
    elif (folder / CONFIG).exists() or (folder / WEIGHTS).exists():
        try:
            facts = read_facts(folder)
        except ValueError as error:
            raise ValueError(f"{asked} {error}") from error
    else:
        raise ValueError(f"{asked} holds neither a finished run nor an adapter; a whole model is given as --model")
    if facts.labels:
        raise ValueError(f"{asked} is a classifier's, which writes no text")
    _check_fit(asked, facts, prompt, model, inputs)
    note_base(place, facts, model.model)
    return Start(inputs.model_folder, inputs.config, place, whole, facts)


def _check_fit(asked: str, facts: Facts, prompt: PairArgs | RatingArgs, model: ModelArgs, inputs: Inputs[Any]) -> None:
    flags, known, base = facts.args, facts.base, inputs.weights
    if known is not None and base is not None:
        if known.sha256 != weights_hash(base):
            raise ValueError(
                f"{asked} was trained on {known.name}, whose weights are not those of --model {model.model}; "
                f"add --model {known.name}"
            )
        refuse_tokenizer(asked, known, inputs.tokenizer, f"--model {model.model}")
    if flags.get("base_bits") is not None:
        raise ValueError(
            f"{asked} was trained beside weights in {flags['base_bits']} bits, which it cannot be merged into here; "
            "merge it with scripts/merge_lora.py and give the folder as --model"
        )
    given = {"untie_head": model.untie_head, "response_header": prompt.response_header}
    for name, value in given.items():
        if flags.get(name, value) != value:
            spelled = name.replace("_", "-")
            raise ValueError(f"{asked} was trained with --{'no-' * value}{spelled}; give the same")
    meaning = inputs.tokenizer.meaning
    if (known_meaning := flags.get("special_tokens", meaning)) != meaning:
        raise ValueError(f"{asked} was trained with --special-tokens {known_meaning}; give the same")


def start_model(start: Start, model: ModelArgs, weights: bool = True) -> tuple[LanguageModel, Updates | None]:
    """Returns the starting model, without adapters, and the updates of a starting adapter; None where they are not of
    low rank. With `weights` off, the model has no storage, for a dry run."""
    if not weights:
        return build_language_model(None, start.trained_shape(), model), None
    if start.folder is None:
        return build_language_model(start.base, start.config, model), {}
    if start.whole:
        return build_language_model(start.folder, load_config(start.folder), model), None
    found = adapted(start.folder, model.model)
    assert isinstance(found, LanguageModel), "find_start refuses classifiers"
    updates = low_rank_updates(found) if in_peft_format(found) else None
    merged = merge_away(found)
    built = without_storage(LanguageModel, replace(merged.config, dropout=model.dropout))
    built.load_state_dict(merged.state_dict(), assign=True)
    built.tie()
    if model.untie_head and built.config.tied_head:
        built.untie()
    return built, updates


def merge_away(model: LanguageModel) -> LanguageModel:
    """Merges the adapters of `model`, and returns it. An adapted LM head is no longer the embedding."""
    for path, adapter in list(adapters(model)):
        adapter.merge()
        model.set_submodule(path, adapter.linear)
        if path == "lm_head":
            model.config = replace(model.config, tied_head=False)
    return model


@torch.no_grad()
def low_rank_updates(model: LanguageModel) -> Updates | None:
    """Returns the updates of all adapters, with their scale in B; None when one is not of low rank (DoRA)."""
    found = {}
    for path, adapter in adapters(model):
        a, b, scale, magnitude = adapter.factors()
        if magnitude is not None:
            return None
        b = scale * block_diagonal(b.float(), adapter.parts, adapter.active)
        found[path] = a.float().cpu().clone(), b.cpu()
    return found


def summed(config: GPT2Config, *updates: Updates) -> LanguageModel:
    """Returns a model without weights, whose adapters have the sums of `updates`, and of their ranks."""
    model = without_storage(LanguageModel, config).requires_grad_(False)
    for path in dict.fromkeys(path for each in updates for path in each):
        factors = [each[path] for each in updates if path in each]
        a, b = torch.cat([a for a, _ in factors]), torch.cat([b for _, b in factors], 1)  # (R, in), (out, R)
        spec = Spec(rank=len(a), alpha=float(len(a)))
        adapter = adapter_class("lora")(model.get_submodule(path), spec, generator=torch.Generator())
        adapter.low_rank.A, adapter.low_rank.B = nn.Parameter(a), nn.Parameter(b.t()[None])
        model.set_submodule(path, adapter)
    return model


def _rebuilt(trained: Model, start: Start, flags: FineTuneArgs) -> LanguageModel:
    """Returns a copy in fp32 with merged adapters, since `trained` may hold frozen weights in half precision."""
    found, _ = start_model(start, flags.model)
    apply_method(found, flags.method, flags.update.seed)
    load_own_state(found, {name: tensor.cpu() for name, tensor in own_state(trained).items()})
    return merge_away(found)


@dataclass(frozen=True, eq=False)
class Learnt(Best):
    """The best weights of a run that may have started from an adapter, which is then part of what the run leaves.

    `before` is what `start_model` returned; `flags` are those of the run.
    """

    start: Start = field(kw_only=True)
    before: Updates | None = field(kw_only=True)
    flags: FineTuneArgs = field(kw_only=True)

    @property
    def frozen(self) -> str:
        return self.start.sha256()

    def export(self) -> None:
        """Writes what the run adds to the base: an adapter where one can express it, else a whole model."""
        if self.method == "full" or self.start.folder is None:
            return super().export()
        assert isinstance(self.model, LanguageModel), "preferences are not learnt by a classifier"
        ours = low_rank_updates(self.model) if in_peft_format(self.model) else None
        if self.before is not None and ours is not None:
            save_adapter(self.folder, summed(self.start.config, self.before, ours), self.method, self.facts)
        else:
            whole = _rebuilt(self.model, self.start, self.flags)
            replace_folder(self.folder / MODEL, lambda new: save_pretrained(whole, new, self.tokenizer))
        return None
