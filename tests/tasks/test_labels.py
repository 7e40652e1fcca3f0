"""Labels: one spelling, one order, and what is said or refused before a column of them is trained on."""

import json
import os
import random
import shlex
import subprocess
import sys

import numpy as np
import pandas
import pytest
from helpers import ROOT, run_in_process, write_rows

from tasks import Classification, Columns, Skipped, balance, find, folded
from tasks._classes import class_notes
from tasks._labels import in_order, number_in, spellings, typed_spellings
from training.data.sources import asked_rows, locate_rows, split_rows
from training.flags.common import DataArgs
from training.flags.task import TextArgs

MINE = Classification("mine", (Columns(("text",), "label"),))


def rows_of(labels, times=1):
    """Different texts, so many of each label."""
    return [{"text": f"text {i} {n} {times}", "label": label} for i in range(times) for n, label in enumerate(labels)]


def read(rows, task=MINE):
    """(labels in the order of the rows, notes)"""
    notes = []
    parts = task.parts(rows if isinstance(rows, dict) else {"all": rows}, Skipped(), notes)
    return [e.label for part in parts.values() for e in part], notes


def splits_of(path, **flags):
    task = TextArgs(("text",), "label", **flags).task(None, path)
    return split_rows(task, locate_rows(task, path), DataArgs(data=path))


def note_of(splits, words):
    (note,) = [note for note in splits.notes if words in note]
    assert len(note) <= 300
    return note


# One spelling.

SPELLINGS = [
    "spam ",
    " spam",
    "\tspam\n",
    "spam\u00a0",
    "\u200bspam",
    "\ufeffspam",
    "sp\u00adam",
    "spam\u200e",
    "spam\x00",
    "spam\u061c",
]


@pytest.mark.parametrize("label", SPELLINGS)
def test_white_space_and_what_is_invisible_make_no_other_label(label):
    labels, notes = read(rows_of(["spam", "ham", label]))
    assert labels == ["spam", "ham", "spam"]
    assert len(notes) == 1 and "1 rows spell their label" in notes[0] and "as 'spam'" in notes[0]


def test_an_accent_of_its_own_is_the_letter_with_it():
    composed, apart = "café", "cafe\u0301"
    labels, notes = read(rows_of([composed, apart, apart + " "]))
    assert labels == [composed] * 3 and "2 rows" in notes[0] and r"'cafe\u0301' as 'café'" in notes[0]


def test_white_space_inside_a_label_is_one_space():
    labels, _ = read(rows_of(["not  spam", "not\u00a0spam", "not\r\nspam"]))
    assert set(labels) == {"not spam"}


@pytest.mark.parametrize(
    "label", ["👩\u200d💻", "می\u200cخواهم", "🏴\U000e0067\U000e0062\U000e0065\U000e007f", "-", "C++", "ſ"]
)
def test_joiners_and_marks_that_carry_meaning_stay(label):
    assert folded(label) == label


def test_labels_that_are_one_spelling_already_are_given_no_note():
    assert read(rows_of(["spam", "ham", "Not spam", "7", "07"]))[1] == []


def test_the_classes_of_a_spreadsheet_are_those_that_pandas_finds_once_it_strips_the_column(tmp_path):
    rng = random.Random(0)
    words = [rng.choice(["ham", "spam", "not sure"]) + rng.choice(["", "", " ", "\u00a0", "\t"]) for _ in range(200)]
    path = tmp_path / "mail.csv"
    pandas.DataFrame({"text": [f"text {i}" for i in range(200)], "label": words}).to_csv(path, index=False)
    expected = pandas.read_csv(path, dtype=str, keep_default_na=False).label.str.strip().value_counts().to_dict()
    found = balance(splits_of(path).named())
    assert {name: sum(part.get(name, 0) for part in found.values()) for name in expected} == expected


def test_a_dataset_with_classes_of_its_own_takes_the_other_spelling():
    rows = [{"Subject": "a", "Message": f"b{i}", "Spam/Ham": label} for i, label in enumerate(["ham ", "\ufeffspam"])]
    assert read(rows, find("enron", Classification))[0] == ["ham", "spam"]


def test_the_classes_of_the_flags_are_spelled_in_the_same_way():
    args = TextArgs(("text",), "label", labels=("ham ", "spam\u00a0"))
    assert args.task("spamassassin", None).labels == ("ham", "spam")
    (problem,) = TextArgs(labels=("ham", "ham ")).problems()
    assert "a class is named twice" in problem


