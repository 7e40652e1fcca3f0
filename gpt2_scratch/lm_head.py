"""Log-probabilities of labelled tokens, for a head of V outputs whose logits never exist all at once.

The gradient of the hidden states needs every logit. Rather than keep the logits, or compute them twice, the forward
pass takes each chunk back to its hidden states at once, for an incoming gradient of one; the backward pass only scales
the result. This works for hidden states, since each token has its own, and for a head that trains if the incoming
gradient is the same for all tokens, as that of a sum is. Otherwise the logits are computed again; so they are in fp16,
where a gradient that is not yet scaled would be rounded to zero in the rows of rare tokens.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt2_scratch.linear import Linear, with_gaps
from gpt2_scratch.precision import at_least_fp32

LOGIT_ROWS = 1024  # labelled tokens whose V logits exist at one time: 1024 * 50257 * 4 bytes = 206 MB


class SomeRows(nn.Module):
    """A head for K tokens of the vocabulary: their `rows` (K, C) of another head's matrix, which get the gradients, and
    what is `added` to each logit (K,)."""

    def __init__(self, rows: Tensor, added: Tensor) -> None:
        super().__init__()
        self.rows, self.added = rows, added

    def forward(self, hidden: Tensor) -> Tensor:
        """(M, C) -> (M, K)"""
        return Linear.product(hidden, self.rows, self.added)


def label_log_probabilities(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    """Returns log p(label) (M,) of M tokens from their hidden states (M, C) and `labels` (M,)."""
    tensors = [head.rows] if isinstance(head, SomeRows) else head.parameters()
    trained = [tensor for tensor in tensors if tensor.requires_grad]
    if torch.is_grad_enabled() and (hidden.requires_grad or trained):
        return _LabelLogProbabilities.apply(head, hidden, labels, *trained)
    return _log_probabilities(head, hidden, labels)


def _log_probabilities(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    chunks = zip(hidden.split(LOGIT_ROWS), labels.split(LOGIT_ROWS), strict=True)
    found = [_log_softmax(head(rows)).gather(1, targets[:, None]).squeeze(1) for rows, targets in chunks]
    return torch.cat(found)


class _LabelLogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, head: nn.Module, hidden: Tensor, labels: Tensor, *trained: Tensor) -> Tensor:
        ctx.head, ctx.trained = head, trained
        ctx.random = _random_states(hidden.device) if trained and head.training else []
        kind = hidden.device.type
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        if trained and ctx.autocast[1:] == (torch.float16, True):
            found, gradients = _log_probabilities(head, hidden, labels), []
        else:
            found, *gradients = _forward_and_backward(head, hidden, labels, trained, None)
        ctx.save_for_backward(hidden, labels, *gradients)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, labels, *gradients = ctx.saved_tensors
        if gradients and len(gradient) and gradient.stride(0) == 0:  # one number for all tokens: that of a sum
            gradients = [x * gradient[0].to(x.dtype) for x in gradients]
        elif not ctx.trained:
            gradients = [gradients[0] * gradient[:, None].to(hidden.dtype)]
        else:
            with torch.autocast(*ctx.autocast), _replayed(hidden.device, ctx.random):
                gradients = _forward_and_backward(ctx.head, hidden, labels, ctx.trained, gradient)[1:]
        return None, gradients[0], None, *gradients[1:]


def _forward_and_backward(
    head: nn.Module, hidden: Tensor, labels: Tensor, trained: tuple[Tensor, ...], gradient: Tensor | None
) -> list[Tensor]:
    """Returns log-probabilities (M,) and gradients of their sum, weighted by `gradient`, for `hidden` and `trained`."""
    found = torch.empty(len(hidden), dtype=at_least_fp32(hidden), device=hidden.device)
    for_hidden = torch.empty_like(hidden)
    for_trained: list[Tensor] = []
    for part in _parts(len(hidden)):
        rows = hidden[part].detach().requires_grad_()
        with torch.enable_grad():
            logits = head(rows)  # (rows, V)
        z = _log_softmax(logits.detach())
        targets = labels[part, None]
        found[part] = z.gather(1, targets).squeeze(1)
        z.exp_().scatter_add_(1, targets, torch.full_like(targets, -1, dtype=z.dtype))  # minus the gradient
        if gradient is not None:
            z.mul_(gradient[part, None])
        wanted = torch.autograd.grad(logits, [rows, *trained], z.to(logits.dtype), materialize_grads=True)
        torch.neg(wanted[0], out=for_hidden[part])
        if for_trained:
            for total, x in zip(for_trained, wanted[1:], strict=True):
                total -= x
        else:
            for_trained = [x.neg_() for x in wanted[1:]]
        del logits, z  # before the next ones
    return [found, for_hidden, *(for_trained or map(torch.zeros_like, trained))]


def _random_states(device: torch.device) -> list[Tensor]:
    """Returns the states of the generators that dropout draws from: the CPU's, and the GPU's if `device` is one."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


@contextlib.contextmanager
def _replayed(device: torch.device, states: list[Tensor]) -> Iterator[None]:
    """Draws the random numbers that followed `states`, so that a head's dropout drops the same again. Afterwards the
    generators go on as if nothing had been drawn. Without states nothing changes."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=bool(states)):
        if states:
            torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], device)
        yield


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + LOGIT_ROWS) for start in range(0, count, LOGIT_ROWS))


def _log_softmax(logits: Tensor) -> Tensor:
    """Overwrites `logits` (rows, V), or an fp32 copy of logits in half precision, with their log-softmax."""
    logits = logits.to(at_least_fp32(logits))
    rows = with_gaps(logits)  # torch would copy rows that have gaps between them
    if rows is not logits:
        rows[:, logits.shape[1] :] = -torch.inf
    torch.log_softmax(rows, 1, out=rows)
    return logits
