"""What the processes of one run tell each other, and that they part."""

import os
import subprocess
import sys

from forked import ROOT, free_port

ROUNDS = 40

# The last collective before the end has tensors that Python knows, as those of an evaluation do.
TWO_PROCESSES = """
import os, sys
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from training.step.processes import part

def train():
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(nn.Linear(2, 2))
    accelerator.backward(model(torch.ones(1, 2)).sum())
    accelerator.gather(torch.ones(4)).sum().item()
    part(accelerator, model)

torch.set_num_threads(1)
for port in sys.argv[1:]:
    os.environ["MASTER_PORT"] = port
    AcceleratorState._reset_state(reset_partial_state=True)
    train()
print("parted")
"""


def test_processes_that_have_trained_part_and_do_not_wait_for_ever():
    """Without care for what holds the group last, the second or third round hangs."""
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    ports = [free_port() for _ in range(ROUNDS)]
    shared |= {"LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, *ports],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in started:
            said, warned = process.communicate(timeout=120)
            assert (process.returncode, said) == (0, "parted\n"), warned
    finally:
        for process in started:
            process.kill()
