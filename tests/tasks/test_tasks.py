"""Datasets: the registry, the bundled files, cleaning and splitting, and the subsets that the report used."""

import hashlib
import json
import os
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, real_data, results_of, run_script, write_rows

import tasks
from tasks import (
    Classification,
    Columns,
    Instruction,
    Instructions,
    Labelled,
    Limits,
    Preferences,
    Skipped,
    Source,
    Task,
    find,
)
from tasks._splits import Splits, balance, balanced, split_examples
from training.data.sources import locate_rows, split_rows
from training.flags.common import DataArgs
from training.flags.task import TextArgs

FOLDER = Path(tasks.__file__).parent
SIMPLE = {
    "spelling",
    "grammar",
    "active-voice",
    "passive-voice",
    "synonym",
    "antonym",
    "plural",
    "arithmetic",
    "fact",
}
OPEN_ENDED = {"tweet", "advice", "description", "explanation"}
NOTHING_HELD_OUT = Limits(validation_share=0, test_share=0)
MINE = Classification("mine", (Columns(("text",), "label"),))


def normalised(example):
    return tuple(" ".join(part.casefold().split()) for part in example.identity)


def labelled(counts, start=0):
    """Different texts, so many of each label, the labels taking turns."""
    turns = [label for i in range(max(counts.values())) for label, count in counts.items() if i < count]
    return [Labelled(i, f"text {i}", label=label) for i, label in enumerate(turns, start)]


def split(given, limits=None, seed=0, subset=None):
    return split_examples(given, limits or Limits(), seed, Skipped(), subset)


def labels_of(examples):
    return Counter(e.label for e in examples)


def ids(splits):
    return {name: [e.id for e in part] for name, part in splits.named().items()}


def assert_in_proportion(splits, stratum):
    """Every part drawn has of every class what its share of all examples is, give or take one."""
    everything = [e for part in splits.named().values() for e in part]
    whole = Counter(stratum(e) for e in everything)
    for name, part in splits.named().items():
        counts = Counter(stratum(e) for e in part)
        for key, total in whole.items():
            # Train is what two draws left over, so it may be off by one for each.
            allowed = 2 if name == "train" else 1
            assert abs(counts[key] - total * len(part) / len(everything)) < allowed, (name, key)


def assert_disjoint(splits):
    texts = [normalised(e) for part in splits.named().values() for e in part]
    assert len(set(texts)) == len(texts)


@pytest.fixture
def no_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))


@pytest.fixture(scope="module")
def mails():
    """The bundled mails as the scripts get them: (task, source)."""
    task = find("spamassassin", Classification)
    return task, locate_rows(task, None)


@pytest.fixture(scope="module")
def mail_splits(mails):
    return split_rows(*mails, DataArgs(dataset="spamassassin"))


@pytest.fixture(scope="module")
def records():
    """The bundled instructions: (task, source)."""
    task = find("instructions", Instructions)
    return task, locate_rows(task, None)


# The registry.


