"""Conversations for instruction tuning and for preferences, beside what TRL makes of the same rows."""

import copy
import json
from pathlib import Path

import datasets
import pandas
import pytest
from helpers import run_in_process, write_rows
from trl.data_utils import maybe_convert_to_chatml, maybe_extract_prompt, unpair_preference_dataset

from tasks import Instruction, Preference, Skipped, read_rows
from training.data.special_tokens import texts_in
from training.flags.preference import PairArgs, RatingArgs
from training.flags.task import PromptArgs

SYSTEM = {"role": "system", "content": "Be brief."}
ASK, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}
AGAIN, LAST = {"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A program.\n"}
TALK = [SYSTEM, ASK, REPLY, AGAIN, LAST]
MEANT = Instruction(0, "Who are you?", "System: Be brief.\nUser: Hi\nAssistant: Hello!", "A program.\n")
NOWHERE = Path("mine.jsonl")  # rows that are in no file
NAMES = {"system": "system", "user": "human", "assistant": "gpt"}


def sharegpt(talk):
    return [{"from": NAMES[turn["role"]], "value": turn["content"]} for turn in talk]


def read(rows, path=None, skipped=None, notes=None, **flags):
    """The examples of rows, written to a file and read from it where there is a path."""
    task = PromptArgs(**flags).task(None, path or NOWHERE)
    parts = read_rows(path).parts if path else {"all": rows}
    return task.parts(parts, skipped or Skipped(), notes if notes is not None else []).get("all", [])


def pairs(rows, skipped=None, **flags):
    return PairArgs(**flags).task(None, NOWHERE).parts({"all": rows}, skipped or Skipped(), []).get("all", [])


# Forms of a conversation.


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TALK},
        {"conversations": sharegpt(TALK)},
        {"conversations": sharegpt(TALK[1:]), "system": "Be brief."},
        {"messages": [{"role": "developer", "content": "Be brief."}, *TALK[1:]]},
        {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in TALK]},
        {"messages": {key: [turn[key] for turn in TALK] for key in ("role", "content")}},
        {"messages": json.dumps(TALK)},
        {"messages": json.dumps(TALK, indent=2)},
        {"prompt": json.dumps(TALK[:-1], indent=2), "completion": json.dumps(TALK[-1:], indent=2)},
        {"messages": str(TALK)},
        {"messages": [*TALK[:2], {"role": "assistant", "content": " "}, *TALK[2:]]},
        {"prompt": TALK[:-1], "completion": TALK[-1:]},
        {"prompt": TALK[:-1], "completion": LAST["content"]},
        {"prompt": TALK[:-1], "response": LAST},
        {"messages": TALK, "prompt": "Hi", "prompt_id": "a7"},
    ],
    ids=str,
)
def test_the_last_answer_is_trained_on_and_what_was_said_before_is_its_context(row):
    assert read([row]) == [MEANT]


def test_prompts_and_answers_that_say_that_there_is_none_are_named_and_those_that_cannot_be_seen_are_empty():
    rows = [{"instruction": f"a{i}?", "input": "nan", "output": "None" if i < 2 else "?"} for i in range(5)]
    notes, skipped = [], Skipped()
    rows += [
        {"instruction": "a?", "input": "", "output": "\u200b"},
        {"messages": [ASK, {**REPLY, "content": "\u200b"}]},
    ]
    assert len(read(rows[:6], notes=notes, skipped=skipped)) == 5 and skipped == Skipped(unlabelled=1)
    assert [note.split(", which is taken as text")[0] for note in notes[1:]] == [
        "column 'input' holds 'nan' in 5 rows",
        "column 'output' holds 'None' in 2 rows",
    ]
    assert read(rows[6:], skipped=skipped) == [] and skipped == Skipped(unlabelled=2)


