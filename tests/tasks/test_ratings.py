"""Answers that are rated one by one: from rows to examples, how labels are read, and what is wrong with a file."""

import csv
from pathlib import Path

import pytest
from helpers import write_rows

from tasks import Preferences, Rated, Skipped, find, read_rows
from tasks._labels import BAD, GOOD
from training.data.sources import locate_rows, split_rows
from training.flags.common import DataArgs
from training.flags.preference import RatingArgs


def rows_of(good=True, bad=False, count=20, names=("prompt", "completion", "label")):
    """Every third answer is a bad one."""
    labels = [good if i % 3 else bad for i in range(count)]
    return [dict(zip(names, (f"Count to {i}.", f"{i}", label), strict=True)) for i, label in enumerate(labels)]


def parts_of(rows, flags=None, skipped=None, notes=None):
    task = (flags or RatingArgs()).task(None, Path("mine.jsonl"))
    return task.parts({"all": rows}, skipped or Skipped(), notes)["all"]


def splits_of(rows, folder, **more):
    path = write_rows(folder / "mine.jsonl", rows)
    return split_rows(RatingArgs().task(None, path), read_rows(path), DataArgs(data=path, **more))


def test_a_row_becomes_an_instruction_with_an_answer_that_is_good_or_bad():
    assert parts_of(rows_of())[:2] == [
        Rated(0, "Count to 0.", "", "0", good=False),
        Rated(1, "Count to 1.", "", "1", good=True),
    ]


PAIRS = [*zip(GOOD.split(", "), BAD.split(", "), strict=False), (True, False), (1, 0), (1.0, -1), ("Yes ", "NO")]


@pytest.mark.parametrize(("good", "bad"), PAIRS, ids=str)
def test_the_usual_labels_are_read_and_what_they_mean_is_said(good, bad):
    notes = []
    assert [e.good for e in parts_of(rows_of(good, bad), notes=notes)] == [bool(i % 3) for i in range(20)]
    assert any("(13 rows) is read as good" in note and "(7 rows) is read as bad" in note for note in notes)


@pytest.mark.parametrize(
    ("names", "flags"),
    [
        (("prompt", "completion", "label"), {}),
        (("instruction", "output", "kto_tag"), {}),
        (("question", "answer", "thumbs"), {}),
        (("a", "b", "c"), {"prompt_column": "a", "response_column": "b", "label_column": "c"}),
        (("prompt", "response", "toxic"), {"label_column": "toxic"}),
    ],
)
def test_columns_are_found_by_their_usual_names_or_named_by_flags(names, flags):
    assert len(parts_of(rows_of(names=names), RatingArgs(**flags))) == 20


def test_conversations_are_read_as_finetune_ift_reads_them():
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    rows = [
        {"prompt": said[:1], "completion": said[1:], "label": True},
        {"prompt": said[:1], "completion": [said[1] | {"content": "Go away."}], "label": False},
    ]
    assert [(e.instruction, e.response, e.good) for e in parts_of(rows)] == [
        ("Hi", "Hello!", True),
        ("Hi", "Go away.", False),
    ]
    alone = [{"messages": said, "label": 1}, {"messages": [said[0], said[1] | {"content": "No."}], "label": 0}]
    assert [(e.response, e.good) for e in parts_of(alone)] == [("Hello!", True), ("No.", False)]


def test_what_an_answer_is_about_comes_along_by_its_usual_name():
    assert parts_of([row | {"context": "numbers"} for row in rows_of()])[0].input == "numbers"


def test_rows_without_a_label_or_an_answer_are_left_out_and_counted():
    skipped, rows = Skipped(), rows_of()
    rows[0]["label"], rows[1]["label"], rows[2]["completion"], rows[3]["prompt"] = None, " ", "", ""
    assert len(parts_of(rows, skipped=skipped)) == 16
    assert (skipped.unlabelled, skipped.empty) == (3, 1)


def test_an_answer_that_is_rated_twice_counts_once_or_not_at_all(tmp_path):
    rows = rows_of()
    splits = splits_of([*rows, rows[1], rows[2] | {"label": False}], tmp_path)
    assert (splits.skipped.duplicate, splits.skipped.contradictory) == (1, 2)


@pytest.mark.parametrize(
    ("bad", "wrong", "message"),
    [
        (False, "maybe", "row 5: column 'label' holds 'maybe', which is not known to mean good or bad"),
        (False, 3, "row 5: column 'label' holds '3', which is not known to mean good or bad"),
        (False, ["true"], "row 5: column 'label' holds a list"),
        (False, "yes", "column 'label' holds 'true', 'yes', which all mean good"),
        (0, -1, "column 'label' holds '0', '-1', which all mean bad"),
    ],
)
def test_a_label_that_could_mean_something_else_is_refused_by_its_name(bad, wrong, message):
    rows = rows_of(bad=bad)
    rows[4]["label"] = wrong
    with pytest.raises(ValueError, match="column 'label'") as error:
        parts_of(rows)
    assert message in str(error.value) and len(str(error.value)) <= 300


