"""A deep model's memory from shallow ones: that of all its blocks."""

from dataclasses import replace

import pytest
from accelerate.state import AcceleratorState
from test_frozen_activations import build, instructions, labelled
from test_memory import LM_HEAD, workload_of

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel
from training.flags.common import MethodArgs
from training.flags.compute import ComputeArgs
from training.forecast import memory
from training.forecast.depth import deep, is_deep, runs_of, with_depths
from training.forecast.memory import PARTS, stages_of, tensors_of
from training.forecast.meter import Stage, largest
from training.model.methods import apply_compute

FEWEST = 11  # blocks: two shallow models have 4 and 6
SHAPE = {"width": 16, "heads": 2, "vocabulary": 512, "context": 64}


@pytest.fixture(autouse=True)
def _own_precision():
    yield
    AcceleratorState._reset_state()


def alike(examples):
    """The longest example as often as there are examples, so that one micro-batch is as heavy as any."""
    longest = max(examples, key=lambda e: len(e.tokens))
    return [replace(longest, id=e.id) for e in examples]


@pytest.mark.parametrize(
    ("kind", "method", "blocks", "checkpoint", "precision"),
    [
        (Classifier, MethodArgs("lora"), FEWEST, False, "no"),
        (Classifier, MethodArgs("full"), FEWEST, True, "no"),
        (Classifier, MethodArgs("full"), FEWEST, False, "bf16"),
        (Classifier, MethodArgs("full"), 24, True, "bf16"),
        (LanguageModel, MethodArgs("full"), FEWEST + 2, False, "no"),
        (LanguageModel, LM_HEAD, FEWEST, True, "bf16"),
        (LanguageModel, MethodArgs("bitfit", last_blocks=7), 29, False, "no"),  # the fewest with two long runs
    ],
)
def test_every_part_is_that_of_all_blocks(kind, method, blocks, checkpoint, precision):
    model = build(kind, method, config=GPT2Config(blocks=blocks, **SHAPE))
    compute = ComputeArgs(checkpoint_activations=checkpoint)
    apply_compute(model, method.method, compute, precision)
    examples = alike(labelled(4) if kind is Classifier else instructions(4))
    workload = workload_of(model, examples, compute, precision, whole_model=method.method == "full")
    assert is_deep(model), "else it would be compared with itself"
    whole, found = largest(stages_of(workload, model, 2, gaps=False)), tensors_of(workload, 2)
    expected = {part: whole[part] for part in PARTS}
    if precision == "bf16":  # from the ninth block on, some have a few hundred bytes more
        assert {part: found.parts[part] for part in PARTS} == pytest.approx(expected, rel=0.01)
    else:
        assert {part: found.parts[part] for part in PARTS} == expected


def test_it_is_worked_out_from_few_blocks(monkeypatch):
    config, seen = GPT2Config(blocks=48, **SHAPE), []
    workload = workload_of(build(Classifier, MethodArgs("lora", last_blocks=7), config=config), labelled(4))
    monkeypatch.setattr(
        memory, "stages_of", lambda _, given, *__, **___: seen.append(len(given.transformer.h)) or [Stage()]
    )
    tensors_of(workload, 2)
    assert seen == [8, 10, 10]


def test_blocks_of_a_kind_are_found_and_left_out():
    config = GPT2Config(blocks=12, **SHAPE)
    model = build(LanguageModel, MethodArgs("lora", last_blocks=7, lora_rank_pattern=("h.9.mlp-in=4",)), config=config)
    assert runs_of(model) == [5, 4, 1, 2]
    shallow = with_depths(model, [5, 7], [2, 3])
    assert [*shallow.transformer.h] == [model.transformer.h[i] for i in (0, 1, 5, 6, 7)]
    assert shallow.config.blocks == 5 and shallow.transformer.wte is model.transformer.wte
    assert len(model.transformer.h) == model.config.blocks == 12


def test_a_model_of_few_blocks_is_measured_as_it_is():
    model, seen = build(Classifier, MethodArgs("lora"), config=GPT2Config(blocks=10, **SHAPE)), []
    deep(model, lambda given: seen.append(given) or [])
    assert seen == [model]