def test_every_file_of_the_folder_is_a_task_of_that_name():
    files = sorted(path.stem for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
    assert len(files) >= 7
    assert list(tasks.NAMES) == files
    assert [find(name, Task).name for name in files] == files


@pytest.mark.parametrize("name", tasks.NAMES)
def test_a_task_has_a_place_to_take_its_rows_from(name):
    task = find(name, Task)
    assert task.file or task.bundled or task.hub
    assert task.bundled is None or (FOLDER / "bundled" / task.bundled).is_file()


def test_every_bundled_file_belongs_to_a_task():
    data = {path.name for path in (FOLDER / "bundled").iterdir() if path.suffix != ".md"}
    general = {"general.txt"}  # what forgetting is measured on (training/flags/forgetting.py)
    assert data - general and data == general | ({find(name, Task).bundled for name in tasks.NAMES} - {None})


def test_an_unknown_dataset_is_answered_with_those_of_the_kind_asked_for():
    with pytest.raises(ValueError, match="--dataset nope") as refused:
        find("nope", Classification)
    assert "spamassassin" in str(refused.value) and "alpaca" not in str(refused.value)


@pytest.mark.parametrize("name", ["_splits", "__init__", "alpaca"])
def test_what_is_no_classification_task_is_not_found_as_one(name):
    with pytest.raises(ValueError, match="this script knows"):
        find(name, Classification)


# Where rows come from.


def test_the_file_in_the_data_folder_comes_before_the_hub(tmp_path, monkeypatch):
    (tmp_path / "alpaca_data.json").write_text('[{"instruction": "a", "input": "", "output": "b"}]')
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    source = locate_rows(find("alpaca", Instructions), None)
    assert source.parts == {"all": [{"instruction": "a", "input": "", "output": "b"}]}
    assert source.origin == "$DATA_DIR/alpaca_data.json"


def test_the_file_that_the_user_names_comes_before_all(tmp_path, no_data_folder):
    (tmp_path / "mine.jsonl").write_text('{"subject": "a", "body": "b", "label": "ham"}\n')
    source = locate_rows(find("spamassassin", Classification), tmp_path / "mine.jsonl")
    assert len(source.rows) == 1 and source.origin.endswith("mine.jsonl")


def test_a_dataset_that_is_nowhere_says_which_file_to_get(no_data_folder):
    with pytest.raises(ValueError, match="sick_nli.csv"):
        locate_rows(find("sick", Classification), None)


# The bundled mails.


def test_the_bundled_mails_are_the_documented_ones(mails):
    rows = mails[1].parts
    assert list(rows) == ["all"]
    assert Counter(row["label"] for row in rows["all"]) == {"ham": 3459, "spam": 1386}


def test_the_mail_splits_are_disjoint_and_lose_duplicates_alone(mails, mail_splits):
    assert_disjoint(mail_splits)
    kept = sum(len(part) for part in mail_splits.named().values())
    skipped = mail_splits.skipped
    assert kept + skipped.duplicate + skipped.contradictory + skipped.empty == len(mails[1].rows)
    assert kept > 4800 and skipped.empty == skipped.over_limit == 0


def test_the_mail_splits_are_stratified(mail_splits):
    assert_in_proportion(mail_splits, lambda e: e.label)
    total = sum(len(part) for part in mail_splits.named().values())
    assert len(mail_splits.test) == len(mail_splits.validation) == round(total / 10)


def test_an_example_is_numbered_by_its_row(mails, mail_splits):
    rows = mails[1].rows
    for example in mail_splits.test[:50]:
        row = rows[example.id]
        assert example.label == row["label"] and row["body"] in example.text and row["subject"] in example.text


def test_the_same_seed_gives_the_same_mail_splits(mails, mail_splits):
    again = split_rows(*mails, DataArgs(dataset="spamassassin"))
    assert ids(again) == ids(mail_splits) and again.fingerprint() == mail_splits.fingerprint()


def test_another_seed_gives_other_mail_splits(mails, mail_splits):
    other = split_rows(*mails, DataArgs(dataset="spamassassin", split_seed=1))
    assert other.fingerprint() != mail_splits.fingerprint()
    assert {e.id for e in other.test} != {e.id for e in mail_splits.test}
    assert len(other.test) == len(mail_splits.test)


# The bundled instructions.


def test_the_bundled_instructions_are_enough_and_all_are_used(records):
    splits = split_rows(*records, DataArgs(dataset="instructions"))
    assert sum(len(part) for part in splits.named().values()) == len(records[1].rows) >= 600
    assert splits.skipped == Skipped()


def test_the_test_instructions_are_half_simple_and_half_open_ended(records):
    kinds = Counter(e.kind for e in split_rows(*records, DataArgs(dataset="instructions")).test)
    assert sum(kinds.values()) == 100
    assert set(kinds) == SIMPLE | OPEN_ENDED
    assert sum(kinds[kind] for kind in SIMPLE) == sum(kinds[kind] for kind in OPEN_ENDED) == 50


def test_the_test_instructions_are_those_that_the_file_marks(records):
    task, source = records
    marked = [i for i, row in enumerate(source.rows) if row["split"] == "test"]
    for seed in (0, 1):
        splits = split_rows(task, source, DataArgs(dataset="instructions", split_seed=seed, test_share=0.3))
        assert [e.id for e in splits.test] == marked


def test_the_instruction_splits_are_disjoint_and_validation_is_stratified(records):
    splits = split_rows(*records, DataArgs(dataset="instructions"))
    assert_disjoint(splits)
    drawn_from = splits.train + splits.validation
    assert len(splits.validation) == round(0.1 * len(drawn_from))
    counts = Counter(e.kind for e in splits.validation)
    for kind, total in Counter(e.kind for e in drawn_from).items():
        assert abs(counts[kind] - total * len(splits.validation) / len(drawn_from)) < 1, kind


def test_the_seed_decides_on_the_validation_instructions(records):
    first, again, other = (
        split_rows(*records, DataArgs(dataset="instructions", split_seed=seed)).fingerprint() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_no_bundled_record_lacks_an_instruction_or_a_response(records):
    for row in records[1].rows:
        assert row["instruction"].strip() == row["instruction"] != ""
        assert row["response"].strip() == row["response"] != ""


# Cleaning.


def test_duplicates_apart_from_case_and_white_space_are_removed_and_counted():
    texts = ["Buy  now", "buy NOW", " buy\n\tnow ", "buy now!"]
    splits = split({"all": [Labelled(i, text, label="spam") for i, text in enumerate(texts)]}, NOTHING_HELD_OUT)
    assert [e.id for e in splits.train] == [0, 3]
    assert splits.skipped == Skipped(duplicate=2)


def test_a_text_with_two_labels_is_dropped_altogether_and_counted():
    found = [Labelled(i, t, label=y) for i, (t, y) in enumerate([("a", "x"), ("A ", "y"), ("b", "x"), ("a", "x")])]
    splits = split({"all": found}, NOTHING_HELD_OUT)
    assert [e.id for e in splits.train] == [2]
    assert splits.skipped == Skipped(contradictory=3)


def test_a_contradiction_across_parts_is_dropped_from_both():
    given = {
        "train": labelled({"x": 20}) + [Labelled(50, "same", label="x")],
        "test": [Labelled(51, "same", label="y")],
    }
    given["test"] += labelled({"y": 5}, start=100)
    splits = split(given)
    assert not {50, 51} & {i for part in ids(splits).values() for i in part}
    assert splits.skipped.contradictory == 2


def test_two_responses_to_one_instruction_are_no_duplicates_but_the_same_one_twice_is():
    answers = ["Cod", "Eel", "Cod", "cod", " Cod"]
    found = [Instruction(i, "Name a fish." + " " * i, response=fish) for i, fish in enumerate(answers)]
    splits = split({"all": [*found, Instruction(9, "Name a fish.", "a river", "Cod")]}, NOTHING_HELD_OUT)
    assert [e.id for e in splits.train] == [0, 1, 3, 4, 9]
    assert splits.skipped == Skipped(duplicate=1)


def test_all_responses_to_one_prompt_lie_on_one_side_of_the_split():
    found = [Instruction(i, f"Name fish {i % 40}.", response=f"Fish {i}") for i in range(120)]
    splits = split({"all": found})
    asked = [{e.instruction for e in part} for part in splits.named().values()]
    assert [len(part) for part in splits.named().values()] == [96, 12, 12]
    assert sum(map(len, asked)) == 40 == len(set.union(*asked))


def test_a_prompt_of_a_given_held_out_part_is_not_trained_on_with_another_response():
    given = {"train": [Instruction(i, f"Name fish {i}.", response="Cod") for i in range(30)]}
    given["test"] = [Instruction(40, "name FISH 3.", response="Eel"), Instruction(41, "Name a bird.", response="Emu")]
    splits = split(given, Limits(validation_share=0))
    assert ids(splits)["test"] == [40, 41] and ids(splits)["train"] == [i for i in range(30) if i != 3]
    assert splits.skipped == Skipped(prompt_held_out=1)


def test_two_pairs_with_the_same_premise_are_not_duplicates():
    found = [Labelled(i, "premise", kept, "neutral") for i, kept in enumerate(["one", "two", "ONE"])]
    assert [e.id for e in split({"all": found}, NOTHING_HELD_OUT).train] == [0, 1]


def test_a_duplicate_across_parts_stays_in_test():
    shared = [Labelled(i, "Shared Text" if i % 2 else "shared  text", label="x") for i in range(3)]
    given = {"train": [shared[0], *labelled({"x": 20}, 10)], "validation": [shared[1]], "test": [shared[2]]}
    given["validation"] += labelled({"x": 5}, 100)
    splits = split(given)
    assert [e.id for e in splits.test] == [2]
    assert 0 not in ids(splits)["train"] and 1 not in ids(splits)["validation"]
    assert splits.skipped == Skipped(duplicate=2)


def test_a_duplicate_of_train_and_validation_stays_in_validation():
    given = {"train": [Labelled(0, "same", label="x"), Labelled(1, "b", label="x")]}
    given |= {"validation": [Labelled(2, "same", label="x")], "test": [Labelled(3, "c", label="x")]}
    assert ids(split(given)) == {"train": [1], "validation": [2], "test": [3]}


@pytest.mark.parametrize(
    "row",
    [
        {"text": "", "label": "x"},
        {"text": " \n\t", "label": "x"},
        {"text": None, "label": "x"},
        {"text": float("nan"), "label": "x"},
        {"text": "a", "label": ""},
        {"text": "a", "label": " \u200b\ufeff\u00a0"},
        {"text": "a", "label": None},
        {"text": "a", "label": float("nan")},
        {"text": "a", "label": np.float64("nan")},
    ],
)
def test_a_row_without_text_or_label_is_dropped_and_counted(row):
    skipped = Skipped()
    parts = MINE.parts({"all": [{"text": "first", "label": "x"}, row, {"text": "last", "label": "y"}]}, skipped)
    assert [e.id for e in parts["all"]] == [0, 2]
    assert skipped == (Skipped(unlabelled=1) if row["text"] == "a" else Skipped(empty=1))


@pytest.mark.parametrize("row", [{"instruction": " ", "response": "b"}, {"instruction": "a", "response": " \n"}])
def test_a_record_without_instruction_or_response_is_dropped_and_counted(row):
    skipped = Skipped()
    task = Instructions("mine", (Columns(("instruction",), "response"),))
    assert task.parts({"all": [row]}, skipped) == {}
    assert skipped == (Skipped(unlabelled=1) if row["instruction"] == "a" else Skipped(empty=1))


def test_a_pair_of_empty_sentences_is_dropped_and_counted():
    skipped = Skipped()
    rows = [{"sentence1": "", "sentence2": " ", "gold_label": "neutral"}]
    assert find("sick", Classification).parts({"all": rows}, skipped) == {}
    assert skipped == Skipped(empty=1)


def test_several_text_columns_are_joined_by_lines_without_the_empty_ones():
    task = Classification("mine", (Columns(("subject", "body"), "label"),))
    rows = [{"subject": "s", "body": "b", "label": "x"}, {"subject": " ", "body": "b", "label": "x"}]
    assert [e.text for e in task.parts({"all": rows}, Skipped())["all"]] == ["s\nb", "b"]


def test_a_task_of_pairs_refuses_a_single_text_column_by_its_flag():
    with pytest.raises(ValueError, match="--text-column a: sick takes 2"):
        TextArgs(text_column=("a",)).task("sick", None)


# Splitting.


def test_parts_of_the_source_are_kept_and_only_what_is_missing_is_drawn():
    given = {"train": labelled({"x": 50, "y": 50}), "test": labelled({"x": 7, "y": 3}, 1000)}
    splits = split(given)
    assert [e.id for e in splits.test] == list(range(1000, 1010))
    assert labels_of(splits.validation) == {"x": 5, "y": 5}
    assert sorted(e.id for e in splits.train + splits.validation) == list(range(100))


@pytest.mark.parametrize(
    ("name", "kind", "plain", "otherwise"),
    [
        ("spamassassin", Classification, "84cc028f26d3dca7", "cc1a71ee5a14bea0"),
        ("instructions", Instructions, "ca6c53f56cf02d4e", "350e4efac00ec351"),
        ("preferences", Preferences, "0091f9855367f34d", "802dc1c6d11cfb45"),
        ("sick", Classification, "37c377faa73218ff", "cbec70b498aed504"),
    ],
)
def test_the_splits_are_those_of_all_earlier_runs(name, kind, plain, otherwise):
    """Golden: results of another day are of the same test examples."""
    task = find(name, kind)
    source = locate_rows(task, None if task.bundled else real_data("sick_nli.csv"))
    other = DataArgs(dataset=name, split_seed=3, validation_share=0.2, test_share=0.15, train_examples=50)
    for data, expected in ((DataArgs(dataset=name), plain), (other, otherwise)):
        assert split_rows(task, source, data).fingerprint().startswith(expected)


def test_drawn_parts_are_stratified_when_classes_are_rare_and_sizes_odd():
    splits = split({"all": labelled({"a": 331, "b": 59, "c": 14, "d": 3})}, Limits(0.17, 0.23))
    assert_in_proportion(splits, lambda e: e.label)
    assert_disjoint(splits)
    assert (len(splits.test), len(splits.validation)) == (round(0.23 * 407), round(0.17 * 407))


def test_a_share_of_zero_holds_nothing_out():
    splits = split({"all": labelled({"x": 10, "y": 10})}, NOTHING_HELD_OUT)
    assert [len(part) for part in splits.named().values()] == [20, 0, 0]


def test_nothing_left_to_train_on_is_refused():
    with pytest.raises(ValueError, match="no training examples remain"):
        split({"all": [Labelled(0, "a", label="x"), Labelled(1, "a", label="y")]})


def test_limits_are_exact_and_stratified():
    given = {"all": labelled({"x": 700, "y": 200, "z": 100})}
    data = DataArgs(train_examples=333, val_examples=50, test_examples=11)
    limits = Limits(0.1, 0.1, data.train_examples, data.val_examples, data.test_examples)
    splits = split(given, limits)
    assert [len(part) for part in splits.named().values()] == [333, 50, 11]
    for part in splits.named().values():
        for label, share in {"x": 0.7, "y": 0.2, "z": 0.1}.items():
            assert abs(labels_of(part)[label] - share * len(part)) < 1
    assert_disjoint(splits)
    assert splits.skipped == Skipped(over_limit=1000 - 333 - 50 - 11)


def test_the_limits_are_reached_from_the_flags(mails):
    data = DataArgs(dataset="spamassassin", train_examples=100, val_examples=30, test_examples=20)
    splits = split_rows(*mails, data)
    assert [len(part) for part in splits.named().values()] == [100, 30, 20]
    assert abs(labels_of(splits.train)["spam"] - 100 * 1386 / 4845) < 1


def test_a_limit_on_train_does_not_move_the_test_examples(mails, mail_splits):
    limited = split_rows(*mails, DataArgs(dataset="spamassassin", train_examples=100))
    assert ids(limited)["test"] == ids(mail_splits)["test"]
    assert ids(limited)["validation"] == ids(mail_splits)["validation"]
    assert set(ids(limited)["train"]) < set(ids(mail_splits)["train"])


def test_a_limit_above_what_there_is_takes_all():
    splits = split({"all": labelled({"x": 50, "y": 50})}, Limits(0.1, 0.1, 1000, 1000, 1000))
    assert [len(part) for part in splits.named().values()] == [80, 10, 10]
    assert splits.skipped.over_limit == 0


def test_the_fingerprint_is_of_the_whole_as_json_which_is_never_in_memory():
    texts = [f"{i} " + 600 * "ä" for i in range(2000)]
    splits = Splits([Labelled(i, text, "yes") for i, text in enumerate(texts)], [], [Labelled(0, 'a "b"', None)])
    whole = [[name, [(e.identity, e.label) for e in part]] for name, part in splits.named().items()]
    tracemalloc.start()
    found = splits.fingerprint()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == hashlib.sha256(json.dumps(whole).encode()).hexdigest()
    assert peak < 2**17


def test_the_fingerprint_depends_on_every_text_label_and_place():
    base = labelled({"x": 5, "y": 5})
    changed_text, changed_label = list(base), list(base)
    changed_text[3] = Labelled(3, "other", label=base[3].label)
    changed_label[3] = Labelled(3, base[3].text, label="z")
    variants = [base, changed_text, changed_label, base[::-1]]
    prints = [split({"all": part}, NOTHING_HELD_OUT).fingerprint() for part in variants]
    prints.append(split({"train": base[:9], "test": base[9:]}, NOTHING_HELD_OUT).fingerprint())
    assert len(set(prints)) == 5


def test_each_draw_has_training_examples_of_its_own_and_the_same_validation_and_test():
    examples = labelled({"ham": 200, "spam": 100})
    drawn = [split({"all": examples}, Limits(train=most, draw=draw)) for most in (None, 50) for draw in (0, 1, 0)]
    whole = split({"all": examples}, Limits())
    for splits in drawn:
        assert (splits.test, splits.validation) == (whole.test, whole.validation)
        assert {e.id for e in splits.train} < {e.id for e in whole.train}
    sizes = [len(splits.train) for splits in drawn]
    assert sizes == 3 * [round(0.8 * len(whole.train))] + 3 * [50]
    for first, other, again in (drawn[:3], drawn[3:]):
        assert first.train == again.train != other.train
        counts = [balance(splits.named())["train"] for splits in (first, other)]
        assert counts[0] == counts[1]  # strata keep their shares
    unlike = split({"all": examples}, Limits(train=50))
    assert unlike.train != drawn[3].train


def test_balance_counts_the_classes_of_each_split(mail_splits):
    found = balance(mail_splits.named())
    assert found["test"] == {"ham": 346, "spam": 138}
    assert {name: sum(counts.values()) for name, counts in found.items()} == {
        name: len(part) for name, part in mail_splits.named().items()
    }


# The report's subsets.


def report_subset(name):
    rule = find(name, Task).report_subset
    assert rule is not None
    return rule


def test_the_report_subset_of_enron_is_2000_mails_half_of_them_spam():
    splits = split({"all": labelled({"ham": 1500, "spam": 1200})}, subset=report_subset("enron"))
    everything = [e for part in splits.named().values() for e in part]
    assert labels_of(everything) == {"ham": 1000, "spam": 1000}
    assert labels_of(splits.test) == labels_of(splits.validation) == {"ham": 100, "spam": 100}
    assert_disjoint(splits)


def test_the_report_subset_of_enron_draws_from_all_parts_of_the_source():
    given = {"train": labelled({"ham": 700, "spam": 700}), "test": labelled({"ham": 400, "spam": 400}, 5000)}
    splits = split(given, subset=report_subset("enron"))
    assert sum(len(part) for part in splits.named().values()) == 2000


def test_the_report_subset_of_enron_does_not_depend_on_the_split_seed():
    given = {"all": labelled({"ham": 1500, "spam": 1200})}
    first, other = (split(given, seed=seed, subset=report_subset("enron")) for seed in (0, 1))
    assert ids(first)["test"] != ids(other)["test"]
    assert {i for part in ids(first).values() for i in part} == {i for part in ids(other).values() for i in part}


def test_too_few_mails_for_the_report_subset_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match="--subset report needs 1,000 examples of 'spam', the data has 999"):
        split({"all": labelled({"ham": 1500, "spam": 999})}, subset=report_subset("enron"))


def test_the_report_subset_of_imdb_is_15000_reviews_of_all_parts():
    given = {"train": labelled({"0": 5000, "1": 5000}), "test": labelled({"0": 3000, "1": 3000}, 20000)}
    splits = split(given, subset=report_subset("imdb"))
    assert [len(part) for part in splits.named().values()] == [12000, 1500, 1500]
    assert {e.id >= 20000 for e in splits.train} == {True, False}
    assert_disjoint(splits)


def test_too_few_reviews_for_the_report_subset_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match="--subset report needs 15,000 reviews, the data has 14,999"):
        split({"all": labelled({"0": 7500, "1": 7499})}, subset=report_subset("imdb"))


