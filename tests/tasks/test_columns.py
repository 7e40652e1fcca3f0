"""Columns: found by their usual names, named where they are not read; white space that carries meaning."""

import json
import random
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from helpers import mails, run_in_process, write_rows
from one_example import encode_instruction

from gpt2_scratch.tokenizer import GPT2
from tasks import Columns, Instruction, Limits, Preference, Skipped, split_examples
from training.data.batches import IGNORED, encode_prompt
from training.data.sources import locate_rows, split_rows
from training.evaluation.inference import response_in
from training.flags.common import DataArgs
from training.flags.preference import PairArgs
from training.flags.task import PromptArgs, TextArgs

NOWHERE = Path("mine.jsonl")  # rows that are in no file
WHOLE = DataArgs(validation_share=0, test_share=0)


def read(rows, args=None, notes=None):
    task = (args or PromptArgs()).task(None, NOWHERE)
    return task.parts({"all": rows}, Skipped(), notes if notes is not None else []).get("all", [])


def splits_of(path, data=None, **flags):
    task = PromptArgs(**flags).task(None, path)
    return split_rows(task, locate_rows(task, path), data or DataArgs())


# Instructions.


@pytest.mark.parametrize("response", ["response", "output", "completion", "answer"])
@pytest.mark.parametrize("prompt", ["instruction", "prompt", "question", "query"])
@pytest.mark.parametrize("about", ["input", "context", "passage", None])
def test_the_usual_names_of_columns_need_no_flag(prompt, about, response):
    row = {"id": 7, response: "c", prompt: "a"} | ({about: "b"} if about else {})
    assert read([row]) == [Instruction(0, "a", "b" if about else "", "c")]


def test_the_system_column_is_said_before_the_prompt():
    row = {"system_prompt": "Be brief.", "question": "a", "response": "c"}
    assert read([row, row | {"system_prompt": ""}]) == [
        Instruction(0, "a", "System: Be brief.", "c"),
        Instruction(1, "a", "", "c"),
    ]


def test_a_column_that_is_taken_along_by_its_name_is_said_and_can_be_left_out():
    row, notes = {"instruction": "a", "input": "b", "output": "c"}, []
    flags = {"prompt_column": "instruction", "response_column": "output"}
    assert read([row], PromptArgs(**flags), notes) == [Instruction(0, "a", "b", "c")]
    (note,) = notes
    assert "'input'" in note and "--input-column" in note
    notes.clear()
    assert read([row], PromptArgs(**flags, input_column=""), notes) == [Instruction(0, "a", "", "c")]
    assert notes[0].startswith("1 column is not used: 'input'")
    assert read([row | {"hint": "d"}], PromptArgs(**flags, input_column="hint")) == [Instruction(0, "a", "d", "c")]


def test_a_column_that_is_taken_along_in_one_part_alone_is_said_with_the_part(tmp_path):
    rows = [{"question": f"which stone is {i}?", "answer": f"stone {i}"} for i in range(50)]
    write_rows(tmp_path / "train.jsonl", rows[:40])
    write_rows(tmp_path / "test.jsonl", [{**row, "document": "b.pdf"} for row in rows[40:]])
    assert "the prompt includes column 'document' because of its name, in the test part alone" in " ".join(
        splits_of(tmp_path).notes
    )


@pytest.mark.parametrize("values", [["", None], [["a"], ["b"]], [{"a": 1}, None], [1, 2]])
def test_a_usual_column_without_text_is_not_taken_along(values):
    rows = [{"question": f"a{i}", "context": value, "answer": "c"} for i, value in enumerate(values)]
    notes = []
    assert [e.input for e in read(rows, notes=notes)] == ["", ""] and "'context'" in notes[0]


@pytest.mark.parametrize("values", [(4, 5), (4, None), (float("nan"), 5.0)])
def test_an_input_of_numbers_is_what_the_instruction_is_about(values):
    notes, rows = [], [{"instruction": "Square it.", "input": value, "output": "16"} for value in values]
    known = ["" if value is None or value != value else str(int(value)) for value in values]
    assert [e.input for e in read(rows, notes=notes)] == known
    assert "the prompt includes column 'input'" in notes[0] and "taken as text" in notes[1]


