"""AdamW and SGD over what is trained; weight decay on matrices only, unless told otherwise."""

import torch
from torch import nn

from training.args import UpdateArgs


def parameter_groups(model: nn.Module, weight_decay: float, decay_all: bool) -> list[dict]:
    """Trained parameters in two groups: matrices that decay, and biases, norms and embeddings that do not."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() >= 2 and id(parameter) not in embeddings
            (decayed if matrix or decay_all else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, args: UpdateArgs, scaled: bool = False) -> torch.optim.Optimizer:
    """`scaled`: losses are scaled for fp16. Torch's fused step would skip an overflow without telling."""
    groups = parameter_groups(model, args.weight_decay, args.decay_all)
    lr = 0.0  # set anew at every step (training/update.py)
    if args.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=not scaled)
    return torch.optim.SGD(groups, lr=lr, momentum=args.momentum if args.optimizer == "sgd-momentum" else 0.0)