def test_answers_that_are_context_alone_are_counted():
    unanswered, tools = [*TALK, AGAIN], [*TALK[:3], {"role": "tool", "content": "7"}, LAST]
    rows = [{"messages": talk} for talk in (TALK, TALK[:3], [*TALK, AGAIN, LAST], unanswered, tools)]
    notes = []
    read(rows, notes=notes)
    (note,) = notes
    assert note.startswith("3 earlier answers in 2 conversations are context, not targets") and len(note) <= 300
    notes = []
    read([{"prompt": TALK[:-1], "completion": TALK[-1:]}, {"prompt": [ASK], "completion": [REPLY]}], notes=notes)
    assert notes == []


def test_a_message_with_both_spellings_of_its_keys_has_the_text_of_the_one_that_is_filled():
    bare = [{"from": who, "value": text} for who, text in (("human", "a?"), ("gpt", "b"))]
    both = [message | {"role": None, "content": None} for message in bare]
    assert read([{"conversations": both}]) == read([{"conversations": bare}])


@pytest.mark.parametrize("other", [{"instruction": "a?", "output": "b"}, {"messages": [{"role": "user"}]}])
def test_rows_of_two_forms_are_refused_and_a_flag_chooses_one(other, tmp_path):
    rows = [{"prompt": f"q{i}?", "response": "yes"} for i in range(3)] + [other] * 2
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match="[23] of 5 rows have .* and lack .*; give all rows the same columns, or name"):
        read([], path)
    assert len(read([], path, prompt_column="prompt", response_column="response")) == 3


def test_a_pair_whose_input_spells_a_special_token_is_counted():
    assert "ctx <|endoftext|>" in [*texts_in(Preference(0, "q", "yes", "no", "ctx <|endoftext|>"))]


def test_the_prompt_of_a_conversation_is_in_plain_words():
    assert MEANT.prompt().split("\n\n", 1)[1] == (
        "### Instruction:\nWho are you?\n\n"
        "### Input:\nSystem: Be brief.\nUser: Hi\nAssistant: Hello!\n\n"
        "### Response:\n"
    )


def test_a_question_and_an_answer_are_what_they_are_in_columns():
    assert read([{"messages": [ASK, REPLY]}]) == read([{"question": "Hi", "answer": "Hello!"}])


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_conversations_are_read_from_every_kind_of_file(kind, tmp_path):
    path = tmp_path / f"talk.{kind}"
    rows = [{"messages": TALK}, {"messages": [ASK, REPLY]}]
    if kind == "parquet":
        pandas.DataFrame(rows).to_parquet(path)
    elif kind == "csv":  # pandas writes lists as Python spells them
        pandas.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    assert read(None, path) == [MEANT, Instruction(1, "Hi", "", "Hello!")]


def test_the_flag_names_the_column_of_a_conversation():
    assert read([{"dialog": TALK, "messages": [ASK, REPLY]}], prompt_column="dialog") == [MEANT]


@pytest.mark.parametrize("row", [{"conversations": sharegpt(TALK)}, {"messages": TALK}])
def test_the_turns_are_those_that_trl_converts(row):
    talk = maybe_convert_to_chatml(copy.deepcopy(row))["messages"]
    said = [turn["content"] for turn in talk if NAMES.get(turn["role"]) or turn["role"] in NAMES.values()]
    (found,) = read([row])
    before = [line.split(": ", 1)[1] for line in found.input.split("\n")]
    assert [*before, found.instruction, found.response] == said