@pytest.mark.parametrize("name", ["context", "system", "question"])
@pytest.mark.parametrize(("cell", "text"), [(7, "7"), (2.0, "2"), (True, "true")])
def test_a_number_among_the_texts_of_a_prompt_is_text_and_said(name, cell, text):
    notes, rows = [], [{"question": "a", "context": "b", "system": "s", "answer": "c"}] * 3
    found = read([*rows, rows[0] | {name: cell}], notes=notes)
    assert len(found) == 4 and text in found[3].prompt() and found[0].input == "System: s\nb"
    assert f"column '{name}' holds numbers or truth values in 1 rows, taken as text" in notes


@pytest.mark.parametrize("name", ["context", "system", "question"])
def test_a_list_among_the_texts_of_a_prompt_is_refused_with_its_row(name):
    row = {"question": "a", "context": "b", "system": "s", "answer": "c"}
    with pytest.raises(ValueError, match=f"row 2: column '{name}' holds a list, "):
        read([row, row | {name: ["b", 7]}])


def test_prompts_that_are_numbers_alone_are_refused():
    with pytest.raises(ValueError, match="column 'id' holds numbers alone, no prompts"):
        read([{"id": 7, "answer": "b"}, {"id": None, "answer": "c"}], PromptArgs(prompt_column="id"))


def test_a_number_among_the_prompts_of_preferences_is_text_and_said():
    notes, row = [], {"prompt": "a", "input": "b", "chosen": "c", "rejected": "d"}
    rows = [row, row | {"prompt": 7, "input": 8}]
    assert read(rows, PairArgs(), notes)[1] == Preference(1, "7", "c", "d", "8")
    assert sum("in 1 rows, taken as text" in note for note in notes) == 2


@pytest.mark.parametrize(
    "args",
    [
        TextArgs(("text", "label"), "label"),
        TextArgs(("label",), "label"),
        TextArgs(("text", "text"), "label"),
        PromptArgs("a", "a", "b"),
        PromptArgs("a", "b", "b"),
        PromptArgs("a", None, "a"),
        PairArgs("a", "a"),
    ],
)
def test_a_column_that_two_flags_name_is_refused_by_its_flags(args):
    (problem,) = args.problems()
    assert "-column: name column '" in problem and "twice" in problem and len(problem) <= 300


@pytest.mark.parametrize(
    "args", [TextArgs(("text",), ""), TextArgs(("",), "label"), PromptArgs(""), PromptArgs("a", "b", "")]
)
def test_a_column_of_no_name_is_refused(args):
    (problem,) = args.problems()
    assert "one of them is empty" in problem


@pytest.mark.parametrize("args", [PromptArgs(), PromptArgs("a", "", "b"), PromptArgs("a"), TextArgs(("a", "b"), "c")])
def test_columns_that_differ_are_none_of_a_problem(args):
    assert args.problems() == []


@pytest.mark.parametrize("column", ["prompt", "response"])
def test_what_a_prompt_is_about_is_another_column_than_those_found_by_name(column):
    with pytest.raises(ValueError, match=f"column '{column}' would be read twice"):
        read([{"prompt": "a", "response": "b"}], PromptArgs(input_column=column))


def test_the_label_of_a_dataset_is_none_of_its_texts():
    row = {"sentence1": "a", "sentence2": "b", "gold_label": "neutral"}
    with pytest.raises(ValueError, match="column 'sentence1' would be read twice"):
        TextArgs(label_column="sentence1").task("sick", None).parts({"all": [row]}, Skipped())


def labelled(column, values):
    return [{"text": f"a{i}", "label": "ab"[i % 2], column: value} for i, value in enumerate(values)]


def test_rows_that_an_annotator_rejected_are_not_trained_on():
    args = TextArgs(("text",), "label")
    with pytest.raises(ValueError, match="'answer' is reject or ignore in 2 rows"):
        read(labelled("answer", ["accept", "reject", "ignore", "accept"]), args)
    assert len(read(labelled("answer", ["accept", "accept"]), args)) == 2
    assert len(read(labelled("answer", ["accept", "reject", "other"]), args)) == 3


@pytest.mark.parametrize(
    ("column", "values", "counts"),
    [
        ("split", ["train", "Test", "train", "dev"], "train 2, test 1, dev 1"),
        ("fold", ["train", "val", None, "val"], "val 2, train 1"),
        ("is_valid", [True, False, False], "false 2, true 1"),
        ("is_valid", ["True", "False", "False"], "false 2, true 1"),
    ],
)
def test_a_column_of_the_files_own_parts_is_said(column, values, counts):
    notes = []
    read(labelled(column, values), TextArgs(("text",), "label"), notes)
    assert f"column '{column}' names the file's own parts ({counts}), which are not used" in notes[0]
    assert all(len(note) <= 300 for note in notes)