# Numbers and truth values.


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        ([1, 0], ["1", "0"]),
        ([1.0, 0.0], ["1", "0"]),
        ([True, False], ["true", "false"]),
        ([np.int64(1), np.float32(0.0), np.bool_(True)], ["1", "0", "true"]),
        ([0.5, 1.0, -0.0], ["0.5", "1", "0"]),
        ([1, "1", "1.0", 1.0], ["1"] * 4),
        ([True, "True", "TRUE ", "true", False, "False"], ["true"] * 4 + ["false"] * 2),
        ([1.5, "1.50", "1,5"], ["1.5"] * 3),
        ([7, "07", "+7", "7.0"], ["7", "07", "+7", "7"]),
        ([["spam"], ["ham "], [], "ham"], ["spam", "ham", "ham"]),
        ([[1], ["1.0"], [2.0], np.array(["2"])], ["1", "1", "2", "2"]),
    ],
)
def test_a_typed_label_equals_the_text_that_spells_it(cells, labels):
    assert read(rows_of(cells))[0] == labels


def test_a_number_that_a_library_made_a_float_of_equals_the_text_of_another_part(tmp_path):
    """Whole numbers in a column with a gap come out of pandas as 1.0, in parquet as in csv."""
    frame = pandas.DataFrame({"text": [f"text {i}" for i in range(41)], "label": [i % 2 for i in range(40)] + [None]})
    frame.to_parquet(tmp_path / "train.parquet")
    frame[:10].assign(text=lambda f: "held out " + f.text).to_csv(tmp_path / "test.csv", index=False)
    found = splits_of(tmp_path)
    assert {e.label for part in found.named().values() for e in part} == {"0", "1"}
    assert found.skipped == Skipped(unlabelled=1) and len(found.test) == 10


def test_in_text_files_numbers_stay_as_they_are_typed():
    assert read(rows_of(["7", "07", "007", "1.0", "1"]))[0] == ["7", "07", "007", "1.0", "1"]
    assert typed_spellings(["1", "1.0", "true", "True"]) == {}


@pytest.mark.parametrize("cell", [["a", "b"], {"a": 1}, b"a", pandas.Timestamp("2020-01-01")])
def test_a_label_that_is_neither_text_nor_number_is_refused_by_row(cell):
    with pytest.raises(ValueError, match="row 2: column 'label' holds .*, neither text nor number"):
        read(rows_of(["a", cell]))


@pytest.mark.parametrize(
    "labels",
    [
        ["['a', 'b']", "['a']", "['b']"],
        ['["a", "b"]', '["a"]'],
        ["{'choices': ['a', 'b']}", "a"],
        ["[1, 2]", "[3]"],
        ["27", "0", "3", "6,22", "4", "1,7", "12", "15", "18", "20", "2,3,4", "25"],
        ["1", "7", "6", "22", "6,22", "1,7", "1,6"],
        ["27", "0", "3", "6,22", "4", "1,7", "12", "15", "18", "20", "23", "25"],
        ["a", "b", "a, b"],
        ["a", "b", "c", "a;c"],
        ["a|b", "a|c", "b|c", "a|b|c"],
        ["A|x", "A|y", "A|z", "B|x", "B|y", "B|z"],
        ["music", "sport", "music#sport"],
        ["music", "sport", "news", "music/sport", "sport/music"],
        ["music", "sport", "news", "music + news", "news + sport"],
        ["music", "sport", "news", "news & sport", "music & news"],
        ["music", "sport", "news", "music and news", "news and sport"],
        ["music", "sport", "news", "music news", "music sport", "news sport"],
        ["27 0", "3", "0", "27", "3 27", "0 3"],
        ["<python><numpy>", "<python>", "<pandas>"],
        ["[music, sport]", "[music]", "[news]"],
        ["[1. 0. 1.]", "[0. 1. 0.]", "[1. 1. 0.]"],
        ["[1 0 1]", "[0 1 0]"],
        ["Drama", "Comedy", "Comedy, Drama", "Action, Adventure", "Drama, Mystery", "Action, Comedy", "Horror"],
        ["world news", "pop music", "world news\npop music"],
    ],
)
def test_several_labels_in_one_cell_are_refused_as_such(labels, tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of(labels, 10))
    with pytest.raises(ValueError, match="'label' holds several labels in one cell") as refused:
        splits_of(path)
    assert len(str(refused.value)) <= 300 and "regression" not in str(refused.value)
    assert "name all classes with --labels" in str(refused.value)
    assert splits_of(path, labels=tuple(labels)).train


