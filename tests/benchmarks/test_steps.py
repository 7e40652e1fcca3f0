"""How both sides of a comparison are measured: how an update is divided, what is held, what is warm beforehand."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import _peer
import _results
import _steps
import generate_time
import memory
import quantised
from _steps import Training
from _work import Work, random_examples
from gpt2_scratch.config import SIZES, GPT2Config
from tasks import Instruction
from training.flags.common import MethodArgs, UpdateArgs
from training.flags.compute import ComputeArgs
from training.forecast.micro_batch import resolve_micro_batch
from training.forecast.workload import Workload

TINY = GPT2Config(width=16, blocks=2, heads=2, context=512)


@pytest.fixture(autouse=True)
def _own_accelerator():
    yield
    AcceleratorState._reset_state()


def test_an_update_is_divided_as_a_run_divides_it_whatever_the_lengths_of_its_own_texts(monkeypatch):
    monkeypatch.setitem(SIZES, "gpt2-nano", TINY)
    torch.set_num_threads(2)
    divided, work = [], Work("cls", "gpt2-nano", device="cpu")
    short, long = (random_examples("cls", [length] * 8, TINY.vocabulary) for length in (4, 500))

    def accumulated(accelerator, model, batches, *rest):
        divided.append([len(batch.lengths) for batch in batches])
        return torch.zeros(())

    monkeypatch.setattr(_steps, "accumulate", accumulated)
    monkeypatch.setattr(_steps, "apply_update", lambda *_: None)
    for train in (short, long):
        ours = Training(work, MethodArgs(), ComputeArgs(), train=train)
        ours.update(short)
        run = Workload(ours.model, UpdateArgs(batch_size=8), ours.accelerator, train)
        assert ours.size == resolve_micro_batch(run).micro_batch_size
    assert divided == [[4, 4], [1] * 8]


@pytest.mark.parametrize("by", ["ours", "transformers"])
def test_whoever_generates_holds_one_model_when_the_peak_begins(by, monkeypatch):
    assert _peer  # imported before: what imports log while they run keeps their callers' variables
    monkeypatch.setitem(SIZES, "gpt2", TINY)
    monkeypatch.setattr(generate_time, "shuffled_examples", lambda task: [Instruction(0, "Count to 3.", "", "1 2 3")])
    build, models, held = _steps.random_model, [], []

    def remembered(work):
        model = build(work)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(_steps, "random_model", remembered)
    monkeypatch.setattr("training.run.device.forget_peak", lambda device: held.append(models[0]() is not None))
    generate_time.main(generate_time.Args(by, "gpt2", prompts=1, new_tokens=2, repeats=1, device="cpu"))
    assert held == [by == "ours"]


def test_the_longest_batch_is_warm_before_the_clock_starts():
    batches = [random_examples("cls", [length, 3], 50) for length in (4, 9, 5)]
    updated = []

    def update(batch):
        updated.append(batch)
        return torch.ones(())

    _steps.clock_updates(update, batches, batches[0], Accelerator(cpu=True))
    assert updated == [batches[0], batches[1], *batches]


def test_a_gpu_is_waited_for_after_many_products(monkeypatch):
    counts = []
    monkeypatch.setattr(_steps, "clock", lambda step, weights, device: counts.append(len(weights)) or 1.0)
    cpu, other = (_steps.matrix_product_flops_per_second(TINY, torch.float32, torch.device(d)) for d in ("cpu", "meta"))
    assert set(counts[:20]) == {5} and set(counts[20:]) == {200} and other == 40 * cpu


def test_both_sides_have_the_threads_of_a_run(monkeypatch):
    chosen = []
    monkeypatch.setattr(_steps, "choose_threads", lambda: chosen.append(True))
    _steps.use_device(Work(device="cpu"))
    assert chosen


# The tables of memory.


@pytest.fixture
def measured(monkeypatch):
    """The commands that would be measured; each says that 1,000 MiB were forecast and needed."""
    commands = []

    def numbers(words, **changed):
        commands.append(words)
        return {"forecast": 1000.0, "base": 500.0, "measured": 1000.0, "ratio": 1.0, "ratio_without_base": 1.0}

    monkeypatch.setattr(_results, "measured", numbers)
    return commands


def test_the_tables_are_of_the_cpu_also_where_there_is_a_gpu(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quantised, "write_random_weights", lambda *_: None)
    memory.main(memory.Args(Work(), MethodArgs(), results=tmp_path / "memory.jsonl"))
    quantised.main(quantised.Args(("gpt2",), tmp_path, results=tmp_path / "quantised.jsonl"))
    assert len(measured) == len(memory.ROWS) + len(quantised.METHODS)
    assert all(words[words.index("--device") + 1] == "cpu" for words in measured)


def test_what_did_not_fit_is_measured_where_it_does(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quantised, "METHODS", {"full": "--method full"})
    monkeypatch.setattr(quantised, "write_random_weights", lambda *_: None)
    results = tmp_path / "quantised.jsonl"
    results.write_text('{"size": "gpt2", "method": "full", "forecast": 5000.0}\n')
    args = quantised.Args(("gpt2",), tmp_path, at_most=4, results=results)
    quantised.main(args)
    assert not measured and "| gpt2 | does not fit (5,000) |" in capsys.readouterr().out
    for _ in range(2):
        quantised.main(quantised.Args(("gpt2",), tmp_path, at_most=6, results=results))
    assert len(measured) == 1 and "| gpt2 | 1,000 (1,000) |" in capsys.readouterr().out


def test_on_a_gpu_nothing_is_forked_and_the_allocator_holds_no_libraries(monkeypatch, capsys):
    """A fork of a process that has used CUDA cannot use it."""
    bases = []
    accelerator = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr("training.run.launch.start", lambda *_: (accelerator, False))
    monkeypatch.setattr(memory, "pool", lambda work: random_examples("cls", [4] * 40, 50))
    monkeypatch.setattr(memory, "in_a_fork", lambda work: pytest.fail("forked"))
    monkeypatch.setattr(memory, "forecast_parts", lambda *given: bases.append(given[-1]) or {"weights": 2**20})
    monkeypatch.setattr(memory, "measured_peak", lambda *_: 2**20)
    memory.measure(memory.Args(Work("cls", "gpt2-nano", batch_size=2, steps=2), MethodArgs()))
    assert bases == [0]
    assert {"forecast", "base", "ratio"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
