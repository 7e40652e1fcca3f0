"""Folders: which file is which part, and what is refused by name because nobody could know."""

import json
import shutil

import datasets
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_rows import refusal, save, written

from tasks import read_rows
from tasks._names import part_of

ROWS = [{"text": f"message {i}", "label": "spam" if i % 2 else "ham"} for i in range(6)]
NAMES = {
    "train": [
        "train",
        "training",
        "Training Set",
        "mydata_train",
        "train-00000-of-00002",
        "trainSet",
        "train1",
        "training2024x",
        "trn",
        "TRAIN",
    ],
    "validation": [
        "eval",
        "evaluation",
        "val",
        "valid",
        "validation",
        "validate",
        "dev",
        "devel",
        "my.dev.set",
        "devset",
    ],
    "test": [
        "test",
        "testset",
        "testing",
        "heldout",
        "holdout",
        "test.set",
        "data-test",
        "held-out",
        "hold_out",
        "Test2",
        "tst",
    ],
    None: [
        "latest",
        "contest",
        "devices",
        "value",
        "trained",
        "evaluator",
        "detest",
        "spring",
        "trainings",
    ],
}


def put(folder, **files):
    """A jsonl file of rows for each name, in which __ stands for a sub-folder."""
    for name, rows in files.items():
        path = folder / (name.replace("__", "/") + ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, rows)
    return folder


def refused(folder):
    said = refusal(folder).replace(str(folder), "")
    assert len(said) <= 300
    return said


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in NAMES.items() for name in names])
def test_the_usual_names_of_a_part_are_known_and_words_that_contain_one_are_not(part, name, tmp_path):
    assert part_of(name) == part
    put(tmp_path, **{name: ROWS})
    assert read_rows(tmp_path).parts == {part or "all": ROWS}


@pytest.mark.parametrize("name", ["eval", "dev", "val"])
def test_a_held_out_part_beside_train_is_the_one_to_choose_on(name, tmp_path):
    source = read_rows(put(tmp_path, train=ROWS[:4], **{name: ROWS[4:]}))
    assert source.parts == {"train": ROWS[:4], "validation": ROWS[4:]}


def test_files_of_no_part_beside_named_ones_are_refused_by_name(tmp_path):
    put(tmp_path, train=ROWS[:4], gold=ROWS[4:])
    assert "gold.jsonl" in refused(tmp_path)


def test_a_name_that_says_two_parts_is_refused(tmp_path):
    assert "train_dev.jsonl" in refused(put(tmp_path, train_dev=ROWS))


def test_parts_may_be_sub_folders(tmp_path):
    put(tmp_path, train__a=ROWS[:2], train__b=ROWS[2:4], test__a=ROWS[4:])
    source = read_rows(tmp_path)
    assert source.parts == {"train": ROWS[:4], "test": ROWS[4:]}
    assert source.files == {"train": ["train/a.jsonl", "train/b.jsonl"], "test": ["test/a.jsonl"]}


def test_a_folder_that_carries_a_column_is_refused(tmp_path):
    assert "'label=ham'" in refused(put(tmp_path, **{"label=spam__a": ROWS, "label=ham__a": ROWS}))


def test_files_that_are_read_as_one_are_named(tmp_path):
    source = read_rows(put(tmp_path, spring=ROWS[:3], summer=ROWS[3:]))
    assert source.parts == {"all": ROWS} and source.notes == ["read together as all rows: spring.jsonl, summer.jsonl"]


def test_two_words_for_one_part_are_refused_by_name(tmp_path):
    message = refused(put(tmp_path, train=ROWS, dev=ROWS, eval=ROWS))
    assert "dev.jsonl, eval.jsonl would all be validation" in message


def test_files_with_one_word_of_a_part_are_read_together_and_named(tmp_path):
    source = read_rows(put(tmp_path, train=ROWS, test_matched=ROWS[:1], test_other=ROWS[1:]))
    assert source.parts["test"] == ROWS
    assert "read together as test rows: test_matched.jsonl, test_other.jsonl" in source.notes


@pytest.mark.parametrize("name", ["train.xlsx", "train.csv.zip", "train/texts.txt"])
def test_a_part_that_only_a_file_of_another_kind_has_is_refused(name, tmp_path):
    put(tmp_path, test=ROWS)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    written(tmp_path / name, "x")
    assert name.split("/")[-1] in refused(tmp_path)


def test_programs_and_notes_beside_the_data_are_no_data(tmp_path):
    put(tmp_path, train=ROWS, test=ROWS)
    for name in ("eval.py", "dev.log", "train_notes.txt", "requirements.txt"):
        written(tmp_path / name, "x")
    assert read_rows(tmp_path).parts == {"train": ROWS, "test": ROWS}


def test_a_folder_and_a_file_of_different_parts_are_refused(tmp_path):
    assert "test/train.jsonl" in refused(put(tmp_path, test__train=ROWS))


