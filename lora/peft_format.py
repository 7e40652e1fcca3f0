"""Writes and reads adapters as PEFT's two files, adapter_config.json and adapter_model.safetensors.

A path in the model is a path in the file, so the model's names must be those that PEFT will meet. A fused matrix whose
P active parts have factors of rank R each is, to PEFT 0.21, one of rank P R with a block-diagonal B.
"""

import contextlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lora.adapter import Adapter, Spec, adapters
from lora.frozen import dense, shape
from lora.peft_config import HEADS, config_problems, merges_in_peft, rank_and_alpha
from lora.quantised import QuantisedLinear
from lora.variants import adapter_class

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
NOT_FINITE = "{} holds numbers that are not finite (nan or inf): its training diverged; train again, with a lower --lr"
LAYERS = (nn.Linear, QuantisedLinear)
A, B, MAGNITUDE, BASE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "base_layer.weight"


def exported(
    model: nn.Module, base: str, task_type: str, head: str | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns (adapter_config.json, tensors) of all adapters of `model`, relative to the untouched base called `base`.

    The head at path `head` is saved whole, with its adapter folded in if it has one. Matrices are declared transposed,
    as transformers stores GPT-2's (Conv1D); PEFT corrects that by itself for a plain linear layer.
    """
    tensors, ranks, alphas = dict[str, Tensor](), dict[str, int](), dict[str, float]()
    dora, dropout = False, 0.0
    for path, adapter in adapters(model):
        if path != head:
            factors = adapter.factors()
            tensors[f"{PREFIX}{path}.{A}"] = factors.A.float()
            tensors[f"{PREFIX}{path}.{B}"] = block_diagonal(factors.B.float(), adapter.parts, adapter.active)
            if factors.magnitude is not None:
                tensors[f"{PREFIX}{path}.{MAGNITUDE}"], dora = factors.magnitude.float(), True
            ranks[path], dropout = len(factors.A), adapter.dropout
            alphas[path] = float(factors.scale * ranks[path])  # since PEFT divides by the rank
    assert ranks, "there is nothing but a head to export"
    if head is not None:
        layer = model.get_submodule(head)
        whole = dense(layer.linear) + layer.update() if isinstance(layer, Adapter) else dense(layer)
        tensors[f"{PREFIX}{head}.weight"] = whole
    rank, alpha = (Counter(found.values()).most_common(1)[0][0] for found in (ranks, alphas))
    config = {"peft_type": "LORA", "task_type": task_type, "base_model_name_or_path": base, "inference_mode": True}
    config |= {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "bias": "none", "use_dora": dora}
    config |= {"rank_pattern": {re.escape(path): r for path, r in ranks.items() if r != rank}}
    config |= {"alpha_pattern": {re.escape(path): a for path, a in alphas.items() if a != alpha}}
    config |= {"use_rslora": False, "init_lora_weights": True, "fan_in_fan_out": True}
    config |= {"modules_to_save": None if head is None else [head]} | _targets(model, ranks)
    return config, {name: tensor.detach().clone() for name, tensor in tensors.items()}


def block_diagonal(b: Tensor, parts: int, active: tuple[int, ...]) -> Tensor:
    """Puts each part's B into its own rows and columns, zeros elsewhere: (P, R, out / parts) -> (out, P R)."""
    whole = b.new_zeros(parts, b.shape[2], *b.shape[:2])  # (parts, out / parts, P, R)
    for i, part in enumerate(active):
        whole[part, :, i] = b[i].t()
    return whole.flatten(2).flatten(0, 1)


def _targets(model: nn.Module, paths: Iterable[str]) -> dict[str, Any]:
    """Returns the settings with which PEFT finds exactly `paths`.

    Where possible they are names within a block and numbers of blocks, since a list of paths is long. PEFT compares
    numbers only for names found by their endings, so that a path outside of blocks (lm_head) can stand beside them.
    """
    found, alone = defaultdict[str, set[tuple[int, str]]](set), list[str]()
    for path in paths:
        match = re.fullmatch(r"(.*?\w+)\.(\d+)\.(.+)", path)
        if match is None:
            alone.append(path)
        else:
            found[match[1]].add((int(match[2]), match[3]))
    if len(found) == 1:
        (owner, places), *_ = found.items()
        blocks, names = sorted({i for i, _ in places}), sorted({name for _, name in places})
        if len(places) == len(blocks) * len(names):
            chosen = {"target_modules": names + alone}
            if len(blocks) == len(list(model.get_submodule(owner).children())):
                return chosen
            return chosen | {"layers_to_transform": blocks, "layers_pattern": [owner.rpartition(".")[2]]}
    return {"target_modules": sorted(paths)}


def _split(key: str) -> tuple[str, str]:
    """Splits a key of the file into the path in the model and the tensor of that layer."""
    for name in (A, B, MAGNITUDE, BASE, "weight"):
        if key.startswith(PREFIX) and key.endswith(f".{name}"):
            return key[len(PREFIX) : -len(name) - 1], name
    return key, ""


def _fit_problems(path: str, part: dict[str, Tensor], layer: nn.Module, config: dict[str, Any]) -> Iterator[str]:
    """Yields what is wrong with the tensors saved for one layer."""
    rank, _ = rank_and_alpha(config, path)
    outputs, inputs = shape(layer)
    shapes = {A: (rank, inputs), B: (outputs, rank), MAGNITUDE: (outputs,)}
    shapes |= {"weight": (outputs, inputs), BASE: (outputs, inputs)}
    wanted = {A, B} | ({MAGNITUDE} if config.get("use_dora") else set())
    if part.keys() & {A, B, MAGNITUDE}:
        yield from (f"missing {PREFIX}{path}.{name}" for name in sorted(wanted - part.keys()))
        yield from (f"unknown {PREFIX}{path}.{name}" for name in sorted(part.keys() - wanted - {BASE}))
    for name in sorted(part):
        found = tuple(part[name].shape)
        if found != shapes[name]:
            yield f"{path}.{name} has shape {found}, for this base and rank {rank} it would be {shapes[name]}"
        elif name == BASE and not torch.equal(dense(layer).to(part[name].dtype), part[name]):
            yield f"{path}: was trained on another matrix than this base has"


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    if (folder / "adapter_model.bin").exists() and not (folder / TENSORS).exists():
        raise ValueError(
            f"adapter {folder}: adapter_model.bin can run code; save it again with safe_serialization=True"
        )
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        names = f"{CONFIG} or {TENSORS}"
        raise ValueError(f"adapter {folder}: {names} is missing or damaged ({error}); copy or save it again") from error


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with _explained(folder):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG} holds no settings")
        tensors = load_file(folder / TENSORS)
    if config.get("task_type") == "SEQ_CLS" and not _heads(tensors):
        raise ValueError(f"adapter {folder}: its class head is not in the file; PEFT loses it when it converts pissa")
    return config, tensors


