"""Keeps the best weights of a run, and writes and reads what it leaves: an adapter, or a whole model for full.

An adapter is two files that PEFT reads (lora/peft_format.py), with adapter.json beside them; what PEFT cannot express
(biases, an LM head that was trained itself, a class head with a bias) is adapter.safetensors beside adapter.json.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, Model
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.pretrained import has_bias, load_weights, read_weight, save_pretrained, weights_hash
from gpt2_scratch.sources import HUB, load_config, on_hub, reachable, read_json
from gpt2_scratch.tokenizer import Tokenizer
from lora.adapter import Adapter, adapters
from lora.peft_format import CONFIG, NOT_FINITE, TENSORS, attach, exported, not_finite
from training.data.sources import base_model
from training.flags.cli import note, refuse
from training.flags.common import MethodArgs, ModelArgs
from training.flags.task import HeadArgs, group_of
from training.model.card import CARD, card
from training.model.facts import BaseFacts, Facts, facts_of, read_facts
from training.model.methods import apply_method, build_classifier, build_language_model, load_own_state, own_state
from training.step.processes import from_main
from training.step.sharding import is_sharded
from training.storage.files import load_tensors, replace_file, replace_folder, save_tensors, write_json
from training.storage.run_folder import ADAPTER, FACTS, MODEL, STATE, base_of
from training.storage.shards import load_shards, save_shards

WEIGHTS = "adapter.safetensors"
BEST, BEST_SHARDS = STATE.with_name("best.safetensors"), STATE.with_name("best")


def save_adapter(folder: Path, model: Model, method: str, facts: Facts) -> None:
    """Saves what `model`, with its best weights, adds to its base; nothing for method full, which saves the model."""
    assert facts.base is not None, "a run knows its base"
    base = facts.base.name

    def write(new: Path) -> None:
        if in_peft_format(model):
            task, head = ("SEQ_CLS", "score") if isinstance(model, Classifier) else ("CAUSAL_LM", None)
            config, tensors = exported(model, reachable(base), task, head)
            write_json(new / CONFIG, config)
            save_tensors(new / TENSORS, tensors)
            (new / CARD).write_text(card(facts, str(folder / ADAPTER), "peft"), encoding="utf-8")
        else:
            save_tensors(new / WEIGHTS, own_state(model))
        write_json(new / FACTS, facts.entry())

    if method != "full":
        replace_folder(folder / ADAPTER, write)


@dataclass(frozen=True, eq=False)
class Best:
    """The best weights of a run, kept in its folder while it trains."""

    folder: Path
    model: Model
    method: str
    facts: Facts
    tokenizer: Tokenizer  # of the base

    @property
    def frozen(self) -> str:
        """The hash of all weights that are frozen in the run."""
        return str(self.facts.base and self.facts.base.sha256)

    def save(self, accelerator: Accelerator) -> None:
        """Saves the weights bit for bit as they are in training. All processes call it; those that hold them write."""
        if is_sharded(self.model):
            save_shards(self.folder / BEST_SHARDS, own_state(self.model))
        elif not accelerator.is_main_process:
            return
        elif self.method == "full":
            self._save_model()
        else:
            replace_file(self.folder / BEST, lambda new: save_tensors(new, own_state(self.model)))

    def _save_model(self) -> None:
        names = self.facts.label_names
        replace_folder(self.folder / MODEL, lambda new: save_pretrained(self.model, new, self.tokenizer, **names))

    def load(self, accelerator: Accelerator) -> None:
        """Loads the saved weights into the model, on all processes."""
        if is_sharded(self.model):
            load_shards(self.folder / BEST_SHARDS, own_state(self.model))
        else:
            load_own_state(self.model, from_main(accelerator, self._read))

    def _read(self) -> dict[str, Tensor]:
        """Returns the saved weights under the names of `own_state(model)`."""
        if self.method != "full":
            return load_tensors(self.folder / BEST)
        load_weights(self.model, self.folder / MODEL)
        return own_state(self.model)

    def export(self) -> None:
        """Writes what the run leaves, once the model has its best weights, and all of them here."""
        if self.method == "full" and is_sharded(self.model):
            self._save_model()
        save_adapter(self.folder, self.model, self.method, self.facts)


def in_peft_format(model: Model) -> bool:
    """Returns whether PEFT can express what was trained: adapters, and a class head as transformers has it."""
    adapted = {path for path, _ in adapters(model)}
    if isinstance(model, Classifier):
        score = model.score.linear if isinstance(model.score, Adapter) else model.score
        if model.embedding_head or (isinstance(score, nn.Linear) and score.bias is not None):
            return False
        adapted |= {"score"}
    known = tuple(f"{path}." for path in adapted)
    return bool(adapted - {"score"}) and all(name.startswith(known) for name in own_state(model))


def _same(one: str, other: str) -> bool:
    """Whether two names of bases are those of one folder or one repository."""
    a, b = (HUB.get(name, name) if on_hub(name) else str(Path(reachable(name)).resolve()) for name in (one, other))
    return a == b


def note_base(adapter: Path, facts: Facts, name: str) -> None:
    """Notes where PEFT's settings may mean another base than `name`, since they have no hash of its weights."""
    if facts.base is not None:
        return
    if (known := base_of(adapter)) and not _same(known, name):
        note(f"adapter {adapter}: its base is {known} by its settings, not {name}; their weights were not compared")
    if (revision := read_json(adapter / CONFIG).get("revision")) not in (None, "main"):
        note(f"adapter {adapter}: is of revision {revision} of its base; whether {name} is that was not checked")


