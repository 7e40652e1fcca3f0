"""Apple's GPU has no float64: whole runs on a device that refuses it, beside the same runs on the CPU."""

import numpy as np
import pytest
from conftest import ROOT, results_of, run_script
from forked import run_forked

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
