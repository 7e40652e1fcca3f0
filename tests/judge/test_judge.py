"""The parts of the judge, each against a closed form, another implementation, or a simulation with a known truth."""

import asyncio
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, write_rows
from scipy import stats

from judge import measures
from judge.asking import WINDOW, Pace
from judge.generations import read_generations, same_questions
from judge.measures import agreement, rank_correlation, variance_components
from judge.outcome import compared, counts, preference, scored, tokens_of
from judge.prompts import CHOICE_SCHEMA, SCORE_SCHEMA, choice_prompt, score_prompt
from judge.questions import Question, choice_questions, left_of, score_questions
from judge.store import KEY, Store, other_settings, read_replies
from judge.verdicts import Reply, read_choice, read_score
from tasks import Instruction

OPENING = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
SETTINGS = {"judge_url": None, "judge_output": "schema"}


def generation(id, response="the cat", reference="the cat sat", **more):
    row = {"id": id, "instruction": f"Say {id}", "input": "", "reference": reference, "kind": "say"}
    return row | {"before": "base", "response": response, "stopped": True} | more


def generations(tmp_path, rows, text="response"):
    return read_generations(write_rows(tmp_path / "generations.jsonl", rows), text, "--generations")


# Prompts.


def test_the_published_prompt_is_word_for_word_that_of_appendix_5_2():
    entry = Instruction(0, "Add the numbers.", "1 and 2", "3")
    assert score_prompt(entry, "It is 3.", "published") == (
        f"Given the input {OPENING}\n\n### Instruction:\nAdd the numbers.\n\n### Input:\n1 and 2 and correct output 3, "
        "score the model response It is 3. on a scale from 0 to 100, where 100 is the best score. Respond with the "
        "integer number only."
    )


def test_the_authors_prompt_has_back_ticks_around_the_three_texts():
    entry = Instruction(0, "Name a bird.", "", "A robin.")
    assert score_prompt(entry, "A cat.", "authors") == (
        f"Given the input `{OPENING}\n\n### Instruction:\nName a bird.` and correct output `A robin.`, score the model "
        "response `A cat.` on a scale from 0 to 100, where 100 is the best score. Respond with the integer number only."
    )


def test_both_answers_of_a_pair_stand_in_the_order_given():
    entry = Instruction(0, "Name a bird.", "", "A robin.")
    text = choice_prompt(entry, "one", "two", "authors")
    assert "response A `one` with the model response B `two`" in text and "`A robin.`" in text
    assert text != choice_prompt(entry, "two", "one", "authors")


def test_braces_in_an_answer_stay_as_they_are():
    assert "{m} {0} {{x}}" in score_prompt(Instruction(0, "a", "", "b"), "{m} {0} {{x}}", "published")


# Replies.

