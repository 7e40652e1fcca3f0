"""The memory of each card that shares the weights, against the sum that can be worked out by hand."""

import numpy as np
from accelerate import Accelerator

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier
from gpt2_scratch.pretrained import without_storage
from training.data.batches import Encoded
from training.flags.update import UpdateArgs
from training.forecast.memory import memory_of
from training.forecast.sharded import card_bytes
from training.forecast.workload import Workload

WIDTH, VOCABULARY, CONTEXT, BLOCKS = 64, 500, 32, 2


def test_what_is_shared_is_divided_and_a_unit_is_whole():
    config = GPT2Config(width=WIDTH, blocks=BLOCKS, heads=2, context=CONTEXT, vocabulary=VOCABULARY)
    model = without_storage(Classifier, config, 2)
    examples = [Encoded(id=i, tokens=np.arange(32, dtype=np.int32), labels=i % 2) for i in range(4)]
    update = UpdateArgs(lr=1.0, batch_size=4, micro_batch_size=2, max_steps=2)  # two micro-batches: with gradients
    workload = Workload(model, update, Accelerator(cpu=True), examples, base=0)
    found, parts = card_bytes(workload, 2), memory_of(workload, 2).parts
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert parts["trained weights"] == weights and parts["optimizer"] >= 2 * weights
    assert found[1] == 2 * weights + parts["optimizer"] + parts["activations"] + parts["logits"]
    mlp = 4 * (8 * WIDTH**2 + 5 * WIDTH)
    root = 4 * (WIDTH * (VOCABULARY + CONTEXT + 4 * BLOCKS + 2 + 2))
    whole = root + max(parts["activations"] + parts["logits"] + 6 * mlp, 2 * root)
    for cards in (2, 4, 8):
        assert found[cards] == (2 * weights + parts["optimizer"]) // cards + whole