def pairs(per_class, start=0):
    return labelled(dict.fromkeys(("entailment", "contradiction", "neutral"), per_class), start)


def assert_report_sizes_of_nli(splits):
    for part, size in ((splits.train, 12000), (splits.validation, 1998), (splits.test, 1998)):
        assert labels_of(part) == dict.fromkeys(("entailment", "contradiction", "neutral"), size // 3)
    assert_disjoint(splits)


def test_the_report_subset_of_medical_pairs_is_balanced_and_from_the_parts_of_the_source():
    given = {"train": pairs(4100), "validation": pairs(700, 20000), "test": pairs(800, 30000)}
    splits = split(given, subset=report_subset("nli_med"))
    assert_report_sizes_of_nli(splits)
    assert all(e.id < 20000 for e in splits.train)
    assert all(20000 <= e.id < 30000 for e in splits.validation)
    assert all(e.id >= 30000 for e in splits.test)


def test_the_report_subset_of_medical_pairs_is_drawn_where_the_source_has_no_parts():
    assert_report_sizes_of_nli(split({"all": pairs(5400)}, subset=report_subset("nli_med")))


@pytest.mark.parametrize("given", [{"all": pairs(5331)}, {"train": pairs(4000), "test": pairs(665, 20000)}])
def test_too_few_pairs_for_the_report_subset_are_refused_with_the_numbers(given):
    with pytest.raises(ValueError, match="--subset report needs .* examples of 'entailment', the data has"):
        split(given, subset=report_subset("nli_med"))


def alpaca_records(count, long_every=10):
    """Every tenth response has 512 characters, one too many; those around it have 511."""
    lengths = [512 if i % long_every == 0 else 511 for i in range(count)]
    return [Instruction(i, f"Say number {i}.", response="x" * length) for i, length in enumerate(lengths)]


def test_the_report_subset_of_alpaca_is_the_first_short_records_in_file_order():
    splits = split({"all": alpaca_records(17000)}, subset=report_subset("alpaca"))
    short = [i for i in range(17000) if i % 10]
    assert ids(splits) == {"train": short[:12000], "test": short[12000:13500], "validation": short[13500:15000]}


def test_too_few_short_records_for_the_report_subset_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match="needs 15,000 records with responses under 512 characters.* has 14,999"):
        split({"all": alpaca_records(16666)}, subset=report_subset("alpaca"))


