"""Nothing of what a user gave is left out, replaced or read as something else without a word."""

import json
import unicodedata

import datasets
import numpy
import pandas
import pytest
from helpers import ROOT, mails, questions, write_rows
from test_rows import refusal, save

from tasks import Skipped, read_rows, read_text
from tasks._examples import normalised
from training.data.corpus import read_documents
from training.data.sources import find_inputs, locate_rows, split_rows
from training.flags.command_line import parse
from training.flags.common import DataArgs
from training.flags.config_file import completed, write_config
from training.flags.fields import resolved
from training.flags.preference import PairArgs, RatingArgs
from training.flags.scripts import load_script
from training.flags.task import PromptArgs, TextArgs
from training.storage.run_folder import check_folder

CLS = load_script(ROOT / "scripts" / "finetune_cls.py")


def splits_of(path, columns=None):
    task = (columns or TextArgs(("text",), "label")).task(None, path)
    return split_rows(task, locate_rows(task, path), DataArgs(data=path))


# Folders.


def test_parts_behind_links_are_read_and_links_to_nothing_are_refused(tmp_path):
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    folder.mkdir(), elsewhere.mkdir()
    write_rows(folder / "train.jsonl", mails(20))
    write_rows(elsewhere / "b.jsonl", mails(5))
    (folder / "test").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(folder)
    assert {part: len(rows) for part, rows in read_rows(folder).parts.items()} == {"train": 20, "test": 5}
    (folder / "validation.jsonl").symlink_to(tmp_path / "absent.jsonl")
    assert "validation.jsonl: is a link to nothing; fetch its content" in refusal(folder)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").symlink_to(tmp_path / "absent.txt")
    with pytest.raises(ValueError, match="a.txt: is a link to nothing"):
        read_documents([tmp_path / "texts"], "text")


def test_a_corpus_has_no_files_of_hidden_folders_and_says_how_it_was_read(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "description.txt").write_text("hidden")
    (tmp_path / "a.txt").write_text("seen", encoding="utf-16")
    found = read_documents([tmp_path], "text")
    assert found.texts == ["seen"] and "a.txt: it was read as UTF-16-LE" in found.notes
    assert read_text(tmp_path / "a.txt")[0] == "seen"


def test_files_of_kinds_that_are_not_read_and_files_of_other_names_are_named(tmp_path):
    for name in ("v1", "v2"):
        save(tmp_path / f"mails_{name}.csv", mails(4))
    for name in ("2024.xlsx", "2025.jsonl.zst", "notes.txt"):
        (tmp_path / name).write_bytes(b"PK")
    notes = read_rows(tmp_path).notes
    assert "read together as all rows: mails_v1.csv, mails_v2.csv" in notes
    assert any("not read, since their kind is unknown here: 2024.xlsx, 2025.jsonl.zst" in note for note in notes)
    (tmp_path / "pieces").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002"):
        save(tmp_path / "pieces" / f"{name}.csv", mails(4))
    assert read_rows(tmp_path / "pieces").notes == []


def test_a_saved_part_without_rows_is_refused(tmp_path):
    rows = datasets.Dataset.from_list(mails(6))
    datasets.DatasetDict(train=rows, test=rows.select([])).save_to_disk(tmp_path / "saved")
    assert "has no rows; save it without that part" in refusal(tmp_path / "saved")


# Parts.


def test_a_part_that_another_one_empties_is_not_replaced_by_a_drawn_one(tmp_path):
    rows = mails(60)
    for name, part in (("train", rows[:50]), ("test", rows[50:]), ("val", rows[50:])):
        write_rows(tmp_path / f"{name}.jsonl", part)
    with pytest.raises(ValueError, match="all 10 examples of the validation part are in another part too"):
        splits_of(tmp_path)
    asked = questions(60)
    answered = [{**row, "response": "another"} for row in asked[50:]]
    for name, part in (("train", asked[:50]), ("test", asked[50:]), ("val", answered)):
        write_rows(tmp_path / f"{name}.jsonl", part)
    with pytest.raises(ValueError, match="all 10 examples of the validation part"):
        splits_of(tmp_path, PromptArgs("instruction", response_column="response"))


DRAWN = "a test part is drawn from the training rows"