@pytest.mark.parametrize(
    "labels",
    [
        ["1", "1,5", "2", "2,5", "3", "5"],
        ["Washington, D.C.", "Paris, France", "Rome"],
        ["a;b", "c"],
        ["[A]", "[B]"],
        ["(1)", "(2)"],
        [":|", ":)", ";)"],
        ["1,000", "2,000"],
        ["R&B", "C++", "C#", "and/or", "New York", "rock"],
        ["France", "Germany", "Paris, France", "Lyon, France", "Berlin, Germany"],
        ["Paris", "France", "Paris, France", "Berlin, Germany"],
        ["news", "sport", "business", "science", "sport news", "business news", "science news"],
        ["card", "gift", "payment", "gift card", "card payment"],
        ["black", "white", "black and white", "red"],
        ["positive", "negative", "positive negative"],
        ["M", "F", "M/F"],
        ["1", "2", "5", "1/5", "2/5", "5/5"],
        ["talk.politics", "sport", "sport/football", "sport/tennis", "football"],
        ["issue#1", "issue#2", "bug#1", "bug#2"],
        ["[2.0]", "[A, B"],
        ["<unk>", "<s>", "<b>x</b>"],
    ],
)
def test_a_label_with_a_mark_or_a_bracket_can_be_one(labels):
    assert set(read(rows_of(labels, 10))[0]) == set(labels)


def test_a_label_made_of_other_labels_is_named(tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of(["black", "white", "black and white", "2,5", "2", "5"], 10))
    note = note_of(splits_of(path), "made of other labels")
    assert "10 rows have a label made of other labels ('black and white')" in note


def test_the_numbers_of_32_bits_are_spelled_as_they_were_written(tmp_path):
    frame = pandas.DataFrame({"text": [f"text {i}" for i in range(60)], "label": [0.1, 0.2, None] * 20})
    frame.assign(label=frame.label.astype("float32")).to_parquet(tmp_path / "mine.parquet")
    assert {e.label for e in splits_of(tmp_path / "mine.parquet").train} == {"0.1", "0.2"}


def test_a_list_of_labels_is_refused_as_several():
    with pytest.raises(ValueError, match="row 2: column 'label' holds a list .several labels"):
        read(rows_of(["a", ["a", "b"]]))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("", "no training examples remain; left out of 60 rows: 60 unlabelled; column 'label' is empty in all of them"),
        ("-", "no training examples remain; left out of 60 rows: 60 label left out$"),
    ],
)
def test_where_no_row_is_left_the_reason_and_the_empty_column_are_named(label, said, tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of([label], 60))
    with pytest.raises(ValueError, match=said):
        splits_of(path, leave_out_labels=("-",))