# What does not fit.


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        ([], "empty"),
        (None, "empty"),
        ([ASK], "unlabelled"),
        ([ASK, REPLY, AGAIN], "unlabelled"),
        ([ASK, {"role": "assistant", "content": ""}], "unlabelled"),
        ([ASK, {"role": "assistant", "content": None}], "unlabelled"),
        ([REPLY], "no_question"),
        ([SYSTEM, REPLY], "no_question"),
        ([ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, REPLY], "tool_calls"),
        ([ASK, {"role": "tool", "content": "7"}, REPLY], "tool_calls"),
        ([ASK, {**REPLY, "weight": 0}], "not_trained"),
        ([ASK, {**REPLY, "weight": 0.0}], "not_trained"),
        ([ASK, {**REPLY, "train": False}], "not_trained"),
        ([ASK, {**REPLY, "weight": None, "training": "false"}], "not_trained"),
        (json.dumps([ASK, {**REPLY, "weight": 0}]), "not_trained"),
        ([{"from": "human", "value": "a"}, {"from": "function_call", "value": "f()"}], "tool_calls"),
        ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}, REPLY], "images"),
        ([ASK, {"role": "assistant", "content": [{"type": "tool_use", "id": "1"}]}, REPLY], "tool_calls"),
        ([ASK, {"role": "user", "content": [{"type": "tool_result", "content": "7"}]}, REPLY], "tool_calls"),
        ([{"role": "user", "content": [{"type": "input_audio", "data": "a"}]}, REPLY], "images"),
    ],
    ids=str,
)
def test_a_conversation_that_does_not_fit_is_counted_by_its_reason(talk, reason):
    skipped = Skipped()
    assert read([{"messages": talk}, {"messages": TALK}], skipped=skipped) == [
        Instruction(1, *MEANT.identity, MEANT.response)
    ]
    assert skipped == Skipped(**{reason: 1})


def test_a_picture_beside_a_conversation_is_counted():
    skipped = Skipped()
    rows = [{"messages": TALK, "images": ["cat.png"]}, {"messages": TALK, "images": []}]
    assert len(read(rows, skipped=skipped)) == 1 and skipped == Skipped(images=1)


@pytest.mark.parametrize("none", ["no", "No", "false", "FALSE", "0", "[]", "None", "N/A", "", 0, False, [], None])
def test_a_column_that_says_that_there_is_no_picture_leaves_no_row_out(none):
    notes = []
    assert len(read([{"messages": TALK, "image": none}], notes=notes)) == 1
    assert not any("left out" in note for note in notes)


def test_the_column_of_pictures_is_named():
    notes, rows = [], [{"messages": TALK, "image": "yes", "audio": "no"}]
    assert read([*rows, {"messages": TALK, "image": "no"}], notes=notes) == [
        Instruction(1, *MEANT.identity, MEANT.response)
    ]
    assert "rows with images, video or audio are left out, by column 'image'" in notes
    task = PromptArgs().task(None, NOWHERE)
    assert "; 'image' would be images" in task.nothing_left({"all": rows}, Skipped(images=1))


def test_thoughts_are_left_out_and_named():
    thought, notes = {"type": "thinking", "thinking": "Hm"}, []
    talk = [ASK, {"role": "assistant", "content": [thought, {"type": "text", "text": "Hello!"}]}]
    assert read([{"messages": talk}], notes=notes) == [Instruction(0, "Hi", "", "Hello!")]
    assert notes == ["keys of messages that are not used: 'thinking'"]


@pytest.mark.parametrize("kind", ["refusal", "input_file", "x" * 500])
def test_a_part_of_an_unknown_type_is_refused_by_its_name(kind):
    talk = [ASK, {"role": "assistant", "content": [{"type": kind, kind: "No."}]}]
    with pytest.raises(ValueError, match=f"row 1: .* of type '{kind[:20]}.*, which is not known") as refused:
        read([{"messages": talk}])
    assert len(str(refused.value)) <= 300


@pytest.mark.parametrize("talk", ["not JSON", 7, [["user", "Hi"]], ["Hi", "Hello!"], {"text": "a"}])
def test_what_is_no_conversation_is_refused_with_its_row(talk):
    with pytest.raises(ValueError, match="row 2: column 'messages' holds .*, not a list of messages"):
        read([{"messages": TALK}, {"messages": talk}])


def test_messages_with_other_keys_are_refused_with_those_wanted_and_found():
    with pytest.raises(ValueError, match="the keys role and content, or from .*; its keys are 'speaker', 'text'"):
        read([{"messages": [{"speaker": "a", "text": "b"}]}])


