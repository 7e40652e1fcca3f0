"""Reads weights in Hugging Face's format into our tensors and writes them back.

Every key of a file must find its tensor, and every tensor its key, with equal shapes; else the error names some.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gpt2_scratch.config import to_hf
from gpt2_scratch.model import Classifier, LanguageModel, Model
from gpt2_scratch.tokenizer import Tokenizer
from gpt2_scratch.weights import keys, read_tensor, tensors, write_tensors
from gpt2_scratch.weights import weights_hash as weights_hash

# The original's Conv1D stores (in, out), nn.Linear (out, in).
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# Causal masks that old checkpoints carry. The dot matters: "attn.bias" alone would also match c_attn.bias.
MASKS = (".attn.bias", ".attn.masked_bias")
# Heads that transformers and TRL put on a GPT-2; `score` is a classifier's.
HEADS = ("score.", "classifier.", "multiple_choice_head.", "qa_outputs.", "v_head.")
WRAPPED = re.compile(r"^(?:(?:_orig_mod|module)\.)+")


class _Uninitialised(TorchFunctionMode):
    """Leaves out initialisers. Drawing numbers for tensors without storage makes torch import its compiler, for half a
    second, which scripts that do not train are spared."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def without_storage(build: Any, *args: Any, **kwargs: Any) -> Any:
    """Builds a model whose tensors have shapes but no memory, to count them or to read weights straight into place."""
    with torch.device("meta"), _Uninitialised():
        return build(*args, **kwargs)


def unwrapped(key: str) -> str:
    """Returns the name of a tensor without what torch.compile and DistributedDataParallel put before it."""
    return WRAPPED.sub("", key)


def _refuse_infinite(key: str, tensor: Tensor, folder: Path) -> None:
    """Raises ValueError for a tensor that holds nan or inf, which would spread to all that is computed with it."""
    wide = tensor.float() if tensor.itemsize == 1 else tensor  # aminmax has no 8 bits
    if not all(bound.isfinite() for bound in wide.aminmax()):
        raise ValueError(f"weights in {folder}: {key} holds numbers that are not finite (nan or inf); take others")


def load_weights(
    model: Model, folder: Path, elsewhere: Mapping[str, Callable[[Tensor], None]] | None = None, class_head: bool = True
) -> None:
    """Reads `folder` into `model` (built by `without_storage` or not), as fp32.

    The caller initialises a class head that the file lacks; without `class_head` the one in the file is ignored, and
    other heads always are (`heads_in` names them). A classifier ignores an LM head in the file, unless it scores with
    an untied embedding; in a model that ties its LM head, the one in the file must equal the embedding. `elsewhere` has
    functions that take the tensor of a name instead of `model`, whose parameter then stays without storage.
    """
    elsewhere = elsewhere or {}
    _give_storage(model, elsewhere)
    wanted: dict[str, Tensor] = dict(model.named_parameters())
    if isinstance(model, LanguageModel) and model.config.tied_head:
        wanted["lm_head.weight"] = model.lm_head.weight  # listed once under its first name only
    scores_with_lm_head = isinstance(model, Classifier) and model.embedding_head and not model.config.tied_head
    reads_score = isinstance(model, Classifier) and (class_head or scores_with_lm_head)
    problems, found, met = [], set(), set()
    for key, tensor in tensors(folder):
        name = unwrapped(key)
        name = name if name.startswith(("transformer.", "lm_head.", *HEADS)) else f"transformer.{name}"
        if name == "lm_head.weight" and model.config.tied_head and "transformer.wte.weight" not in met:
            name = (
                "transformer.wte.weight"  # it comes first if it is there; safetensors' save_model keeps one of the two
            )
        met.add(name)
        if name.startswith(HEADS) and not (reads_score and name.startswith("score.")):
            continue
        if name == "lm_head.weight" and scores_with_lm_head:
            name = "score.weight"
        if name.endswith(MASKS) or (name == "lm_head.weight" and isinstance(model, Classifier)):
            continue
        target = wanted.get(name)
        tensor = tensor.t() if name.endswith(TRANSPOSED) and tensor.dim() == 2 else tensor
        if target is None:
            problems.append(f"unexpected {key}")
        elif not tensor.is_floating_point():
            problems.append(f"{key} is {tensor.dtype}, quantised; save the model unquantised")
        elif target.shape != tensor.shape:
            problems.append(f"{key} has shape {tuple(tensor.shape)} instead of {tuple(target.shape)}")
        elif name == "lm_head.weight" and model.config.tied_head and "transformer.wte.weight" in found:
            if not torch.equal(target, tensor.to(target.dtype)):
                problems.append(
                    "lm_head.weight differs from wte.weight although config.json ties them; if it was trained by "
                    'itself, set "tie_word_embeddings" to false there'
                )
        elif name != "lm_head.weight" or not model.config.tied_head:
            _refuse_infinite(key, tensor, folder)
            with torch.no_grad():
                elsewhere.get(name, target.copy_)(tensor)
            found.add(name)
    optional = {"lm_head.weight"} if model.config.tied_head else set()
    optional |= {name for name in wanted if name.startswith("score.") and not scores_with_lm_head}
    problems += [f"missing {name}" for name in sorted(wanted.keys() - found - optional)]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise ValueError(f"weights in {folder} do not fit this model: {shown}")


