"""Apple's GPU has no float64: whole runs on a device that refuses it, beside the same runs on the CPU."""

import numpy as np
import pytest
from forked import run_forked
from helpers import ROOT, results_of, run_script

ON_DEVICE = """
import runpy, sys
from accelerate.state import PartialState
import apple_device
PartialState.default_device = apple_device.device()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift"])
def test_a_run_on_a_device_without_float64_has_the_losses_of_the_cpu(
    script, tiny_model, mail_file, question_file, tmp_path
):
    data, code = (mail_file if script == "finetune_cls" else question_file), tmp_path / "on_device.py"
    code.write_text(ON_DEVICE)
    flags = [
        "--data",
        data,
        "--model",
        tiny_model,
        "--max-steps",
        3,
        "--batch-size",
        4,
        "--eval-every",
        1,
        "--lr",
        0.01,
    ]
    flags += (
        ["--new-tokens", 0] if script == "finetune_ift" else []
    )  # torch.tensor cannot make a tensor on the stand-in
    flags += ["--forgetting-tokens", 50, "--output-dir"]
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "ACCELERATE_USE_CPU": "false"}
    there = run_forked([code, ROOT / "scripts" / f"{script}.py", *flags, tmp_path / "there"], **path)
    here = run_script(script, *flags, tmp_path / "here")
    assert there.returncode == here.returncode == 0, there.stderr + here.stderr
    found, expected = (results_of(tmp_path / name) for name in ("there", "here"))
    for name in ("train_loss", "val_loss", "grad_norm"):
        values = [[point[name] for point in results["curve"]] for results in (found, expected)]
        assert np.ptp(values[1]) > 0
        assert values[0] == pytest.approx(values[1], rel=1e-4), name
    assert found["test"]["loss"]["value"] == pytest.approx(expected["test"]["loss"]["value"], rel=1e-4)
    assert found["forgetting"]["after"]["value"] == pytest.approx(expected["forgetting"]["after"]["value"], rel=1e-4)


TRIED = """
import apple_device, numpy as np
from accelerate import Accelerator
from accelerate.state import PartialState
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier
from training.data.batches import Encoded
from training.flags.common import MethodArgs, UpdateArgs
from training.forecast.micro_batch import attempt
from training.forecast.workload import Workload
from training.model.methods import apply_method

PartialState.default_device = apple_device.device()
accelerator = Accelerator()
model = Classifier(GPT2Config(width=16, blocks=2, heads=2, vocabulary=50, context=32), 2)
apply_method(model, MethodArgs(), 0)
examples = [Encoded(i, np.ones(9, np.int32), i % 2) for i in range(4)]
workload = Workload(model, UpdateArgs(batch_size=4), accelerator, examples, examples)
print(accelerator.device.type, attempt(workload, [examples[:2], examples[2:]], 1000))
"""


def test_a_micro_batch_is_tried_on_a_device_that_is_not_the_cpu(tmp_path):
    (tmp_path / "code.py").write_text(TRIED)
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "ACCELERATE_USE_CPU": "false"}
    done = run_forked([tmp_path / "code.py"], **path)
    assert done.returncode == 0 and done.stdout.split() == ["apple", "True"], done.stderr


GATHERED = """
from types import SimpleNamespace
import apple_device, torch
from training.step import sharding

device, model = apple_device.device(), torch.nn.Linear(2, 2)
model.register_buffer("start", torch.ones(3).to(device))
sharding.is_sharded = lambda model: True
sharding.gather(SimpleNamespace(is_main_process=True), model)
print(model.start.device.type, float(model.start.sum()))
"""


def test_what_sharding_has_moved_to_a_gpu_comes_back_with_the_weights(tmp_path):
    (tmp_path / "code.py").write_text(GATHERED)
    done = run_forked([tmp_path / "code.py"], PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert done.returncode == 0 and done.stdout.split() == ["cpu", "3.0"], done.stderr


def test_log_probabilities_that_were_kept_arrive_in_single_precision_where_there_is_no_double(tmp_path):
    code = "import apple_device, torch\nfrom gpt2_scratch.transfer import to_device\n"
    code += "found = to_device(torch.ones(3, dtype=torch.float64), apple_device.device())\n"
    (tmp_path / "code.py").write_text(code + "print(found.dtype, found.device.type)")
    done = run_forked([tmp_path / "code.py"], PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert done.returncode == 0 and done.stdout.split() == ["torch.float32", "apple"], done.stderr