# Reply -> what it says: 85 where that is the only thing that it can mean.
FOR_85 = (
    *("85", " 85\n", "85.0", "85.", "085", "85%", "85/100", "85 / 100", "85 out of 100", "85 points", '"85"', "[85]"),
    *('{"score": 85}', '\n{ "score" : 85 }\n', '{"Score": 85.0}', '{"SCORE": "85"}', '{"score": "85/100"}'),
    *('{"score": 85, "why": "good"}', '{"rating": 85}', '```json\n{"score": 85}\n```', "```\n85\n```", "~~~\n85\n~~~"),
    *('Here it is: {"score": 85}. Good.', 'Sure!\n\n```json\n{"score": 85}\n```\nAnything else?'),
    *("Score: 85", "**Score:** 85", "**Score: 85/100**", "# Score\n\n85", "The score is 85.", "Final score = 85"),
    *("Rating: 85", "Score: 85 (out of 100)", "Score (0-100): 85", "Score:85 for 3 facts of 4"),
    *("85/100. 3 facts of 4.", "\\boxed{85}", "85\nSo: 85\n85/100"),
    *("It has 3 facts of 4.\n\n85", "85\n\nIt has 3 facts of 4.", "1. correct\n2. fluent\n\n85"),
    *("<think>\nPerhaps 40?\n</think>\n\n85", "perhaps 40\n</think>\n85", "<thinking>1</thinking>{\"score\": 85}"),
    *("<think>40</think><think>50</think>85", "<reasoning>Score: 5</reasoning>Score: 85"),
)  # fmt: skip
OTHER_SCORES = [
    (" 0\n", 0),
    ("100", 100),
    ("8", 8),
    ("8/10", 80),
    ("Score: 8 out of 10", 80),
    ("Score: 8 (out of 10)", 80),
    ("8.5/10", 85),
    ('{"score": 72.5}', 72.5),
    ("101", "out of range"),
    ("-1", "out of range"),
    ("Score: 850", "out of range"),
    ('{"score": 500}', "out of range"),
    ("11/10", "out of range"),
    ("85\n90", "ambiguous"),
    ("Score: 85\nScore: 90", "ambiguous"),
    ('{"score": 85} {"score": 90}', "ambiguous"),
    ("Score: 8 points", 8),
    ("Score: 8points", 8),
    ("Score: 8out of 10 for style", 80),
    ("", "empty"),
    (" \n", "empty"),
]
PROSE_REPLIES = (
    *("I would say 85", "75 out of 100, had it been complete", "It gets 7 out of 10 facts right"),
    *("80-90", "Score: 80-90", "Score: 80 to 90", "between 80 and 90", "80 \u2013 90", "Score: 85 or 90", "85,5"),
    *("Score: 4/5", "A perfect score is 100.", "The maximum score is 100.", "Score: 8,5", "1,000", "eighty-five"),
    *("true", '{"score": true}', '{"score": null}', '{"score": [85]}', "\u0668\u0665"),
    *("Score: 1e2", "Score: 8k", "Score: 5th of all"),
    *("9" * 5_000, "<think>85", "<think>85</think>", "Grade: B"),
)  # fmt: skip


@pytest.mark.parametrize("text", FOR_85, ids=lambda text: repr(text)[:30])
def test_a_score_is_read_where_the_reply_can_mean_nothing_else(text):
    assert read_score(Reply(text)) == (85, None)


@pytest.mark.parametrize(("text", "expected"), OTHER_SCORES, ids=lambda value: repr(value)[:20])
def test_a_score_is_on_the_scale_of_100_or_counted_with_its_reason(text, expected):
    value, missing = read_score(Reply(text))
    assert (missing if value is None else value) == expected
    assert (value is None) == (missing is not None)


@pytest.mark.parametrize("text", PROSE_REPLIES, ids=lambda text: repr(text)[:30])
def test_a_number_that_has_to_be_looked_for_is_no_score(text):
    assert read_score(Reply(text)) == (None, "prose")


@pytest.mark.parametrize("read", [read_score, read_choice])
@pytest.mark.parametrize("end", ["blocked", "cut off"])
def test_what_is_left_of_a_reply_that_did_not_end_is_not_read(read, end):
    for text in ("10", "A", ""):
        assert read(Reply(text, end)) == (None, end)


CUT_SHORT = (
    *('{"score": 8', '{"score": "8', '{"why": "good", "score": 8', '```json\n{\n  "score": 8', '{"score": 85, "w'),
    *("Score: 8 {", "\\boxed{8", "[8", '"8', '{"score": 85} {"score": 8', "[" * 100_000, "{" * 50_000, '{"winner": "A'),
)  # fmt: skip


@pytest.mark.parametrize("text", CUT_SHORT, ids=lambda text: repr(text)[:30])
def test_json_that_breaks_off_holds_no_verdict_whatever_the_server_says_of_the_end(text):
    assert read_score(Reply(text)) == read_choice(Reply(text)) == (None, "cut off")


@pytest.mark.parametrize("text", ['{"why": "a { is missing", "score": 85}', '{"why": "a \\"{\\"", "score": 85}'])
def test_a_bracket_in_a_string_of_json_is_none_that_stays_open(text):
    assert read_score(Reply(text)) == (85, None)


