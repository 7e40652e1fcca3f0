"""The GPU check on a CPU, smaller: each check runs, and fails where it should; a part that crashes or hangs is told."""

import gc
import json
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import torch
from accelerate.state import AcceleratorState
from forked import run_forked, start_forked
from test_commands import load_script

import _gpu_cost
import _gpu_numbers
import _gpu_runs
import gpu_check
from _gpu import Line, facts, kernels, syncs
from _work import Work
from gpt2_scratch.config import GPT2Config
from training.flags.cli import problems_in
from training.flags.command_line import parse

CPU = torch.device("cpu")
TINY = GPT2Config(width=32, blocks=2, heads=4, context=64, vocabulary=101)
SMALL = _gpu_numbers.Sizes(TINY, (40, 1, 7), ("lora", "full"), ("fp32", "bf16"))


@pytest.fixture(autouse=True)
def _own_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_line_says_whether_its_value_is_within_its_limits():
    assert [Line("x", value, 0.9, 1.1).ok for value in (0.8, 0.9, 1.0, 1.2, float("nan"))] == [0, 1, 1, 0, 0]
    assert Line("x", 3.0).shown().split() == ["ok", "x", "3", "-"]
    assert Line("x", 2.0, high=1, note="dora").shown().split() == ["FAIL", "x", "2", "<=", "1", "(dora)"]
    assert Line("x", 2.0, high=1).entry() == {"name": "x", "value": 2.0, "high": 1, "ok": False}


@pytest.mark.parametrize("check", ["route", "attention", "gradients", "repeats", "memory"])
def test_a_cpu_passes_every_check_of_numbers(check):
    lines = [*getattr(_gpu_numbers, check)(CPU, SMALL)]
    assert lines and all(line.ok for line in lines), lines
    assert any(abs(line.low) < 2 or abs(line.high) < 2 for line in lines), "one has a limit"


def test_steps_that_overflow_are_void_until_the_scale_has_shrunk():
    """On a CPU in fp32, at the largest scale but one."""
    lines = [*_gpu_numbers.overflow(CPU, SMALL, 2.0**127)]
    assert [line.ok for line in lines] == [True, True] and lines[0].value >= 1
    assert not all(line.ok for line in _gpu_numbers.overflow(CPU, SMALL, 1.0)), "nothing overflows"


def test_on_a_gpu_the_loss_is_scaled_by_accelerate_as_in_a_run(monkeypatch):
    monkeypatch.setattr(_gpu_numbers, "Accelerator", lambda **given: given)
    given = _gpu_numbers.scaling(torch.device("cuda"), 8.0)
    assert given["mixed_precision"] == "fp16" and given["kwargs_handlers"][0].init_scale == 8


def test_tf32_is_off_whatever_a_container_says(tmp_path):
    torch.backends.cuda.matmul.allow_tf32 = True
    assert next(_gpu_numbers.checks(CPU, tmp_path)).ok
    assert not torch.backends.cuda.matmul.allow_tf32


def test_attention_that_is_wrong_fails(monkeypatch):
    right = _gpu_numbers.attend_padded
    monkeypatch.setattr(_gpu_numbers, "attend_padded", lambda qkv, layout: right(qkv * 1.05, layout))
    failed = {line.name.split(", ")[1] for line in _gpu_numbers.attention(CPU, SMALL) if not line.ok}
    assert failed == {"padded"}


@pytest.mark.parametrize("factor", [1.5, float("nan")])
def test_gradients_that_are_wrong_fail_and_name_the_method(factor, monkeypatch):
    """Also where they are no numbers, in the last method."""
    right = _gpu_numbers.apply_compute

    def shifted(model, method, *rest):
        right(model, method, *rest)
        if method == "full":
            model.transformer.ln_f.weight.data.mul_(factor)

    monkeypatch.setattr(_gpu_numbers, "apply_compute", shifted)
    lines = [*_gpu_numbers.gradients(CPU, SMALL)]
    assert lines and not any(line.ok for line in lines) and {line.note for line in lines} == {"full"}


def test_a_resumed_curve_that_is_no_number_is_no_small_difference(tmp_path):
    for name, losses in (("whole", [1.0, 1.0]), ("resumed", [1.0, float("nan")])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"curve": [{"train_loss": x} for x in losses]}))
    assert _gpu_runs.largest_difference(tmp_path / "resumed", tmp_path / "whole") == float("inf")


