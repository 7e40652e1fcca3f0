"""Tokens, the plan of an epoch and packed batches: nothing lost, nothing twice, the same on any machine."""

import random

import numpy as np
import pytest
import torch
from one_example import encode_instruction, encode_labelled

from gpt2_scratch.tokenizer import END_OF_TEXT, GPT2
from tasks import RESPONSE_HEADER, Instruction, Instructions, Labelled, Skipped, find, read_rows
from tasks._task import BUNDLED
from training.data.batches import (
    IGNORED,
    POOL,
    Encoded,
    Plan,
    collate,
    encode_prompt,
    epoch_plan,
    inference_plan,
    with_all_tokens_labelled,
    with_response_labelled,
)
from training.flags.common import UpdateArgs

# (examples, batch, micro-batch, processes): short last batches, shares that do not divide, processes without work.
SHAPES = [
    (64, 8, 8, 1),
    (64, 8, 3, 1),
    (65, 8, 4, 2),
    (67, 8, 1, 3),
    (70, 16, 16, 4),
    (5, 16, 2, 2),
    (1, 4, 4, 3),
    (33, 4, 4, 8),
    (450, 8, 4, 2),
]


def some_lengths(count):
    rng = random.Random(count)
    return [rng.randint(1, 300) for _ in range(count)]


def plan_of(shape, seed=3, epoch=0, drop_last=False):
    count, batch, micro, processes = shape
    return epoch_plan(seed, epoch, some_lengths(count), batch, micro, processes, drop_last)


def flat(step):
    return [i for share in step for micro in share for i in micro]


def classes(count, length=4):
    return [Encoded(i, np.arange(length, dtype=np.int32), 0) for i in range(count)]


@pytest.fixture(scope="module")
def bundled_instructions():
    task = find("instructions", Instructions)
    parts = task.parts(read_rows(BUNDLED / "instructions.jsonl").parts, Skipped())
    return [e for part in parts.values() for e in part]


# The plan of an epoch.


@pytest.mark.parametrize("shape", SHAPES)
def test_an_epoch_has_every_example_exactly_once(shape):
    assert sorted(i for step in plan_of(shape) for i in flat(step)) == list(range(shape[0]))


