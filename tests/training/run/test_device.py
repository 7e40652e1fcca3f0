"""What is said of the device before training, and a launch for a GPU where there is none."""

import os
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils.launch import prepare_simple_launcher_cmd_env
from helpers import ROOT

from gpt2_scratch.config import GPT2Config
from training.flags.cli import note
from training.flags.compute import SpeedArgs
from training.forecast.micro_batch import SHARE, available
from training.run import threads
from training.run.device import advice, device_lines, forget_peak
from training.run.launch import check_launched, start
from training.run.results import peak_memory_mib

T4, V100, GTX_1080, A100, H100 = (7, 5), (7, 0), (6, 1), (8, 0), (9, 0)


@pytest.mark.parametrize(
    ("capability", "precision", "tf32", "told"),
    [
        (T4, "bf16", False, "emulates slowly: use --mixed-precision fp16"),
        (V100, "bf16", True, "emulates slowly: use --mixed-precision fp16"),
        (T4, "no", False, "use --mixed-precision fp16"),
        (T4, "fp16", False, None),
        (GTX_1080, "no", False, None),
        (A100, "no", False, "use --mixed-precision bf16, or at least --tf32"),
        (A100, "no", True, None),
        (A100, "bf16", False, None),
        (H100, "fp16", False, None),
    ],
)
def test_a_gpu_that_another_flag_would_serve_better_gets_one_line_of_advice(capability, precision, tf32, told):
    said = advice(capability, precision, tf32)
    assert said is None if told is None else said.endswith(told)


@pytest.mark.parametrize(
    ("precision", "dropout", "told"),
    [
        ("no", 0.0, "fp32; attention by sequence; 1 process with 1 thread"),
        ("bf16", 0.1, "bf16; padded attention; 1 process with 1 thread"),
    ],
)
def test_the_line_has_device_precision_attention_and_processes(precision, dropout, told):
    AcceleratorState._reset_state(reset_partial_state=True)
    (line,) = device_lines(Accelerator(cpu=True, mixed_precision=precision), GPT2Config(dropout=dropout))
    assert line.startswith("device     ") and line.endswith(f" cores; {told}")


def launched_environment(*flags):
    """What `accelerate launch` hands to a script."""
    args = launch_command_parser().parse_args([*map(str, flags), "script.py"])
    return prepare_simple_launcher_cmd_env(_validate_launch_command(args)[0])[1]


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    accelerator = SimpleNamespace(device=torch.device("cuda", 0), num_processes=2)
    with pytest.raises(ValueError, match="2 processes were launched for 1 GPU; add --num_processes 1"):
        check_launched(accelerator)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_launched(accelerator)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="torch sees none; unset ACCELERATE_TORCH_DEVICE"):
        check_launched(accelerator)


@pytest.mark.parametrize("flags", [["--num_processes", 2], []], ids=str)
def test_several_processes_of_which_one_is_started_are_noted(flags, monkeypatch, tmp_path, capsys):
    """On the command line, or in a configuration; the parent stands for the launcher."""
    config = tmp_path / "own.yaml"
    config.write_text("distributed_type: MULTI_CPU\nuse_cpu: true\nnum_processes: 2\nnum_machines: 1\n")
    words = ["--cpu", *flags] if flags else ["--config_file", config]
    for several, name_set in ((True, False), (True, True), (False, False)):
        for name, value in launched_environment(*(words if several else ["--cpu"])).items():
            monkeypatch.setenv(name, value)
        parent = SimpleNamespace(environ=lambda there=name_set: {"MASTER_ADDR": "10.0.0.1"} if there else {})
        monkeypatch.setattr(threads.psutil.Process, "parent", lambda self, one=parent: one)
        note.cache_clear()
        check_launched(SimpleNamespace(device=torch.device("cpu"), num_processes=1))
        assert ("asked for several processes, and starts one" in capsys.readouterr().err) is (several and not name_set)
        monkeypatch.delenv("MASTER_ADDR", raising=False)


def test_cached_memory_of_a_gpu_is_not_counted_twice(monkeypatch):
    """Of 80 GiB 79 are reserved, 15 of them for nothing, which torch frees before it is asked what is free."""
    gib, reserved = 2**30, [79 * 2**30]
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: reserved[0])
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: reserved.__setitem__(0, 64 * gib))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (80 * gib - reserved[0], 80 * gib))
    assert available(torch.device("cuda")) == 64 * gib + int(SHARE * 16 * gib)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        (["--config_file", ROOT / "accelerate_configs/gpu_bf16.yaml"], True),
        (["--config_file", ROOT / "accelerate_configs/gpu_fp16.yaml"], True),
        (["--config_file", ROOT / "accelerate_configs/gpu_bf16.yaml", "--cpu"], False),
        (["--config_file", ROOT / "accelerate_configs/cpu.yaml", "--mixed_precision", "bf16"], False),
        (["--config_file", ROOT / "accelerate_configs/cpu.yaml"], False),
    ],
)
def test_a_configuration_for_a_gpu_is_refused_where_there_is_none(flags, refused, monkeypatch, tmp_path):
    for name, value in launched_environment(*flags).items():
        monkeypatch.setenv(name, value)
    AcceleratorState._reset_state(reset_partial_state=True)
    if refused:
        with pytest.raises(ValueError, match="launched for a GPU, but torch sees none.*accelerate_configs/cpu.yaml"):
            start(SpeedArgs(), tmp_path, False)
    else:
        assert start(SpeedArgs(), tmp_path, False)[0].device.type == "cpu"
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_flag_of_cuda_gpus_is_noted_on_another_device(tmp_path, capsys):
    AcceleratorState._reset_state(reset_partial_state=True)
    start(SpeedArgs(tf32=True), tmp_path, False)
    assert "note    --tf32 changes nothing" in capsys.readouterr().err
    torch.backends.cuda.matmul.allow_tf32 = False
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_deterministic_run_lets_torch_take_no_other_algorithm(monkeypatch, tmp_path):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        for asked in (False, True):
            AcceleratorState._reset_state(reset_partial_state=True)
            start(SpeedArgs(deterministic=asked), tmp_path, False)
            assert torch.are_deterministic_algorithms_enabled() is asked
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux alone forgets a peak")
def test_a_peak_is_forgotten():
    accelerator = SimpleNamespace(device=torch.device("cpu"))
    torch.ones(2**28, dtype=torch.uint8)  # 256 MiB, gone again
    before = peak_memory_mib(accelerator)
    forget_peak(accelerator.device)
    assert peak_memory_mib(accelerator) < before - 100