@pytest.mark.parametrize("role", ["narrator", "", None, 7, "x" * 500])
def test_an_unknown_role_is_refused_with_its_row_and_the_known_ones(role):
    with pytest.raises(ValueError, match="row 2: column 'messages' has a message by .*; known roles are ") as refused:
        read([{"messages": TALK}, {"messages": [{"role": role, "content": "Once"}, REPLY]}])
    assert len(str(refused.value)) <= 300


def test_keys_of_messages_that_are_not_read_are_named():
    notes = []
    read([{"messages": [{**ASK, "name": "Ann", "weight": None}, {**REPLY, "reasoning": "Hm"}]}], notes=notes)
    assert notes == ["keys of messages that are not used: 'name', 'reasoning'"]


def test_an_answer_with_a_weight_is_trained_on_and_the_weight_of_an_earlier_one_is_named():
    notes, earlier = [], {**REPLY, "weight": 0}
    talks = [[ASK, {**REPLY, "weight": 1, "train": True}], [*TALK[:2], earlier, *TALK[3:]]]
    assert read([{"messages": talk} for talk in talks[:1]], notes=notes) == [Instruction(0, "Hi", "", "Hello!")]
    assert notes == []
    assert read([{"messages": talk} for talk in talks], notes=notes)[1].response == MEANT.response
    assert notes[:1] == ["keys of messages that are not used: 'weight'"]


def test_keys_that_hold_nought_or_false_are_named():
    notes = []
    read([{"messages": [{**ASK, "rank": 0, "checked": False, "tags": [], "name": ""}, REPLY]}], notes=notes)
    assert notes == ["keys of messages that are not used: 'rank', 'checked'"]


# Preferences.

BAD = {"role": "assistant", "content": "Go away."}
WISH = Preference(0, "Who are you?", "A program.\n", "Go away.", "System: Be brief.\nUser: Hi\nAssistant: Hello!")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": TALK[:-1], "chosen": [LAST], "rejected": [BAD]},
        {"prompt": TALK[:-1], "chosen": LAST["content"], "rejected": BAD["content"]},
        {"chosen": f"[ {json.dumps([*TALK])[1:]}", "rejected": json.dumps([*TALK[:-1], BAD], indent=2)},
        {"chosen": TALK, "rejected": [*TALK[:-1], BAD]},
        {"prompt": "Who are you?", "chosen": TALK, "rejected": [*TALK[:-1], BAD]},
        {"prompt": TALK[:-1], "chosen": TALK, "rejected": [*TALK[:-1], BAD]},
        {"prompt": TALK[:2], "chosen": TALK[2:], "rejected": [*TALK[2:-1], BAD]},
        {"conversations": sharegpt(TALK[:-1]), "chosen": sharegpt([LAST])[0], "rejected": sharegpt([BAD])[0]},
        {"messages": TALK[:-1], "chosen": [LAST], "rejected": [BAD], "score_chosen": 1.0},
        {"system": "Be brief.", "prompt": TALK[1:-1], "chosen": [LAST], "rejected": [BAD]},
    ],
    ids=str,
)
def test_both_answers_stand_behind_what_was_said_before(row):
    assert pairs([row]) == [WISH]


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": TALK, "rejected": [*TALK[:-1], BAD]},
        {"prompt": "Who are you?", "chosen": TALK, "rejected": [*TALK[:-1], BAD]},
        {"prompt": TALK[:-1], "chosen": [LAST], "rejected": [BAD]},
        {"chosen": [ASK, REPLY], "rejected": [ASK, BAD]},
    ],
    ids=str,
)
def test_a_prompt_inside_of_messages_is_the_one_that_trl_extracts(row):
    theirs = maybe_extract_prompt(copy.deepcopy(row))
    (found,) = pairs([row])
    assert [turn["content"] for turn in theirs["chosen"]] == [found.chosen]
    assert [turn["content"] for turn in theirs["rejected"]] == [found.rejected]
    said = [line.split(": ", 1)[1] for line in found.input.split("\n") if line]
    assert [turn["content"] for turn in theirs["prompt"]] == [*said, found.prompt]


