"""Finds a base model: bundled, in a folder or on the hub. Imports no torch, so that a wrong name is refused at once."""

import contextlib
import difflib
import json
from pathlib import Path
from typing import Any

from gpt2_scratch.config import SIZES, GPT2Config, from_hf

ASSETS = Path(__file__).parent / "assets"
BUNDLED = {"gpt2-nano": ASSETS / "gpt2-nano"}
HUB = {name: f"openai-community/{name}" for name in SIZES if name not in BUNDLED}
OWNED = {"distilgpt2": "distilbert/distilgpt2"}  # the hub once had it without an owner
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# Files of weights in formats that are not read.
FOREIGN = {"*.gguf": "it holds a GGUF, for llama.cpp", "tf_model.h5": "it holds TensorFlow's weights"}
FOREIGN |= {"flax_model.msgpack": "it holds Flax's weights", "*.ckpt*": "it holds a TensorFlow checkpoint"}
FOREIGN |= {"*.onnx": "it holds an ONNX model"}
# Files that hold a tokenizer's vocabulary, and those beside them.
VOCABULARIES: tuple[str, ...] = ("tokenizer.json", "vocab.json", "vocab.txt")
VOCABULARIES += ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
BESIDE = ("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
POINTER = b"version https://git-lfs"


def refuse_pointer(path: Path) -> None:
    """Raises ValueError for a file in whose place Git LFS has left a pointer."""
    if path.is_file():
        with open(path, "rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise ValueError(f"{path} is a pointer of Git LFS, not the file itself; run: git lfs pull")


def read_json(path: Path, remedy: str = "copy or download it again") -> dict[str, Any]:
    """Returns the object in a file, {} without a file. Raises ValueError, with the `remedy`, for one that is damaged or
    holds no object."""
    refuse_pointer(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object; {remedy}")
    return found


def on_hub(source: str) -> bool:
    """Whether `source` is neither bundled nor a folder."""
    return source not in BUNDLED and not Path(source).is_dir()


def reachable(source: str) -> str:
    """Returns the name with which transformers finds a base: that of a bundled one is known here alone."""
    return str(BUNDLED.get(source, source))


def repository_of(source: str, asked: str = "--model") -> str:
    """Returns the name of the repository on the hub. Raises ValueError for a `source` that cannot be there."""
    if source not in HUB and Path(source).is_file():
        raise ValueError(f"{asked} {source}: is a file; give the folder of a model in HF format, with its config.json")
    if source not in HUB and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        near = difflib.get_close_matches(source.lower(), [*SIZES, *OWNED], n=1, cutoff=0.5)
        meant = f" ({OWNED.get(near[0], near[0])}?)" if near else ""
        raise ValueError(
            f"{asked} {source}: not a folder{meant}; give a folder, a hub repository (owner/name) or one of "
            f"{', '.join(SIZES)}"
        )
    if source in HUB and not _is_cached(HUB[source]) and _is_cached(source):
        return source  # the hub's old name, under which transformers caches it
    return HUB.get(source, source)


def _is_cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json"), str)


def resolve_config(source: str, asked: str = "--model") -> Path:
    """Finds a folder with config.json and the tokenizer files that exist: `source` is a size, a folder or a repository.

    Raises ValueError when it is none of these, and what huggingface_hub raises when the hub does not give it. `asked`
    is the flag that named it.
    """
    if not on_hub(source):
        folder = BUNDLED.get(source, Path(source))
        if not (folder / "config.json").is_file():
            raise ValueError(f"{asked} {source}: the folder lacks config.json{instead_of_a_model(folder)}")
        return folder
    repository = repository_of(source, asked)
    folder = _from_hub(repository, "config.json").parent
    _fetch_tokenizer(repository, folder)
    return folder


def resolve(source: str, asked: str = "--model") -> Path:
    """Returns the folder of `resolve_config`, with weights: the first of WEIGHTS that exists, the shards of an index.

    Raises what `resolve_config` raises, and ValueError for a folder without weights, or with an adapter beside them.
    """
    folder = resolve_config(source, asked)
    if not on_hub(source):
        if not (found := [name for name in WEIGHTS if (folder / name).is_file()]):
            lacking = f"{WEIGHTS[0]} (or {', '.join(WEIGHTS[1:])})"
            raise ValueError(f"{asked} {source}: the folder lacks {lacking}{instead_of_a_model(folder)}")
        if lost := [name for name in shards(folder / found[0]) if not (folder / name).is_file()]:
            raise ValueError(f"{asked} {source}: the folder lacks {lost[0]}, one of {len(lost)} missing shards")
        for name in [found[0], *shards(folder / found[0])]:
            refuse_pointer(folder / name)
        _refuse_adapter(folder, source, asked)
        return folder
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository, unknown = repository_of(source, asked), list[Exception]()
    for name in WEIGHTS:
        try:
            path = _from_hub_if_there(repository, name, folder.name)
        except LocalEntryNotFoundError as error:  # without the hub, a cache may have others of these files
            unknown.append(error)
            continue
        if path is not None:
            for shard in shards(path):
                _from_hub(repository, shard, folder.name)
            with contextlib.suppress(LocalEntryNotFoundError):  # without the hub, what is cached counts
                for beside in ("adapter_config.json", "generation_config.json"):
                    _from_hub_if_there(repository, beside, folder.name)
            _refuse_adapter(folder, source, asked)
            return folder
    if unknown:
        raise unknown[0]
    _from_hub(repository, WEIGHTS[0], folder.name)  # raises: the hub says that there is none
    return folder


def _refuse_adapter(folder: Path, source: str, asked: str) -> None:
    """Raises ValueError for an adapter beside weights, which transformers adds to them."""
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{asked} {source}: holds a model and an adapter (adapter_config.json), and it is not clear which is "
            "meant; give a folder with the model alone, and one with the adapter as --adapter, or merge them "
            "(scripts/merge_lora.py)"
        )


def shards(path: Path) -> list[str]:
    """Returns the files that an index names, none if `path` is not an index. Raises ValueError for a damaged one."""
    if path.suffix != ".json":
        return []
    refuse_pointer(path)
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is not an index of weights; copy or download it again") from error
    if strange := [name for name in names if name != Path(str(name)).name]:
        raise ValueError(f"{path}: names {strange[0]!r}, which is not a file beside it")
    return names


def instead_of_a_model(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return "; it holds an adapter: give its base as --model, and the adapter as --adapter (to train on, merge it)"
    for pattern, kind in FOREIGN.items():
        if any(folder.glob(pattern)):
            return f"; {kind}: give the model as transformers' save_pretrained writes it with PyTorch"
    if (folder / "model").exists():
        return f"; it is a run, whose model is {folder / 'model'}"
    for name, kind in (("config.json", "a model"), ("adapter_config.json", "an adapter")):
        inside = [path.parent for path in folder.glob(f"*/{name}")]
        if inside:
            last = max(inside, key=lambda path: (int("".join(filter(str.isdecimal, path.name)) or 0), path.name))
            onwards = " as --adapter (to train on, merge it with scripts/merge_lora.py, and give the merged folder)"
            return f"; {kind} is in {last}: give that folder" + ("" if kind == "a model" else onwards)
    return ""


def _from_hub(repository: str, name: str, revision: str = "main") -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, name, revision=revision))


def _from_hub_if_there(repository: str, name: str, revision: str) -> Path | None:
    """Returns the file, or None if the revision has none; that is a commit, so that the answer holds for good."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError

    if try_to_load_from_cache(repository, name, revision=revision) is _CACHED_NO_EXIST:
        return None
    try:
        return _from_hub(repository, name, revision)
    except RemoteEntryNotFoundError:
        return None


def _fetch_tokenizer(repository: str, folder: Path) -> None:
    """Fetches the tokenizer files that exist. Without the hub it is enough that one vocabulary is cached."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    unknown = []
    for name in VOCABULARIES + BESIDE:
        try:
            _from_hub_if_there(repository, name, folder.name)
        except LocalEntryNotFoundError as error:
            unknown.append(error)
    if unknown and not any((folder / name).exists() for name in VOCABULARIES):
        raise unknown[0]


def load_config(folder: Path, asked: str = "--model") -> GPT2Config:
    """Reads config.json. Raises ValueError if it is not a GPT-2's; `asked` is the flag that named the model."""
    try:
        if not (folder / "config.json").is_file():
            raise ValueError("the folder lacks config.json")
        return from_hf(read_json(folder / "config.json"))
    except ValueError as error:
        raise ValueError(f"{asked} {folder}: {error}") from error