@pytest.mark.parametrize("shape", SHAPES)
def test_all_batches_are_full_but_the_last(shape):
    count, batch, _, _ = shape
    sizes = [len(flat(step)) for step in plan_of(shape)]
    assert sizes == [batch] * (count // batch) + ([count % batch] if count % batch else [])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_batch_is_dealt_evenly_over_the_processes(shape):
    for step in plan_of(shape):
        held = [sum(len(micro) for micro in share) for share in step]
        assert len(held) == shape[3] and max(held) - min(held) <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_no_micro_batch_is_larger_than_asked(shape):
    assert max(len(micro) for step in plan_of(shape) for share in step for micro in share) <= shape[2]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_processes_have_the_same_number_of_micro_batches_and_no_more_than_needed(shape):
    _, _, micro, processes = shape
    for step in plan_of(shape):
        most = -(-len(flat(step)) // processes)
        assert {len(share) for share in step} == {-(-most // micro)}


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("micro", [1, 3, 16])
def test_the_examples_of_a_step_depend_neither_on_processes_nor_on_micro_batches(micro, processes):
    expected = [sorted(flat(step)) for step in plan_of((70, 16, 16, 1))]
    assert [sorted(flat(step)) for step in plan_of((70, 16, micro, processes))] == expected


def test_the_plan_is_the_same_for_the_same_seed_and_epoch():
    assert plan_of((450, 8, 4, 2), seed=5, epoch=2) == plan_of((450, 8, 4, 2), seed=5, epoch=2)


@pytest.mark.parametrize("place", [{"seed": 4}, {"epoch": 1}])
def test_another_seed_or_epoch_makes_other_batches(place):
    here = {frozenset(flat(step)) for step in plan_of((450, 8, 4, 1))}
    there = {frozenset(flat(step)) for step in plan_of((450, 8, 4, 1), **place)}
    assert len(here & there) < len(here) / 10


def test_batches_are_of_similar_length_and_in_random_order():
    lengths = some_lengths(POOL * 8)
    batches = [[lengths[i] for i in flat(step)] for step in epoch_plan(0, 0, lengths, 8, 8, 1)]
    assert sum(max(batch) - min(batch) for batch in batches) / POOL < 0.1 * (max(lengths) - min(lengths))
    # Short and long batches early and late: neither half is far from the middle of all.
    early, late = (np.mean([np.mean(batch) for batch in half]) for half in (batches[: POOL // 2], batches[POOL // 2 :]))
    assert abs(early - late) < 0.3 * np.mean(lengths)


def test_batches_differ_in_company_from_epoch_to_epoch_although_lengths_do_not():
    lengths = some_lengths(2 * POOL * 8)
    first, second = ({frozenset(flat(step)) for step in epoch_plan(0, epoch, lengths, 8, 8, 1)} for epoch in (0, 1))
    assert len(first & second) < 0.1 * len(first)


@pytest.mark.parametrize("shape", SHAPES)
def test_drop_last_leaves_out_the_short_batch_alone(shape):
    count, batch, _, _ = shape
    kept = plan_of(shape, drop_last=True)
    assert kept == plan_of(shape)[: count // batch]


def test_with_drop_last_other_epochs_leave_out_other_examples():
    left_out = [
        set(range(67)) - {i for step in plan_of((67, 8, 8, 1), epoch=epoch, drop_last=True) for i in flat(step)}
        for epoch in (0, 1)
    ]
    assert len(left_out[0]) == len(left_out[1]) == 3 and left_out[0] != left_out[1]


def test_a_plan_goes_through_the_epochs_one_after_the_other():
    update = UpdateArgs(batch_size=8, micro_batch_size=3, seed=9)
    plan = Plan(classes(21), update, processes=2)
    expected = [step for epoch in range(3) for step in epoch_plan(9, epoch, [4] * 21, 8, 3, 2)]
    assert [plan.at(step) for step in range(9)] == expected


def test_a_plan_can_be_entered_anywhere():
    update = UpdateArgs(batch_size=8, micro_batch_size=8)
    through = Plan(classes(21), update, processes=1)
    steps = [through.at(step) for step in range(9)]
    assert [Plan(classes(21), update, 1).at(step) for step in range(9)] == steps
    assert [through.at(step) for step in (8, 0, 4)] == [steps[8], steps[0], steps[4]]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("count", [21, 24])
def test_the_examples_seen_are_counted_as_they_are_dealt(count, drop_last):
    plan = Plan(classes(count), UpdateArgs(batch_size=8, micro_batch_size=8, drop_last=drop_last), processes=1)
    seen = 0
    for step in range(8):
        assert plan.examples_in(step) == seen
        seen += len(flat(plan.at(step)))


# The plan of an evaluation.


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("budget", [1, 100, 299, 1000, 10**6])
def test_an_evaluation_has_every_example_once_within_the_budget_of_tokens(budget, processes):
    lengths = some_lengths(80)
    plan = inference_plan(lengths, budget, processes)
    assert len(plan) == processes
    batches = [batch for share in plan for batch in share]
    assert sorted(i for batch in batches for i in batch) == list(range(80))
    assert all(len(batch) == 1 or sum(lengths[i] for i in batch) <= budget for batch in batches)
    assert max(map(len, plan)) - min(map(len, plan)) <= 1


def test_an_evaluation_starts_with_the_longest_and_fills_its_batches():
    assert inference_plan([5, 40, 10, 25], 50, 1) == [[[1], [3, 2, 0]]]


def test_an_evaluation_of_nothing_has_no_batches():
    assert inference_plan([], 100, 2) == [[], []]


# Labelled texts.

PREMISE, HYPOTHESIS = "one two three four five six seven eight", "\n\n### hypothesis:\nIt is so."


def test_a_text_that_fits_is_whole():
    encoded = encode_labelled(GPT2, Labelled(7, PREMISE, HYPOTHESIS, "x"), 2, max_length=100)
    assert encoded.tokens.tolist() == GPT2.encode(PREMISE) + GPT2.encode(HYPOTHESIS)
    assert (encoded.id, encoded.labels, encoded.cut, encoded.count) == (7, 2, False, 1)


@pytest.mark.parametrize("spare", [0, 1, 5])
def test_truncation_takes_the_end_of_the_premise_and_keeps_the_hypothesis(spare):
    kept = GPT2.encode(HYPOTHESIS)
    encoded = encode_labelled(GPT2, Labelled(0, PREMISE, HYPOTHESIS), 0, max_length=len(kept) + spare)
    assert encoded.tokens.tolist() == GPT2.encode(PREMISE)[:spare] + kept
    assert encoded.cut


def test_cutting_the_tail_takes_the_end_of_the_hypothesis():
    whole = GPT2.encode(PREMISE) + GPT2.encode(HYPOTHESIS)
    encoded = encode_labelled(GPT2, Labelled(0, PREMISE, HYPOTHESIS), 0, max_length=len(whole) - 3, cut_tail=True)
    assert encoded.tokens.tolist() == whole[:-3]
    assert encoded.cut


@pytest.mark.parametrize("cut_tail", [False, True])
@pytest.mark.parametrize("max_length", range(1, 25))
def test_no_example_is_longer_than_allowed_and_cut_says_whether_it_lost_tokens(max_length, cut_tail):
    whole = GPT2.encode(PREMISE) + GPT2.encode(HYPOTHESIS)
    encoded = encode_labelled(GPT2, Labelled(0, PREMISE, HYPOTHESIS), 0, max_length, cut_tail=cut_tail)
    assert len(encoded.tokens) == min(max_length, len(whole))
    assert encoded.cut == (len(whole) > max_length)


@pytest.mark.parametrize("cut_tail", [False, True])
def test_a_cut_text_ends_on_a_whole_character(cut_tail):
    text, kept = "東京都は雨です。" * 3, "" if cut_tail else " end"
    halves = 0
    for length in range(3, len(GPT2.encode(text))):
        x = encode_labelled(GPT2, Labelled(0, text, kept), 0, length, cut_tail=cut_tail)
        shown = GPT2.decode(x.tokens.tolist())
        halves += len(x.tokens) < length
        assert x.cut and len(x.tokens) <= length and text.startswith(shown.removesuffix(kept))
    assert halves  # a length at which the last character would have been cut in two


def test_a_cut_prompt_ends_on_a_whole_character_before_its_header():
    asked = Instruction(0, "Translate.", "東京都は雨です。" * 20)
    header = GPT2.encode(RESPONSE_HEADER)
    for longest in range(60, 80):
        prompt = encode_prompt(GPT2, asked, longest)
        assert longest - 4 < len(prompt) <= longest and prompt[-len(header) :] == header
        assert asked.prompt(response_header=False).startswith(GPT2.decode(prompt[: -len(header)]))


def test_padding_appends_real_tokens_up_to_the_length():
    text = GPT2.encode(PREMISE)
    encoded = encode_labelled(GPT2, Labelled(0, PREMISE), 0, max_length=100, pad_to=len(text) + 3, pad_id=0)
    assert encoded.tokens.tolist() == text + [0, 0, 0]
    assert not encoded.cut


@pytest.mark.parametrize("pad_to", [None, 1, 8])
def test_padding_leaves_a_text_alone_that_is_long_enough(pad_to):
    encoded = encode_labelled(GPT2, Labelled(0, PREMISE), 0, max_length=8, pad_to=pad_to)
    assert encoded.tokens.tolist() == GPT2.encode(PREMISE)[:8]


@pytest.mark.parametrize("cut_tail", [False, True])
def test_an_empty_text_is_one_end_of_text_token(cut_tail):
    encoded = encode_labelled(GPT2, Labelled(0, ""), 0, max_length=10, cut_tail=cut_tail)
    assert encoded.tokens.tolist() == [50256] == [END_OF_TEXT]
    assert not encoded.cut


def test_an_end_of_text_written_in_a_text_is_ordinary_text():
    assert END_OF_TEXT not in encode_labelled(GPT2, Labelled(0, "a <|endoftext|> b"), 0, max_length=50).tokens


# Instructions.

FISH = Instruction(4, "Name a fish.", "In a river", "Trout, or perch.")


def test_the_target_at_a_position_is_the_token_after_it():
    encoded = encode_instruction(GPT2, FISH, 200, mask_prompt=False)
    assert encoded.labels[:-1].tolist() == encoded.tokens[1:].tolist()
    assert len(encoded.labels) == len(encoded.tokens) == encoded.count


def test_the_last_target_is_the_end_of_text_and_no_input_is():
    encoded = encode_instruction(GPT2, FISH, 200)
    assert encoded.labels[-1] == 50256
    assert 50256 not in encoded.tokens


def test_the_tokens_are_prompt_and_response():
    encoded = encode_instruction(GPT2, FISH, 200)
    assert GPT2.decode(encoded.tokens.tolist()) == FISH.prompt() + FISH.response
    assert (encoded.id, encoded.cut, encoded.left_out) == (4, False, None)


def test_only_the_response_and_its_end_are_targets_when_the_prompt_is_masked():
    encoded = encode_instruction(GPT2, FISH, 200)
    targets = encoded.labels[encoded.labels != IGNORED].tolist()
    assert targets == [*GPT2.encode(FISH.response), END_OF_TEXT]
    assert (encoded.labels[-len(targets) :] != IGNORED).all()
    assert encoded.response_from == len(GPT2.encode(FISH.prompt())) - 1
    assert encoded.count == len(targets)


def test_without_a_response_header_the_header_is_a_target_too():
    encoded = encode_instruction(GPT2, FISH, 200, response_header=False)
    targets = encoded.labels[encoded.labels != IGNORED].tolist()
    assert GPT2.decode(targets[:-1]) == "\n\n### Response:\n" + FISH.response and targets[-1] == END_OF_TEXT
    assert encoded.tokens.tolist() == encode_instruction(GPT2, FISH, 200).tokens.tolist()


def test_a_response_cut_short_has_no_end():
    whole = encode_instruction(GPT2, FISH, 200)
    encoded = encode_instruction(GPT2, FISH, len(whole.tokens) - 2)
    assert encoded.cut and encoded.left_out is None
    assert encoded.tokens.tolist() == whole.tokens[:-2].tolist()
    assert encoded.labels.tolist() == whole.labels[:-2].tolist()
    assert END_OF_TEXT not in encoded.labels


def test_a_record_of_exactly_the_length_allowed_is_not_cut():
    whole = encode_instruction(GPT2, FISH, 200)
    encoded = encode_instruction(GPT2, FISH, len(whole.tokens))
    assert not encoded.cut and encoded.labels[-1] == END_OF_TEXT


def test_a_prompt_that_fills_the_length_leaves_no_room_for_the_response():
    prompt = len(GPT2.encode(FISH.prompt()))
    # The last token of the prompt predicts the first of the response, so with the whole prompt there is room for one.
    assert encode_instruction(GPT2, FISH, prompt).count == 1 and encode_instruction(GPT2, FISH, prompt).left_out is None
    for length in (prompt - 1, 5):
        encoded = encode_instruction(GPT2, FISH, length)
        assert encoded.left_out == "no_room_for_response" and encoded.count == 0 and encoded.cut
        assert len(encoded.tokens) == len(encoded.labels) == length


def test_prompt_and_response_encoded_apart_are_the_joined_text_encoded(bundled_instructions):
    assert len(bundled_instructions) >= 600
    for record in bundled_instructions:
        joined = GPT2.encode(record.prompt() + record.response)
        assert encode_instruction(GPT2, record, 1024).tokens.tolist() == joined, record.instruction


def test_a_prompt_with_header_starts_with_the_tokens_of_one_without(bundled_instructions):
    for record in bundled_instructions:
        without = GPT2.encode(record.prompt(response_header=False))
        assert GPT2.encode(record.prompt())[: len(without)] == without, record.instruction


def test_the_whole_text_has_every_next_token_as_a_target():
    for length in (200, len(GPT2.encode(FISH.prompt())) + 2):
        masked, unmasked = (encode_instruction(GPT2, FISH, length, mask_prompt=mask) for mask in (True, False))
        whole = with_all_tokens_labelled(masked)
        assert whole.labels.tolist() == unmasked.labels.tolist()
        assert whole.labels.dtype == unmasked.labels.dtype
        assert whole.tokens.tolist() == masked.tokens.tolist() and whole.id == masked.id
        assert with_all_tokens_labelled(unmasked).labels.tolist() == unmasked.labels.tolist()
        assert (masked.labels == IGNORED).any(), "the original must not change"


# Batches.


def test_a_batch_of_classes_is_packed_back_to_back():
    texts = [("a b", 1), ("", 0), ("c d e f", 2)]
    examples = [encode_labelled(GPT2, Labelled(10 + i, text), label, 50) for i, (text, label) in enumerate(texts)]
    batch = collate(examples)
    assert batch.tokens.tolist() == GPT2.encode("a b") + [END_OF_TEXT] + GPT2.encode("c d e f")
    assert batch.lengths.tolist() == [2, 1, 4] and batch.labels.tolist() == [1, 0, 2]
    assert batch.example_ids == [10, 11, 12] and batch.weight == 1.0
    assert {batch.tokens.dtype, batch.lengths.dtype, batch.labels.dtype} == {torch.int64}


def test_a_batch_of_instructions_has_a_target_for_every_token():
    records = [encode_instruction(GPT2, Instruction(i, f"Say {i}.", response=f"{i} it is."), 100) for i in range(3)]
    batch = collate(records)
    assert batch.tokens.shape == batch.labels.shape == (sum(len(r.tokens) for r in records),)
    parts = zip(batch.tokens.split(batch.lengths.tolist()), batch.labels.split(batch.lengths.tolist()), strict=True)
    for record, (tokens, labels) in zip(records, parts, strict=True):
        assert tokens.tolist() == record.tokens.tolist() and labels.tolist() == record.labels.tolist()
    assert {batch.tokens.dtype, batch.labels.dtype} == {torch.int64}


def test_a_batch_of_nothing_stands_in_with_one_token_and_no_weight():
    batch = collate([])
    assert batch.tokens.tolist() == [0] and batch.lengths.tolist() == [1]
    assert batch.labels.shape == (1,) and batch.labels[0] != IGNORED
    assert batch.example_ids == [] and batch.weight == 0.0


def test_moving_a_batch_moves_its_tokens_alone():
    batch = collate(classes(2))
    moved = batch.to(torch.device("meta"))
    assert moved.tokens.device.type == "meta"
    assert moved.lengths.tolist() == [4, 4] and moved.labels.tolist() == batch.labels.tolist(), "the CPU reads them"
    assert moved.example_ids == batch.example_ids


@pytest.mark.parametrize(
    ("mask_prompt", "response_header"), [(True, True), (False, True), (True, False), (False, False)]
)
def test_the_response_is_measured_the_same_whatever_was_trained_on(mask_prompt, response_header):
    example = Instruction(0, "Name a bird.", "", "A wren.")
    plain = encode_instruction(GPT2, example, 64)
    other = with_response_labelled(encode_instruction(GPT2, example, 64, mask_prompt, response_header))
    assert other.labels.tolist() == plain.labels.tolist()
    assert (plain.labels != -100).sum() == len(GPT2.encode("A wren.")) + 1


def test_a_text_is_held_once_whatever_is_made_of_it():
    from tasks._cells import writable

    text = "naïve " * 100
    assert writable(text) is text
    assert not hasattr(Labelled(0, text), "__dict__") and not hasattr(Encoded(0, np.zeros(1), 0), "__dict__")
