"""Facts about an adapter or a model: the flags it was trained with, its base and its classes (adapter.json)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpt2_scratch.pretrained import weights_hash
from gpt2_scratch.sources import instead_of_a_model, refuse_pointer
from gpt2_scratch.tokenizer import Tokenizer
from lora.peft_format import CONFIG, classes_in
from training.storage.run_folder import ADAPTER, FACTS, RESULTS


@dataclass(frozen=True)
class BaseFacts:
    """What identifies a base: its weights, and its tokenizer where that is not GPT-2's own."""

    name: str
    sha256: str | None = None
    tokenizer: str | None = None

    def entry(self) -> dict[str, str]:
        """Returns the entry of results.json."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def base_facts(name: str, folder: Path, tokenizer: Tokenizer) -> BaseFacts:
    return BaseFacts(name, weights_hash(folder), tokenizer.sha256 or None)


@dataclass(frozen=True)
class Facts:
    """Facts about a model: its resolved flags `args` and its `base`, unknown for PEFT's; a classifier has `labels`."""

    args: dict[str, Any] = field(default_factory=dict)
    base: BaseFacts | None = None
    labels: list[str] | None = None
    pad_token_id: int | None = None

    def entry(self) -> dict[str, Any]:
        """Returns the content of adapter.json."""
        found = vars(self) | {"base": self.base and self.base.entry()}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def base_name(self) -> str | None:
        return None if self.base is None else self.base.name

    @property
    def label_names(self) -> dict[str, Any]:
        """The entries of config.json that name the classes, in their order; empty without classes."""
        labels = self.labels or []
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        return names if labels else {}


def facts_of(results: Mapping[str, Any]) -> Facts:
    """Returns the facts that results.json has about its run's model."""
    return Facts(results["args"], BaseFacts(**results["model"]), results["data"].get("labels"))


def _instead_of_an_adapter(folder: Path) -> str:
    if not folder.is_dir():
        on_hub = len(folder.parts) == 2 and not str(folder).startswith((".", "~", "/"))
        return "no such folder" + f"; one of the hub is fetched by: hf download {folder} --local-dir FOLDER" * on_hub
    if (folder / "config.json").exists():
        return "is a model, not an adapter; give it as --model"
    if (folder / RESULTS).exists():
        inside = f", or as --adapter {folder / ADAPTER}" * (folder / ADAPTER).is_dir()
        return f"is a run; give it as --run{inside}"
    return instead_of_a_model(folder).removeprefix("; ")


def read_facts(adapter: Path) -> Facts:
    """Reads adapter.json. Without one, an adapter of PEFT tells only the number of its classes, if it has any.

    Raises ValueError when the folder holds no adapter, or a damaged one.
    """
    path = adapter / FACTS
    for file in adapter.glob("adapter*"):
        refuse_pointer(file)
    if not path.exists():
        if not (adapter / CONFIG).exists() and (instead := _instead_of_an_adapter(adapter)):
            raise ValueError(f"adapter {adapter}: {instead}")
        count = classes_in(adapter)
        return Facts(labels=None if count is None else [f"LABEL_{i}" for i in range(count)])
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["args"]["model"], found["base"]["sha256"]
        return Facts(**found | {"base": BaseFacts(**found["base"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again") from error