@pytest.mark.parametrize(
    "answers", [("The sky is blue.", "The sky is green."), ("Name: Ann", "Name: Bob"), ("ab", "ac")]
)
def test_a_prompt_inside_of_texts_is_the_one_that_trl_extracts(answers):
    row = dict(zip(("chosen", "rejected"), answers, strict=True))
    theirs = maybe_extract_prompt(dict(row))
    assert pairs([row]) == [Preference(0, theirs["prompt"], theirs["chosen"], theirs["rejected"])]


def test_a_prompt_with_marked_turns_is_a_conversation_and_the_whole_last_turn_is_the_answer():
    before = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Who are you?\n\nAssistant:"
    row = {"chosen": f"{before} I am a program.", "rejected": f"{before} I am busy."}
    context = "User: Hi\nAssistant: Hello!"
    assert pairs([row]) == [Preference(0, "Who are you?", "I am a program.", "I am busy.", context)]


HH = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Who are you?\n\nAssistant:"
HH_CONTEXT = "User: Hi\nAssistant: Hello!"


@pytest.mark.parametrize(
    ("prompt", "start", "asked", "context"),
    [
        ("Why?", "Why? ", "Why?", ""),
        ("Why? ", "Why?\n\n", "Why? ", ""),
        ("Why?", "\n\nHuman: Why?\n\nAssistant: ", "Why?", ""),
        ("Why?", "Human: Why?\n\nAssistant: ", "Why?", ""),
        ("Who are you?", f"{HH} ", "Who are you?", HH_CONTEXT),
        (HH, f"{HH} ", "Who are you?", HH_CONTEXT),
        (HH, "", "Who are you?", HH_CONTEXT),
        ("Human: Why?\n\nAssistant:", "", "Why?", ""),
    ],
)
def test_answers_that_begin_with_the_prompt_of_a_column_are_read_without_it(prompt, start, asked, context):
    rows = [{"prompt": prompt, "chosen": f"{start}{one}", "rejected": f"{start}{two}"} for one, two in ("yn", "no")]
    notes = []
    found = PairArgs().task(None, NOWHERE).parts({"all": rows}, Skipped(), notes)["all"]
    assert found == [Preference(0, asked, "y", "n", context), Preference(1, asked, "n", "o", context)]
    said = "both answers of 2 rows begin with the prompt of column 'prompt'"
    assert any(said in note for note in notes) == bool(start)


@pytest.mark.parametrize("rest", [("Why? yes", "no"), ("Why?ever", "Why?ly"), ("yes", "no")])
def test_answers_are_as_they_stand_where_one_does_not_begin_with_the_prompt(rest):
    prompt = "Why" if "ever" in rest[0] else "Why?"
    row = {"prompt": prompt, "chosen": rest[0].replace("?e", "e"), "rejected": rest[1].replace("?l", "l")}
    assert pairs([row]) == [Preference(0, prompt, row["chosen"], row["rejected"])]
    both = {"prompt": prompt, "chosen": f"{prompt} a", "rejected": f"{prompt} b"}
    assert pairs([both, row])[0].chosen == f"{prompt} a"
    others = [{"prompt": f"{i} ", "chosen": f"{i} a", "rejected": f"{i} b"} for i in (7, 8)]
    found = pairs([both, *others, row])  # most of them do
    assert [e.chosen for e in found] == ["a", "a", "a", row["chosen"]] and found[3].rejected == row["rejected"]


def noted(task, rows):
    notes = []
    return task.task(None, NOWHERE).parts({"all": rows}, Skipped(), notes)["all"], notes


