"""Finds a trained model in any form that we, PEFT or transformers write, before anything heavy is loaded.

It may be a run folder, its adapter or model, a merged folder, an adapter of PEFT, or a GPT-2 of transformers. A run
also records columns, length and classes; the class names of a bare model are in its config.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2_scratch.config import class_names
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.sources import load_config, read_json
from tasks import folded
from tasks._cells import listed
from training.data.sources import base_model
from training.data.trained_on import read_trained_on
from training.storage.run_folder import FACTS, MODEL, PEFT_CONFIG, RESULTS, base_of, read_run

if TYPE_CHECKING:
    from gpt2_scratch.model import Model
    from gpt2_scratch.tokenizer import Tokenizer

CONFIG, ADAPTER_FILES = "config.json", (FACTS, PEFT_CONFIG)
PREFERENCES = {"dpo_loss": "finetune_dpo", "desirable_weight": "finetune_kto"}  # a flag of each
CLASSIFIER, LANGUAGE = "GPT2ForSequenceClassification", (None, "GPT2LMHeadModel", "GPT2Model")


@dataclass(frozen=True)
class Applied:
    """A model to apply. `labels` None: a language model. `flags`: those of its training, as far as known. `trained_on`:
    hash of a text -> its part of the training; None: unknown. `own_labels`: the names before the user renamed them."""

    folder: Path
    kind: str  # run, adapter or model
    labels: tuple[str, ...] | None
    flags: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    trained_on: dict[str, str] | None = None
    base: str | None = None
    own_labels: tuple[str, ...] = ()

    @property
    def training_labels(self) -> dict[str, int]:
        """The training examples of each class, if the run records them and its classes have kept their names."""
        counts: dict[str, int] = self.results.get("data", {}).get("balance", {}).get("train", {})
        return counts if counts.keys() <= set(self.labels or ()) else {}

    @property
    def source(self) -> str | None:
        """The source of the run's data, in the form of `Source.origin`."""
        return self.results.get("data", {}).get("source")

    @property
    def said(self) -> str:
        """The description that predict.py prints."""
        if self.labels is None:
            return f"{self.folder}, a language model"
        return f"{self.folder}, a classifier of {len(self.labels)} classes: {listed(self.labels, 6, 120)}"

    def load(self) -> "Model":
        """Loads the model on the CPU, ready to be applied. Raises ValueError for what is damaged or does not fit."""
        from training.model.facts import Facts  # takes seconds
        from training.model.saved import adapted, rebuild, whole_model

        if self.kind == "run":
            return rebuild(self.folder, self.results, self.base).eval()
        if self.kind == "adapter":
            return adapted(self.folder, self.base)
        return whole_model(self.folder, Facts(labels=None if self.labels is None else list(self.labels)))

    def tokenizer(self) -> "Tokenizer":
        """Returns the tokenizer of the model. Raises the errors of `load`."""
        from training.model.saved import adapter_tokenizer, tokenizer_of

        if self.kind == "run":
            return tokenizer_of(self.folder, self.results, self.base)
        if self.kind == "adapter":
            return adapter_tokenizer(self.folder, self.base)
        return find_tokenizer(self.folder, load_config(self.folder))


def find_applied(run: Path | None, adapter: Path | None, model: str | None) -> Applied:
    """Finds what the flags --run, --adapter and --model name; with one of the first two, --model is the base.

    Raises ValueError when that cannot be applied, or cannot be fetched from the hub.
    """
    if run is not None:
        if not (run / RESULTS).exists() and any((run / name).exists() for name in (CONFIG, *ADAPTER_FILES)):
            raise ValueError(f"--run {run}: is a model without its run; name it with --model in place of --run")
        return _of_run(run, "--run", model)
    if adapter is not None:
        return _of_adapter(adapter, "--adapter", model)
    assert model is not None, "the flags are checked before"
    folder = Path(model)
    if (folder / RESULTS).exists():
        return _of_run(folder, "--model", None)
    if folder.name in ("adapter", "model") and (folder.parent / RESULTS).exists():
        return _of_run(folder.parent, "--model", None)
    if not (folder / CONFIG).exists() and any((folder / name).exists() for name in ADAPTER_FILES):
        return _of_adapter(folder, "--model", None)
    return _of_model(model)