@pytest.mark.parametrize("name", ["spamassassin", "instructions", "sick"])
def test_a_dataset_that_the_report_did_not_use_has_no_report_subset(name):
    with pytest.raises(ValueError, match=f"--subset report: the report has no rule for {name}"):
        split_rows(find(name, Task), Source({"all": []}, "none"), DataArgs(dataset=name, subset="report"))


def test_a_balanced_draw_returns_the_rest_too_and_keeps_the_order():
    examples = labelled({"x": 30, "y": 20})
    chosen, rest = balanced(examples, 20, ("x", "y"), seed=1)
    assert labels_of(chosen) == {"x": 10, "y": 10}
    assert sorted([*chosen, *rest], key=lambda e: e.id) == examples
    assert [e.id for e in chosen] == sorted(e.id for e in chosen)


# Texts and prompts.


def test_the_hypothesis_of_a_pair_is_kept_and_the_premise_may_be_cut():
    row = {"sentence1": " A dog runs. ", "sentence2": "An animal moves.\n", "gold_label": "entailment"}
    for name in ("nli_med", "sick"):
        (example,) = find(name, Classification).parts({"all": [row]}, Skipped())["all"]
        assert example.text == "\n\n### Premise:\nA dog runs."
        assert example.kept == "\n\n### hypothesis:\nAn animal moves."
        assert example.label == "entailment"