def test_columns_of_a_bundled_file_mean_nothing_in_the_users_own():
    rows = [{"instruction": str(part), "response": "b", "split": part, "kind": ["c"]} for part in ("train", "test")]
    task, notes = PromptArgs().task("instructions", NOWHERE), []
    assert [e.kind for e in task.parts({"all": rows}, Skipped(), notes)["all"]] == ["", ""]
    assert "column 'split' names the file's own parts (train 1, test 1), which are not used" in notes[0]
    bundled = PromptArgs().task("instructions", None).parts({"all": [row | {"kind": "c"} for row in rows]}, Skipped())
    assert bundled.keys() == {"all", "test"}


@pytest.mark.parametrize("values", [["train", "car"], [True, False], [1, 2], [None, None]])
def test_another_column_says_nothing_of_parts(values):
    notes = []
    read(labelled("split", values), TextArgs(("text",), "label"), notes)
    assert len(notes) == 1 and "names the file's own parts" not in notes[0]


def test_columns_that_are_not_read_are_named_in_one_short_line():
    notes = []
    read([{"question": "a", "answer": "b"} | {f"column {i} " + "x" * 60: i for i in range(40)}], notes=notes)
    (note,) = notes
    assert note.startswith("40 columns are not used: 'column 0 ") and "more" in note and len(note) <= 300


def test_numbers_as_answers_are_text_and_said():
    notes = []
    rows = [{"question": "1+1?", "answer": 2}, {"question": "Yes?", "answer": True}]
    assert [e.response for e in read(rows, notes=notes)] == ["2", "true"]
    assert "'answer' holds numbers or truth values in 2 rows" in notes[0]


def test_answers_that_are_marked_as_bad_are_not_trained_on():
    rows = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "c", "label": False}]
    with pytest.raises(ValueError, match="'label' is false or 0 in 1 rows"):
        read(rows)
    assert [e.response for e in read(rows[:1])] == ["b"]


def test_a_message_is_short_however_long_the_names_of_columns_are():
    row = {f"{i} " + "a header that is a text " * 9: "b" for i in range(30)}
    for task in (PromptArgs(), PairArgs(), TextArgs(("x" * 90, "y" * 90), "z" * 90)):
        with pytest.raises(ValueError) as refused:
            task.task(None, NOWHERE).parts({"all": [row]}, Skipped())
        assert len(str(refused.value)) <= 300


@pytest.mark.parametrize("cell", [["a", "b"], {"text": ["a"]}, b"a"])
def test_an_answer_that_is_no_text_is_refused_by_row_without_the_data(cell):
    with pytest.raises(ValueError, match="row 2: column 'answer' holds .*, neither text nor number"):
        read([{"question": "a", "answer": "b"}, {"question": "a", "answer": cell}])


def test_a_missing_column_is_named_with_one_that_is_like_it():
    with pytest.raises(ValueError, match="'answr'.*is it 'answr'") as refused:
        read([{"question": "a", "answr": "b"}], PromptArgs(response_column="answer"))
    assert len(str(refused.value)) <= 300
    with pytest.raises(ValueError, match="is it 'Body'"):
        TextArgs(("body",), "label").task(None, NOWHERE).parts({"all": [{"Body": "a", "label": "b"}]}, Skipped())


def test_several_responses_to_a_prompt_are_said(tmp_path):
    rows = [{"question": f"Name fish {i % 20}", "answer": f"fish {i}"} for i in range(60)]
    task = PromptArgs().task(None, NOWHERE)
    splits = split_rows(task, locate_rows(task, write_rows(tmp_path / "fish.jsonl", rows)), DataArgs())
    assert "60 examples have 20 different prompts: all responses to a prompt are kept" in splits.notes
    assert splits.skipped == Skipped()


# Classification.


def test_a_second_column_of_text_is_named_as_not_read():
    notes = []
    task = TextArgs(("body",), "topic").task(None, NOWHERE)
    task.parts({"all": [{"title": "a", "body": "b", "topic": "c", "date": "d"}]}, Skipped(), notes)
    assert notes == ["2 columns are not used: 'title', 'date' (--text-column and --label-column name those that are)"]


# Preferences.