CHOICES = {
    "A": (
        "A",
        "A.",
        "a",
        "**A**",
        "A is better",
        "Response A",
        "Winner: A",
        '{"winner": "A"}',
        '{"Winner": "Response A"}',
    ),
    "B": (
        "B\n",
        "Response B is better.",
        "The better response is B",
        "<think>A?</think>B",
        '```json\n{"winner": "B"}\n```',
    ),
    "tie": ("tie", "Tie", "It is a tie.", "Answer: tie", '{"winner": "tie"}'),
    "ambiguous": ("A\nB", '{"winner": "A"} {"winner": "tie"}'),
    "empty": ("",),
    "prose": (
        "C",
        "AB",
        '{"winner": 1}',
        '{"A": 1}',
        "3",
        "I think A",
        "Response A is not better.",
        "A or B",
        "A, B or tie",
    ),
}


@pytest.mark.parametrize("expected", CHOICES)
def test_a_choice_is_read_where_the_reply_can_mean_nothing_else(expected):
    for text in CHOICES[expected]:
        value, missing = read_choice(Reply(text))
        assert (missing if value is None else value) == expected, text


def test_the_schemas_ask_for_what_is_read():
    assert read_score(Reply(json.dumps(dict.fromkeys(SCORE_SCHEMA["required"], 5)))).value == 5
    for word in CHOICE_SCHEMA["properties"]["winner"]["enum"]:
        assert read_choice(Reply(json.dumps(dict.fromkeys(CHOICE_SCHEMA["required"], word)))).value == word


# Generations.


def test_a_run_folder_and_its_file_are_read_alike(tmp_path):
    rows = [generation(3, reference_loss=6.0, reference_tokens=3), generation("x", input="about", stopped=False)]
    found = generations(tmp_path, rows)
    assert found == read_generations(tmp_path, "response", "--generations")
    assert found[0] == (Instruction(3, "Say 3", "", "the cat sat", "say"), "the cat", True, 6.0, 3)
    assert found[1].question.input == "about" and found[1].stopped is False and found[1].reference_loss is None


def test_what_is_known_of_the_fine_tuned_model_is_not_said_of_its_base(tmp_path):
    (found,) = generations(tmp_path, [generation(0, reference_loss=6.0, reference_tokens=3)], "before")
    assert found.answer == "base" and found[2:] == (None, None, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 0}], "line 1: has no text in 'instruction'"),
        ([generation(0), generation(0)], "line 2: id 0 is there twice"),
        ([generation(1), generation("1")], "line 2: id '1' is there twice .as a number and as text"),
        ([generation(0), generation(1, reference=" ")], "line 2: its 'reference' is empty"),
        ([generation(0, response=None)], "line 1: has no text in 'response'"),
        ([generation(1.5)], "line 1: has no 'id'"),
        ([generation(0, response="\ud800")], "line 1: .*surrogates"),
        ([generation(0, input="\ud800")], "line 1: .*surrogates"),
        ([generation("\ud800")], "line 1: .*surrogates"),
        ([generation(0, input=["x"])], "line 1: has no text in 'input'"),
        ([generation(0, reference_loss="3")], "line 1: 'reference_loss' is '3', not a number"),
        ([generation(0, reference_loss=math.nan)], "line 1: 'reference_loss' is nan, not a number"),
        ([generation(0, reference_tokens=True)], "line 1: 'reference_tokens' is True, not a number"),
        ([generation(0, stopped="yes")], "line 1: 'stopped' is 'yes', not true or false"),
        ([[1]], "line 1: is not a record"),
        ([], "holds no answer"),
        ([{"id": 1, "instruction": "a", "reference": "b", "reference_loss": 1.0}], "holds no answer .was the run"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_wrong_is_refused_with_flag_and_line(rows, message, tmp_path):
    with pytest.raises(ValueError, match=f"--generations .*{message}"):
        generations(tmp_path, rows)


def test_a_mark_before_the_text_is_no_part_of_it(tmp_path):
    path = write_rows(tmp_path / "generations.jsonl", [generation(0)])
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_generations(path, "response", "--generations")[0].question.id == 0


def test_a_file_that_is_no_json_or_not_there_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 0\n')
    with pytest.raises(ValueError, match="line 1"):
        read_generations(tmp_path / "a.jsonl", "response", "--generations")
    (tmp_path / "b.jsonl").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_generations(tmp_path / "b.jsonl", "response", "--generations")
    for absent in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="there is no"):
            read_generations(absent, "response", "--against")


