"""One example as token ids, where a test needs no more."""

from training.data.batches import encode_all_instructions, encode_all_labelled
from training.data.pairs import encode_pairs


def encode_labelled(tokenizer, example, label, *form, **more):
    return encode_all_labelled(tokenizer, [example], [label], *form, **more)[0]


def encode_instruction(tokenizer, example, *form, **more):
    return encode_all_instructions(tokenizer, [example], *form, **more)[0]


def encode_pair(tokenizer, example, *form, **more):
    return encode_pairs(tokenizer, [example], *form, **more)[0]