def test_the_classes_of_a_pair_are_in_the_order_of_the_report():
    for name in ("nli_med", "sick"):
        task = find(name, Classification)
        assert task.classes(pairs(1)) == ("entailment", "contradiction", "neutral")


def test_a_review_has_line_breaks_for_its_markup():
    row = {"text": "Good.<br /><br />Very.", "label": 1}
    (example,) = find("imdb", Classification).parts({"all": [row]}, Skipped())["all"]
    assert (example.text, example.label) == ("Good.\n\nVery.", "1")


def test_the_enron_text_is_subject_and_message():
    row = {"Message ID": "0", "Subject": "hello", "Message": "there", "Spam/Ham": "ham", "Date": "x"}
    (example,) = find("enron", Classification).parts({"all": [row]}, Skipped())["all"]
    assert (example.text, example.label) == ("hello\nthere", "ham")


def test_an_alpaca_prompt_with_an_input_is_that_of_the_report():
    row = {
        "instruction": "Identify the correct spelling of the following word.",
        "input": "Ocassion",
        "output": "The correct spelling is 'Occasion'.",
    }
    (example,) = find("alpaca", Instructions).parts({"all": [row]}, Skipped())["all"]
    assert example.prompt() == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nIdentify the correct spelling of the following word.\n\n"
        "### Input:\nOcassion\n\n"
        "### Response:\n"
    )
    assert example.response == "The correct spelling is 'Occasion'."