def test_runs_are_compared_on_the_same_questions_only(tmp_path):
    ours = generations(tmp_path, [generation(0), generation(1)])
    others = generations(tmp_path, [generation(1, response="b"), generation(0, response="a")])
    assert [one.answer for one in same_questions(ours, others, tmp_path)] == ["a", "b"]
    for rows in ([generation(0)], [generation(0), generation(1, input="x")], [generation(i) for i in range(3)]):
        with pytest.raises(ValueError, match=r"--against .* answers other questions \(1 of"):
            same_questions(ours, generations(tmp_path, rows), tmp_path)


# Pace, in a time that is only counted.


class Clock:
    def __init__(self):
        self.now = 0.0

    async def sleep(self, seconds):
        self.now += seconds
        return False


def sent(requests, tokens, sizes, gaps=None):
    """When each request of so many tokens is sent."""
    clock = Clock()

    async def go():
        pace, times = Pace(requests, tokens, clock.sleep, lambda: clock.now), []
        for size, gap in zip(sizes, gaps or [0.0] * len(sizes), strict=True):
            clock.now += gap
            assert await pace.wait(size)
            times.append(clock.now)
        return times

    return asyncio.run(go())


@pytest.mark.parametrize("largest", [60, 150, 400])
def test_no_minute_has_more_requests_or_tokens_than_allowed(largest):
    rng = np.random.default_rng(largest)
    sizes, gaps = rng.integers(1, largest, 200), rng.exponential(2.0, 200).tolist()
    times = np.array(sent(10, 1000, sizes.tolist(), gaps))
    for start in times:
        minute = (times >= start) & (times < start + 60)
        assert minute.sum() <= 10 and sizes[minute].sum() <= 1000


def test_a_request_is_not_held_longer_than_needed():
    assert sent(None, None, [10_000] * 50) == [0.0] * 50
    assert sent(3, None, [1] * 7) == [0, 0, 0, WINDOW, WINDOW, WINDOW, 2 * WINDOW]
    assert sent(None, 100, [60, 40, 1, 99, 1]) == [0, 0, WINDOW, WINDOW, 2 * WINDOW]


def test_a_request_above_the_limit_is_sent_alone():
    assert sent(None, 100, [50, 500, 50]) == [0, WINDOW, 2 * WINDOW]


def test_when_one_request_is_told_to_wait_all_wait():
    clock = Clock()

    async def go():
        pace = Pace(None, None, clock.sleep, lambda: clock.now)
        pace.close_for(7)
        pace.close_for(3)
        assert await pace.wait(1)
        return clock.now

    assert asyncio.run(go()) == 7


def test_nothing_is_sent_after_everything_was_told_to_stop():
    async def woken(seconds):
        return True

    async def go():
        pace = Pace(1, None, woken, lambda: 0.0)
        return await pace.wait(1), await pace.wait(1), len(pace.sent)

    assert asyncio.run(go()) == (True, False, 1)


# The file of replies.


def reply(item, value=50, missing=None, order="", repeat=0, prompt="p", **more):
    key = Question(item, repeat, order, prompt).key("m")
    return dict(zip(KEY, key, strict=True)) | {"value": value, "missing": missing, "settings": SETTINGS} | more


def test_what_was_added_is_there_when_the_file_is_opened_again(tmp_path):
    store = Store(tmp_path / "deep" / "replies.jsonl")
    for item in (0, "0", 1):
        store.add(reply(item, text="é\n{"))
    store.close()
    again = Store(tmp_path / "deep" / "replies.jsonl")
    assert len(again.replies) == 3 and again.replies == store.replies
    again.close()