def test_one_part_in_two_folders_is_refused_as_two_data_sets(tmp_path):
    message = refused(put(tmp_path, en__train=ROWS, de__train=ROWS))
    assert "several folders (de, en)" in message


def test_one_part_in_two_kinds_of_file_is_refused_as_twice_the_same(tmp_path):
    put(tmp_path, train=ROWS)
    save(tmp_path / "train.parquet", ROWS)
    assert "train.jsonl, train.parquet" in refused(tmp_path)


def test_one_name_in_two_kinds_of_file_is_refused_as_twice_the_same(tmp_path):
    put(tmp_path, mails=ROWS)
    save(tmp_path / "mails.csv", ROWS)
    assert "mails" in refused(tmp_path)


def test_a_cloned_data_repository_is_read_without_what_describes_it(tmp_path):
    for part in ("train", "test"):
        for i in range(2):
            path = tmp_path / "data" / f"{part}-{i:05}-of-00002.parquet"
            path.parent.mkdir(exist_ok=True)
            save(path, [{**row, "text": f"{part} {i} {row['text']}"} for row in ROWS])
    for name in ("README.md", ".gitattributes", "dataset_infos.json", ".git/config.json", "__MACOSX/._train.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    source = read_rows(tmp_path)
    assert {name: len(rows) for name, rows in source.parts.items()} == {"train": 12, "test": 12}
    assert [row["text"].split()[1] for row in source.parts["train"]] == ["0"] * 6 + ["1"] * 6
    assert [note for note in source.notes if "dataset_infos.json" in note]


CARD = """---
license: mit
configs:
- config_name: default
  data_files:
  - split: train
    path: {0}.jsonl
  - split: test
    path:
    - "{1}.jsonl"
---
# A data set
"""


def test_parts_that_only_the_readme_of_a_repository_names_are_refused(tmp_path):
    put(tmp_path, part1=ROWS[:4], part2=ROWS[4:])
    (tmp_path / "README.md").write_text(CARD.format("part1", "part2"))
    assert "README.md says which of its files are train and test; name them so" in refused(tmp_path)


@pytest.mark.parametrize(
    "card", ["---\nconfigs: [", "---\nconfigs: 3\n---\n", "---\na\n---\n", "# Data", "---\nconfigs:\n- en\n---\n"]
)
def test_a_readme_that_names_no_parts_means_nothing(card, tmp_path):
    (put(tmp_path, part1=ROWS[:4], part2=ROWS[4:]) / "README.md").write_text(card)
    assert read_rows(tmp_path).parts == {"all": ROWS}


def test_a_readme_that_names_the_parts_that_the_files_name_means_nothing_more(tmp_path):
    put(tmp_path, train=ROWS[:4], test=ROWS[4:])
    (tmp_path / "README.md").write_text(CARD.format("train", "test"))
    assert read_rows(tmp_path).parts == {"train": ROWS[:4], "test": ROWS[4:]}


def test_a_folder_of_texts_by_class_is_refused_with_what_to_make_of_it(tmp_path):
    for place in ("train/pos", "train/neg", "test/pos"):
        (tmp_path / place).mkdir(parents=True)
        written(tmp_path / place / "1.txt", "a text")
    assert "but 3 of .txt; write their texts into a table, with a column of classes" in refused(tmp_path)


def test_texts_without_labels_and_forms_of_an_answer_are_passed_over_and_named(tmp_path):
    put(tmp_path, train=ROWS, test=ROWS, sample_submission=[{"id": 1}], unsupervised=ROWS)
    source = read_rows(tmp_path)
    assert source.parts == {"train": ROWS, "test": ROWS}
    assert "sample_submission.jsonl, unsupervised.jsonl" in source.notes[0]


@pytest.mark.parametrize("name", ["reddit_submission", "metadata"])
def test_a_file_that_is_passed_over_and_the_only_one_is_named(name, tmp_path):
    written(put(tmp_path) / f"{name}.json", json.dumps(ROWS))
    assert f"the folder holds {name}.json alone, whose name is that of" in refused(tmp_path)


def test_endings_in_capitals_make_no_other_kind_of_file(tmp_path):
    for name in ("train_1.CSV", "train_2.csv"):
        written(tmp_path / name, "text,label\na,x\n")
    assert len(read_rows(tmp_path).parts["train"]) == 2


def test_parts_may_have_different_columns_and_files_of_one_part_may_not(tmp_path):
    bare = [{"text": row["text"]} for row in ROWS]
    assert read_rows(put(tmp_path / "a", train=ROWS, test=bare)).parts == {"train": ROWS, "test": bare}
    message = refused(put(tmp_path / "b", train_0=ROWS, train_1=bare))
    assert "train_1.jsonl: column 'label'" in message
    refused(put(tmp_path / "c", train_0=ROWS, train_1=[{f"{i}{'x' * 100}": "a" for i in range(9)}]))


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_fault_in_a_file_of_a_folder_is_told_of_that_file(ending, tmp_path):
    save(tmp_path / f"train{ending}", ROWS)
    written(tmp_path / f"test{ending}", b'{"text": 1}\n{"te\x00\n')
    assert f"test{ending}: " in refused(tmp_path)


def features():
    return datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])})