def test_what_runs_is_counted():
    x = torch.ones(64, 64)
    once, twice = kernels(lambda: x @ x, CPU), kernels(lambda: x @ x @ x, CPU)
    assert 0 < once.number < twice.number and 0 < once.seconds < 1

    def named():
        with torch.profiler.record_function("a name for it"):
            return x @ x

    assert kernels(named, CPU).number == once.number
    assert syncs(lambda: x.sum().item(), CPU) == 0
    assert facts(CPU)["torch"] == torch.__version__ and "gpu" not in facts(CPU)


class Forked:
    """A script in a fork that need not import the libraries, as subprocess.Popen would be."""

    def __init__(self, words, log):
        self.folder = TemporaryDirectory()
        self.log = log
        (self.process,) = start_forked(words, Path(self.folder.name))

    def poll(self):
        return self.process.exitcode

    def kill(self):
        self.process.kill()

    def wait(self):
        self.process.join()
        self.log.write_text("".join(Path(self.folder.name, name).read_text() for name in ("out", "err")))
        self.folder.cleanup()
        return self.process.exitcode


@pytest.fixture
def small_runs(tiny_model, mail_file, tmp_path):
    common = f"--model {tiny_model} --max-steps 40 --batch-size 8 --eval-every 40 --save-every 2 --report-to none"
    common += " --forgetting-data none"
    words = (tuple(text.split()) for text in (common, f"--data {mail_file}", "--data none.jsonl"))
    return _gpu_runs.Sizes(*words, "no", "no", Forked)


def test_a_run_is_killed_and_resumed_and_compared(small_runs, tmp_path):
    words = [*_gpu_runs.commands(small_runs).values()][0]
    assert _gpu_runs.finished("whole", words, tmp_path / "whole", small_runs).ok
    lines = [*_gpu_runs.resumed(words, tmp_path / "killed", tmp_path / "whole", small_runs)]
    assert len(lines) == 3 and all(line.ok for line in lines), lines
    assert lines[-1].value == 0


def test_a_run_that_fails_is_told_with_its_last_words(small_runs, tmp_path):
    words = _gpu_runs.commands(small_runs)["ift no"]
    line = _gpu_runs.finished("ift", words, tmp_path / "run", small_runs)
    assert not line.ok and line.value == 2 and line.note.startswith("error: --data none.jsonl: no such file")


def test_the_flags_of_all_runs_are_right(tmp_path):
    found = _gpu_runs.commands(_gpu_runs.usual(CPU, tmp_path))
    assert len(found) == 4 and len((tmp_path / "questions.jsonl").read_text().splitlines()) == 60
    for script, *words in found.values():
        args = parse(load_script(Path(script).stem).Args, words)
        assert problems_in(args) == [], words


NANO = {"model": "gpt2-nano", "batch_size": 2, "steps": 2, "device": "cpu"}


def test_memory_is_forecast_and_measured(monkeypatch):
    """Libraries and data are most of it, and known beforehand; what comes on top of them is forecast too."""
    found = {}

    def remember(name, measure):
        monkeypatch.setattr(_gpu_cost, name, lambda *args: found.setdefault(name, measure(*args)))

    remember("resident", _gpu_cost.resident)
    remember("measured_peak", _gpu_cost.measured_peak)
    sizes = _gpu_cost.Sizes(((Work("cls", **NANO), "full", 1, False),), (), 32)
    (line,) = _gpu_cost.forecast(CPU, sizes)
    base, peak = found["resident"], found["measured_peak"]
    assert line.value == pytest.approx(1, abs=0.1)
    # Less is measured where earlier tests have left gaps in this process's memory.
    assert 0.8 < (line.value * peak - base) / (peak - base) < 1.4


def test_an_update_is_compared_with_that_of_transformers_and_peft():
    sizes = _gpu_cost.Sizes((), (Work("ift", **NANO),), 24)
    lines = {line.name.split(": ")[1]: line for line in _gpu_cost.peer(CPU, sizes)}
    assert all(line.ok for line in lines.values()) and lines["first loss against PEFT's"].value < 1e-4
    counts = [line.value for name, line in lines.items() if name == "kernels a step"]
    assert lines["speed over PEFT's"].value > 0 and counts[0] > 100


