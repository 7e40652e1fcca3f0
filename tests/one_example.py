"""One example as token ids, where a test needs no more, and examples in a vocabulary that takes less time."""

from dataclasses import replace

import numpy as np

from training.data.batches import encode_all_instructions, encode_all_labelled
from training.data.pairs import encode_pairs


def encode_labelled(tokenizer, example, label, *form, **more):
    return encode_all_labelled(tokenizer, [example], [label], *form, **more)[0]


def encode_instruction(tokenizer, example, *form, **more):
    return encode_all_instructions(tokenizer, [example], *form, **more)[0]


def encode_pair(tokenizer, example, *form, **more):
    return encode_pairs(tokenizer, [example], *form, **more)[0]


def within(examples, vocabulary):
    """The examples with each token id modulo `vocabulary`, a base of which has far fewer logits."""
    labels = [
        e.labels if isinstance(e.labels, int) else np.where(e.labels < 0, e.labels, e.labels % vocabulary)
        for e in examples
    ]
    return [replace(e, tokens=e.tokens % vocabulary, labels=new) for e, new in zip(examples, labels, strict=True)]
