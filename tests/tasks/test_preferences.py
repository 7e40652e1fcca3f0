"""Pairs of a chosen and a rejected answer: from rows to examples and splits, and what is wrong with a file."""

import random
import re
from pathlib import Path

import pytest
from helpers import real_data, write_rows

from tasks import Instruction, Limits, Preference, Preferences, Skipped, find, split_examples
from training.data.sources import locate_rows, split_rows
from training.flags.common import DataArgs
from training.flags.preference import PairArgs

GOOD = [{"prompt": f"Count to {i}.", "chosen": f"{i}", "rejected": f"{i + 1}"} for i in range(20)]


@pytest.fixture(scope="module")
def bundled():
    task = find("preferences", Preferences)
    return split_rows(task, locate_rows(task, None), DataArgs())


def examples_of(rows, skipped=None):
    return PairArgs().task("preferences", None).parts({"all": rows}, skipped or Skipped())["all"]


def split(rows, skipped=None):
    skipped = skipped or Skipped()
    return split_examples({"all": examples_of(rows, skipped)}, Limits(0, 0), 0, skipped)


def test_at_least_100_pairs_are_bundled_and_all_are_used(bundled):
    parts = bundled.named()
    assert sum(map(len, parts.values())) >= 100 and all(parts.values())
    assert bundled.skipped == Skipped()


def test_the_bundled_pairs_differ_in_prompt_and_neither_answer_is_always_the_longer_one(bundled):
    everything = [e for part in bundled.named().values() for e in part]
    assert len({e.prompt for e in everything}) == len(everything)
    longer = sum(len(e.chosen) > len(e.rejected) for e in everything)
    assert 0.25 < longer / len(everything) < 0.75


def test_an_answer_is_read_as_the_response_of_an_instruction():
    chosen, rejected = Preference(7, "Say hi.", "Hi!", "No.").records()
    assert chosen == Instruction(7, "Say hi.", "", "Hi!")
    assert rejected == Instruction(7, "Say hi.", "", "No.")


def test_the_flags_name_the_columns_of_a_file_or_of_a_dataset():
    rows = [{"question": "a", "good": "b", "bad": "c", "prompt": "x"}]
    flags = PairArgs(prompt_column="question", chosen_column="good", rejected_column="bad")
    for task in (flags.task(None, Path("mine.jsonl")), flags.task("preferences", None)):
        assert task.parts({"all": rows}, Skipped()) == {"all": [Preference(0, "a", "b", "c")]}


@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected"])
@pytest.mark.parametrize("nothing", ["", "  \n", None])
def test_a_row_with_an_empty_cell_is_dropped_and_counted(column, nothing):
    skipped = Skipped()
    assert len(examples_of([*GOOD, GOOD[0] | {column: nothing}], skipped)) == len(GOOD)
    assert skipped == Skipped(empty=1)


def test_duplicates_apart_from_case_and_white_space_are_dropped_and_counted():
    again = {"prompt": " count TO 3. ", "chosen": "3 ", "rejected": "4"}
    found = split([*GOOD, GOOD[5], again])
    assert len(found.train) == len(GOOD) and found.skipped == Skipped(duplicate=2)


def test_pairs_that_differ_in_case_or_indentation_of_an_answer_are_two():
    pair = {"prompt": "code", "chosen": "    y", "rejected": "n"}
    assert len(split([pair, pair | {"chosen": "y"}, pair | {"chosen": "Y"}, pair | {"chosen": "y \n"}]).train) == 3


def test_an_answer_may_differ_from_the_other_in_indentation_alone():
    assert len(examples_of([{"prompt": "code", "chosen": "    y", "rejected": "y"}])) == 1


def test_one_prompt_may_have_several_pairs():
    assert len(split([*GOOD, GOOD[3] | {"rejected": "five"}]).train) == len(GOOD) + 1


def several(sizes):
    """So many pairs of each prompt, in a random order; the first letter of every other one is a capital."""
    rows = [
        {"prompt": f"{'aA'[pair % 2]}sk  {i}", "chosen": f"yes {i}", "rejected": f"no {pair}"}
        for i, size in enumerate(sizes)
        for pair in range(size)
    ]
    random.Random(0).shuffle(rows)
    return examples_of(rows)


def prompts_of(part):
    return {e.prompt.lower() for e in part}


def drawn(pairs, seed=0, **limits):
    return split_examples({"all": pairs}, Limits(**limits), seed, Skipped())


