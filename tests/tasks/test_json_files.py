"""json and jsonl: every form of it is read rightly or refused by what it holds, and a slip is named by its line."""

import json

import pandas
import pytest
from test_rows import refusal, written

from tasks import read_rows

ROWS = [{"text": f"message {i} " + "about the delivery of a parcel " * 20, "label": i % 2} for i in range(300)]
LINES = [json.dumps(row) for row in ROWS]


def refused(path):
    """The message, which is short and holds no data."""
    said = refusal(path).replace(str(path), "")
    assert len(said) <= 300 and "parcel" not in said
    return said


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_records_as_pandas_writes_them_are_read(lines, ending, tmp_path):
    pandas.DataFrame(ROWS).to_json(tmp_path / f"a.{ending}", orient="records", lines=lines)
    assert read_rows(tmp_path / f"a.{ending}").parts == {"all": ROWS}


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_table_with_its_schema_is_read(ending, tmp_path):
    pandas.DataFrame(ROWS).to_json(tmp_path / f"a.{ending}", orient="table", index=False)
    source = read_rows(tmp_path / f"a.{ending}")
    assert source.parts == {"all": ROWS} and "'schema'" in source.notes[0]


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize(
    ("orient", "said"),
    [
        ("columns", "holds columns, not records (pandas: orient='columns')"),
        ("index", "orient='index'"),
        ("split", "orient='split'"),
        ("values", "orient='values'"),
    ],
)
def test_what_pandas_writes_otherwise_is_refused_by_its_name(orient, said, ending, tmp_path):
    pandas.DataFrame(ROWS).to_json(tmp_path / f"a.{ending}", orient=orient)
    message = refused(tmp_path / f"a.{ending}")
    assert said in message and "orient='records'" in message