def test_a_reply_with_half_a_character_is_kept_and_reads_back_the_same(tmp_path):
    store = Store(tmp_path / "replies.jsonl")
    store.add(reply(0, text="85\n\ud83d"))
    store.add(reply(1, text="caf\u00e9"))
    store.close()
    assert read_replies(store.path)[0] == store.replies and len(store.replies) == 2


def test_every_torn_last_line_is_dropped_and_the_next_reply_takes_its_place(tmp_path):
    path = tmp_path / "replies.jsonl"
    whole = "".join(json.dumps(reply(item)) + "\n" for item in range(2)).encode()
    last = json.dumps(reply(2)).encode()
    for length in range(0, len(last) + 1, 7):
        path.write_bytes(whole + last[:length])
        store = Store(path)
        assert len(store.replies) == 2
        store.add(reply(3))
        store.close()
        assert [json.loads(line)["item"] for line in path.read_text().splitlines()] == [0, 1, 3]


def test_a_reply_counts_when_it_is_on_the_disk_and_not_before(tmp_path, monkeypatch):
    """A loss of power cannot be had in a test, so the call that survives one is looked for."""
    synced, store = [], Store(tmp_path / "replies.jsonl")
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((tmp_path / "replies.jsonl").read_bytes().count(b"\n")))
    for item in range(3):
        store.add(reply(item))
        assert synced == list(range(1, item + 2))
    store.close()


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"item": 0}', json.dumps(reply(0) | {"settings": None})])
def test_a_damaged_line_before_the_last_is_refused_and_nothing_is_changed(line, tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text(f"{json.dumps(reply(0))}\n{line}\n{json.dumps(reply(1))}\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="line 2 is not a reply"):
        Store(path)
    assert path.read_bytes() == before


def test_two_processes_never_ask_for_the_same_file(tmp_path):
    store = Store(tmp_path / "replies.jsonl")
    with pytest.raises(ValueError, match="another process"):
        Store(tmp_path / "replies.jsonl")
    store.close()
    Store(tmp_path / "replies.jsonl").close()


def test_a_full_disk_leaves_whole_lines_only(tmp_path):
    code = """
import pathlib, resource, sys
from judge.store import KEY, Store
path = pathlib.Path(sys.argv[1]) / "replies.jsonl"
line = dict.fromkeys(KEY, 0) | {"value": 1, "missing": None, "settings": {}, "text": "x" * 300}
store = Store(path)
store.add(line)
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + size // 2, size + size // 2))
try:
    store.add(line | {"item": 1})
except OSError as error:
    print("the same command" in str(error), path.stat().st_size == size, len(store.replies))
"""
    words = [sys.executable, "-c", code, tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.split() == ["True", "True", "1"], done.stderr


def test_replies_that_were_asked_for_otherwise_are_told_by_their_flag():
    replies = [reply(0), reply(1)]
    assert other_settings(replies, SETTINGS) == []
    (problem,) = other_settings(replies, SETTINGS | {"judge_output": "text"})
    assert "--judge-output text" in problem and "schema" in problem and "--output-dir" in problem


# Questions and outcomes.


def test_a_question_is_known_by_item_repeat_order_prompt_and_model():
    question = Question(0, 0, "", "p")
    others = [Question("0", 0, "", "p"), Question(0, 1, "", "p"), Question(0, 0, "ours", "p"), Question(0, 0, "", "q")]
    keys = {one.key("m") for one in (question, *others)} | {question.key("n")}
    assert len(keys) == 6
    assert left_of([question, *others], "m", {question.key("m"): None}) == others


def test_each_item_is_asked_once_before_any_is_asked_again(tmp_path):
    ours = generations(tmp_path, [generation(0), generation(1)])
    asked = score_questions(ours, "published", 2)
    assert [(one.item, one.repeat) for one in asked] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    pairs = choice_questions(ours, ours, "published", 1)
    assert [(one.item, one.order) for one in pairs] == [(0, "ours"), (0, "theirs"), (1, "ours"), (1, "theirs")]


def test_positions_are_swapped_in_the_second_order(tmp_path):
    ours = generations(tmp_path, [generation(0, response="mine")])
    theirs = generations(tmp_path, [generation(0, response="yours")])
    first, second = choice_questions(ours, theirs, "authors", 1)
    assert first.prompt.index("`mine`") < first.prompt.index("`yours`")
    assert second.prompt.index("`yours`") < second.prompt.index("`mine`")


def by_key(replies):
    return {tuple(one[name] for name in KEY): one for one in replies}


def test_whatever_came_back_every_question_is_counted_once():
    questions = [Question(i, 0, "", "p") for i in range(8)]
    why = [None, None, "prose", "empty", "prose", "blocked", "cut off"]
    replies = by_key([reply(i, None if w else 50, w) for i, w in enumerate(why)])
    found = counts(questions, "m", replies)
    assert found == {
        "asked": 8,
        "parsed": 2,
        "unparsed": 4,
        "why_unparsed": {"cut off": 1, "empty": 1, "prose": 2},
        "blocked": 1,
        "failed": 1,
    }
    assert found["asked"] == sum(found[name] for name in ("parsed", "unparsed", "blocked", "failed"))


def test_the_score_is_the_mean_over_items_and_says_what_the_missing_could_do_to_it():
    questions = [Question(i, repeat, "", "p") for repeat in range(2) for i in range(4)]
    values = {(0, 0): 10, (0, 1): 30, (1, 0): 50, (1, 1): None, (2, 0): 80, (2, 1): 80}  # item 3 has none
    replies = by_key([reply(i, v, None if v is not None else "prose", repeat=r) for (i, r), v in values.items()])
    found, items = scored(range(4), questions, "m", replies)
    assert items[:3].tolist() == [20, 50, 80] and math.isnan(items[3])
    assert found["scores"] == {"0": 20, "1": 50, "2": 80}
    assert found["items"] == 4 and found["score"]["value"] == 50 and found["score"]["n"] == 3
    assert found["if_missing"] == {"low": 150 / 4, "high": 250 / 4}
    assert found["variance"]["scores"] == 5
    nothing, items = scored(range(4), questions, "m", {})
    assert nothing == {"items": 4, "scores": {}} and np.isnan(items).all()


@pytest.mark.parametrize(
    ("ours_first", "theirs_first", "expected"),
    [("A", "B", 1.0), ("B", "A", 0.0), ("A", "A", 0.5), ("B", "B", 0.5), ("tie", "B", 0.5), ("A", "tie", 0.5)]
    + [("tie", "tie", 0.5), ("tie", "A", 0.5), (None, "A", None), ("A", None, None), (None, None, None)],
)
def test_an_answer_wins_only_where_both_orders_say_so(ours_first, theirs_first, expected):
    verdicts = {"ours": ours_first, "theirs": theirs_first}
    assert preference({order: one for order, one in verdicts.items() if one is not None}) == expected


def test_a_judge_that_always_takes_the_first_answer_says_nothing_about_the_runs():
    questions = [Question(i, 0, order, "p") for i in range(20) for order in ("ours", "theirs")]
    found, items = compared(range(20), questions, "m", by_key([reply(q.item, "A", order=q.order) for q in questions]))
    assert found["win_rate"]["value"] == 0.5 and found["first_position"] == 1.0 and found["ties"] == 20
    assert items.tolist() == [0.5] * 20


def test_the_win_rate_counts_ties_half_and_leaves_out_pairs_with_one_verdict():
    verdicts = {0: ("A", "B"), 1: ("A", "B"), 2: ("B", "A"), 3: ("tie", "tie"), 4: ("A", None)}
    questions = [Question(i, 0, order, "p") for i in verdicts for order in ("ours", "theirs")]
    replies = [
        reply(i, one, None if one else "prose", order=order)
        for i, pair in verdicts.items()
        for order, one in zip(("ours", "theirs"), pair, strict=True)
    ]
    found, items = compared(list(verdicts), questions, "m", by_key(replies))
    assert (found["wins"], found["ties"], found["losses"], found["items"]) == (2, 1, 1, 5)
    assert found["win_rate"]["value"] == 2.5 / 4 and found["win_rate"]["n"] == 4
    assert found["win_rate"]["low"] < 2.5 / 4 < found["win_rate"]["high"]
    assert found["first_position"] == 4 / 7 and math.isnan(items[4])


def test_tokens_that_no_server_told_are_absent_and_not_0():
    questions = [Question(0, 0, "", "p"), Question(1, 0, "", "p")]
    told = by_key([reply(0, prompt_tokens=10, reply_tokens=None), reply(1, prompt_tokens=5, reply_tokens=2)])
    assert tokens_of(questions, "m", told) == {"prompts": 15, "replies": 2}
    assert tokens_of(questions, "m", by_key([reply(0), reply(1)])) is None


# Measures without a judge.


def longest_common_subsequence(a, b):
    best = {}
    for i in range(len(a) + 1):
        for j in range(len(b) + 1):
            if i == 0 or j == 0:
                best[i, j] = 0
            else:
                same = a[i - 1] == b[j - 1]
                best[i, j] = best[i - 1, j - 1] + 1 if same else max(best[i - 1, j], best[i, j - 1])
    return best[len(a), len(b)]


def test_rouge_l_is_the_f_of_the_longest_common_subsequence_of_words():
    rouge_l, _ = measures.overlap_scorers()
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (rng.choice(list("abcde"), rng.integers(1, 12)).tolist() for _ in range(2))
        common = longest_common_subsequence(a, b)
        expected = 2 * common / (len(a) + len(b))
        assert rouge_l(" ".join(a).upper(), " ".join(b)) == pytest.approx(expected)


def chrf_by_hand(answer, reference):
    """Popovic (2015), equation 1, beta 2: precision and recall averaged over the orders both texts have, no spaces."""
    a, b, precisions, recalls = answer.replace(" ", ""), reference.replace(" ", ""), [], []
    for n in range(1, 7):
        grams = [[text[i : i + n] for i in range(len(text) - n + 1)] for text in (a, b)]
        if grams[0] and grams[1]:
            common = sum(min(grams[0].count(g), grams[1].count(g)) for g in set(grams[0]))
            precisions.append(common / len(grams[0]))
            recalls.append(common / len(grams[1]))
    p, r = (sum(part) / len(part) for part in (precisions, recalls))
    return 100 * 5 * p * r / (4 * p + r) if p + r else 0.0


@pytest.mark.parametrize("answer", ["the cat sat on the mat", "a cat was on a mat", "dogs", "the the the cat"])
def test_chrf_is_popovics(answer):
    _, chrf = measures.overlap_scorers()
    reference = "the cat sat on the mat"
    assert chrf(answer, reference) == pytest.approx(chrf_by_hand(answer, reference), abs=0.01)


def test_formats_lengths_and_repetitions_are_counted_as_said():
    assert measures.exact_match(" a  b\n", "a b") == 1 and measures.exact_match("A b", "a b") == 0
    assert measures.length_ratio("one two three", "one two") == 1.5 and measures.length_ratio("", "a") == 0
    assert measures.repetition("a b c d") == 0 == measures.repetition("a b")
    assert measures.repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert measures.repetition("no " * 23) == pytest.approx(19 / 20)
    assert measures.repeats_prompt("Sure. NAME  a bird: robin", "Name a bird") == 1
    assert measures.repeats_prompt("a bird", "Name a bird") == 0


def test_every_header_of_a_prompt_is_known():
    prompt = Instruction(0, "a", "b").prompt()
    assert all(header in prompt for header in measures.HEADERS)
    assert prompt.count("###") == len(measures.HEADERS)
    assert measures.contains_header("x\n### Response:\ny") == 1 and measures.contains_header("### x") == 0


def test_each_measure_has_value_interval_and_n_and_what_nobody_has_is_absent(tmp_path):
    rows = [generation(i, reference_loss=2.0 * (i + 1), reference_tokens=i + 1) for i in range(3)] + [generation(3)]
    ours = generations(tmp_path, rows)
    found = measures.summarise(ours, measures.measure(ours))
    assert all(set(metric) == {"value", "low", "high", "n"} for metric in found.values())
    assert found["reference_perplexity"] == pytest.approx(dict.fromkeys(("value", "low", "high"), math.e**2) | {"n": 3})
    assert found["ended"]["value"] == 1 and found["ended"]["n"] == 4
    before = measures.measure(generations(tmp_path, rows, "before"))
    assert set(found) - set(before) == {"ended", "reference_perplexity"}


def test_perplexity_is_over_tokens_not_over_answers(tmp_path):
    rows = [
        generation(0, reference_loss=1.0, reference_tokens=1),
        generation(1, reference_loss=30.0, reference_tokens=9),
    ]
    found = measures.reference_perplexity(generations(tmp_path, rows))
    assert found["value"] == pytest.approx(math.exp(31 / 10)) and found["low"] < found["value"] < found["high"]


# Agreement and noise.


def test_rank_correlation_is_scipys_over_the_items_that_both_have():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5, 40).astype(float)
    b = a + rng.normal(size=40)
    b[:3] = np.nan
    found = rank_correlation(a, b)
    assert found["value"] == pytest.approx(stats.spearmanr(a[3:], b[3:]).statistic) and found["n"] == 37
    assert found["low"] < found["value"] < found["high"]


@pytest.mark.parametrize("r", [0.0, 0.6, 0.9])
def test_the_interval_of_a_rank_correlation_covers_the_truth_about_95_times_in_100(r):
    rng, covered = np.random.default_rng(1), 0
    truth = 6 / math.pi * math.asin(r / 2)  # Pearson (1907), for a normal pair
    for _ in range(1000):
        a, b = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], 60).T
        found = rank_correlation(a, b)
        covered += found["low"] <= truth <= found["high"]
    assert 0.93 <= covered / 1000 <= 0.97