def test_answers_that_differ_in_white_space_at_their_end_are_one(tmp_path):
    rows = rows_of()
    splits = splits_of([*rows, rows[2] | {"completion": "2 ", "label": False}], tmp_path)
    assert splits.skipped.contradictory == 2


@pytest.mark.parametrize("seed", range(5))
def test_each_part_has_its_share_of_a_rare_kind_and_prompts_rated_both_ways_stay_whole(seed, tmp_path):
    rows = [{"prompt": f"q{i}", "completion": f"a{i}", "label": i % 10 == 0} for i in range(200)]
    rows += [{"prompt": f"both {i // 2}", "completion": f"b{i}", "label": i % 2 == 0} for i in range(80)]
    splits = splits_of(rows, tmp_path, split_seed=seed)
    alone = {name: [e.good for e in part if e.instruction[0] == "q"] for name, part in splits.named().items()}
    assert [(len(part), sum(part)) for part in alone.values()] == [(160, 16), (20, 2), (20, 2)]
    groups = [{e.group for e in part} for part in splits.named().values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 240 and not any("cannot be" in n for n in splits.notes)


@pytest.mark.parametrize("good", [True, False])
def test_answers_of_one_kind_alone_are_refused(good, tmp_path):
    kind = "good" if good else "bad"
    message = f"all 16 answers to train on are {kind}; both kinds are needed: add answers of the other kind"
    with pytest.raises(ValueError, match=message) as error:
        splits_of(rows_of(good, good), tmp_path)
    assert ("finetune_ift" in str(error.value)) == good


def test_a_limit_that_leaves_one_kind_is_named_and_a_held_out_part_of_one_kind_is_noted(tmp_path):
    rows = [{"prompt": f"q{i}", "completion": f"a{i}", "label": i < 3} for i in range(100)]
    with pytest.raises(ValueError, match="all 4 answers to train on are bad; both kinds are needed: raise --train-ex"):
        splits_of(rows, tmp_path, train_examples=4)
    notes = splits_of(rows, tmp_path).notes
    assert [f"all 10 answers of the {name} part are bad" in " ".join(notes) for name in ("validation", "test")] == [
        1,
        1,
    ]


def test_a_file_without_labels_names_the_column_that_is_missing_and_its_flag():
    with pytest.raises(ValueError, match=r"column 'label' is missing \(--prompt-column.*--label-column name them"):
        parts_of([{"prompt": "a", "completion": "b"}])


def test_each_part_has_its_labels_read_and_named_whatever_its_column_is_called(tmp_path):
    def noted(tests):
        write_rows(tmp_path / "train.jsonl", rows_of(count=30))
        write_rows(tmp_path / "test.jsonl", tests)
        task, notes, source = RatingArgs().task(None, tmp_path), [], read_rows(tmp_path)
        task.parts(source.parts, Skipped(), notes, source.counted)
        return [note for note in notes if "is read as good" in note]

    said = " ".join(noted(rows_of("up", "down", 10, names=("prompt", "completion", "rating"))))
    assert "column 'label': 'true'" in said and "column 'rating': 'up' (6 rows) is read as good" in said
    tests = rows_of("up", "down", 10, names=("prompt", "completion", "rating"))
    with pytest.raises(ValueError, match="column 'rating' holds .* which all mean good"):
        noted([*tests, tests[1] | {"rating": "yes"}])


def test_a_held_out_part_without_labels_is_for_predictions(tmp_path):
    for name, rows in (("train", rows_of(count=30)), ("test", rows_of(count=4))):
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            columns = ["prompt", "completion"] + ["label"] * (name == "train")
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    task, notes = RatingArgs().task(None, tmp_path), []
    source = read_rows(tmp_path)
    assert set(task.parts(source.parts, Skipped(), notes, source.counted)) == {"train"}
    assert any("test.csv: column 'label' is missing or empty" in note for note in notes)


# Pairs, taken apart.


def test_the_bundled_pairs_are_read_as_a_good_and_a_bad_answer_each_that_stay_in_one_part():
    task = RatingArgs().task("preferences", None)
    splits, pairs = split_rows(task, locate_rows(task, None), DataArgs()), find("preferences", Preferences)
    known = {e.id: e for e in pairs.parts(locate_rows(pairs, None).parts, Skipped())["all"]}
    everything = splits.examples()
    assert sorted(e.id for e in everything) == list(range(2 * len(known)))
    for e in everything:
        pair = known[e.id // 2]
        assert (e.instruction, e.good) == (pair.prompt, e.id % 2 == 0)
        assert e.response == (pair.chosen if e.good else pair.rejected)
    groups = [{e.group for e in part} for part in splits.named().values()]
    assert all(groups) and not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


def test_pairs_have_columns_of_their_own():
    with pytest.raises(ValueError, match="--dataset preferences: is read as pairs"):
        RatingArgs(label_column="x").task("preferences", None)
    with pytest.raises(ValueError, match="this script knows dpo_pairs, preferences"):
        RatingArgs().task("alpaca", None)
