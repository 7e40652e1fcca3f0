"""What a deep model makes, told from a shallow one, is what all its blocks make, event by event."""

from collections import Counter
from itertools import chain, groupby

import pytest
from accelerate.state import AcceleratorState
from test_frozen_activations import build, instructions, labelled
from test_memory import LM_HEAD, workload_of

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel
from training.data.general import General
from training.flags.common import MethodArgs
from training.flags.compute import ComputeArgs
from training.forecast.depth import deep, runs_of, with_depths
from training.forecast.memory import DryRun, parts_of
from training.model.methods import apply_compute

SHAPE = {"width": 16, "heads": 2, "vocabulary": 512, "context": 64}


@pytest.fixture(autouse=True)
def _own_precision():
    yield
    AcceleratorState._reset_state()


def told(parts):
    """The events in words that two recordings have in common: tensors are numbered in the order in which they are made.

    Of tensors that are freed together the order is left out, which autocast leaves to chance, and the size of the norms
    of all gradients, a number for each trained tensor.
    """
    numbers, words, made = {}, [], 0
    for action, together in groupby(chain(*parts), lambda event: event.action):
        found = []
        for event in together:
            tensor = event.tensor
            if action == "make":
                numbers[tensor], made = made, made + 1
            few = tensor.block is None and tensor.size < 1024
            kind = event.kind or tensor.kind
            found.append((action, numbers[tensor], 0 if few else tensor.size, tensor.copies, kind))
        words += sorted(found) if action == "free" else found
    return words


def recorder(workload, gaps=False):
    """A function that records the run of a model, and the list of how many blocks each had that was given to it."""
    depths = []

    def recorded(model):
        depths.append(len(model.transformer.h))
        return parts_of(workload, model, 2, gaps)

    return recorded, depths


LORA, FULL = MethodArgs("lora"), MethodArgs("full")
TWO_RUNS = MethodArgs("bitfit", last_blocks=7)
CHECKPOINT, FROZEN = ComputeArgs(checkpoint_activations=True), ComputeArgs(cache_frozen="memory")
GENERAL = General(pieces=labelled(3), curve=True)
ANSWERS = {"prompts": [[1, 2], [3] * 20], "new_tokens": 4}


@pytest.mark.parametrize(
    ("kind", "method", "blocks", "compute", "precision", "gaps", "more"),
    [
        (Classifier, LORA, 8, ComputeArgs(), "no", True, {"general": GENERAL}),
        (Classifier, FULL, 8, CHECKPOINT, "no", False, {}),
        (Classifier, FULL, 8, ComputeArgs(), "bf16", True, {}),
        (Classifier, FULL, 12, CHECKPOINT, "bf16", False, {}),
        (Classifier, MethodArgs("lora", last_blocks=7), 14, FROZEN, "bf16", True, {}),
        (LanguageModel, FULL, 8, ComputeArgs(), "no", True, ANSWERS),
        (LanguageModel, LM_HEAD, 8, CHECKPOINT, "bf16", False, ANSWERS),
        (LanguageModel, TWO_RUNS, 15, ComputeArgs(), "no", True, {}),
    ],
)
def test_every_event_is_that_of_all_blocks(kind, method, blocks, compute, precision, gaps, more):
    model = build(kind, method, config=GPT2Config(blocks=blocks, **SHAPE))
    apply_compute(model, method.method, compute, precision)
    examples = labelled(4) if kind is Classifier else instructions(4)
    workload = workload_of(model, examples, compute, precision, whole_model=method is FULL, **more)
    recorded, depths = recorder(workload, gaps)
    found = deep(model, recorded)
    assert len(depths) == 1 and depths[0] < blocks, "else it would be compared with itself"
    assert told(found) == told(recorded(model))
    for part in [part for part in found if gaps and found.count(part) > 1]:
        made = Counter(event.tensor for event in part if event.action == "make")
        assert made == Counter(event.tensor for event in part if event.action == "free"), "it comes twice"


def test_where_blocks_of_a_kind_differ_after_all_every_one_is_run():
    model = build(Classifier, LORA, config=GPT2Config(blocks=8, **SHAPE))
    model.transformer.h[2].register_forward_hook(lambda block, inputs, output: output * 2)
    recorded, depths = recorder(workload_of(model, labelled(4)))
    assert told(deep(model, recorded)) == told(recorded(model)) and depths == [5, 8, 8]


@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
def test_what_is_done_again_makes_the_same_tensors(kind):
    model, examples = build(kind, FULL), labelled(4) if kind is Classifier else instructions(4)
    dry_run = DryRun(workload_of(model, examples, whole_model=True))
    events = dry_run.meter.events

    def recorded(part, given):
        first = len(events)
        part(given)
        return told([events[first:]])

    dry_run.update([examples[:2]] * 2)  # the states of the optimizer are there from now on
    for part, given in ((dry_run.evaluate, examples), (dry_run.update, [examples[2:]] * 2)):
        assert recorded(part, given) == recorded(part, given)


def test_blocks_of_a_kind_are_found_and_left_out():
    config = GPT2Config(blocks=12, **SHAPE)
    model = build(LanguageModel, MethodArgs("lora", last_blocks=7, lora_rank_pattern=("h.9.mlp-in=4",)), config=config)
    assert runs_of(model) == [5, 4, 1, 2]
    shallow = with_depths(model, [5, 7], [2, 3])
    assert [*shallow.transformer.h] == [model.transformer.h[i] for i in (0, 1, 5, 6, 7)]
    assert shallow.config.blocks == 5 and shallow.transformer.wte is model.transformer.wte
    assert len(model.transformer.h) == model.config.blocks == 12


def test_a_model_of_few_blocks_is_run_as_it_is():
    model, seen = build(Classifier, MethodArgs("lora"), config=GPT2Config(blocks=5, **SHAPE)), []
    deep(model, lambda given: seen.append(given) or [])
    assert seen == [model]
