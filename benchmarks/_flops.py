"""Counts the floating-point operations that one update needs, in closed form, from real tokens alone.

Counted: the matrices of the blocks, causal attention, the head. Not counted: element-wise work, anything computed twice
to save memory, and the thin products of adapters (at rank 16 3% of the frozen ones at width 768), so that a share of
the machine's speed is never overstated. A product costs as much again for each gradient that it has to give.
"""

from collections.abc import Sequence

from gpt2_scratch.config import GPT2Config
from training.flags.common import MethodArgs

TARGETS = (("q", "k", "v"), ("attn-out",), ("mlp-in",), ("mlp-out",))  # of the four matrices of a block, in order


def update_flops(
    config: GPT2Config,
    method: MethodArgs,
    lengths: Sequence[int],
    head: tuple[int, int],
    classifies: bool,
    cached: bool,
) -> int:
    """Counts the FLOPs of forward and backward pass over sequences of `lengths`.

    `head` is (rows, outputs) of the last matrix. A classifier reads the last token of each sequence, so that its last
    block needs only keys and values of the others. `cached`: blocks below the first trained one cost nothing.
    """
    first = config.blocks - (config.blocks if method.last_blocks is None else method.last_blocks)
    first = config.blocks if method.method == "head" else first
    total, reached = 0, False  # whether what enters the next product depends on something trained
    for i in range(first if cached else 0, config.blocks):
        adapted = method.lora_targets if i >= first and method.adapts else ()
        weights_train = method.method == "full" and i >= first
        reached |= i >= first and method.method in ("full", "bitfit")  # the norm in front of the first matrix
        last_only = classifies and i == config.blocks - 1
        for targets, forward in zip(TARGETS, _block_products(config.width, lengths, last_only), strict=True):
            matrix, attention = forward
            total += matrix * (1 + reached + weights_train)
            reached |= bool(set(targets) & set(adapted))
            total += attention * (3 if reached else 1)
    rows, outputs = head
    trains = classifies or method.method == "head" or (method.method == "full" and method.last_blocks is None)
    return total + 2 * rows * config.width * outputs * (1 + reached + trains)


def _block_products(c: int, lengths: Sequence[int], last_only: bool) -> list[tuple[int, int]]:
    """Counts forward FLOPs of (a matrix, the attention after it) for the four matrices of a block of width `c`."""
    n = sum(lengths)
    rows = len(lengths) if last_only else n
    pairs = n if last_only else sum(t * (t + 1) // 2 for t in lengths)  # of a query and a key that it sees
    return [(2 * c * (2 * c * n + c * rows), 4 * c * pairs), (2 * c * c * rows, 0), *[(8 * c * c * rows, 0)] * 2]