def saved_set():
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    return datasets.Dataset.from_dict(rows, features=features())


NAMED = [{"text": "a", "label": "spam"}, {"text": "b", "label": "ham"}, {"text": "c", "label": None}]


def test_classes_in_a_parquet_file_of_the_library_datasets_are_read_by_name(tmp_path):
    saved_set().to_parquet(tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet").rows == NAMED


def test_a_column_of_a_saved_set_is_called_without_what_cannot_be_seen_in_its_name(tmp_path):
    datasets.Dataset.from_list([{"\ufefftext": "a", "label ": "x"}]).save_to_disk(tmp_path / "set")
    source = read_rows(tmp_path / "set")
    assert source.rows == [{"text": "a", "label": "x"}] and "as 'text', 'label ' as 'label'" in source.notes[0]


def test_a_data_set_saved_to_disk_is_read_without_its_cache(tmp_path):
    saved_set().save_to_disk(tmp_path / "set")
    shutil.copy(tmp_path / "set" / "data-00000-of-00001.arrow", tmp_path / "set" / "cache-1.arrow")
    assert read_rows(tmp_path / "set").parts == {"all": NAMED}


def test_parts_of_a_data_set_saved_to_disk_are_read(tmp_path):
    parts = {"train": saved_set(), "dev": saved_set(), "unsupervised": saved_set()}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    source = read_rows(tmp_path / "set")
    assert source.parts == {"train": NAMED, "validation": NAMED}
    assert any("unsupervised" in note for note in source.notes)


def test_unknown_parts_of_a_data_set_saved_to_disk_are_refused(tmp_path):
    datasets.DatasetDict({"train": saved_set(), "gold": saved_set()}).save_to_disk(tmp_path / "set")
    assert "train, gold" in refused(tmp_path / "set")


def test_a_damaged_data_set_saved_to_disk_is_refused(tmp_path):
    saved_set().save_to_disk(tmp_path / "set")
    written(tmp_path / "set" / "data-00000-of-00001.arrow", b"nothing")
    refused(tmp_path / "set")


@pytest.mark.parametrize("form", ["stream", "file"])
def test_an_arrow_file_is_read(form, tmp_path):
    table = saved_set().data.table
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    assert read_rows(tmp_path / "a.arrow").rows == NAMED


def test_a_category_and_an_index_of_pandas_do_not_change_the_rows(tmp_path):
    frame = pandas.DataFrame(ROWS).astype({"label": "category"})[1:]
    frame.to_parquet(tmp_path / "a.parquet", index=True)
    assert "__index_level_0__" in pq.read_schema(tmp_path / "a.parquet").names
    assert read_rows(tmp_path / "a.parquet").rows == ROWS[1:]


@pytest.mark.parametrize("saved", [False, True])
def test_numbers_of_32_bits_are_as_they_were_written_and_times_beyond_pythons_are_text(saved, tmp_path):
    numbers, times = pa.array([0.1, None], pa.float32()), pa.array([253402300800, 0], pa.timestamp("s"))
    table = pa.table({"text": ["a", "b"], "score": numbers, "when": times})
    path = tmp_path / "a.parquet"
    datasets.Dataset(table).save_to_disk(path) if saved else pq.write_table(table, path)
    rows = read_rows(path).rows
    assert [row["score"] for row in rows] == [0.1, None]
    assert rows[0]["when"].startswith("10000-01-01 00:00:00")


def test_a_column_that_cannot_be_read_is_named(tmp_path):
    times = pa.array([{"at": 253402300800}], pa.struct([("at", pa.timestamp("s"))]))
    pq.write_table(pa.table({"text": ["a"], "when": times}), tmp_path / "a.parquet")
    assert "column 'when' cannot be read (" in refusal(tmp_path / "a.parquet")


def test_a_column_twice_in_a_parquet_file_is_refused(tmp_path):
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "a.parquet")
    assert "column 'text' twice" in refusal(tmp_path / "a.parquet")


def test_nested_columns_are_left_as_they_are(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "a"}], "score": {"a": 1}}]
    assert read_rows(save(tmp_path / "a.parquet", rows)).rows == rows


def test_a_pointer_in_place_of_a_file_is_called_one(tmp_path):
    written(tmp_path / "train.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refused(tmp_path)


def test_a_json_file_of_parts_stands_alone_in_its_folder(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"train": ROWS, "test": ROWS}))
    assert "holds several parts" in refused(tmp_path)
