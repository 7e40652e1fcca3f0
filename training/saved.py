"""The best weights of a run: an adapter (what was added to the base) or, for full fine-tuning, a model in HF format."""

from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.pretrained import load_weights, save_pretrained, weights_hash
from gpt2_scratch.sources import load_config
from training.args import MethodArgs, ModelArgs
from training.files import load_tensors, replace_folder, save_tensors, write_json
from training.methods import apply_method, build_classifier, build_language_model, load_own_state, own_state
from training.sources import base_model
from training.task_args import HeadArgs, group_of

ADAPTER, MODEL, WEIGHTS = "adapter", "model", "adapter.safetensors"


def save_best(folder: Path, model: LanguageModel | Classifier, method: str, facts: dict[str, Any]) -> None:
    """`facts` (flags, base, labels) go into the adapter's adapter.json or the model's config.json."""

    def write_adapter(new: Path) -> None:
        save_tensors(new / WEIGHTS, own_state(model))
        write_json(new / "adapter.json", facts)

    def write_model(new: Path) -> None:
        labels = facts.get("labels") or []
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        save_pretrained(model, new, **(names if labels else {}))

    if method == "full":
        replace_folder(folder / MODEL, write_model)
    else:
        replace_folder(folder / ADAPTER, write_adapter)


def read_best(folder: Path, model: LanguageModel | Classifier, method: str) -> dict[str, Tensor]:
    """The saved weights under the names of `own_state(model)`."""
    if method != "full":
        return load_tensors(folder / ADAPTER / WEIGHTS)
    load_weights(model, folder / MODEL)
    return own_state(model)


def load_best(folder: Path, model: LanguageModel | Classifier, method: str) -> None:
    """Puts the saved weights into `model`, which must be built as it was for training."""
    load_own_state(model, read_best(folder, model, method))


def rebuild(folder: Path, results: dict[str, Any], base: str | None = None) -> LanguageModel | Classifier:
    """The fine-tuned model of a run; an adapter needs its base, found where it was or at `base`.

    Raises ValueError when the base is not the one the adapter was trained on.
    """
    flags = results["args"]
    method, model, head = group_of(MethodArgs, flags), group_of(ModelArgs, flags), group_of(HeadArgs, flags)
    if method.method == "full":
        source, config = folder / MODEL, load_config(folder / MODEL)
    else:
        source, config = base_model(base or model.model)
        if weights_hash(source) != results["model"]["sha256"]:
            raise ValueError(
                f"--run {folder}: was trained on other weights than {base or model.model} has (sha256 differs)"
            )
    if "labels" not in results["data"]:
        built: LanguageModel | Classifier = build_language_model(source, config, model)
        apply_method(built, method, flags["seed"])
    else:
        classes, lm_token = len(results["data"]["labels"]), head.head == "lm-token"
        built = build_classifier(source, config, model, classes, flags["seed"], head.head_bias, lm_token)
        apply_method(built, method, flags["seed"], head.head_training)
    load_best(folder, built, method.method)
    return built.eval()
