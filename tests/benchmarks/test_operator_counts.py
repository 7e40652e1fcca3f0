"""What a step asks of a GPU does not grow: the kernels of a block and of the rest, copies, waits of the host."""

import pytest
import torch
from accelerate.state import AcceleratorState

from _launches import Launches, Transfers, as_on_a_gpu
from _work import Work
from gpt2_scratch.config import GPT2Config
from operator_counts import counted, our_step
from training.flags.common import MethodArgs

# Task, attention -> kernels of a block, and of all that is not a block (of a classifier, with its last block).
MOST = {
    ("ift", "flash"): (56, 56),
    ("ift", "padded"): (62, 56),
    ("cls", "flash"): (56, 108),
}


@pytest.fixture(autouse=True)
def _own_precision():
    """All accelerators of a process share one state, which remembers the first precision."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def step_of(task, attention, blocks):
    config = GPT2Config(width=16, blocks=blocks, heads=2, vocabulary=101, context=512)
    work = Work(task, precision="bf16")
    with as_on_a_gpu(attention) as fake:
        return counted(fake, our_step(fake, work, MethodArgs(), config), task)


@pytest.mark.parametrize(("task", "attention"), MOST)
def test_a_step_launches_no_more_kernels_than_it_needs(task, attention):
    fewer, more = (step_of(task, attention, blocks) for blocks in (2, 3))
    block = more.kernels - fewer.kernels
    rest = fewer.kernels.total() - (2 if task == "ift" else 1) * block.total()
    most_of_a_block, most_of_the_rest = MOST[task, attention]
    assert block.total() <= most_of_a_block and rest <= most_of_the_rest, (block, rest)
    assert more.copies == 3  # tokens, layout, targets
    assert more.waits == {"_local_scalar_dense": 1}  # the norm of the gradient, which may be refused


def test_the_counter_sees_each_kind():
    launches = Launches(fake_mode())
    with launches, Transfers(launches):
        x = torch.arange(6.0).to(torch.device("cpu"))  # made on the host, then copied
        y = x.view(2, 3).t()  # no kernel
        z = torch.empty(3, 2, device="cpu").copy_(y)
        total = float((z + 1).sum())
        z.cpu()
    assert total == 1
    assert launches.kernels == {"copy_": 1, "add": 1, "sum": 1}
    assert (launches.copies, launches.waits) == (1, {"_local_scalar_dense": 1, "cpu": 1})


def fake_mode():
    with as_on_a_gpu("padded") as fake:
        return fake
