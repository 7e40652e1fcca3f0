"""Files -> rows: every format says the same, and whatever is wrong with a file is said in one ValueError."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import Classification, Columns, Instructions, Skipped, read_rows

ROWS = [
    {"text": "null", "label": "NA"},
    {"text": "007", "label": "1.0"},
    {"text": 'two\nlines, a comma and "quotes"', "label": "café ☕"},
    {"text": "None", "label": "true"},
]
KINDS = ["csv", "tsv", "json", "jsonl", "parquet"]
CLASSES = Classification("mine", (Columns(("text",), "label"),), labels=("ham", "spam"))


def save(path, rows):
    """`rows` in the format that the ending of `path` names."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        between = {".csv": ",", ".tsv": "\t"}[path.suffix]
        cells = [list(rows[0]), *(list(row.values()) for row in rows)]
        quoted = [between.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells]
        path.write_text("\n".join(quoted) + "\n", encoding="utf-8")
    return path


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path):
    """What `read_rows` says about a file it refuses; the file is always named."""
    with pytest.raises(ValueError) as refused:
        read_rows(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


def examples(rows, task=CLASSES):
    return task.parts({"all": rows}, Skipped())["all"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_rows(kind, tmp_path):
    assert read_rows(save(tmp_path / f"mine.{kind}", ROWS)).parts == {"all": ROWS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_splits_that_its_files_are_named_after(kind, tmp_path):
    for name, rows in (("train-0", ROWS[:1]), ("train-1", ROWS[1:2]), ("valid", ROWS[2:3]), ("Test", ROWS[3:])):
        save(tmp_path / f"{name}.{kind}", rows)
    (tmp_path / "README.md").write_text("not data")
    assert read_rows(tmp_path).parts == {"train": ROWS[:2], "validation": ROWS[2:3], "test": ROWS[3:]}


def test_a_file_given_by_itself_is_not_taken_for_a_split(tmp_path):
    assert list(read_rows(save(tmp_path / "train.jsonl", ROWS)).parts) == ["all"]


def test_other_files_of_a_folder_are_to_be_split(tmp_path):
    save(tmp_path / "spring.jsonl", ROWS[:1])
    save(tmp_path / "summer.parquet", ROWS[1:2])
    assert read_rows(tmp_path).parts == {"all": ROWS[:2]}


def test_words_and_numbers_in_a_csv_stay_text(tmp_path):
    content = "text,label\nnull,NA\n007,1.0\nNaN,\n1e5,TRUE\n"
    assert read_rows(written(tmp_path / "mine.csv", content)).parts["all"] == [
        {"text": "null", "label": "NA"},
        {"text": "007", "label": "1.0"},
        {"text": "NaN", "label": ""},
        {"text": "1e5", "label": "TRUE"},
    ]


def test_windows_line_ends_and_a_byte_order_mark_do_not_get_into_the_cells(tmp_path):
    content = b"\xef\xbb\xbftext,label\r\na,b\r\n"
    assert read_rows(written(tmp_path / "mine.csv", content)).parts == {"all": [{"text": "a", "label": "b"}]}


@pytest.mark.parametrize("place", ["first", "second"])
def test_a_csv_row_with_more_cells_than_the_header_is_refused(place, tmp_path):
    long, short = "a,b,c\n", "d,e\n"
    rows = long + short if place == "first" else short + long
    refusal(written(tmp_path / "mine.csv", "text,label\n" + rows))


def test_a_file_changed_in_place_is_read_anew(tmp_path):
    path = save(tmp_path / "mine.jsonl", ROWS[:1])
    assert read_rows(path).parts["all"] == ROWS[:1]
    save(path, ROWS)
    assert read_rows(path).parts["all"] == ROWS


def test_a_file_replaced_by_one_of_the_same_age_is_read_anew(tmp_path):
    path = tmp_path / "mine.jsonl"
    for rows in (ROWS[:1], ROWS):
        os.utime(save(path, rows), (1e9, 1e9))  # as unpacking an archive does
        last = read_rows(path).parts
    assert last == {"all": ROWS}


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in refusal(tmp_path / "mine.csv")


def test_a_folder_without_data_says_what_it_looked_for(tmp_path):
    (tmp_path / "README.md").write_text("not data")
    message = refusal(tmp_path)
    assert ".csv" in message and ".parquet" in message


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.json", "mine.jsonl", "mine.parquet"])
def test_an_empty_file_is_called_empty(name, tmp_path):
    assert "empty" in refusal(written(tmp_path / name, b""))


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.json", "mine.jsonl"])
@pytest.mark.parametrize("content", [b"\xef\xbb\xbf", "\ufeff \n".encode("utf-16-le"), b"\xef\xbb\xbf\n\n"])
def test_a_file_of_a_byte_order_mark_and_blanks_holds_no_rows(name, content, tmp_path):
    message = refusal(written(tmp_path / name, content))
    assert message.endswith("the file is empty" if "json" in name else "the file has no rows")


def test_a_file_of_blank_lines_is_called_empty(tmp_path):
    assert "empty" in refusal(written(tmp_path / "mine.jsonl", "\n  \n\n"))


def test_a_csv_with_a_header_alone_has_no_rows(tmp_path):
    assert "no rows" in refusal(written(tmp_path / "mine.csv", "text,label\n"))


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_a_file_with_an_empty_list_of_rows_has_no_rows(kind, tmp_path):
    path = tmp_path / f"mine.{kind}"
    if kind == "json":
        path.write_text("[]")
    else:
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert "no rows" in refusal(path)


@pytest.mark.parametrize("name", ["mine.txt", "mine.xlsx", "mine"])
def test_an_unknown_ending_is_answered_with_the_known_ones(name, tmp_path):
    message = refusal(written(tmp_path / name, "text,label\na,b\n"))
    assert all(ending in message for ending in (".csv", ".tsv", ".json", ".jsonl", ".parquet"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.json", '[{"text": "a"}, {"text"'),
        ("mine.json", "text,label\na,b\n"),
        ("mine.jsonl", '{"text": "a"}\n{"text":\n'),
        ("mine.parquet", "text,label\na,b\n"),
    ],
)
def test_a_broken_file_is_called_unreadable_on_one_line(name, content, tmp_path):
    message = refusal(written(tmp_path / name, content))
    assert "not a readable" in message and "\n" not in message
    assert not message.rstrip(")").endswith("("), "the reason is missing"


def test_a_parquet_file_cut_short_is_called_unreadable(tmp_path):
    path = save(tmp_path / "mine.parquet", ROWS * 20)
    assert "not a readable .parquet" in refusal(written(path, path.read_bytes()[:-10]))


def test_a_csv_with_an_open_quotation_mark_is_called_unreadable(tmp_path):
    assert "not a readable .csv" in refusal(written(tmp_path / "mine.csv", 'text,label\n"a,b\nc,d\n'))


def wrong_byte(content):
    with pytest.raises(UnicodeDecodeError) as wrong:
        content.decode()
    return wrong.value.start


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.json", "mine.jsonl"])
def test_a_file_that_is_not_utf8_is_refused_with_the_place_of_the_byte(name, tmp_path):
    content = 'text,label\n"café",spam\n'.encode("latin-1")
    message = refusal(written(tmp_path / name, content))
    assert f"byte {wrong_byte(content)})" in message and "UTF-8" in message


def test_the_place_of_a_wrong_byte_counts_from_the_start_of_a_large_file(tmp_path):
    content = b"a" * 1_500_000 + b"\xff" + b"a" * 100
    assert f"byte {wrong_byte(content)})" in refusal(written(tmp_path / "mine.jsonl", content))


def test_the_place_of_a_wrong_byte_is_right_across_two_blocks(tmp_path):
    content = b"a" * ((1 << 20) - 1) + b"\xc3\xff"
    assert f"byte {wrong_byte(content)})" in refusal(written(tmp_path / "mine.jsonl", content))


def test_a_file_that_ends_within_a_character_is_not_utf8(tmp_path):
    content = '{"text": "a"}\n{"text": "é'.encode()[:-1]
    assert f"byte {wrong_byte(content)})" in refusal(written(tmp_path / "mine.jsonl", content))


def test_characters_across_two_blocks_are_no_error(tmp_path):
    rows = [{"text": "☕" * 400_000, "label": "a"}]  # 3 bytes each, so that the border of a block falls inside one
    assert read_rows(save(tmp_path / "mine.jsonl", rows)).parts == {"all": rows}


def test_a_missing_column_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="'label' is missing") as refused:
        examples([{"text": "a", "topic": "x", "date": "y"}])
    assert all(f"'{name}'" in str(refused.value) for name in ("text", "topic", "date"))
    assert "--label-column" in str(refused.value)


def test_all_missing_columns_are_named_together():
    with pytest.raises(ValueError, match="'text', 'label'"):
        examples([{"body": "a"}])


def test_a_second_known_form_of_the_columns_is_recognised():
    two = Classification("two", (Columns(("text",), "label"), Columns(("review",), "sentiment")))
    assert [e.text for e in examples([{"review": "good", "sentiment": "1"}], two)] == ["good"]


def test_a_column_missing_in_one_file_of_a_folder_is_refused():
    parts = {"test": [{"text": "a", "label": "ham"}], "train": [{"body": "b", "label": "spam"}]}
    with pytest.raises(ValueError, match="'text' is missing"):
        CLASSES.parts(parts, Skipped())


def folder_of(tmp_path, **files):
    for name, rows in files.items():
        save(tmp_path / f"{name}.jsonl", rows)
    return read_rows(tmp_path)


@pytest.mark.parametrize(("wrong", "place"), [("train_1", "train_1.jsonl: row 2"), ("test", "test.jsonl: row 2")])
def test_a_row_is_named_by_its_place_in_its_own_file(wrong, place, tmp_path):
    good = [{"text": f"a {i}", "label": "ham"} for i in range(3)]
    files = {name: good for name in ("train_0", "train_1", "test")} | {wrong: [good[0], {"text": 4, "label": "ham"}]}
    source = folder_of(tmp_path, **files)
    with pytest.raises(ValueError, match=f"^{place}: column 'text' holds a number .int., not text; write it as text"):
        CLASSES.parts(source.parts, Skipped(), [], source.counted)


def test_a_message_names_the_first_of_many_files(tmp_path):
    shards = {f"train-{i:05}-of-00200": [{"body": "a", "label": "ham"}] for i in range(200)}
    source = folder_of(tmp_path, **shards, test=[{"text": "a", "label": "ham"}])
    with pytest.raises(ValueError, match="train-00000-of-00200.jsonl.* more: column 'text' is missing") as refused:
        CLASSES.parts(source.parts, Skipped(), [], source.counted)
    assert len(str(refused.value)) <= 300


def test_a_single_class_is_refused_by_name():
    found = examples([{"text": "a", "label": "ham"}, {"text": "b", "label": "ham"}])
    with pytest.raises(ValueError, match="only one class.*'ham'"):
        CLASSES.classes(found)


def test_a_label_outside_the_expected_ones_is_refused_with_both():
    found = examples([{"text": "a", "label": "ham"}, {"text": "b", "label": "Spam"}])
    with pytest.raises(ValueError, match="'Spam'.*'ham', 'spam'"):
        CLASSES.classes(found)


def test_classes_found_in_a_file_are_in_the_order_of_numbers_and_then_of_names():
    anything = Classification("mine", CLASSES.columns)
    labels = ["10", "2", "b", "a", "1"]
    found = examples([{"text": f"text {label}", "label": label} for label in labels], anything)
    assert anything.classes(found) == ("1", "2", "10", "a", "b")


@pytest.mark.parametrize("other", [3, 2.5, ["b"], {"b": "c"}, True])
def test_what_is_no_text_in_a_json_text_column_is_refused_with_row_and_kind(other, tmp_path):
    rows = read_rows(
        save(tmp_path / "mine.jsonl", [{"text": "a", "label": "ham"}, {"text": other, "label": "spam"}])
    ).parts
    with pytest.raises(ValueError, match="row 2: column 'text' holds a .*, not text; write it as text, or "):
        CLASSES.parts(rows, Skipped())


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_numeric_labels_are_spelled_as_short_as_they_can_be(kind, tmp_path):
    rows = read_rows(save(tmp_path / f"mine.{kind}", [{"text": "a", "label": 1.0}, {"text": "b", "label": 0.5}])).parts
    assert [e.label for e in CLASSES.parts(rows, Skipped())["all"]] == ["1", "0.5"]


def test_whole_numbers_are_labels(tmp_path):
    rows = read_rows(save(tmp_path / "mine.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": 1}])).parts
    assert [e.label for e in CLASSES.parts(rows, Skipped())["all"]] == ["0", "1"]