def one_instruction(count=60, column="dialogue", instruction="Summarize"):
    """Rows of one instruction for different texts, which stand in a column that has no usual name."""
    return [
        {"id": f"{i:04}", "instruction": instruction, column: f"river stone {i}", "output": ("good", "bad")[i % 2]}
        for i in range(count)
    ]


@pytest.mark.parametrize("parts", [("train",), ("train", "test")])
def test_one_instruction_for_texts_that_are_not_read_is_refused_with_their_column(parts, tmp_path):
    for i, part in enumerate(parts):
        write_rows(tmp_path / f"{part}.jsonl", one_instruction()[i * 40 : i * 40 + 40])
    with pytest.raises(ValueError, match="--input-column dialogue reads it, --input-column '' does without") as refused:
        splits_of(tmp_path)
    assert "column 'instruction' is the same in" in str(refused.value) and len(str(refused.value)) <= 300
    assert len(splits_of(tmp_path, input_column="dialogue").train) > 30


def test_one_instruction_with_different_answers_is_meant_where_no_other_text_stands_beside_it(tmp_path):
    beside = {"id": "{0:04}", "date": "2024-01-{0}", "source": "the same place", "response_2": None}
    for name, value in beside.items():
        rows = [
            {"instruction": "Tell a joke", name: value and value.format(i), "output": f"joke {i}"} for i in range(60)
        ]
        assert len(splits_of(write_rows(tmp_path / "jokes.jsonl", rows), WHOLE).train) == 60
    rows = [row | {"instruction": f"Sum up {i % 15}"} for i, row in enumerate(one_instruction())]
    assert len(splits_of(write_rows(tmp_path / "a.jsonl", rows)).examples()) == 30  # 15 prompts, two answers
    path = write_rows(tmp_path / "b.jsonl", one_instruction())
    assert len(splits_of(path, WHOLE, input_column="").train) == 2


def test_preferences_take_the_usual_columns_along():
    row = {"system": "Be brief.", "question": "a", "input": "b", "chosen": "c", "rejected": "d"}
    (found,) = PairArgs().task(None, NOWHERE).parts({"all": [row]}, Skipped())["all"]
    assert found == Preference(0, "a", "c", "d", "b\nSystem: Be brief.") and found.records()[1].input == found.input


def test_a_form_with_more_than_two_columns_says_which_it_needs():
    assert Columns(("a", "b"), "c", "d").used == {"a", "b", "c", "d"}
    assert Columns(("a", "b"), "c").missing_in(["a"], target_needed=True) == ["b", "c"]


# White space.

ANSWERS = [
    "    y = x\n    return y\n",
    "\ty",
    " \n leading",
    "trailing  ",
    "a\n\n\n",
    "no white space",
    "\u00a0a",
    "  é\r\n",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_response_is_the_same_in_the_file_in_the_targets_and_in_the_answer(answer, tmp_path):
    prompt = "  Complete:\n\tdef f(x):\n"
    path = write_rows(tmp_path / "code.jsonl", [{"instruction": prompt, "response": answer}])
    task = PromptArgs().task(None, path)
    (example,) = task.parts(locate_rows(task, path).parts, Skipped())["all"]
    encoded = encode_instruction(GPT2, example, 512)
    targets = encoded.labels[encoded.labels != IGNORED].tolist()
    assert targets[-1] == 50256 and GPT2.decode(targets[:-1]) == answer
    asked = encode_prompt(GPT2, example)
    assert encoded.tokens[: len(asked)].tolist() == asked  # training reads the very tokens that answering does
    assert GPT2.decode(asked) == example.prompt() and prompt in example.prompt()
    assert (
        response_in(GPT2.decode(targets[:-1]))
        == response_in(example.prompt()[-len("\n\n### Response:\n") :] + answer)
        == answer
    )


@pytest.mark.parametrize("answer", [" ", "\n\n", "\t", "\u00a0"])
def test_a_response_of_white_space_alone_is_none(answer):
    skipped = Skipped()
    rows = [{"instruction": "a", "response": answer}]
    assert PromptArgs().task(None, NOWHERE).parts({"all": rows}, skipped) == {} and skipped == Skipped(unlabelled=1)


def test_code_that_differs_in_indentation_is_two_answers():
    rows = [{"instruction": "a", "response": code} for code in ("if x:\n  y", "if x:\ny", "if x:\n  y")]
    splits = split_examples({"all": read(rows)}, Limits(0, 0), 0, Skipped())
    assert [e.response for e in splits.train] == ["if x:\n  y", "if x:\ny"] and splits.skipped == Skipped(duplicate=1)


def test_what_a_run_writes_of_its_references_is_what_the_file_says(tiny_model, tmp_path):
    code = "    y = x + {}\n    return y\n"
    rows = [{"instruction": f"Complete: def add_{i}(x):", "response": code.format(i)} for i in range(30)]
    path = write_rows(tmp_path / "code.jsonl", rows)
    flags = [
        "--data",
        path,
        "--model",
        tiny_model,
        "--max-steps",
        1,
        "--new-tokens",
        8,
        "--output-dir",
        tmp_path / "run",
    ]
    done = run_in_process("finetune_ift", *flags)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "generations.jsonl").read_text().splitlines()]
    assert lines and all(line["reference"] == rows[line["id"]]["response"] for line in lines)


