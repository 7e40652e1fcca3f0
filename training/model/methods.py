"""Turns a base model into the model that trains: adapters are put in, the rest is frozen, the head is prepared."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, Model
from gpt2_scratch.precision import HALF
from gpt2_scratch.pretrained import has_bias, load_weights, read_weight, without_storage
from lora.adapter import Adapter, Spec
from lora.loftq import start_at_rounding_error
from lora.quantised import QuantisedLinear
from lora.variants import adapter_class
from training.flags.common import ModelArgs
from training.flags.compute import SpeedArgs
from training.flags.method import BLOCK_TARGETS, MethodArgs, Target
from training.step.seeds import generator

# Target -> (matrix in a block, part of it). Queries, keys and values share one fused matrix.
MATRICES = {
    "q": ("attn.c_attn", 0),
    "k": ("attn.c_attn", 1),
    "v": ("attn.c_attn", 2),
    "attn-out": ("attn.c_proj", 0),
    "mlp-in": ("mlp.c_fc", 0),
    "mlp-out": ("mlp.c_proj", 0),
}
PARTS = {"attn.c_attn": 3}
HeadTraining = Literal["train", "frozen+lora", "train+lora"]


def quantised_matrices(model: Model, bits: Literal[4, 8] | None) -> dict[str, Callable[[Tensor], None]]:
    """Returns for each matrix of the blocks, by the name of its weight, a function that takes the weight and puts a
    quantised layer into `model` (for a weight on meta, without content). Empty without `bits`."""
    if bits is None:
        return {}

    def put(path: str, weight: Tensor) -> None:
        bias = model.get_submodule(path).get_parameter("bias")
        layer = QuantisedLinear(weight.shape[1], weight.shape[0], bias, bits)
        if not weight.is_meta:
            layer.store(weight)
        model.set_submodule(path, layer)

    blocks = len(model.transformer.h)
    paths = [f"transformer.h.{i}.{matrix}" for i in range(blocks) for matrix in dict(MATRICES.values())]
    return {f"{path}.weight": partial(put, path) for path in paths}


def _read_base(built: Model, folder: Path | None, model: ModelArgs, class_head: bool = True) -> None:
    """Loads the weights of the base into `built`. `folder` None: layers of the right shape, without storage."""
    put = quantised_matrices(built, model.base_bits)
    if folder is not None:
        load_weights(built, folder, put, class_head=class_head)
        return
    with torch.device("meta"):
        for name, place in put.items():
            place(built.get_parameter(name))


def build_language_model(folder: Path | None, config: GPT2Config, model: ModelArgs) -> LanguageModel:
    """Builds the base in `folder`. None: a model without weights, for a dry run, whose base may not fit into memory."""
    built = without_storage(LanguageModel, replace(config, dropout=model.dropout))
    _read_base(built, folder, model)
    if model.untie_head and config.tied_head:
        built.untie()
    return built


def build_classifier(
    folder: Path | None,
    config: GPT2Config,
    model: ModelArgs,
    classes: int,
    seed: int,
    head_bias: bool = False,
    lm_token: bool = False,
    rows: Sequence[int] | None = None,
) -> Classifier:
    """Builds the base in `folder` (None: as in `build_language_model`) with a class head.

    `lm_token`: classes are the first n tokens of the vocabulary, scored by the embedding (the report's NLE runs).
    `rows`: the rows of the trained class head in `folder` that are our classes, in our order; None: a new head."""
    built = without_storage(Classifier, replace(config, dropout=model.dropout), classes, head_bias, lm_token)
    _read_base(built, folder, model, class_head=False)
    if not lm_token and folder is not None:
        with torch.no_grad():
            built.score.weight.normal_(0.0, 0.02, generator=generator(seed, "head"))
            if rows is not None:
                built.score.weight.copy_(read_weight(folder, "score.weight")[list(rows)])
            if head_bias and rows is not None and has_bias(folder):
                built.score.bias.copy_(read_weight(folder, "score.bias")[list(rows)])
            elif head_bias:
                built.score.bias.zero_()
    elif lm_token and model.untie_head and config.tied_head:
        built.untie()
    return built


def apply_method(
    model: Model, method: MethodArgs, seed: int, head_training: HeadTraining = "train", source: Path | None = None
) -> None:
    """Freezes `model`, then unfreezes or adds what the method trains, in the last blocks only if asked.

    The class head trains with every method unless `head_training` freezes it; an LM head only with `full` and `head`.
    `source`: folder of the base model, from which --lora-init loftq reads the quantised matrices once more; without it
    they start as with `standard`, for a caller who then loads saved factors.
    """
    blocks = list(model.transformer.h)
    chosen = blocks if method.last_blocks is None else blocks[-method.last_blocks :]
    model.requires_grad_(method.method == "full" and method.last_blocks is None)
    if method.method == "full":
        for module in (*chosen, model.transformer.ln_f):
            module.requires_grad_(True)
    elif method.method == "bitfit":
        for module in (*chosen, model.transformer.ln_f):
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(name.endswith("bias"))
    elif method.adapts:
        for i, block in enumerate(chosen, len(blocks) - len(chosen)):
            _adapt_block(block, method, seed, i, source)
    if isinstance(model, Classifier):
        model.score.requires_grad_(head_training != "frozen+lora")
        if head_training != "train":
            score = _adapt_head(model.score, method, seed, "score")
            score.linear.requires_grad_(head_training == "train+lora")
            model.add_module("score", score)
    elif method.method == "head":
        model.lm_head.requires_grad_(True)
    elif method.adapts and "lm-head" in method.lora_targets:
        model.add_module("lm_head", _adapt_head(model.lm_head, method, seed, "lm_head"))
    if method.train_embedding:  # last: an adapter has frozen its matrix, which a tied head shares with the embedding
        model.transformer.wte.requires_grad_(True)


def _adapt_block(block: nn.Module, method: MethodArgs, seed: int, index: int, source: Path | None) -> None:
    adapted: dict[str, list[Target]] = defaultdict(list)
    for target in BLOCK_TARGETS:
        if target in method.lora_targets:
            adapted[MATRICES[target][0]].append(target)
    for path, targets in adapted.items():
        linear, spec = block.get_submodule(path), _spec(method, f"h.{index}.{targets[0]}")  # that of all `targets`
        active, draw = tuple(MATRICES[target][1] for target in targets), generator(seed, "lora", f"{index}.{path}")
        adapter = adapter_class(method.method)(linear, spec, PARTS.get(path, 1), active, draw)
        if method.lora_init == "loftq" and source is not None and isinstance(linear, QuantisedLinear):
            start_at_rounding_error(adapter, read_weight(source, f"transformer.h.{index}.{path}.weight"))
        block.set_submodule(path, adapter)


def _adapt_head(head: nn.Module, method: MethodArgs, seed: int, name: str) -> Adapter:
    spec = _spec(method, name.replace("_", "-"))
    return adapter_class(method.method)(head, spec, generator=generator(seed, "lora", name))


def _spec(method: MethodArgs, place: str) -> Spec:
    """Returns the spec of the adapter of the matrix at `place`; loftq replaces its factors later."""
    init = "standard" if method.lora_init == "loftq" else method.lora_init
    return Spec(method.rank_at(place), method.alpha_at(place), method.lora_scaling, init, method.lora_dropout)


def apply_compute(model: Model, method: str, compute: SpeedArgs, precision: str) -> None:
    """Sets how an update is computed, after `apply_method`. `precision` is no, bf16 or fp16."""
    if compute.checkpoint_activations:
        model.transformer.checkpointing = True
    if precision != "no" and method != "full":  # full saves its frozen blocks too
        hold_frozen(model.transformer.h, HALF[precision])


def hold_frozen(blocks: nn.Module, dtype: torch.dtype) -> None:
    """Converts frozen matrices of the blocks to the precision of the computation: half the memory, and no casts.

    Heads stay as they are: one may be the embedding too, which is not rounded, and another is saved with the adapter.
    """
    for module in blocks.modules():
        for parameter in module.parameters(recurse=False) if isinstance(module, nn.Linear) else ():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)


def parameter_counts(model: nn.Module) -> dict[str, int | float]:
    """Counts `total` parameters without adapters (as in a merged model), `trainable` ones, and their ratio `share`."""
    owners = [m for m in model.modules() if isinstance(m, Adapter)]
    adapter_owned = {id(p) for m in owners for n, p in m.named_parameters() if _added(n)}
    quantised = [m for m in model.modules() if isinstance(m, QuantisedLinear)]
    stored = {id(p) for m in quantised for p in m.stored()}
    total = sum(p.numel() for p in model.parameters() if id(p) not in adapter_owned | stored)
    total += sum(m.in_features * m.out_features for m in quantised)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"total": total, "trainable": trainable, "share": trainable / total}


def _added(name: str) -> bool:
    return not name.startswith("linear.")


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors that a run adds to the base: trained ones, adapters, and a class head even if frozen."""
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    for module in model.modules():
        if isinstance(module, Adapter):
            wanted |= {id(t) for n, t in [*module.named_parameters(), *module.named_buffers()] if _added(n)}
    if isinstance(model, Classifier) and not model.embedding_head:
        wanted |= {id(t) for t in model.score.parameters()}
    return {n: t.detach() for n, t in [*model.named_parameters(), *model.named_buffers()] if id(t) in wanted}


def load_own_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads `state` into `model`. Raises ValueError unless its names and shapes are those of `own_state(model)`."""
    expected = own_state(model)
    problems = [f"missing {n}" for n in expected.keys() - state.keys()]
    problems += [f"unexpected {n}" for n in state.keys() - expected.keys()]
    problems += [
        f"{n} has shape {tuple(state[n].shape)} instead of {tuple(expected[n].shape)}"
        for n in expected.keys() & state.keys()
        if state[n].shape != expected[n].shape
    ]
    if problems:
        raise ValueError(f"saved weights do not fit this model: {'; '.join(sorted(problems)[:6])}")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(state[name])