def test_an_alpaca_prompt_without_an_input_has_no_input_section():
    row = {"instruction": "Name a fish.", "input": "", "output": "Cod"}
    (example,) = find("alpaca", Instructions).parts({"all": [row]}, Skipped())["all"]
    assert example.prompt() == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nName a fish.\n\n"
        "### Response:\n"
    )


def test_the_response_header_can_be_left_to_the_model():
    example = Instruction(0, "Name a fish.", "In a river")
    assert example.prompt(response_header=False) + "\n\n### Response:\n" == example.prompt()
    assert example.prompt(response_header=False).endswith("### Input:\nIn a river")


# The real data sets, where DATA_DIR has them: read, cleaned and split as on the user's machine.

# Rows of the files as they were handed over, whatever is left out of them.
KNOWN = [
    ("enron", Classification, "enron_spam_data.parquet", 22_489),
    ("imdb", Classification, "imdb_train.parquet", 25_000),
    ("sick", Classification, "sick_nli.csv", 7_000),
    ("alpaca", Instructions, "alpaca_data.json", 2_745),
]


@pytest.mark.parametrize(("name", "kind", "file", "rows"), KNOWN, ids=[known[0] for known in KNOWN])
def test_a_real_data_set_is_read_whole_and_split_without_overlap(name, kind, file, rows):
    path = real_data(file)
    task = find(name, kind)
    source = locate_rows(task, path)
    splits = split_rows(task, source, DataArgs(dataset=name))
    parts = splits.named()
    skipped = splits.skipped
    assert source.origin == str(path)
    assert sum(map(len, parts.values())) + skipped.empty + skipped.duplicate + skipped.contradictory == rows
    texts = [" ".join(" ".join(e.identity).casefold().split()) for part in parts.values() for e in part]
    assert len(set(texts)) == len(texts)
    assert all(0.09 < len(parts[held_out]) / len(texts) < 0.11 for held_out in ("validation", "test"))
    if kind is Classification:
        assert len(task.classes([e for part in parts.values() for e in part])) == (3 if name == "sick" else 2)