def test_pairs_of_one_prompt_are_never_on_two_sides_and_the_seed_decides_on_which():
    pairs = several([4] * 50)
    found, again, other = (drawn(pairs, seed).named() for seed in (0, 0, 1))
    train, validation, test = (prompts_of(part) for part in found.values())
    assert [len(part) for part in found.values()] == [160, 20, 20]
    assert (len(train), len(validation), len(test)) == (40, 5, 5) and len(train | validation | test) == 50
    assert found == again and prompts_of(other["test"]) != test


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("most", "off"), [(1, 0), (2, 1), (4, 2), (9, 4)])
def test_shares_are_met_as_nearly_as_the_pairs_of_a_prompt_allow(most, off, seed):
    """Where there are single pairs they fill a part up; else it is off by half of what a prompt has, at most."""
    sizes = [most] * 40
    for given, allowed in ((sizes, off), ([*sizes, *[1] * 40], 0)):
        found = drawn(several(given), seed, validation_share=0.15, test_share=0.22)
        for name, share in (("test", 0.22), ("validation", 0.15)):
            assert abs(len(found.named()[name]) - round(share * sum(given))) <= allowed
        assert not prompts_of(found.train) & prompts_of(found.test + found.validation)


def test_a_limit_is_exact_whatever_the_prompts():
    found = drawn(several([4] * 50), train=31, test=7)
    assert (len(found.train), len(found.test), found.skipped.over_limit) == (31, 7, 160 - 31 + 20 - 7)


def test_a_share_that_no_prompt_is_small_enough_for_is_refused():
    with pytest.raises(ValueError, match="--test-share 0.1: would be 4 of 40 examples, .* no prompt has so few"):
        drawn(several([10] * 4))
    assert len(drawn(several([10] * 4), test_share=0.2, validation_share=0).test) == 10


def test_a_pair_and_the_same_pair_the_other_way_round_contradict_each_other_and_both_are_dropped():
    swapped = {"prompt": GOOD[3]["prompt"], "chosen": GOOD[3]["rejected"], "rejected": GOOD[3]["chosen"]}
    found = split([*GOOD, swapped])
    assert len(found.train) == len(GOOD) - 1 and found.skipped == Skipped(contradictory=2)


def test_answers_may_differ_in_case_alone():
    pair = {"prompt": "In capitals: hi", "chosen": "HI", "rejected": "hi"}
    assert len(split([pair]).train) == 1
    with pytest.raises(ValueError, match="no training examples"):
        split([pair, pair | {"chosen": "hi", "rejected": "HI"}])


def test_the_fingerprint_depends_on_which_answer_is_the_better_one():
    pair = GOOD[3]
    swapped = pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}
    found = {split([pair]).fingerprint(), split([swapped]).fingerprint(), split([GOOD[4]]).fingerprint()}
    assert len(found) == 3


def test_equal_answers_are_refused_with_all_their_rows():
    rows = [*GOOD, {"prompt": "a", "chosen": "same", "rejected": "same \n"}, *GOOD[:1], GOOD[2] | {"chosen": "3"}]
    with pytest.raises(ValueError, match=re.escape("the same in 2 rows (row 21, row 23)")):
        examples_of(rows)


def test_a_cell_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match=r"row 2: column 'rejected' holds a number \(int\), not text"):
        examples_of([GOOD[0], GOOD[1] | {"rejected": 7}])


@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected"])
def test_a_missing_column_is_named_with_the_flags_that_name_columns(column):
    rows = [{name: text for name, text in row.items() if name != column} for row in GOOD]
    with pytest.raises(ValueError, match=f"column '{column}' is missing .*--rejected-column name them"):
        examples_of(rows)


def test_a_column_named_twice_is_refused():
    (problem,) = PairArgs(chosen_column="a", rejected_column="a").problems()
    assert "--rejected-column: name column 'a' twice" in problem


def test_the_usual_file_of_pairs_is_found_in_the_data_folder(tmp_path, monkeypatch):
    write_rows(tmp_path / "dpo_pairs.json", GOOD)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    source = locate_rows(find("dpo_pairs", Preferences), None)
    assert source.origin == "$DATA_DIR/dpo_pairs.json" and len(source.rows) == len(GOOD)


def test_the_real_pairs_are_all_read_and_lose_duplicates_alone():
    task = find("dpo_pairs", Preferences)
    found = split_rows(task, locate_rows(task, real_data("dpo_pairs.json")), DataArgs())
    assert sum(map(len, found.named().values())) == 112 and found.skipped == Skipped(duplicate=2)
