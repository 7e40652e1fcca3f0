"""csv and tsv: no row is lost in a quoted cell, every cell stays text, and every complaint names its line."""

import codecs
import csv
import io
import json

import pandas
import pytest
from test_rows import refusal, written

from tasks import read_rows

PLAIN = [{"label": "ham", "text": f"message {i} about a parcel"} for i in range(40)]


def rows_of(path, **flags):
    return read_rows(path, **flags).parts["all"]


def as_csv(rows, separator=",", end="\n", **settings):
    """`rows` as the standard library writes them."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=separator, lineterminator=end, **settings)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def chat(separator, first="label", quoted=(10, 25)):
    """A chat export, in which quotation marks are ordinary: some texts begin with one, later ones end with one."""
    rows = []
    for i in range(60):
        text = '"' * (i % 30 == quoted[0]) + f"river stone {i}" + '"' * (i % 30 == quoted[1])
        rows.append({"label": "spam" if i % 2 else "ham", "text": text})
    names = ["label", "text"] if first == "label" else ["text", "label"]
    lines = [separator.join(names), *(separator.join(row[name] for name in names) for row in rows)]
    return rows, "\n".join(lines) + "\n"


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|"])
@pytest.mark.parametrize("first", ["label", "text"])
@pytest.mark.parametrize("quoted", [(10, 25), (10, 11)])
def test_quotation_marks_that_are_ordinary_characters_take_no_row_along(separator, first, quoted, tmp_path):
    rows, content = chat(separator, first, quoted)
    source = read_rows(written(tmp_path / ("chat.tsv" if separator == "\t" else "chat.csv"), content))
    assert source.parts["all"] == rows
    assert any("ordinary characters" in note for note in source.notes)


def empty_column(line, separator):
    return f"{line}{separator}\n"


def ends_in_separators(line, separator):
    return f"{line}{separator if line[0] != 'l' else ''}\n"


def two_line_ends(line, separator):
    return f"{line}\r\r\n"


def blank_lines(line, separator):
    return f"{line}\n" + "\n" * line.endswith(("4", "9"))


def quoted_header(line, separator):
    return f'"label"{separator}"text"\n' if line[0] == "l" else f"{line}\n"


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("form", [empty_column, ends_in_separators, two_line_ends, blank_lines, quoted_header])
def test_what_is_around_the_rows_hides_none_that_a_quoted_cell_would_swallow(form, separator, tmp_path):
    rows, content = chat(separator, quoted=(3, 18))
    lines = "".join(form(line, separator) for line in content.splitlines())
    source = read_rows(written(tmp_path / ("chat.tsv" if separator == "\t" else "chat.csv"), lines))
    assert source.parts["all"] == rows
    assert any("ordinary characters" in note for note in source.notes)


@pytest.mark.parametrize("form", [empty_column, ends_in_separators, quoted_header])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_cells_of_several_lines_stay_whole_in_such_forms_too(form, ending, tmp_path):
    separator = "\t" if ending == "tsv" else ","
    texts = [f"Dear {i},\nplease come, soon\n\nYours, A" if i % 7 == 0 else f"message {i}" for i in range(60)]
    quoted = (f'"{text}"' if "," in text else text for text in texts)
    lines = [f"label{separator}text", *(f"{'ham' if i % 2 else 'spam'}{separator}{q}" for i, q in enumerate(quoted))]
    source = read_rows(written(tmp_path / f"a.{ending}", "".join(form(line, separator) for line in lines)))
    assert [row["text"] for row in source.rows] == texts and not source.notes


@pytest.mark.parametrize("separator", ["\t", ","])
def test_rows_lost_in_a_quoted_cell_are_refused_by_line_where_other_cells_are_quoted(separator, tmp_path):
    _, content = chat(separator)
    content += f'ham{separator}"one{separator}cell"\n'
    message = refusal(written(tmp_path / "chat.csv", content))
    assert "line 12: a quoted cell goes on to line 27, over 16 lines" in message


def beside_a_proper_cell(rows, separator, proper):
    """The lines of `rows`, of which the 21st text begins with a mark and the 61st ends with one."""
    lines = [separator.join(rows[0])]
    for i, row in enumerate(rows):
        first, text = row.values()
        lines.append(f"{first}{separator}{chr(34) * (i == 20)}{text}{chr(34) * (i == 60)}")
    lines.insert(5, f'{next(iter(rows[4].values()))}{separator}"{proper}"')
    return "\n".join(lines) + "\n"


LABELLED = [{"label": "rare" if i == 40 else "ab"[i % 2], "text": f"river stone {i}"} for i in range(120)]
ASKED = [{"question": f"which stone is {i}?", "answer": f"river stone {i}"} for i in range(120)]


@pytest.mark.parametrize("rows", [LABELLED, sorted(LABELLED, key=lambda row: row["label"]), ASKED])
@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("proper", ["two\nlines", "one, two\nlines of a cell"])
def test_rows_lost_in_a_quoted_cell_are_refused_though_some_value_of_theirs_does_not_recur(
    rows, separator, proper, tmp_path
):
    message = refusal(written(tmp_path / "chat.csv", beside_a_proper_cell(rows, separator, proper)))
    assert "line 24: a quoted cell goes on to line 64, over 41 lines that look like rows" in message


def test_a_value_that_does_not_recur_hides_no_row_that_a_quoted_cell_would_swallow(tmp_path):
    content = beside_a_proper_cell(LABELLED, ",", "x").replace('"x"', "x")
    source = read_rows(written(tmp_path / "chat.csv", content))
    assert len(source.rows) == 121 and "ordinary characters" in source.notes[0]


def test_a_list_inside_one_of_many_quoted_cells_is_no_row_and_is_named_with_its_lines(tmp_path):
    rows = [{"prompt": f"Name two towns of land {i}.", "response": f"Town {i}, and city {i}."} for i in range(20)]
    rows.append({"prompt": "Write a table.", "response": "Here it is:\ntown,people\nRome,3\nOslo,1\nBern,1"})
    rows += [{"prompt": f"Write {i}.", "response": f"one\n{i}"} for i in range(3)]
    source = read_rows(written(tmp_path / "mine.csv", as_csv(rows)))
    assert source.parts["all"] == rows
    assert "line 22: a quoted cell goes on to line 26 (5 lines); if these are rows" in source.notes[0]


@pytest.mark.parametrize("separator", ["\t", ","])
def test_two_rows_in_one_quoted_cell_are_named_beside_cells_of_several_lines(separator, tmp_path):
    cells = ['"two\nlines"', '"two\nlines"', '"begun', 'ended"', "plain"]
    content = f"id{separator}text\n" + "".join(f"{i}{separator}{cell}\n" for i, cell in enumerate(cells))
    note = read_rows(written(tmp_path / ("mine.csv" if separator == "," else "mine.tsv"), content)).notes[0]
    assert "line 6: a quoted cell goes on to line 7 (2 lines)" in note


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_cell_of_several_lines_stays_one_cell(ending, end, tmp_path):
    rows = [*PLAIN, {"label": "ham", "text": "Dear all,\nplease come, soon\n\nYours, A"}, *PLAIN[:3]]
    rows += [{"label": "spam", "text": "a, b\nc, d"}]
    content = as_csv(rows, "\t" if ending == "tsv" else ",", end)
    assert rows_of(written(tmp_path / f"mine.{ending}", content)) == rows


def test_a_quoted_cell_whose_lines_have_as_many_commas_as_a_row_stays_one_cell_and_is_named(tmp_path):
    rows = [*PLAIN, {"label": "ham", "text": "a,b\nc"}]
    source = read_rows(written(tmp_path / "mine.csv", as_csv([{"text": r["text"], "label": r["label"]} for r in rows])))
    assert source.parts["all"] == [{"text": r["text"], "label": r["label"]} for r in rows]
    assert "line 42: a quoted cell goes on to line 43" in source.notes[0]


def test_lines_of_a_quoted_cell_in_a_file_of_one_column_are_named(tmp_path):
    source = read_rows(written(tmp_path / "mine.csv", 'text\na\n"b\nc\nd"\ne\n'))
    assert [row["text"] for row in source.rows] == ["a", "b\nc\nd", "e"]
    assert "line 3: a quoted cell goes on to line 5" in source.notes[0]


def test_a_table_inside_a_quoted_cell_is_no_row(tmp_path):
    rows = [{"prompt": f"sum up row {i}, please", "answer": "done"} for i in range(5)]
    rows.append({"prompt": "city,people\nRome,3\nOslo,1", "answer": "4"})
    assert rows_of(written(tmp_path / "mine.csv", as_csv(rows))) == rows


@pytest.mark.parametrize("text", ['5" pipe and 3" nail', 'he said "yes"', '"', 'a"'])
def test_a_quotation_mark_inside_a_cell_is_text(text, tmp_path):
    rows = [*PLAIN, {"label": "ham", "text": text}, *PLAIN]
    content = "label,text\n" + "".join(f"{row['label']},{row['text']}\n" for row in rows)
    assert rows_of(written(tmp_path / "mine.csv", content)) == rows


def test_a_quotation_mark_that_is_never_closed_is_refused_at_its_line_where_others_are(tmp_path):
    content = 'text,label\n"a, b",x\n"c,y\nd,x\n'
    assert "line 3: a quotation mark opens a cell and none closes it" in refusal(written(tmp_path / "a.csv", content))


def test_a_mark_inside_a_quoted_cell_that_is_not_doubled_is_refused_at_its_line(tmp_path):
    content = 'text,label\n"a, b",x\n"say "yes", now",y\n'
    assert "line 3: a quotation mark inside a quoted cell is not doubled" in refusal(
        written(tmp_path / "a.csv", content)
    )


def test_marks_behind_backslashes_are_read_as_pandas_reads_them(tmp_path):
    content = 'text,label\n"say \\"yes\\", now",a\n"path C:\\new",b\n"ends in \\"this\\"",c\n"\\"so\\" and so",d\n'
    source = read_rows(written(tmp_path / "a.csv", content))
    texts = ['say "yes", now', "path C:\\new", 'ends in "this"', '"so" and so']
    assert [row["text"] for row in source.parts["all"]] == texts
    assert "backslash" in source.notes[0]
    frame = pandas.read_csv(tmp_path / "a.csv", dtype=str, keep_default_na=False, escapechar="\\")
    assert [text.replace("C:new", "C:\\new") for text in frame["text"]] == texts


def test_white_space_before_a_quoted_cell_is_left_out_as_pandas_leaves_it_out(tmp_path):
    content = 'label, text\n"a", "one, two"\n"b", "say ""yes"", now"\n"a", "x"\n'
    path = written(tmp_path / "a.csv", content)
    source = read_rows(path)
    frame = pandas.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    assert source.parts["all"] == frame.to_dict("records")
    assert "white space" in source.notes[0]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_another_separator_is_found_and_said(separator, ending, tmp_path):
    rows = [{"text": "Hello, you: 1,5", "label": "x"}, {"text": f"a{separator}b\nc", "label": "y"}]
    source = read_rows(written(tmp_path / f"mine.{ending}", as_csv(rows, separator)))
    assert source.parts["all"] == rows
    if separator != "\t" or ending != "tsv":
        assert any("separated by" in note for note in source.notes)


def test_a_separator_that_the_first_line_names_is_taken(tmp_path):
    content = "sep=;\r\ntext;label\r\na,b;x\r\nc,d;y\r\n"
    assert rows_of(written(tmp_path / "a.csv", content)) == [
        {"text": "a,b", "label": "x"},
        {"text": "c,d", "label": "y"},
    ]


def test_a_row_that_lacks_the_separator_found_does_not_make_one_column_of_all(tmp_path):
    assert "line 3 has fewer cells" in refusal(written(tmp_path / "a.csv", "text;label\na;x\nb\n"))
    assert "line 2 has fewer cells" in refusal(written(tmp_path / "a.csv", "text;label\na\nb\n"))


def test_one_column_needs_no_separator(tmp_path):
    content = "text\nhello\nsemi; colon\n"
    assert rows_of(written(tmp_path / "a.csv", content)) == [{"text": "hello"}, {"text": "semi; colon"}]


def test_blank_lines_between_the_rows_of_one_column_are_counted(tmp_path):
    source = read_rows(written(tmp_path / "a.csv", 'text\n\nfirst\n\n \n""\nlast\n\n\n'))
    assert source.rows == [{"text": "first"}, {"text": ""}, {"text": "last"}]
    assert source.notes == ['a.csv: blank lines in its one column are no rows (3 lines); write an empty row as ""']
    assert not read_rows(written(tmp_path / "b.csv", "text\nfirst\nlast\n\n\n")).notes
    assert not read_rows(written(tmp_path / "c.csv", "text,label\n\nfirst,x\n\nlast,x\n")).notes


def test_a_text_with_the_separator_in_a_file_of_one_column_is_refused_by_line(tmp_path):
    assert "line 3 has more cells" in refusal(written(tmp_path / "a.csv", "text\nhello\nhello, world\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\na,x\nb\nc,x\n", "line 3 has fewer cells than the header: 1, not 2"),
        ("text,label\na,x\nb,c,y\n", "line 3 has more cells than the header: 3, not 2"),
        ("text,label\na,x\nb,y,\n", "line 3 has more cells"),
        ("v1,v2,,,\nham,a,,,\nham,b, c,,\n", "line 3 has text in column 3, which has no name in the header"),
        ("v1,v2,,\nham,a,,,\nham,b,,,c\n", "line 3 has more cells than the header: 5, not 4"),
        ("text,\u200btext\na,x\n", "line 1: the header has the column 'text' twice"),
        ("text,label,text\na,x,b\n", "line 1: the header has the column 'text' twice"),
        (",,\na,b,c\n", "line 1: the header names no columns"),
        ("text,label\na,x\ntext,label\nb,y\n", "line 3 repeats the header"),
        ("text,label\na,x\n\ufefftext,label\nb,y\n", "line 3 repeats the header"),
        ("text,label\na,x\nb\0c,y\n", "line 3 holds a NUL byte"),
        ("ham,well see you there at noon then\nham,b\nspam,c\nham,d\n", "line 1 looks like data"),
        ("x" * 300 + ",ham\na,b\n", "line 1 looks like data"),
        ("text,label\n\n\na,x\n\nb\n", "line 6 has fewer"),
        ('text,label\n"a\nb",x\nb\n', "line 4 has fewer"),
        ("# from 2024\ntext,label\na,x\nb\n", "line 4 has fewer"),
    ],
)
def test_what_is_no_table_is_refused_by_line(content, message, tmp_path):
    said = refusal(written(tmp_path / "a.csv", content))
    assert message in said
    assert len(said.replace(str(tmp_path), "")) <= 300


@pytest.mark.parametrize(
    "content",
    [
        "text,label\na,x\n\n  \nb,y\n\n",
        "text,label,,\na,x,,\nb,y,,\n",
        "text,label\na,x,\nb,y,\n",
        "text,label\ra,x\rb,y\r",
        "\ufefftext,label\na,x\nb,y",
        " text , label\na,x\nb,y\n",
        '"text",label\na,x\nb,y\n',
        "text,label,\u200b\na,x,\nb,y,\n",
        "# exported in 2024\n# by hand\ntext,label\na,x\nb,y\n",
        '"text","label"\n"a","x"\n"b","y"\n',
        "sep=,\ntext,label\na,x\nb,y\n",
    ],
)
def test_what_is_around_the_cells_does_not_change_the_rows(content, tmp_path):
    assert rows_of(written(tmp_path / "a.csv", content)) == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


def test_a_header_that_begins_like_a_comment_is_none_for_the_commas_of_a_quoted_text(tmp_path):
    source = read_rows(written(tmp_path / "a.csv", '#id,text,label\n1,"one, two, three",x\n2,b,y\n'))
    assert [list(row.values()) for row in source.rows] == [["1", "one, two, three", "x"], ["2", "b", "y"]]


def test_a_row_of_empty_cells_is_a_row(tmp_path):
    assert rows_of(written(tmp_path / "a.tsv", "text\tlabel\na\tx\n\t\nb\ty\n"))[1] == {"text": "", "label": ""}


def test_the_index_column_that_pandas_writes_has_the_name_that_pandas_gives_it(tmp_path):
    pandas.DataFrame(PLAIN).to_csv(tmp_path / "a.csv")
    frame = pandas.read_csv(tmp_path / "a.csv", dtype=str, keep_default_na=False)
    assert rows_of(tmp_path / "a.csv") == frame.to_dict("records")


def test_a_column_name_with_a_line_break_has_a_space_there(tmp_path):
    content = '"Customer\nfeedback\n(all)";label\na;x\n'
    assert rows_of(written(tmp_path / "a.csv", content)) == [{"Customer feedback (all)": "a", "label": "x"}]


def test_a_name_of_nothing_that_can_be_seen_is_called_as_an_empty_one(tmp_path):
    source = read_rows(written(tmp_path / "a.csv", "\u200b,text\n1,a\n2,b\n"))
    assert source.rows == [{"Unnamed: 0": "1", "text": "a"}, {"Unnamed: 0": "2", "text": "b"}]


@pytest.mark.parametrize("name", ["\ufeff\ufefftext", "te\u200bxt", "\u2060text\u00a0", "text\u200e"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_a_column_is_called_without_what_cannot_be_seen_in_its_name(name, ending, tmp_path):
    frame = pandas.DataFrame({"label": ["x", "y"], name: ["a", "b"]})
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    elif ending in ("csv", "tsv"):
        frame.to_csv(path, sep="," if ending == "csv" else "\t", index=False)
    else:
        frame.to_json(path, orient="records", lines=ending == "jsonl")
    source = read_rows(path)
    assert source.parts["all"] == [{"label": "x", "text": "a"}, {"label": "y", "text": "b"}]
    assert f"{ascii(name)} as 'text'" in source.notes[0]


def test_a_column_called_like_one_of_its_values_is_no_sign_of_a_missing_header(tmp_path):
    content = "comment,toxic\na,toxic\nb,toxic\nc,fine\n"
    assert len(rows_of(written(tmp_path / "a.csv", content))) == 3


@pytest.mark.parametrize("index", [True, False])
def test_the_numbers_that_pandas_gives_columns_without_names_are_a_header(index, tmp_path):
    frame = pandas.DataFrame([(f"river stone {i}", i % 2) for i in range(40)])
    frame.to_csv(tmp_path / "a.csv", index=index)
    rows = rows_of(tmp_path / "a.csv")
    assert [(row["0"], row["1"]) for row in rows] == [(text, str(label)) for text, label in frame.to_numpy().tolist()]
    written(tmp_path / "b.csv", "1,0\n" + "".join(f"{i},{i % 2}\n" for i in range(40)))
    assert "line 1 looks like data" in refusal(tmp_path / "b.csv")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "mac_roman", "shift_jis"])
def test_another_encoding_is_read_where_it_is_named(encoding, tmp_path):
    text = {"cp1251": "привет", "shift_jis": "東京"}.get(encoding, "café")
    path = written(tmp_path / "a.csv", f"text,label\n{text},x\n".encode(encoding))
    assert rows_of(path, encoding=encoding) == [{"text": text, "label": "x"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_unicode_in_other_encodings_is_recognised(encoding, ending, tmp_path):
    content = "text,label\ncafé,x\n" if ending == "csv" else '{"text": "café", "label": "x"}\n'
    source = read_rows(written(tmp_path / f"a.{ending}", content.encode(encoding)))
    assert source.parts["all"] == [{"text": "café", "label": "x"}]
    assert bool(source.notes) == ("8" not in encoding)
    assert read_rows(tmp_path / f"a.{ending}", encoding).parts == source.parts


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("ending", ["csv", "json"])
def test_unicode_of_few_zero_bytes_is_recognised_without_a_mark(encoding, ending, tmp_path):
    text = "一个装着河里石头的包裹今天早上到了" * 5
    content = (
        f"标签,文字\n甲,{text}\n" if ending == "csv" else json.dumps([{"标签": "甲", "文字": text}], ensure_ascii=False)
    )
    source = read_rows(written(tmp_path / f"a.{ending}", content.encode(encoding)))
    assert source.rows == [{"标签": "甲", "文字": text}]
    assert source.notes == [f"a.{ending}: it was read as {encoding.upper()}"]


@pytest.mark.parametrize("text", ["目录", "一个装着河里石头的包裹今天早上到了"])
def test_an_encoding_of_several_bytes_is_refused_where_the_file_is_in_utf8_and_read_where_it_is_not(text, tmp_path):
    path = written(tmp_path / "a.csv", f"text,label\n{text},x\n{text}é,y\n".encode())
    with pytest.raises(ValueError, match="is UTF-8; leave --encoding out|it is UTF-8, so leave --encoding out"):
        read_rows(path, "gbk")
    path = written(tmp_path / "b.csv", f"text,label\n{text},x\n".encode("gbk"))
    assert rows_of(path, encoding="gbk") == [{"text": text, "label": "x"}]


@pytest.mark.parametrize("written_as", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_encoding_that_the_file_itself_contradicts_is_refused(written_as, ending, tmp_path):
    content = "text,label\ncafé,x\n" if ending == "csv" else '{"text": "café", "label": "x"}\n'
    path = written(tmp_path / f"a.{ending}", content.encode(written_as))
    for given in ("cp1252", "latin-1", "utf-16" if "8" in written_as else "utf-8"):
        begins = written_as.removesuffix("-sig").upper()
        with pytest.raises(ValueError, match=f"--encoding {given}: the file begins as {begins}.* does; leave --encod"):
            read_rows(path, given)


def test_byte_order_marks_between_files_that_were_put_together_are_no_part_of_a_row(tmp_path):
    lines = '\ufeff{"text": "a", "label": "x"}\n'.encode()
    path = written(tmp_path / "a.jsonl", lines + lines + codecs.BOM_UTF8 + lines)
    assert rows_of(path) == [{"text": "a", "label": "x"}] * 3
    path = written(tmp_path / "a.csv", "\ufeff\ufefftext,label\na,x\n\ufeffb,y\n".encode())
    assert rows_of(path) == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


def test_a_line_that_is_not_utf8_is_named_with_the_flag_that_helps(tmp_path):
    path = written(tmp_path / "a.csv", b"text,label\r\nplain,x\r\ncaf\xe9,y\r\n")
    assert "line 3 is not UTF-8 (byte 24)" in refusal(path) and "--encoding" in refusal(path)
    assert all(name in refusal(path) for name in ("cp1252", "cp1251", "gb18030", "shift_jis"))
    assert len(refusal(path).replace(str(path), "")) < 300


@pytest.mark.parametrize("encoding", ["klingon", "hex", "", "\0"])
def test_an_encoding_that_there_is_not_is_refused(encoding, tmp_path):
    path = written(tmp_path / "a.csv", "text,label\na,x\n")
    with pytest.raises(ValueError, match="--encoding .*unknown"):
        read_rows(path, encoding)


def test_bytes_that_the_named_encoding_does_not_have_are_refused_by_line(tmp_path):
    path = written(tmp_path / "a.csv", b"text,label\na,x\nb\x81,y\n")
    with pytest.raises(ValueError, match=r"line 3 is not CP1252 \(byte 16\)"):
        read_rows(path, "cp1252")


def test_a_file_of_lines_may_be_called_ndjson(tmp_path):
    path = written(tmp_path / "a.ndjson", '{"text": "a", "label": "b"}\n')
    assert read_rows(path).parts["all"] == [{"text": "a", "label": "b"}]


def test_a_compressed_file_is_read_like_the_file_in_it(tmp_path):
    import gzip

    path = written(tmp_path / "a.csv.gz", gzip.compress(b"text,label\na,x\n"))
    assert rows_of(path) == [{"text": "a", "label": "x"}]
    assert "not a readable .csv" in refusal(written(tmp_path / "b.csv.gz", path.read_bytes()[:-9]))
    whole = bytearray(gzip.compress(("text,label\n" + "".join(f"a{i * i},x\n" for i in range(3000))).encode()))
    whole[len(whole) // 2 :: 97] = bytes(len(whole[len(whole) // 2 :: 97]))
    assert "not a readable .csv" in refusal(written(tmp_path / "damaged.csv.gz", bytes(whole)))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"PK\x03\x04", "Excel"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel"),
        (b"PAR1", "parquet"),
        (b"version https://git-lfs.github.com", "LFS"),
        (b"<!DOCTYPE html>\n", "web page"),
        (b"\r\n\n  \n<html>\n", "web page"),
        (codecs.BOM_UTF8 + b"\n<!doctype HTML>\n", "web page"),
    ],
)
def test_a_file_of_another_kind_is_called_by_it(start, said, tmp_path):
    assert said in refusal(written(tmp_path / "a.csv", start + b"\x00\x01,\n" * 9))


def test_a_header_that_is_like_the_mark_of_another_kind_of_file_is_none(tmp_path):
    assert rows_of(written(tmp_path / "a.csv", "par1,text\na,b\n")) == [{"par1": "a", "text": "b"}]