def test_texts_that_are_empty_in_all_rows_are_named(tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", [{"text": " ", "label": "a"}] * 9)
    with pytest.raises(ValueError, match="left out of 9 rows: 9 empty; column 'text' is empty in all"):
        splits_of(path)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_folder_of_one_held_out_part_is_refused_with_the_way_out(part, tmp_path):
    write_rows(tmp_path / f"{part}.jsonl", rows_of(["spam", "ham"], 20))
    with pytest.raises(ValueError, match=f"there is only a {part} part .40 rows., .*give that file itself as --data"):
        splits_of(tmp_path)


def test_texts_that_are_all_held_out_are_counted(tmp_path):
    for part in ("train", "test"):
        write_rows(tmp_path / f"{part}.jsonl", rows_of(["spam", "ham"], 20))
    with pytest.raises(ValueError, match="no training examples remain; left out of all rows: 40 duplicate, 40 in test"):
        splits_of(tmp_path)


@pytest.mark.parametrize("labels", [[1.0, float("inf")], [0.5, 1.5, float("-inf")], ["0", "1", "inf"]])
def test_infinity_is_no_class(labels):
    with pytest.raises(ValueError, match="inf' among numbers, which is not a class"):
        read(rows_of(labels, 10))
    assert set(read(rows_of(["inf", "part"], 10))[0]) == {"inf", "part"}


def test_every_text_that_spells_a_number_is_named_with_its_rows(tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of([1, 2, "1.0", "2.0", "2.00"], 10))
    note = note_of(splits_of(path), "text that spells them")
    assert all(f"{text} (10 rows)" in note for text in ("'1.0' is '1'", "'2.0' is '2'", "'2.00' is '2'"))


# Order.


def test_numbers_are_in_order_of_size_and_words_of_the_alphabet_whatever_they_come_in():
    labels = ["7", "07", "007", "10", "-1", "2.5", "2,5", "b", "aa", "B", "1e3"]
    expected = ("-1", "2,5", "2.5", "007", "07", "7", "10", "1e3", "B", "aa", "b")
    for seed in range(20):
        assert in_order(random.Random(seed).sample(labels, len(labels))) == expected


@pytest.mark.parametrize(
    "label", ["1e999", "9" * 4000, "1" * 30 + ".5", "٣", "1e99999999", "²", "0x10", "1_000", "nan"]
)
def test_any_label_has_a_place_in_the_order(label):
    assert set(in_order(["b", label, "3"])) == {"b", label, "3"}
    assert number_in("1e99999999") is None and number_in("nan") is None


SAID_ALONE = """
import sys
from pathlib import Path
from tasks import Classification, Columns
from training.data.sources import locate_rows, split_rows
from training.flags.common import DataArgs

path, task = Path(sys.argv[1]), Classification("mine", (Columns(("text",), "label"),))
splits = split_rows(task, locate_rows(task, path), DataArgs(data=path))
print(task.classes(splits.train), splits.fingerprint())
"""


def test_the_order_of_classes_does_not_depend_on_the_seed_of_hashes(tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of(["7", "07", "007"], 20))
    seeds = [
        subprocess.run(
            [sys.executable, "-c", SAID_ALONE, str(path)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "3", "4")
    ]
    assert len(set(seeds)) == 1 and "('007', '07', '7')" in seeds[0]


# What is said of classes, and what is refused.


def test_labels_that_differ_in_case_or_spelling_of_a_number_are_named_with_their_rows(tmp_path):
    rows = rows_of(["spam", "ham", "1"], 40) + rows_of(["Spam", "1.0"], 3)
    notes = splits_of(write_rows(tmp_path / "mine.jsonl", rows)).notes
    assert any("'Spam' (3 rows), 'spam' (40 rows)" in note for note in notes)
    assert any("'1' (40 rows), '1.0' (3 rows)" in note for note in notes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("❤", "❤\ufe0f"),
        ("☺\ufe0e", "☺\ufe0f"),
        ("can't", "can’t"),
        ("non-spam", "non\u2011spam"),
        ("A", "\uff21"),
        ("−1", "-1"),
        ("1", "\uff11"),
        ("ﬁt", "FIT"),
    ],
)
def test_labels_that_look_alike_are_named_and_stay_as_they_are(one, other, tmp_path):
    found = splits_of(write_rows(tmp_path / "mine.jsonl", rows_of([one, other, "ham"], 10)))
    note = note_of(found, "in characters that look alike")
    assert f"{one!r} (10 rows)" in note and f"{other!r} (10 rows)" in note
    assert {e.label for e in found.train} == {one, other, "ham"}


def test_all_labels_that_are_alike_are_counted():
    notes = class_notes({word: 9 for name in ("abcd", "Abcd", "ABCD") for word in name} | {"aB": 9, "AB": 9}, "label")
    assert sum("look alike" in note for note in notes) == 2
    assert "3 more groups of labels differ in this way: 'B', 'C', 'D'" in "".join(notes)
    (note,) = class_notes(dict.fromkeys(["yes", "Yes", "YES", "yeS", "yEs", "YEs"], 9), "label")
    assert note.endswith("and 3 more")


@pytest.mark.parametrize(("train", "other"), [("spam", "Spam"), ("1", "1.0"), ("yes", "YES"), ("7", "07")])
def test_a_held_out_label_that_train_spells_in_another_way_is_refused_with_both(train, other, tmp_path):
    write_rows(tmp_path / "train.jsonl", rows_of([train, "ham"], 20))
    write_rows(tmp_path / "test.jsonl", rows_of([other, "ham"], 30)[41:])
    with pytest.raises(ValueError) as refused:
        splits_of(tmp_path)
    words = str(refused.value)
    assert "test part has 9 rows" in words and repr(other) in words and f"train has {train!r}" in words
    assert "--leave-out-labels" in words and len(words) <= 300


def test_a_class_that_only_a_held_out_part_has_is_refused(tmp_path):
    write_rows(tmp_path / "train.jsonl", rows_of(["spam", "ham"], 20))
    write_rows(tmp_path / "dev.jsonl", [{"text": "new", "label": "eggs"}, {"text": "newer", "label": "ham"}])
    with pytest.raises(ValueError, match="validation part has 1 rows with labels that no training row has: 'eggs'"):
        splits_of(tmp_path)
    assert splits_of(tmp_path, leave_out_labels=("eggs",)).skipped == Skipped(label_left_out=1)


def test_a_class_that_no_drawn_row_has_asks_for_more_of_them(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", rows_of([*"abcde"], 40))
    data = DataArgs(data=path, train_examples=3)
    task = TextArgs(("text",), "label").task(None, path)
    with pytest.raises(ValueError, match="no training row has: 'd', 'e'; raise --train-examples"):
        split_rows(task, asked_rows(task, data), data)


def test_a_truth_value_beside_a_number_is_named():
    notes = class_notes({"1": 20, "0": 20, "true": 20, "false": 20}, "label")
    assert "truth value are classes of their own: '0' (20 rows), 'false' (20 rows)" in notes[0]


def test_the_only_example_of_a_class_is_trained_on_and_named(tmp_path):
    rows = rows_of(["spam", "ham"], 20) + rows_of(["eggs", "bacon"])
    for seed in range(5):
        task = TextArgs(("text",), "label").task(None, tmp_path / "mine.jsonl")
        source = locate_rows(task, write_rows(tmp_path / "mine.jsonl", rows))
        found = split_rows(task, source, DataArgs(split_seed=seed, validation_share=0.2, test_share=0.3))
        assert {"eggs", "bacon"} <= {e.label for e in found.train}
        assert (len(found.test), len(found.validation)) == (13, 8)
    assert "2 classes have one example" in note_of(found, "one example") and "'bacon', 'eggs'" in note_of(
        found, "one ex"
    )


def test_a_column_of_ids_is_refused_and_may_be_meant_in_a_trial_of_few_rows(tmp_path):
    rows = [{"text": f"text {i}", "label": f"T-{i}"} for i in range(60)]
    with pytest.raises(ValueError, match="column 'label' has 60 classes in 60 rows .*: an id, or free text"):
        splits_of(write_rows(tmp_path / "mine.jsonl", rows))
    assert "classes have one example" in note_of(splits_of(write_rows(tmp_path / "few.jsonl", rows[:8])), "one example")


def test_where_one_class_is_left_it_is_said_what_was_left_out(tmp_path):
    rows = [{"text": f"text {i}", "label": label} for i in range(50) for label in "ab"] + rows_of(["a"], 20)
    with pytest.raises(ValueError, match="only one class in the file .'a'.*; left out: 100 contradictory$"):
        splits_of(write_rows(tmp_path / "mine.jsonl", rows))


def test_many_classes_of_few_rows_are_said(tmp_path):
    rows = rows_of([f"name {i}" for i in range(12)], 3)
    assert "12 classes in 36 rows: few of each" in note_of(
        splits_of(write_rows(tmp_path / "m.jsonl", rows)), "few of each"
    )


@pytest.mark.parametrize("form", ["{:.2f}", "${:.2f}", "-${:.2f}", "{:.1f}%", "{:,.2f}", "\u2212{:.2f}", "{:.2f} €"])
@pytest.mark.parametrize("other", ["n/a", "", "12"])
def test_scores_are_seen_however_they_are_written_beside_a_placeholder(form, other, tmp_path):
    labels = [form.format(1000.5 + i / 3) for i in range(50)]
    rows = [{"text": f"text {i} {k}", "label": label} for i, label in enumerate([*labels, other]) for k in range(4)]
    with pytest.raises(ValueError, match="different decimals .* a regression") as refused:
        splits_of(write_rows(tmp_path / "mine.jsonl", rows))
    assert len(str(refused.value)) <= 300


@pytest.mark.parametrize("form", [".{:02}", "-.{:02}", "{}."])
def test_numbers_without_a_digit_before_or_behind_the_point_are_numbers(form):
    labels = [form.format(i) for i in range(10, 30)]
    assert all(float(number_in(label)) == float(label) for label in labels)
    assert number_in(".") is None and number_in("") is None


def test_words_beside_a_few_numbers_are_classes():
    rows = rows_of([f"{i}.5" for i in range(12)], 2) + rows_of(["spam", "ham"], 20)
    assert len(set(read(rows)[0])) == 14


@pytest.mark.parametrize("typed", [True, False])
def test_a_column_of_scores_is_refused_as_a_regression(typed, tmp_path):
    scores = [round(1 + i % 40 / 10, 1) for i in range(400)]
    rows = [{"text": f"text {i}", "label": s if typed else str(s)} for i, s in enumerate(scores)]
    with pytest.raises(ValueError, match="'label' holds 40 different decimals .* a regression"):
        splits_of(write_rows(tmp_path / "mine.jsonl", rows))


def test_half_stars_can_be_classes_and_are_noted(tmp_path):
    rows = rows_of([str(half / 2) for half in range(1, 11)], 10)
    found = splits_of(write_rows(tmp_path / "mine.jsonl", rows))
    assert len({e.label for e in found.train}) == 10 and "a regression" in note_of(found, "different numbers")


@pytest.mark.parametrize("form", ["2024-03-{:02}", "{}.03.2024", "03/{:02}/24", "2024-03-{:02}T10:00:00"])
def test_a_column_of_dates_is_refused(form, tmp_path):
    rows = rows_of([form.format(day) for day in range(1, 29)], 10)
    with pytest.raises(ValueError, match="'label' holds 28 different dates"):
        splits_of(write_rows(tmp_path / "mine.jsonl", rows))


def test_long_texts_in_the_label_column_are_refused_without_quoting_them(tmp_path):
    rows = [{"text": f"short {i % 9}{i}", "label": f"a long text {i % 5} " * 20} for i in range(50)]
    with pytest.raises(ValueError, match="'label' holds long texts, not classes") as refused:
        splits_of(write_rows(tmp_path / "mine.jsonl", rows))
    assert len(str(refused.value)) <= 300


def test_every_refusal_is_short_however_long_labels_and_names_of_columns_are(tmp_path):
    long = "label of many words " * 4
    write_rows(tmp_path / "train.jsonl", rows_of([long + "a", long + "b"], 20))
    write_rows(tmp_path / "test.jsonl", [{"text": f"{i}", "label": f"{long} {i}"} for i in range(9)])
    with pytest.raises(ValueError) as refused:
        splits_of(tmp_path)
    assert len(str(refused.value)) <= 300


# Placeholders.


@pytest.mark.parametrize(
    "label", ["-", "?", "N/A", "null", "NaN", "#N/A", r"\N", "(null)", "[null]", "(blank)", "Undefined", "NaT"]
)
def test_a_placeholder_among_the_labels_is_named_with_the_flag_that_leaves_it_out(label, tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of(["spam", "ham"], 20) + rows_of([label], 5))
    note = note_of(splits_of(path), "is taken as a class")
    assert f"--leave-out-labels {shlex.quote(label)}" in note and "5 rows" in note
    found = splits_of(path, leave_out_labels=(label,))
    assert found.skipped == Skipped(label_left_out=5) and {e.label for e in found.train} == {"spam", "ham"}


def test_a_placeholder_among_the_texts_is_named_and_kept(tmp_path):
    rows = [*rows_of(["spam", "ham"], 20), {"text": "nan", "label": "spam"}]
    rows += [{"text": "?", "label": "ham"}, {"text": "none", "label": "ham"}]
    found = splits_of(write_rows(tmp_path / "mine.jsonl", rows))
    assert "column 'text' holds 'nan' in 1 rows, which is taken as text" in note_of(found, "leave such cells empty")
    assert sum(map(len, found.named().values())) == 43


@pytest.mark.parametrize("text", ["\u200b", " \u200b\n", "\ufeff", "\u200d", "\u3164"])
def test_a_text_that_cannot_be_seen_is_empty(text):
    skipped = Skipped()
    MINE.parts({"all": [*rows_of(["spam", "ham"]), {"text": text, "label": "ham"}]}, skipped)
    assert skipped == Skipped(empty=1)


def test_a_label_outside_a_datasets_classes_is_refused_with_the_flag_that_leaves_it_out(tmp_path):
    rows = [
        {"sentence1": f"a{i}", "sentence2": "b", "gold_label": g}
        for i, g in enumerate(["neutral", "entailment", "-"] * 9)
    ]
    path = write_rows(tmp_path / "snli.jsonl", rows)
    task = find("sick", Classification)
    with pytest.raises(ValueError, match="labels '-' are not among the expected .*--leave-out-labels -"):
        split_rows(task, locate_rows(task, path), DataArgs(data=path))
    task = TextArgs(leave_out_labels=("-", "?")).task("sick", None)
    assert split_rows(task, locate_rows(task, path), DataArgs(data=path)).skipped.label_left_out == 9


def test_the_label_in_a_list_of_one_can_be_left_out(tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of([["spam"], ["ham"], ["-"]], 20))
    found = splits_of(path, leave_out_labels=("-",))
    assert {e.label for e in found.train} == {"spam", "ham"} and found.skipped == Skipped(label_left_out=20)
    assert found.notes == []


def test_the_flag_takes_a_dash_from_the_command_line_and_results_count_the_rows(tiny_model, tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of(["spam", "ham", "-"], 20))
    flags = ["--data", path, "--leave-out-labels", "-", "?", "--model", tiny_model, "--max-steps", 1]
    done = run_in_process("finetune_cls", *flags, "--output-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "run" / "results.json").read_text())["data"]
    assert data["labels"] == ["ham", "spam"] and data["skipped"]["label_left_out"] == 20
    assert "left out: 20 label left out" in done.stdout


def test_a_flag_cannot_keep_and_leave_out_one_label():
    (problem,) = TextArgs(labels=("a", "b"), leave_out_labels=("b",)).problems()
    assert "--leave-out-labels b: is among --labels" in problem


@pytest.mark.parametrize(
    ("cells", "named", "kept"),
    [
        ([0, 1, 2.0], "2.0", {"0", "1"}),
        ([0, 1, 2], "2.0", {"0", "1"}),
        ([True, False, "maybe"], "True", {"false", "maybe"}),
        ([1, 2, "7.0", 7], "7", {"1", "2"}),
        ([1, 2, "7.0", 7], "7.0", {"1", "2"}),
        (["1", "1.0", "b"], "1", {"1.0", "b"}),
    ],
)
def test_a_label_to_leave_out_is_the_number_or_truth_value_that_it_spells(cells, named, kept, tmp_path):
    found = splits_of(write_rows(tmp_path / "mine.jsonl", rows_of(cells, 10)), leave_out_labels=(named,))
    assert {e.label for e in found.train} == kept
    assert found.skipped.label_left_out == 10 * (len(cells) - len(kept))


@pytest.mark.parametrize(
    ("cells", "names", "classes"),
    [([True, False], ("True", "False"), ("true", "false")), ([1.0, 0.0], ("0.0", "1.0"), ("0", "1"))],
)
def test_classes_of_the_flag_are_the_numbers_or_truth_values_that_they_spell(cells, names, classes, tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of(cells, 20))
    assert (
        TextArgs(("text",), "label", labels=names).task(None, path).classes(splits_of(path, labels=names).train)
        == classes
    )


def test_a_label_to_leave_out_that_no_row_has_is_said_or_refused_with_the_one_that_is_like_it(tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of(["a", "b", "c d"], 10))
    note_of(splits_of(path, leave_out_labels=("?", "c  d")), "no row has the label '?' of --leave-out-labels")
    with pytest.raises(ValueError, match="--leave-out-labels B: no row has this label; is it 'b'?"):
        splits_of(path, leave_out_labels=("B",))


@pytest.mark.parametrize(
    ("cells", "hidden"),
    [
        ([0, 1, -1], "-1"),
        (["0", "1", "2", "-100"], "-100"),
        ([0, 1, 2, -1, "n/a"], "-1 n/a"),
        ([-1, 1], ""),
        ([-2, -1, 0, 1], ""),
        (["-1", "b", "c"], ""),
        ([-1, 0.5, 1], ""),
    ],
)
def test_minus_one_among_whole_numbers_is_named_with_the_flag_that_leaves_it_out(cells, hidden, tmp_path):
    found = splits_of(write_rows(tmp_path / "mine.jsonl", rows_of(cells, 10)))
    assert [note for note in found.notes if "is taken as a class" in note] == (
        [note_of(found, f"leave such rows out: --leave-out-labels {hidden}")] if hidden else []
    )


@pytest.mark.parametrize("label", ["<NA>", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#N/A", "?", "-"])
def test_the_advice_on_placeholders_can_be_given_to_a_shell(label, tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of(["spam", "ham", label], 5))
    words = note_of(splits_of(path), "is taken as a class").split("--leave-out-labels ")[1]
    assert shlex.split(words) == [label]
    with pytest.raises(ValueError) as refused:
        splits_of(path, labels=("spam", "ham"))
    assert shlex.split(str(refused.value).split("--leave-out-labels ")[1]) == [label]


# Messages are short whatever they name.


@pytest.mark.parametrize(
    "label", ["a" * 120, "\u200b" * 100, "\U000e0001" * 60, "中" * 90, "👨\u200d👩\u200d👧" * 20, "'" * 80]
)
def test_messages_are_short_whatever_the_labels_are(label, tmp_path):
    names = [f"{i}{label}{i}" for i in range(61)]
    (problem,) = TextArgs(("text",), "label", labels=(*names, names[0])).problems()
    assert len(problem) <= 300 and "named twice" in problem
    (problem,) = TextArgs(("text",), "label", labels=tuple(names), leave_out_labels=tuple(names)).problems()
    assert len(problem) <= 300
    path = write_rows(tmp_path / "mine.jsonl", rows_of([*names[:3], names[0] + " "], 10))
    with pytest.raises(ValueError) as refused:
        splits_of(path, labels=("a" * 120, "b" * 120, "c" * 120))
    assert len(str(refused.value)) <= 300
    notes = splits_of(path, labels=tuple(names[:3])).notes
    assert notes and all(len(note) <= 300 for note in notes)


def test_labels_that_both_flags_name_are_found_in_any_spelling_and_named_in_one_order():
    args = TextArgs(labels=("c", "b ", "a"), leave_out_labels=("c", "a\u200b", "b"))
    (problem,) = args.problems()
    assert "--leave-out-labels a b c: is among --labels" in problem


def test_a_folded_label_is_shown_as_it_is_but_for_what_cannot_be_seen():
    _, notes = read(rows_of(["猫 ", "猫", "👍\u200b"]))
    assert "'猫 ' as '猫'" in notes[0]


# Files without labels, as competitions give them.


@pytest.mark.parametrize(
    "test", [{}, {"label": ""}, {"label": None}, {"label": "?"}, {"label": -1}, {"label": float("nan")}]
)
def test_a_test_file_without_labels_is_for_predict_and_test_is_drawn_from_train(test, tmp_path):
    write_rows(tmp_path / "train.jsonl", rows_of(["spam", "ham"], 50))
    write_rows(tmp_path / "test.jsonl", [{"text": f"unknown {i}"} | test for i in range(30)])
    found = splits_of(tmp_path)
    note = note_of(found, "predict.py")
    assert ("holds '-1' only" in note) == (test == {"label": -1})
    assert ("is missing or empty" in note) == (not test.get("label") or test["label"] != test["label"])
    assert "test.jsonl" in note and "30 rows" in note
    assert len(found.test) == 10 and all(e.text.startswith("text") for e in found.test)
    assert found.skipped == Skipped() and sum(map(len, found.named().values())) == 100


def test_a_test_file_with_some_labels_is_a_test_part_and_the_others_are_counted(tmp_path):
    write_rows(tmp_path / "train.jsonl", rows_of(["spam", "ham"], 50))
    write_rows(tmp_path / "test.jsonl", [{"text": f"new {i}", "label": "ham" if i < 5 else ""} for i in range(30)])
    found = splits_of(tmp_path)
    assert len(found.test) == 5 and found.skipped == Skipped(unlabelled=25)


def test_a_label_of_train_is_no_placeholder_in_test(tmp_path):
    write_rows(tmp_path / "train.jsonl", rows_of([-1, 1], 50))
    write_rows(tmp_path / "test.jsonl", [{"text": f"new {i}", "label": -1} for i in range(30)])
    assert len(splits_of(tmp_path).test) == 30


def test_only_files_without_labels_are_refused(tmp_path):
    write_rows(tmp_path / "train.jsonl", [{"text": f"unknown {i}"} for i in range(30)])
    write_rows(tmp_path / "test.jsonl", [{"text": f"unknown {i}"} for i in range(30)])
    with pytest.raises(ValueError, match="train.jsonl: column 'label' is missing"):
        splits_of(tmp_path)


def test_a_test_file_without_the_text_is_refused_by_name(tmp_path):
    write_rows(tmp_path / "train.jsonl", rows_of(["spam", "ham"], 50))
    write_rows(tmp_path / "test.jsonl", [{"id": i, "label": "ham"} for i in range(30)])
    with pytest.raises(ValueError, match="test.jsonl: column 'text' is missing"):
        splits_of(tmp_path)


# Labels of another file.


def test_labels_of_another_file_find_the_number_or_truth_value_that_they_spell():
    known = spellings(["1.0", "0", "True", "2", "07", "Spam"], ["0", "1", "true", "7", "spam"])
    assert known == {"1.0": "1", "True": "true"}
    assert spellings(["7"], ["07", "007"]) == spellings(["1.00"], ["1", "1.0"]) == {}


def test_predict_reads_a_csv_of_truth_values_beside_a_run_on_json(tiny_model, tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", rows_of([True, False], 20))
    flags = ["--data", path, "--model", tiny_model, "--max-steps", 1, "--output-dir", tmp_path / "run"]
    assert run_in_process("finetune_cls", *flags).returncode == 0
    pandas.DataFrame(rows_of([True, False], 5)).to_csv(tmp_path / "new.csv", index=False)
    done = run_in_process("predict", "--run", tmp_path / "run", "--data", tmp_path / "new.csv")
    assert done.returncode == 0 and "10 rows, 10 with a label" in done.stdout and "'False' as 'false'" in done.stdout
    metrics = json.loads((tmp_path / "run" / "predict-new.metrics.json").read_text())
    assert metrics["accuracy"]["n"] == 10