class Side:
    """Either side of the comparison, and nothing that it takes."""

    alive = weakref.WeakSet()

    def __init__(self, *given, **more):
        self.alive.add(self)

    def update(self, batch):
        return torch.ones(()) + 1


def test_the_models_of_a_comparison_are_gone_before_the_next_one(monkeypatch):
    held = []

    def forget():
        gc.collect()
        held.append(len(Side.alive))

    monkeypatch.setattr(_gpu_cost, "forget", forget)
    for name in ("Training", "PeerTraining"):
        monkeypatch.setattr(_gpu_cost, name, Side)
    work = Work("cls", **NANO)
    assert len([*_gpu_cost.peer(CPU, _gpu_cost.Sizes((), (work, work), 24))]) == 20
    assert held == [0, 0]


def test_the_usual_work_is_of_several_kinds_and_fits_the_models():
    sizes = _gpu_cost.usual(CPU)
    assert len(sizes.memory) == 6 and len(sizes.peers) == 2
    grouped = _gpu_cost.batches(sizes.peers[0], sizes.longest)
    assert len(grouped) == sizes.peers[0].steps + 2 and {len(batch) for batch in grouped} == {8}
    for batch in grouped:
        lengths = [len(e.tokens) for e in batch]
        assert max(lengths) <= 400 and max(lengths) - min(lengths) < 60


# The program.


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = run_forked(["benchmarks/gpu_check.py"])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
    assert f"error: no CUDA GPU: {built} and sees none" in done.stderr


def test_every_part_is_a_function(capsys):
    from importlib import import_module

    assert sum(seconds for _, _, seconds in gpu_check.PARTS.values()) < 8 * 60
    assert all(callable(getattr(import_module(name), function)) for name, function, _ in gpu_check.PARTS.values())


def test_an_error_ends_a_part_with_a_line_that_fails(capsys):
    def checks(device, folder):
        yield Line("first", 1.0)
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    first, last = gpu_check.found_by(checks, CPU, Path())
    assert (
        first.ok and not last.ok and last.note == "RuntimeError: CUDA error: an illegal memory access was encountered"
    )
    assert "Traceback" in capsys.readouterr().err


PART = """
import json, os, signal, sys, time
part, lines = sys.argv[1:]
with open(lines, "a") as file:
    print(json.dumps({"name": part, "value": 1.0, "ok": part != "speed"}), file=file)
if part == "runs":
    time.sleep(60)
if part == "memory":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_part_has_started_ends_with_it(tmp_path, monkeypatch):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"
    child = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()}\\n'); time.sleep(600)"
    file = tmp_path / "pid"

    class Started(subprocess.Popen):
        """A part whose time begins when its child is there."""

        def wait(self, timeout=None):
            deadline = time.monotonic() + 120
            while not (file.exists() and file.read_text().endswith("\n")):
                assert time.monotonic() < deadline and self.poll() is None
                time.sleep(0.02)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Started)
    with pytest.raises(subprocess.TimeoutExpired):
        gpu_check.ended([sys.executable, "-c", code, child, str(file)], 0.1)
    pid = int(file.read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_part_that_hangs_or_crashes_takes_no_other_with_it(tmp_path, monkeypatch):
    for part, seconds in {"numbers": 20, "runs": -19, "memory": 30, "speed": 30}.items():
        monkeypatch.setitem(gpu_check.PARTS, part, ("", "", seconds))

    def words(part, lines):
        return [sys.executable, "-c", PART, part, str(lines)]

    file = tmp_path / "new" / "check.json"
    assert gpu_check.check_all((*gpu_check.PARTS,), file, words) == 1
    found = json.loads(file.read_text())
    assert found["failed"] == 3 and found["facts"]["python"] == sys.version.split()[0]
    endings = {
        part: (len(lines), [line["ok"] for line in lines], lines[-1].get("note"))
        for part, lines in found["parts"].items()
    }
    assert endings["numbers"] == (2, [True, True], "exit status 0")
    assert endings["runs"][1][-1] is False and endings["runs"][2] == "its time was over"
    assert endings["memory"] == (2, [True, False], "exit status -9")
    assert endings["speed"] == (2, [False, True], "exit status 0")
    assert os.listdir(tmp_path / "new") == ["check.json"]