def find_base(adapter: Path, facts: Facts, base: str | None = None) -> tuple[Path, GPT2Config]:
    """Returns folder and shape of the base of an adapter: `base`, or where it was when the adapter was trained.

    Raises ValueError when there is none, or when its weights or tokenizer are known not to be those of the training; of
    PEFT's adapters these are not known, and another name is noted.
    """
    name = base or facts.base_name or base_of(adapter)
    if name is None:
        raise ValueError(
            f"adapter {adapter}: does not say what it was trained on; give it as --adapter, and its base as --model"
        )
    note_base(adapter, facts, name)
    try:
        source, config = base_model(name)
    except ValueError as error:
        if base is not None:
            raise
        raise ValueError(f"{error}; {name} was the base in training: if it has moved, name it with --model") from error
    if facts.base is not None and weights_hash(source) != facts.base.sha256:
        raise ValueError(
            f"adapter {adapter}: was trained on other weights than {name} has (sha256 differs, as it does where the "
            "same weights are in another kind of file); give its base as it was"
        )
    if facts.base is not None:
        refuse_tokenizer(f"adapter {adapter}:", facts.base, find_tokenizer(source, config), name)
    return source, config


def refuse_tokenizer(asked: str, known: BaseFacts, found: Tokenizer, place: str) -> None:
    """Raises ValueError when a base has another tokenizer than in training, as where files were not copied."""
    if (found.sha256 or None) != known.tokenizer:
        raise ValueError(f"{asked} was trained with another tokenizer than {place} has; give its base, with all files")


def build(source: Path, config: GPT2Config, facts: Facts) -> Model:
    """Builds the base of an adapter with these facts, in the precision it had, with a random class head.

    Raises ValueError when it was quantised and bitsandbytes is missing.
    """
    model, head = group_of(ModelArgs, facts.args), group_of(HeadArgs, facts.args)
    refuse(model.problems())
    if facts.labels is None:
        return build_language_model(source, config, model)
    return build_classifier(source, config, model, len(facts.labels), 0, head.head_bias, head.head == "lm-token")


def adapted(adapter: Path, base: str | None = None) -> Model:
    """Builds the base with the adapter in folder `adapter`, ours or PEFT's. Raises the errors of `find_base`."""
    facts = read_facts(adapter)
    model = build(*find_base(adapter, facts, base), facts)
    if (adapter / WEIGHTS).exists():
        head = (facts.args["head_training"],) if isinstance(model, Classifier) else ()
        apply_method(model, group_of(MethodArgs, facts.args), facts.args["seed"], *head)
        tensors = load_tensors(adapter / WEIGHTS)
        refuse([f"adapter {adapter}: {NOT_FINITE.format(name)}" for name in not_finite(tensors)[:1]])
        load_own_state(model, tensors)
    else:
        attach(model, adapter)
    return model.eval()


def whole_model(folder: Path, facts: Facts) -> Model:
    """Reads a model in Hugging Face's format, its class head included."""
    args = {**facts.args, "head_bias": has_bias(folder)}  # what the file has counts, whoever wrote it
    model = build(folder, load_config(folder), replace(facts, args=args))
    if not model.embedding_head:  # `build` makes a new class head
        for name, parameter in model.head.named_parameters():
            weight = read_weight(folder, f"score.{name}")
            if weight.shape != parameter.shape:
                shapes = f"{tuple(weight.shape)} instead of {tuple(parameter.shape)}"
                raise ValueError(f"weights in {folder} do not fit its classes: score.{name} has shape {shapes}")
            parameter.data = weight
    return model.eval()


def rebuild(folder: Path, results: dict[str, Any], base: str | None = None) -> Model:
    """Builds the fine-tuned model of a run; an adapter's base is found at `base`, or where it was in training."""
    if not (folder / MODEL).is_dir():
        return adapted(folder / ADAPTER, base)
    return whole_model(folder / MODEL, facts_of(results))


def adapter_tokenizer(adapter: Path, base: str | None = None) -> Tokenizer:
    """Returns the tokenizer of an adapter's base, reading special tokens as in training. Raises the errors of
    `find_base`."""
    facts = read_facts(adapter)
    return find_tokenizer(*find_base(adapter, facts, base)).reading(facts.args.get("special_tokens", "text"))


def tokenizer_of(folder: Path, results: dict[str, Any], base: str | None = None) -> Tokenizer:
    """Returns the tokenizer of the run in `folder`, from its base or whole model. Raises the errors of `rebuild`."""
    place = folder / MODEL
    if not place.is_dir():
        return adapter_tokenizer(folder / ADAPTER, base)
    return find_tokenizer(place, load_config(place)).reading(results["args"].get("special_tokens", "text"))