def test_columns_as_lists_are_refused(tmp_path):
    content = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    assert "holds columns ('text', 'label')" in refused(written(tmp_path / "a.json", json.dumps(content)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('"text"', "a text"),
        ("7", "a number"),
        ("null", "null"),
        ('["a", "b"]', "item 0 of its list is a text"),
        ('[{"text": "a"}, 7]', "item 1 of its list is a number"),
        ('{"rows": [{"a": 1}], "cols": [{"b": 2}]}', "several lists of records ('rows', 'cols')"),
        ('{"train": [{"a": 1}], "training": [{"a": 2}]}', "several lists"),
        ('{"a": {"b": 1}, "c": [1]}', "without a list of records"),
        ('{"id7": {"text": "a", "label": 1}, "id9": {"text": "b", "label": 0}}', "records by a key of their own"),
        ("{}", "no rows"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_other_content_is_refused_by_what_it_is(content, said, tmp_path):
    assert said in refused(written(tmp_path / "a.json", content))


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ('[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]', 'key: {"messages": [...]}'),
        ('[{"text": "a"}, {"text": "b"}]', "put its records on lines of their own"),
        ('["a", "b"]', "write an object, whose keys name the columns"),
    ],
)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_list_on_each_line_is_refused_with_what_to_write(line, remedy, ending, tmp_path):
    message = refused(written(tmp_path / f"a.{ending}", f"{line}\n{line}\n"))
    assert "line 1 holds a list, not a record; " in message and message.endswith(remedy)


def test_a_list_for_each_part_gives_the_parts(tmp_path):
    content = {"version": "1", "train": ROWS[:200], "dev": ROWS[200:250], "test_set": ROWS[250:]}
    source = read_rows(written(tmp_path / "a.json", json.dumps(content)))
    assert source.parts == {"train": ROWS[:200], "validation": ROWS[200:250], "test": ROWS[250:]}
    assert "'version'" in source.notes[0]
    assert read_rows(written(tmp_path / "b.json", json.dumps({"data": content}))).parts == source.parts


@pytest.mark.parametrize(
    "row",
    [{"text": "a", "tags": ["b"]}, {"messages": [{"role": "user"}]}, {"chosen": [{"a": 1}], "rejected": [{"a": 2}]}],
)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_one_object_that_is_a_record_is_one_row(row, ending, tmp_path):
    assert read_rows(written(tmp_path / f"a.{ending}", json.dumps(row))).rows == [row]


def test_a_list_inside_the_only_record_of_a_jsonl_file_is_a_cell(tmp_path):
    row = {"text": "a", "entities": [{"start": 1}]}
    assert read_rows(written(tmp_path / "a.jsonl", json.dumps(row))).rows == [row]


SLIPS = {
    "trailing comma in an object": lambda line: line[:-1] + ",}",
    "single quotes": lambda line: line.replace('"', "'"),
    "an open text": lambda line: line.replace('", "label"', ', "label"'),
    "a missing bracket": lambda line: line[:-1],
    "a missing quotation mark": lambda line: line.replace('"label"', 'label"'),
    "a missing colon": lambda line: line.replace(": ", " ", 1),
    "two objects": lambda line: line + line,
    "infinity": lambda line: line.replace('"label": ', '"label": -Infinity, "n": '),
    "a key twice": lambda line: line[:-1] + ', "label": 1}',
    "a text behind": lambda line: line + " # checked",
    "a comma behind": lambda line: line + ",",
}


@pytest.mark.parametrize("form", ["jsonl", "json by lines", "list", "list in an object"])
@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("row", [0, 150, 299])
def test_a_slip_is_named_by_its_line(form, slip, row, tmp_path):
    lines = [*LINES[:row], SLIPS[slip](LINES[row]), *LINES[row + 1 :]]
    if form.startswith("list"):
        start, end = ("[\n", "\n]\n") if form == "list" else ('{"data": [\n', "\n]}\n")
        content, line = start + ",\n".join(lines) + end, row + 2
    else:
        content, line = "\n".join(lines) + "\n", row + 1
    path = written(tmp_path / ("a.jsonl" if form == "jsonl" else "a.json"), content)
    assert f"line {line}:" in refused(path)


@pytest.mark.parametrize(
    ("indent", "cut", "said"),
    [
        (None, 1, "line 1: the file ends before its last bracket is closed"),
        (None, 2, "line 1: the file ends before its last bracket is closed"),
        (None, 900, "line 1: Unterminated string"),
        (2, 1, "line 1201: the file ends before its last bracket is closed"),
        (2, 2, "line 1201: the file ends before its last bracket is closed"),
        (2, 900, "line 1195: Unterminated string"),
    ],
)
def test_a_file_cut_short_is_refused(indent, cut, said, tmp_path):
    content = json.dumps(ROWS, indent=indent)[:-cut]
    assert refused(written(tmp_path / "a.json", content)).endswith(said)


def test_a_comma_behind_the_last_record_is_named_by_its_line(tmp_path):
    content = "[\n" + ",\n".join(LINES) + ",\n]\n"
    assert "line 301: a comma too many" in refused(written(tmp_path / "a.json", content))


def test_a_missing_comma_between_records_is_named_by_the_line_that_lacks_it(tmp_path):
    content = json.dumps(ROWS, indent=2).split("\n")
    assert content[8] == "  },"
    content[8] = "  }"
    assert "line 9:" in refused(written(tmp_path / "a.json", "\n".join(content)))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_any_line_end_parts_records(end, ending, tmp_path):
    path = written(tmp_path / f"a.{ending}", end.join(LINES[:5]) + end + end)
    assert read_rows(path).parts == {"all": ROWS[:5]}


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_list_may_stand_in_a_file_of_either_ending(ending, tmp_path):
    assert read_rows(written(tmp_path / f"a.{ending}", json.dumps(ROWS, indent=1))).parts == {"all": ROWS}


def test_a_separator_of_lines_inside_a_text_parts_no_record(tmp_path):
    rows = [{"text": "a\u2028b\u0085c\x0b", "label": "x"}]
    assert read_rows(written(tmp_path / "a.jsonl", json.dumps(rows[0], ensure_ascii=False))).parts == {"all": rows}


def test_nan_is_nothing_and_is_said(tmp_path):
    source = read_rows(written(tmp_path / "a.jsonl", '{"text": "a", "score": NaN}\n{"text": "b", "score": 1.5}\n'))
    assert source.rows == [{"text": "a", "score": None}, {"text": "b", "score": 1.5}]
    assert "NaN is read as an empty cell, in 1 place" in source.notes[0]


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_keys_that_are_one_name_to_a_reader_are_one_column_but_not_twice_in_a_record(ending, tmp_path):
    first, second = {"text": "a", "label": 0}, {"text ": "b", "\u200blabel": 1}
    path = tmp_path / f"a.{ending}"
    pair = [json.dumps(first), json.dumps(second)]
    source = read_rows(written(path, "\n".join(pair) if ending == "jsonl" else f"[{', '.join(pair)}]"))
    assert source.rows == [first, {"text": "b", "label": 1}] and "'text ' as 'text'" in source.notes[0]
    assert "the column 'text' twice" in refused(written(path, json.dumps([first | second])))


def test_columns_whose_names_differ_in_case_alone_are_named(tmp_path):
    lines = '{"text": "a"}\n{"Text": "b"}\n'
    source = read_rows(written(tmp_path / "a.jsonl", lines))
    assert source.rows == [{"text": "a", "Text": None}, {"text": None, "Text": "b"}]
    assert "columns 'text' and 'Text' differ in case alone" in source.notes[0]


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_number_of_too_many_digits_is_refused_in_our_own_words(ending, tmp_path):
    lines = [*LINES[:2], '{"text": "a", "label": ' + "7" * 5000 + "}"]
    joined = ",\n".join(lines)
    content = "\n".join(lines) if ending == "jsonl" else f"[{joined}]"
    assert "line 3: a number has 5,000 digits" in refused(written(tmp_path / f"a.{ending}", content))