def _heads(tensors: Iterable[str]) -> list[str]:
    return [key for key in tensors if key.endswith(tuple(f".{head}.weight" for head in HEADS))]


def classes_in(folder: Path) -> int | None:
    """Counts the rows of the class head saved in `folder`, None without a head. Raises what `attach` raises."""
    _, tensors = _read(folder)
    heads = _heads(tensors)
    return len(tensors[heads[0]]) if heads else None


def _adapter(linear: Any, part: dict[str, Tensor], config: dict[str, Any], path: str) -> Adapter:
    rank, alpha = rank_and_alpha(config, path)
    spec = Spec(
        rank, alpha, "rslora" if config.get("use_rslora") else "standard", dropout=config.get("lora_dropout", 0.0)
    )
    adapter = adapter_class("dora" if config.get("use_dora") else "lora")(linear, spec, generator=torch.Generator())
    with torch.no_grad():
        adapter.low_rank.A.copy_(part[A])
        adapter.low_rank.B.copy_(part[B].t()[None])
        if config.get("use_dora"):
            adapter.get_parameter("magnitude").copy_(part[MAGNITUDE])
    return adapter


def _refuse(folder: Path, problems: list[str], remedy: str = "") -> None:
    if problems:
        most = 2 if remedy else 4
        more = [f"and {len(problems) - most} more"] * (len(problems) > most) + [remedy] * bool(remedy)
        raise ValueError(f"adapter {folder}: {'; '.join(problems[:most] + more)}")


def _merge_it(keys: Iterable[str]) -> str:
    """Returns the remedy for what PEFT alone reads, which would add the adapter of an embedding to a tied head too."""
    untied = " on a base that merge_lora.py --untied-base wrote" * any(".lora_embedding_" in key for key in keys)
    return f"merge it with PEFT's merge_and_unload{untied} and give the saved folder as --model"


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of tensors that hold nan or inf, which would spread to all that is computed with them."""
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]


def _missing(config: dict[str, Any], known: Iterable[str], found: Iterable[str]) -> list[str]:
    """Returns the paths without tensors among those that PEFT would adapt, as far as names alone decide that."""
    names = config.get("target_modules")
    some = config.get("layers_to_transform") not in (None, [])  # 0 is a block
    if not isinstance(names, list) or some or config.get("exclude_modules"):
        return []
    ends = tuple(f".{name}" for name in names)
    return sorted({path for path in known if f".{path}".endswith(ends)} - {*found})


def attach(model: nn.Module, folder: Path) -> None:
    """Puts the adapters saved in `folder`, by `exported` or by PEFT, into the base model and freezes all else.

    A matrix adapted by PEFT gets one adapter for all its parts. Raises ValueError, with all that is wrong, for a
    missing or damaged file, unsupported settings, and an adapter made for another model.
    """
    config, tensors = _read(folder)
    _refuse(folder, config_problems(config), _merge_it(tensors) if merges_in_peft(config) else "")
    problems: list[str] = []
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, LAYERS)}
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        path, name = _split(key)
        if path not in layers or (name == "weight" and path.rpartition(".")[2] not in HEADS):
            problems.append(f"unknown {key}")
        else:
            found[path][name] = tensor
    for path, part in found.items():
        problems += _fit_problems(path, part, layers[path], config)
    problems += [NOT_FINITE.format(name) for name in not_finite(tensors)[:1]]
    if not problems and not any(A in part for part in found.values()):
        problems.append("holds no adapter of a linear layer")
    if not problems:
        problems += [f"no factors of {path}: it is of another base" for path in _missing(config, layers, found)]
    unread = any(problem.startswith("unknown ") for problem in problems)
    _refuse(folder, problems, f"if it is of this base, {_merge_it(tensors)}" if unread else "")
    model.requires_grad_(False)
    for path, part in found.items():
        if A in part:
            model.set_submodule(path, _adapter(layers[path], part, config, path))
        else:
            head = layers[path].get_parameter("weight")
            with torch.no_grad():
                head.copy_(part["weight"])
            head.requires_grad_(True)