def _give_storage(model: Model, elsewhere: Mapping[str, Any]) -> None:
    without = [(name, p) for name, p in model.named_parameters() if p.is_meta and name not in elsewhere]
    for name, parameter in without:
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, nn.Parameter(torch.empty_like(parameter, device="cpu")))
    if without:
        model.tie()


def heads_in(folder: Path) -> list[str]:
    """Returns the names of those HEADS that the weights have, without the dot."""
    known = [unwrapped(key) for key in keys(folder)]
    return [head.removesuffix(".") for head in HEADS if any(key.startswith(head) for key in known)]


def has_bias(folder: Path) -> bool:
    """Whether the class head of the weights has a bias."""
    return "score.bias" in map(unwrapped, keys(folder))


def read_weight(folder: Path, name: str) -> Tensor:
    """Reads, in fp32, the tensor that `load_weights` puts at `name`, for example transformer.h.0.mlp.c_fc.weight."""
    names = [key for key in keys(folder) if unwrapped(key) in (name, name.removeprefix("transformer."))]
    tensor = read_tensor(folder, *names, name)
    _refuse_infinite(name, tensor, folder)
    return (tensor.t() if name.endswith(TRANSPOSED) else tensor).to(torch.float32, copy=True)


def hf_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns our parameters as Hugging Face names and stores them, without a tied head, as transformers does."""
    return {
        name: (p.detach().t() if name.endswith(TRANSPOSED) else p.detach()).contiguous()
        for name, p in model.named_parameters()
    }


def save_pretrained(
    model: Model, folder: Path, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32, **more: Any
) -> None:
    """Writes config.json, model.safetensors with tensors of `dtype`, and the tokenizer's files, as transformers reads
    them. `more` goes into config.json, for example `id2label`. Raises OSError when the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    architecture = "GPT2LMHeadModel" if isinstance(model, LanguageModel) else "GPT2ForSequenceClassification"
    state = {name: tensor.to(dtype) for name, tensor in hf_state(model).items()}
    write_tensors(folder / "model.safetensors", state, {"format": "pt"})
    end, stops = tokenizer.vocabulary.end, sorted(tokenizer.vocabulary.stops)
    ids = {"bos_token_id": end, "eos_token_id": [end, *stops] if stops else end, "pad_token_id": tokenizer.pad}
    settings = to_hf(model.config, architecture, dtype=str(dtype).removeprefix("torch."), **ids, **more)
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    tokenizer.save(folder, model.config.context)


@torch.no_grad()
def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Rounds every weight to `dtype`, in place: what is saved in it then is what was evaluated."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))