@pytest.mark.parametrize("name", ["eval", "dev", "val"])
def test_a_validation_part_alone_says_that_a_test_part_is_drawn(name, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"train": mails(20), name: mails(30)[20:]}))
    assert f"the validation part is a.json; {DRAWN}" in splits_of(tmp_path / "a.json").notes
    folder = tmp_path / "folder"
    folder.mkdir()
    for part, rows in (("train", mails(20)), (name, mails(30)[20:])):
        write_rows(folder / f"{part}.jsonl", rows)
    assert f"the validation part is {name}.jsonl; {DRAWN}" in splits_of(folder).notes
    assert not read_rows(folder).notes  # nothing is drawn for predict.py
    write_rows(folder / "test.jsonl", mails(40)[30:])
    assert DRAWN not in " ".join(splits_of(folder).notes)


def test_a_validation_part_without_labels_is_not_said_to_be_used(tmp_path):
    write_rows(tmp_path / "train.jsonl", mails(40))
    write_rows(tmp_path / "val.jsonl", [{"text": row["text"]} for row in mails(50)[40:]])
    splits = splits_of(tmp_path)
    assert len(splits.validation) == 4
    assert "10 rows are for scripts/predict.py" in splits.notes[0] and DRAWN not in " ".join(splits.notes)


@pytest.mark.parametrize(("given", "wanted"), [("Label", "label"), ("labels", "label"), ("outputs", "output")])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_held_out_part_that_spells_its_target_otherwise_is_refused_with_the_name(part, given, wanted, tmp_path):
    rows = mails(50) if wanted == "label" else [{"prompt": f"say {i}", "output": f"so {i}"} for i in range(50)]
    write_rows(tmp_path / "train.jsonl", rows[:40])
    renamed = [{given if name == wanted else name: value for name, value in row.items()} for row in rows[40:]]
    write_rows(tmp_path / f"{part}.jsonl", renamed)
    with pytest.raises(ValueError, match=rf"{part}.jsonl: column '{wanted}' is missing; is it '{given}'\?"):
        splits_of(tmp_path, None if wanted == "label" else PromptArgs())


def test_a_held_out_part_may_have_a_column_like_the_target_that_train_has_too(tmp_path):
    write_rows(tmp_path / "train.jsonl", [{**row, "labels": 1} for row in mails(40)])
    write_rows(tmp_path / "test.jsonl", [{"text": row["text"], "labels": 1} for row in mails(50)[40:]])
    assert "10 rows are for scripts/predict.py" in splits_of(tmp_path).notes[0]


def test_parts_may_name_their_marks_by_two_usual_names_that_are_alike(tmp_path):
    rows = [{"prompt": f"say {i}", "response": f"so {i}", "thumbs": i % 2 == 0} for i in range(50)]
    write_rows(tmp_path / "train.jsonl", rows[:40])
    write_rows(tmp_path / "test.jsonl", [{**row, "thumbs_up": row.pop("thumbs")} for row in rows[40:]])
    assert len(splits_of(tmp_path, RatingArgs()).test) == 10


def test_a_share_beside_a_part_that_the_data_has_is_named_as_not_used(tmp_path):
    write_rows(tmp_path / "train.jsonl", mails(40))
    write_rows(tmp_path / "test.jsonl", mails(50)[40:])
    flags = ["--data", str(tmp_path), "--model", "gpt2-nano", "--validation-share", "0.2"]
    for share in ("0.1", "0.3"):
        args = parse(CLS.Args, [*flags, "--test-share", share])
        notes = find_inputs(args, args.text.task, "").splits.notes
        assert f"--test-share {share} is not used, since the data has a test part" in notes
        assert "validation-share" not in " ".join(notes)


def test_a_list_that_holds_something_else_beside_records_is_refused_and_not_passed_over(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"train": [*mails(20), None], "test": mails(4)}))
    assert "item 20 of 'train' is null, not a record" in refusal(tmp_path / "a.json")


def test_texts_that_differ_only_in_how_unicode_writes_them_are_duplicates(tmp_path):
    composed = [f"café number {i}" for i in range(20)]
    texts = [*composed, *(unicodedata.normalize("NFD", text) for text in composed), "café\u200b number 1"]
    rows = [{"text": text, "label": "ab"[int(text.split()[-1]) % 2]} for text in texts]
    found = splits_of(write_rows(tmp_path / "a.jsonl", rows))
    assert found.skipped.duplicate == 21 and len(found.examples()) == 20
    assert normalised("A  b") == "a b" and normalised("é") != normalised("e")


# Cells.