# Files without labels.


def test_a_competition_trains_on_its_train_file_and_predicts_its_test_file(tiny_model, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_rows(folder / "train.jsonl", mails(60))
    write_rows(folder / "test.jsonl", [{"text": f"new {row['text']}"} for row in mails(20)])
    flags = ["--data", folder, "--model", tiny_model, "--max-steps", 1, "--output-dir", tmp_path / "run"]
    done = run_in_process("finetune_cls", *flags)
    assert done.returncode == 0, done.stderr
    note = next(line for line in done.stdout.splitlines() if line.startswith("note") and "test.jsonl" in line)
    assert "20 rows are for scripts/predict.py" in note
    data = json.loads((tmp_path / "run" / "results.json").read_text())["data"]
    assert data["rows"] == {"train": 48, "validation": 6, "test": 6}
    done = run_in_process(
        "predict", "--run", tmp_path / "run", "--data", folder / "test.jsonl", "--output", tmp_path / "out.csv"
    )
    assert done.returncode == 0 and len((tmp_path / "out.csv").read_text().splitlines()) == 21, done.stderr


# Whatever cells hold.

TEXTS = [
    "a",
    "",
    "  ",
    "[{",
    '[{"role": 1}]',
    '{"from": 1}',
    "7.0",
    "-",
    "é" * 400,
    "\ud83d",
    "\n\nHuman: a\n\nAssistant: b",
]
ODD = [1, 0.5, float("nan"), float("inf"), True, None, 10**400, Decimal("1.50"), b"a", date(2020, 1, 1)]
KEYS = ["role", "content", "from", "value", "tool_calls", "text", "type", "x" * 50]
NAMES = ["messages", "conversations", "prompt", "completion", "instruction", "response", "input", "system", "chosen"]
NAMES += ["rejected", "question", "answer", "images", "text", "label", "x" * 300]


def some_cell(rng, depth=0):
    kind = rng.randrange(16)
    if kind < 6 or depth > 3:
        return rng.choice(TEXTS if kind < 5 else ODD)
    if kind < 9:
        return [some_cell(rng, depth + 1) for _ in range(rng.randrange(4))]
    roles = ["user", "assistant", "system", "gpt", "tool", "text", "nobody" * 90]
    return {
        rng.choice(KEYS): some_cell(rng, depth + 1) if rng.random() < 0.6 else rng.choice(roles)
        for _ in range(rng.randrange(5))
    }


@pytest.mark.parametrize("seed", range(4))
def test_every_row_is_an_example_or_counted_or_the_file_is_refused_in_a_short_message(seed):
    rng, outcomes = random.Random(seed), Counter()
    for _ in range(150):
        names = rng.sample(NAMES, rng.randrange(1, 7))
        rows = [{name: some_cell(rng) for name in names} for _ in range(rng.randrange(1, 6))]
        own = PromptArgs(prompt_column=names[0]), TextArgs((names[0],), names[-1])
        for args in (PromptArgs(), PairArgs(), TextArgs(("text",), "label"), *own):
            notes, skipped = [], Skipped()
            try:
                parts = args.task(None, NOWHERE).parts({"all": rows}, skipped, notes)
            except ValueError as refused:
                assert len(str(refused)) <= 300
                outcomes["refused"] += 1
            else:
                assert sum(map(len, parts.values())) + sum(vars(skipped).values()) == len(rows)
                assert all(len(note) <= 300 for note in notes)
                outcomes["read"] += 1
    assert min(outcomes.values()) > 20 and len(outcomes) == 2