@pytest.mark.parametrize(("name", "size"), [("enron", 2_000), ("imdb", 15_000)])
def test_the_reports_subset_can_be_drawn_from_the_real_file(name, size):
    task = find(name, Classification)
    source = locate_rows(task, real_data(task.file))
    splits = split_rows(task, source, DataArgs(dataset=name, subset="report"))
    assert sum(map(len, splits.named().values())) == size


def test_empty_and_duplicate_messages_of_the_enron_mails_are_found():
    task = TextArgs(text_column=("Message",)).task("enron", None)
    source = locate_rows(task, real_data("enron_spam_data.parquet"))
    skipped = split_rows(task, source, DataArgs(dataset="enron")).skipped
    assert skipped.duplicate > 1_000
    assert skipped.empty == 314


# Adding a dataset takes one file in tasks/: it is then a --dataset of the script for its kind.

WEATHER = '''
"""Weather or not, by the first word."""

from tasks import Classification, Columns

COLUMNS = (Columns(("report",), "is_weather"),)
TASK = Classification("weather", columns=COLUMNS, file="weather.jsonl", labels=("no", "yes"))
'''


def test_an_added_file_is_a_dataset_of_its_script(tiny_model, tmp_path):
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tasks" / "weather.py").write_text(WEATHER)
    rows = [{"report": f"{('Rain', 'Lunch')[i % 2]} at {i}", "is_weather": ("yes", "no")[i % 2]} for i in range(60)]
    write_rows(tmp_path / "weather.jsonl", rows)
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "DATA_DIR": str(tmp_path)}
    flags = ["--dataset", "weather", "--model", tiny_model, "--max-steps", 1, "--output-dir", tmp_path / "run"]
    done = run_script("finetune_cls", *flags, **env)
    assert done.returncode == 0, done.stderr
    assert results_of(tmp_path / "run")["data"]["labels"] == ["no", "yes"]
    unknown = run_script("finetune_cls", "--dataset", "whether", **env)
    assert unknown.returncode == 2 and "(weather?)" in unknown.stderr