def test_messages_that_numpy_or_excel_have_spoilt_are_refused(tmp_path):
    talk = [{"content": "Q", "role": "user"}, {"content": "A", "role": "assistant"}]
    other = [talk[0], {"content": "B", "role": "assistant"}]
    frame = pandas.DataFrame({"chosen": [numpy.array(talk)] * 3, "rejected": [numpy.array(other)] * 3})
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    task = PairArgs().task(None, tmp_path / "pairs.csv")
    with pytest.raises(ValueError, match="holds messages that cannot be read"):
        task.parts(read_rows(tmp_path / "pairs.csv").parts, Skipped())
    for indent in (None, 2):
        row = {"prompt": "Q", "completion": json.dumps(talk, indent=indent)[:-5]}
        with pytest.raises(ValueError, match="cut short"):
            PromptArgs().task(None, tmp_path / "x.csv").parts({"all": [row]}, Skipped())


def test_an_empty_list_of_images_is_no_image_and_new_kinds_of_text_are_text(tmp_path):
    talk = [
        {"role": "user", "content": [{"type": "input_text", "text": "Q"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
    ]
    skipped, rows = Skipped(), [{"messages": json.dumps(talk), "images": empty} for empty in ("[]", "nan", "", [])]
    parts = PromptArgs().task(None, tmp_path / "x.csv").parts({"all": rows}, skipped)
    assert [e.response for e in parts["all"]] == ["A"] * 4 and skipped.images == 0


@pytest.mark.parametrize(
    ("marks", "refused"),
    [(("True", "False"), 1), ((1, 0), 1), (("1", "0"), 1), ((False, True), 1), (("a", "False"), 0)],
)
def test_marks_of_bad_answers_are_known_in_every_spelling(marks, refused, tmp_path):
    rows = [{"prompt": f"Q{i}", "completion": "A", "label": mark} for i, mark in enumerate(marks)]
    task = PromptArgs().task(None, tmp_path / "x.csv")
    if not refused:
        assert len(task.parts({"all": rows}, Skipped())["all"]) == 2
        return
    with pytest.raises(ValueError, match=f"is false or 0 in {refused} rows"):
        task.parts({"all": rows}, Skipped())


def test_an_encoding_that_would_spoil_a_file_in_utf8_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\ncafé,x\n", encoding="utf-8")
    for encoding in ("cp1252", "latin-1"):
        with pytest.raises(ValueError, match=f"--encoding {encoding}: a.csv is UTF-8; leave --encoding out"):
            read_rows(tmp_path / "a.csv", encoding)
    (tmp_path / "b.csv").write_text("text,label\ncafé,x\n", encoding="cp1252")
    assert read_rows(tmp_path / "b.csv", "cp1252").rows[0]["text"] == "café"


@pytest.mark.parametrize("before", [70_000, 2**17 - len("text,label\n") - 1])  # the second cuts a character in two
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "gbk"])
def test_an_encoding_that_would_spoil_the_end_of_a_long_file_in_utf8_is_refused(before, encoding, tmp_path):
    rest = "é crème" if encoding != "gbk" else "一个装着河里石头的包裹"
    (tmp_path / "a.csv").write_text("text,label\n" + "a" * before + f"{rest},x\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"--encoding {encoding}: a.csv is UTF-8; leave --encoding out"):
        read_rows(tmp_path / "a.csv", encoding)
    (tmp_path / "b.csv").write_text("text,label\n" + "a" * before + f"{rest},x\n", encoding=encoding)
    assert read_rows(tmp_path / "b.csv", encoding).rows[0]["text"].endswith(rest)


# Flags and folders of runs.


@pytest.mark.parametrize("words", [["--"], ["?", "--"], ["--", "?"]])
def test_a_label_of_two_dashes_can_be_left_out_and_stays_so_in_a_file_of_flags(words, tmp_path):
    args = parse(CLS.Args, ["--data", "x.csv", "--leave-out-labels", *words, "--lora-rank", "4"])
    assert args.text.leave_out_labels == tuple(words) and args.method.lora_rank == 4
    write_config(tmp_path / "config.yaml", resolved(args))
    again = parse(CLS.Args, completed(CLS.Args, ["--config", str(tmp_path / "config.yaml")]))
    assert again.text.leave_out_labels == tuple(words)


def test_a_flag_of_several_values_that_stands_twice_is_refused_and_one_of_a_single_value_overrides():
    with pytest.raises(ValueError, match="--text-column: stands twice"):
        completed(CLS.Args, ["--data", "x.csv", "--text-column", "a", "--text-column", "b"])
    words = ["--data", "x.csv", "--lora-rank", "4", "--lora-rank", "8"]
    assert parse(CLS.Args, completed(CLS.Args, words)).method.lora_rank == 8


def test_a_new_run_does_not_clear_predictions_of_another_model(tmp_path):
    (tmp_path / "predict-mails.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="holds predictions"):
        check_folder(tmp_path, overwrite=False, resume=False)