@pytest.mark.parametrize("prompt", ["q0", [{"role": "user", "content": "q0"}]], ids=["text", "messages"])
def test_a_question_that_the_completion_has_too_is_read_once_as_trls_conversion_leaves_it(prompt):
    question, good, bad = {"role": "user", "content": "q0"}, REPLY, BAD
    row = {"prompt": prompt, "chosen": [question, good], "rejected": [question, bad]}
    rows = unpair_preference_dataset(datasets.Dataset.from_list([row])).to_list()
    assert [made["completion"] for made in rows] == [[question, good], [question, bad]]
    found, _ = noted(RatingArgs(), rows)
    assert [(e.instruction, e.input, e.response) for e in found] == [
        ("q0", "", REPLY["content"]),
        ("q0", "", BAD["content"]),
    ]
    alone = read([{name: rows[0][name] for name in ("prompt", "completion")}])
    assert [(e.instruction, e.input, e.response) for e in alone] == [("q0", "", REPLY["content"])]


def test_texts_that_repeat_the_prompt_in_most_rows_are_read_without_it():
    rows = [{"prompt": f"Name {i}", "completion": f"Name {i}\nred"} for i in range(4)]
    found, notes = noted(PromptArgs(), [*rows, {"prompt": "Name 9", "completion": "blue"}])
    assert [e.response for e in found] == ["red"] * 4 + ["blue"]
    assert any("the answers of 4 rows begin with the prompt of column 'prompt'" in note for note in notes)
    found, notes = noted(PromptArgs(), [*rows[:1], *({"prompt": f"Say {i}", "completion": "x"} for i in range(2))])
    assert found[0].response == rows[0]["completion"] and not any("begin with the prompt" in note for note in notes)
    copied, _ = noted(PromptArgs(), [{"prompt": f"Echo {i}", "completion": f"Echo {i}"} for i in range(4)])
    assert [e.response for e in copied] == [f"Echo {i}" for i in range(4)]


def test_marked_turns_of_a_prompt_are_read_alike_for_preferences_ratings_and_instructions():
    row = {"prompt": HH, "chosen": " a program", "rejected": " no"}
    rated = [{"prompt": HH, "completion": row[name], "label": name == "chosen"} for name in ("chosen", "rejected")]
    (pair,) = pairs([row])
    found, notes = noted(RatingArgs(), rated)
    assert [(e.instruction, e.input, e.response) for e in found] == [
        (pair.prompt, pair.input, pair.chosen),
        (pair.prompt, pair.input, pair.rejected),
    ]
    assert "2 prompts are marked with Human: and Assistant:, and are read as conversations" in notes
    (alone,), _ = noted(PromptArgs(), [{"prompt": HH, "completion": " a program", "system": "Be brief."}])
    assert alone.input == f"System: Be brief.\n{HH_CONTEXT}"


def test_a_system_column_is_not_written_twice():
    said = {"system": "Be brief.", "prompt": [SYSTEM | {"content": "Be brief."}, AGAIN]}
    (pair,) = pairs([said | {"chosen": [LAST], "rejected": [BAD]}])
    (alone,), _ = noted(PromptArgs(), [said | {"completion": [LAST]}])
    assert pair.input == alone.input == "System: Be brief."


def test_a_prompt_that_the_conversations_of_the_answers_do_not_have_is_counted():
    talk = {"chosen": [ASK, REPLY], "rejected": [ASK, BAD]}
    rows = [talk | {"prompt": "Answer in French."}, talk | {"prompt": ASK["content"]}, talk | {"prompt": ""}]
    found, notes = noted(PairArgs(), rows)
    assert len({e.key for e in found}) == 1
    assert any(
        "answers of 1 rows are conversations in which the prompt of column 'prompt' does not" in n for n in notes
    )


def test_an_answer_in_text_goes_on_from_the_conversation_of_the_other():
    whole = pairs([{"chosen": [ASK, REPLY], "rejected": [ASK, BAD]}])
    for row in (
        {"chosen": [ASK, REPLY], "rejected": BAD["content"]},
        {"chosen": REPLY["content"], "rejected": [ASK, BAD]},
    ):
        assert pairs([row | {"prompt": ASK["content"]}]) == whole