def test_what_does_not_vary_or_has_few_items_has_no_correlation():
    scores = np.arange(10.0)
    columns = {"constant": np.ones(10), "up": scores, "few": np.where(scores < 3, scores, np.nan)}
    found = agreement(columns, scores)
    assert set(found) == {"up"} and found["up"]["value"] == pytest.approx(1)


def test_ranks_that_are_all_the_same_have_no_interval_of_no_width():
    assert set(rank_correlation(np.arange(5.0), np.arange(5.0) * 3 + 1)) == {"value", "n"}
    assert set(rank_correlation(np.arange(5.0), -np.arange(5.0))) == {"value", "n"}


def test_variance_components_are_those_of_the_analysis_of_variance():
    found = variance_components([[1, 3], [5, 7]])  # between 16, within 2, k0 2
    assert (found["items"], found["judge"], found["n"], found["scores"]) == (7, 2, 2, 4)
    assert found["reliability"] == pytest.approx(7 / 8)
    one_way = stats.f_oneway([1, 3], [5, 7]).statistic
    assert one_way == pytest.approx(16 / 2)


@pytest.mark.parametrize("unequal", [False, True])
def test_variance_components_find_the_truth_of_simulated_scores(unequal):
    rng, found = np.random.default_rng(2), []
    for _ in range(60):
        items = rng.normal(50, 20, 100)
        sizes = rng.integers(1, 5, 100) if unequal else [3] * 100
        found.append(variance_components([rng.normal(item, 5, k) for item, k in zip(items, sizes, strict=True)]))
    assert np.mean([one["items"] for one in found]) == pytest.approx(400, rel=0.06)
    assert np.mean([one["judge"] for one in found]) == pytest.approx(25, rel=0.06)


def test_pure_noise_leaves_nothing_to_the_items_and_one_score_an_item_says_nothing():
    assert variance_components([[0, 10], [10, 0], [5, 5]])["items"] == 0
    assert variance_components([[1], [2], [3]]) is None
    assert variance_components([[1, 2], []]) is None


def test_a_file_that_is_not_there_has_no_replies(tmp_path):
    assert read_replies(tmp_path / "replies.jsonl") == ({}, 0)
