"""AdamW (also with 8-bit states), SGD, or Muon with AdamW. Weight decay acts on matrices only, unless told otherwise.

Every group of parameters has an `lr_ratio`: its learning rate over that of the schedule (training/step/update.py).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lora.adapter import b_factors
from lora.quantised import load_bitsandbytes
from training.flags.common import UpdateArgs


def parameter_groups(model: nn.Module, weight_decay: float, decay_all: bool, b_ratio: float = 1.0) -> list[dict]:
    """Groups trained parameters: matrices decay; biases, norms and embeddings do not unless `decay_all`; `b_ratio` is
    the lr_ratio of the B factors of adapters (Hayou et al. 2024, "LoRA+")."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    raised = {id(p) for p in b_factors(model)} if b_ratio != 1 else set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() >= 2 and id(parameter) not in embeddings
            decay = weight_decay if matrix or decay_all else 0.0
            groups.setdefault((decay, b_ratio if id(parameter) in raised else 1.0), []).append(parameter)
    return [{"params": p, "weight_decay": decay, "lr_ratio": ratio} for (decay, ratio), p in groups.items()]


def build_optimizer(
    model: nn.Module, args: UpdateArgs, scaled: bool = False, b_ratio: float = 1.0
) -> torch.optim.Optimizer:
    """Builds the optimizer. `scaled` losses (fp16) rule out torch's fused step, which skips an overflow silently."""
    groups = parameter_groups(model, args.weight_decay, args.decay_all, b_ratio)
    lr = 0.0  # set anew at every step (training/step/update.py)
    if args.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=not scaled)
    if "8bit" in args.optimizer:
        warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU")  # as --help says
        return load_bitsandbytes().optim.AdamW8bit(groups, lr=lr, is_paged=args.optimizer == "paged-adamw8bit")
    return torch.optim.SGD(groups, lr=lr, momentum=args.momentum if args.optimizer == "sgd-momentum" else 0.0)


class Together(torch.optim.Optimizer):
    """Several optimizers, each with its own parameters, used as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})  # the same dicts as the parts'

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None, "gradients are there before the step"
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def muon_with_adamw(
    model: nn.Module, embedding_ratio: float, other_ratio: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Builds Muon (Jordan et al. 2024) for the matrices of the blocks, and AdamW for embeddings, biases and norms.

    The ratios are those of AdamW's learning rates to Muon's.
    """
    embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    known = {id(p) for p in embeddings}
    rest = [p for p in model.parameters() if id(p) not in known]
    matrices, others = [p for p in rest if p.dim() == 2], [p for p in rest if p.dim() == 1]
    muon = torch.optim.Muon([{"params": matrices, "lr_ratio": 1.0}], lr=0.0, weight_decay=weight_decay)
    adamw = torch.optim.AdamW(
        [
            {"params": embeddings, "weight_decay": 0.0, "lr_ratio": embedding_ratio},
            {"params": others, "weight_decay": 0.0, "lr_ratio": other_ratio},
        ],
        lr=0.0,
        betas=(0.9, 0.95),
        fused=True,
    )
    return Together([muon, adamw])


def page_again(optimizer: torch.optim.Optimizer) -> None:
    """Moves the loaded states of a paged optimizer of bitsandbytes back to pages: it loads them as ordinary tensors of
    the GPU, where they may not fit."""
    if not getattr(optimizer, "is_paged", False):
        return
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        for name, loaded in optimizer.state.get(parameter, {}).items():
            if isinstance(loaded, Tensor) and loaded.shape == parameter.shape:
                page = optimizer.get_state_buffer(parameter, dtype=loaded.dtype)  # type: ignore[attr-defined]
                optimizer.state[parameter][name] = page.copy_(loaded)
