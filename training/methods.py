"""Base model + method -> the model that trains: adapters put in, everything else frozen, the head prepared."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.precision import HALF
from gpt2_scratch.pretrained import load_weights, without_storage
from lora import Adapter, Spec, variant
from training.args import BLOCK_TARGETS, MethodArgs, ModelArgs
from training.compute_args import ComputeArgs
from training.seeds import generator

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
FILL = 256  # tokens, of --compile filled
HeadTraining = Literal["train", "frozen+lora", "train+lora"]


def build_language_model(folder: Path, config: GPT2Config, model: ModelArgs) -> LanguageModel:
    built = without_storage(LanguageModel, replace(config, dropout=model.dropout))
    load_weights(built, folder)
    if model.untie_head and config.tied_head:
        built.untie()
    return built


def build_classifier(
    folder: Path,
    config: GPT2Config,
    model: ModelArgs,
    classes: int,
    seed: int,
    head_bias: bool = False,
    lm_token: bool = False,
) -> Classifier:
    """`lm_token`: classes are the first n tokens of the vocabulary, scored by the embedding (the report's NLE runs)."""
    built = without_storage(Classifier, replace(config, dropout=model.dropout), classes, head_bias, lm_token)
    load_weights(built, folder)
    if not lm_token:
        with torch.no_grad():
            built.score.weight.normal_(0.0, 0.02, generator=generator(seed, "head"))
            if head_bias:
                built.score.bias.zero_()
    elif model.untie_head and config.tied_head:
        built.untie()
    return built


def apply_method(
    model: LanguageModel | Classifier, method: MethodArgs, seed: int, head_training: HeadTraining = "train"
) -> None:
    """Freezes `model`, then lets train what the method names, in the last blocks only if asked.

    The class head trains with every method unless `head_training` freezes it; an LM head only with `full` and `head`.
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
    elif method.method == "lora":
        first = len(blocks) - len(chosen)
        for i, block in enumerate(chosen, first):
            _adapt_block(block, method, seed, i)
    if isinstance(model, Classifier):
        model.score.requires_grad_(head_training != "frozen+lora")
        if head_training != "train":
            adapter = _adapt(model.score, method, (0,), seed, "score", frozen=head_training == "frozen+lora")
            model.add_module("score", adapter)
    elif method.method == "head":
        model.lm_head.requires_grad_(True)
    elif method.method == "lora" and "lm-head" in method.lora_targets:
        model.add_module("lm_head", _adapt(model.lm_head, method, (0,), seed, "lm_head"))


def _adapt_block(block: nn.Module, method: MethodArgs, seed: int, index: int) -> None:
    active: dict[str, list[int]] = defaultdict(list)
    for target in BLOCK_TARGETS:
        if target in method.lora_targets:
            path, part = MATRICES[target]
            active[path].append(part)
    for path, parts in active.items():
        owner, name = path.split(".")
        parent = getattr(block, owner)
        setattr(
            parent,
            name,
            _adapt(getattr(parent, name), method, tuple(parts), seed, f"{index}.{path}", PARTS.get(path, 1)),
        )


def _adapt(
    linear: nn.Module,
    method: MethodArgs,
    active: tuple[int, ...],
    seed: int,
    place: str,
    parts: int = 1,
    frozen: bool = True,
) -> Adapter:
    assert isinstance(linear, nn.Linear)
    spec = Spec(method.lora_rank, method.lora_alpha, method.lora_scaling, method.lora_init)
    adapter = variant("lora")(linear, spec, parts, active, generator=generator(seed, "lora", place))
    if not frozen:
        linear.requires_grad_(True)
    return adapter


def apply_compute(model: LanguageModel | Classifier, method: str, compute: ComputeArgs, precision: str) -> None:
    """How the update is computed, once it is settled what trains. `precision` as Accelerate has it: no, bf16, fp16."""
    if compute.checkpoint_activations:
        model.transformer.checkpoint_blocks()
    if precision != "no" and method != "full":  # which saves the frozen blocks with those that train
        hold_frozen(model.transformer.h, HALF[precision])
    if compute.compile is not None:
        require_compiler()
        model.transformer.compile_blocks(FILL if compute.compile == "filled" else None)


def hold_frozen(blocks: nn.Module, dtype: torch.dtype) -> None:
    """Frozen matrices of the blocks in the precision they are computed in: half the memory, no cast at every use.

    Not those of heads: one may be the embedding too, which is not rounded, another is saved with the adapter.
    """
    for module in blocks.modules():
        for parameter in module.parameters(recurse=False) if isinstance(module, nn.Linear) else ():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)


def require_compiler() -> None:
    """Raises ValueError when code for a CPU cannot be compiled; on a GPU torch brings its own compiler."""
    if not torch.cuda.is_available():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise ValueError("--compile: needs a C++ compiler; install g++, or name one in CXX") from error


def parameter_counts(model: nn.Module) -> dict[str, int | float]:
    """`total` without adapters (what a fine-tuned model has once merged), `trainable`, and their ratio `share`."""
    adapter_owned = {
        id(p) for m in model.modules() if isinstance(m, Adapter) for n, p in m.named_parameters() if _added(n)
    }
    total = sum(p.numel() for p in model.parameters() if id(p) not in adapter_owned)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"total": total, "trainable": trainable, "share": trainable / total}


def _added(name: str) -> bool:
    return not name.startswith("linear.")


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """What the run adds to the base model: trained tensors, everything of an adapter, a class head even if frozen."""
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    for module in model.modules():
        if isinstance(module, Adapter):
            wanted |= {id(t) for n, t in [*module.named_parameters(), *module.named_buffers()] if _added(n)}
    if isinstance(model, Classifier) and not model.tied_score:
        wanted |= {id(t) for t in model.score.parameters()}
    return {n: t.detach() for n, t in [*model.named_parameters(), *model.named_buffers()] if id(t) in wanted}


def load_own_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Raises ValueError when names or shapes are not exactly those of `own_state(model)`."""
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