def renamed(applied: Applied, given: Sequence[str]) -> Applied:
    """Returns a copy whose classes have the names `given`, in the model's order. A model of our runs keeps its own.

    Raises ValueError for another number of names, for a name that the model has for another class, and for other names
    than those of one of our runs.
    """
    own, names = applied.labels or (), tuple(map(folded, given))
    order = f"the model's order is {listed(own, 4)}"
    if len(names) != len(own):
        raise ValueError(f"--labels: names {len(names)} classes, the model has {len(own)}; {order}")
    if names == tuple(map(folded, own)):
        return applied
    known = [folded(name).casefold() for name in own]
    if any(name.casefold() in known and name.casefold() != known[i] for i, name in enumerate(names)):
        raise ValueError(f"--labels {listed(names, 4)}: {order}; leave --labels out, or give them in that order")
    if applied.flags:
        raise ValueError(
            f"--labels {listed(names, 4)}: the model was trained with names of its own; {order}; leave it out"
        )
    return replace(applied, labels=names, own_labels=own)


def _of_run(folder: Path, asked: str, base: str | None) -> Applied:
    results = read_run(folder, asked)
    if results["script"] in PREFERENCES.values():
        raise ValueError(f"{asked} {folder}: is a run of {results['script']}; scripts/generate.py asks it")
    if base is not None and (folder / MODEL).is_dir():
        raise ValueError(f"--model {base}: the run has a whole model, and needs no base; leave it out")
    labels = results["data"].get("labels")
    known = read_trained_on(folder)
    classes = None if labels is None else tuple(labels)
    return Applied(folder, "run", classes, results["args"], results, known, base)


def _of_adapter(folder: Path, asked: str, base: str | None) -> Applied:
    from training.model.facts import read_facts  # takes seconds, but how many classes there are is in the tensors

    facts = read_facts(folder)
    if facts.labels is not None and len(facts.labels) < 2:
        raise ValueError(f"{asked} {folder}: its head has one output, for regression or rewards; classes are needed")
    if script := next((script for flag, script in PREFERENCES.items() if flag in facts.args), None):
        raise ValueError(f"{asked} {folder}: is an adapter of {script}; scripts/generate.py asks it")
    if base is None and base_of(folder) is None:
        raise ValueError(f"{asked} {folder}: does not say what it was trained on; --adapter {folder} --model BASE")
    classes = None if facts.labels is None else tuple(facts.labels)
    known = read_trained_on(folder) or read_trained_on(folder.parent)
    return Applied(folder, "adapter", classes, facts.args, {}, known, base)


def _of_model(model: str) -> Applied:
    folder, _ = base_model(model)
    return Applied(folder, "model", classes_of(folder), trained_on=read_trained_on(folder))


def refuse_classifier(asked: str, folder: Path) -> None:
    """Raises ValueError for a folder in HF format whose model is a classifier, where one that writes is asked for."""
    if architecture_of(folder) == CLASSIFIER:
        raise ValueError(f"{asked}: is a classifier, which writes no text; scripts/predict.py applies it")


def architecture_of(folder: Path) -> str | None:
    """Returns what config.json or, where that is silent, the weights say that a model is; None: a language model."""
    architecture = (read_json(folder / CONFIG).get("architectures") or [None])[0]
    if architecture is None:
        from gpt2_scratch.pretrained import heads_in  # takes seconds, but only the weights tell

        architecture = CLASSIFIER if "score" in heads_in(folder) else None
    return architecture


def classes_of(folder: Path) -> tuple[str, ...] | None:
    """Returns the class names of the classifier in `folder`, None for a language model.

    transformers leaves out its default names, LABEL_0 and LABEL_1. Raises ValueError for another head.
    """
    settings, architecture = read_json(folder / CONFIG), architecture_of(folder)
    if architecture in LANGUAGE:
        return None
    if architecture != CLASSIFIER:
        raise ValueError(f"--model {folder}: is a {architecture}; predict.py applies {CLASSIFIER} and GPT2LMHeadModel")
    try:
        labels = class_names(settings) or ("LABEL_0", "LABEL_1")
        if {int(i) for i in settings.get("id2label") or (0, 1)} != set(range(len(labels))):
            raise ValueError(f"its keys are not 0 to {len(labels) - 1}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"--model {folder}: id2label in config.json does not number classes ({error})") from error
    kind = settings.get("problem_type") or "single_label_classification"
    if kind != "single_label_classification" or len(labels) < 2:
        raise ValueError(f"--model {folder}: its head is for {kind} with {len(labels)} outputs; classes are needed")
    if len(set(labels)) < len(labels):
        raise ValueError(f"--model {folder}: id2label in config.json names a class twice; give each a name of its own")
    return labels
