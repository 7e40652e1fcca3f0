"""What the processes of one run tell each other, and that they part."""

from types import SimpleNamespace

import pytest
import torch
from forked import free_port, run_forked

from training.step import processes
from training.step.sharding import prepare

ROUNDS = 10

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
print("parted\\n", end="")  # written at once
"""


# What a checkpoint holds: nested, of several types, one tensor a view. Each process counts what each broadcast moves.
HANDED_ON = """
from pathlib import Path
import torch
from accelerate import Accelerator
from training.step.processes import check_seen, from_main, part

accelerator, sent, broadcast = Accelerator(cpu=True), [], torch.distributed.broadcast

def counted(tensor, *args, **kwargs):
    sent.append(tensor.nbytes)
    return broadcast(tensor, *args, **kwargs)

torch.distributed.broadcast = counted
whole = torch.arange(40_000.0).view(200, 200)
state = {"weights": {"a": whole, "b": whole.t(), "c": whole.bfloat16()}, "optimizer": [{0: whole + 1}, torch.ones(())]}
found = from_main(accelerator, lambda: state | {"flags": {"lr": 0.1, "data": None}})
assert found.keys() == {"weights", "optimizer", "flags"} and found["flags"] == {"lr": 0.1, "data": None}
for name, tensor in state["weights"].items():
    assert torch.equal(found["weights"][name], tensor) and found["weights"][name].dtype == tensor.dtype
assert torch.equal(found["optimizer"][0][0], whole + 1) and found["optimizer"][1] == 1
assert max(sent) == whole.nbytes, sent

check_seen(accelerator, Path("/"))
try:
    check_seen(accelerator, Path("/" if accelerator.is_main_process else "/not-on-this-host"))
    raise AssertionError("a host without the folder")
except ValueError as error:
    assert "a disk that all hosts share" in str(error)
part(accelerator)
print("parted\\n", end="")  # written at once
"""


def run_two(code, folder, *words):
    """Two processes that see each other."""
    (folder / "code.py").write_text(code)
    done = run_forked([folder / "code.py", *words], processes=2)
    assert (done.returncode, done.stdout) == (0, "parted\n" * 2), done.stderr


def test_what_the_main_process_read_reaches_all_and_no_more_than_one_tensor_at_a_time(tmp_path):
    run_two(HANDED_ON, tmp_path)


def test_processes_that_have_trained_part_and_do_not_wait_for_ever(tmp_path):
    """Without care for what holds the group last, the second or third round hangs."""
    run_two(TWO_PROCESSES, tmp_path, *(free_port() for _ in range(ROUNDS)))


def test_processes_whose_data_have_other_classes_say_so_before_they_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(processes, "gather_object", lambda mine: [*mine, {name: "another" for name in mine[0]}])
    accelerator = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="the processes do not have the same data .its classes. or base"):
        prepare(accelerator, torch.nn.Linear(2, 3))