def test_a_nested_response_is_refused():
    with pytest.raises(ValueError, match="row 1: column 'response' holds a list, neither text nor number"):
        examples(
            [{"instruction": "a", "response": ["b"]}], Instructions("mine", (Columns(("instruction",), "response"),))
        )


def test_dates_in_json_stay_text(tmp_path):
    rows = [{"text": "2020-01-01", "label": "ham"}, {"text": "2021-02-03", "label": "spam"}]
    assert read_rows(save(tmp_path / "mine.jsonl", rows)).parts == {"all": rows}


def test_an_ending_in_capitals_is_known(tmp_path):
    assert read_rows(save(tmp_path / "mine.jsonl", ROWS).rename(tmp_path / "MINE.JSONL")).parts == {"all": ROWS}


def test_files_of_one_folder_with_other_columns_are_refused_by_name(tmp_path):
    save(tmp_path / "a.jsonl", [{"text": "a", "label": "x"}])
    save(tmp_path / "b.jsonl", [{"body": "b", "label": "y"}])
    assert "b.jsonl" in refusal(tmp_path) and "body" in refusal(tmp_path)


def test_half_a_character_in_json_becomes_a_question_mark(tmp_path):
    rows = read_rows(written(tmp_path / "mine.jsonl", '{"text": "smile \\ud83d", "label": "ham"}\n')).parts
    (example,) = CLASSES.parts(rows, Skipped())["all"]
    assert example.text == "smile ?"