@pytest.mark.parametrize(
    "rests",
    [
        (" hm\n\nHuman: more\n\nAssistant: yes", " no"),
        (" no", " hm\n\nHuman: more\n\nAssistant: yes"),
        (" hm\n\nHuman: a\n\nAssistant: yes", " hm\n\nHuman: b\n\nAssistant: yes"),
        (" hm\n\nHuman: a", " no"),
    ],
)
@pytest.mark.parametrize("apart", [{}, {"prompt": HH}])
def test_texts_that_part_before_the_last_answer_are_counted(rests, apart):
    skipped = Skipped()
    rows = [apart | {"chosen": HH + a, "rejected": HH + b} for a, b in (rests, (" yes", " no"))]
    assert [e.chosen for e in pairs(rows, skipped)] == ["yes"]
    assert skipped == Skipped(different_context=1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": [ASK, {**REPLY, "weight": 0}], "rejected": [ASK, BAD]}, "not_trained"),
        ({"chosen": [ASK, REPLY], "rejected": [AGAIN, BAD]}, "different_context"),
        ({"chosen": [ASK, REPLY, AGAIN], "rejected": [ASK, BAD]}, "different_context"),
        ({"chosen": [ASK, REPLY], "rejected": []}, "empty"),
        ({"chosen": [REPLY], "rejected": [BAD]}, "empty"),
        ({"prompt": "", "chosen": [REPLY], "rejected": [BAD]}, "empty"),
        ({"prompt": [ASK], "chosen": [{**REPLY, "tool_calls": [1]}], "rejected": [BAD]}, "tool_calls"),
    ],
    ids=str,
)
def test_a_pair_that_does_not_fit_is_counted_by_its_reason(row, reason):
    skipped = Skipped()
    assert pairs([row], skipped) == [] and skipped == Skipped(**{reason: 1})


@pytest.mark.parametrize(
    "row", [{"chosen": "yes", "rejected": "no"}, {"frage": "Ja?", "chosen": "a b", "rejected": "a c"}]
)
def test_answers_that_begin_with_no_prompt_need_a_column_of_prompts(row):
    with pytest.raises(ValueError, match="column 'prompt' is missing"):
        pairs([row])


def test_twice_the_same_answer_in_messages_is_refused():
    with pytest.raises(ValueError, match="the same in 1 rows"):
        pairs([{"chosen": [ASK, REPLY], "rejected": [ASK, REPLY]}])


def test_the_pairs_of_one_conversation_differ_from_those_of_another_with_the_same_last_question():
    rows = [{"prompt": [turn, REPLY, AGAIN], "chosen": [LAST], "rejected": [BAD]} for turn in (ASK, AGAIN)]
    first, second = pairs(rows)
    assert first.key != second.key and first.group != second.group and first.records()[0].input == first.input


# Runs.


def test_scripts_train_on_conversations_without_a_flag_for_columns(tiny_model, tmp_path):
    talks = [[SYSTEM, {"role": "user", "content": f"Count to {i}"}, REPLY, AGAIN, LAST] for i in range(40)]
    common = ["--model", tiny_model, "--max-steps", 1]
    write_rows(tmp_path / "talk.jsonl", [{"messages": talk} for talk in [*talks, [ASK]]])
    done = run_in_process("finetune_ift", "--data", tmp_path / "talk.jsonl", *common, "--output-dir", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert "left out: 1 unlabelled" in done.stdout
    rows = [{"chosen": talk, "rejected": [*talk[:-1], BAD]} for talk in talks]
    write_rows(tmp_path / "wish.jsonl", rows)
    done = run_in_process("finetune_dpo", "--data", tmp_path / "wish.jsonl", *common, "--output-dir", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    line = json.loads((tmp_path / "a" / "generations.jsonl").read_text().splitlines()[0])
    assert line["instruction"] == "Who are you?" and line["reference"] == "A program.\n"
    assert line["input"].startswith("System: Be brief.\nUser: Count to ")
