"""What a study asks: of which kind its data is, how it is split, which arms there are."""

import json
import re
from dataclasses import replace

import pytest
from helpers import ROOT, write_rows

from evidence.racing import Trial
from studies.arms import arms_of
from studies.question import Asked, ask, asks_for_classes, check_folder, held
from studies.runs import WATCHED, Recipe
from training.flags.common import DataArgs, ModelArgs
from training.flags.compute import SpeedArgs
from training.flags.scripts import load_script
from training.flags.task import PromptArgs, TextArgs

MIDDLES = {"full": 1e-4, "lora": 1e-3, "head": 1e-2, "bitfit": 1e-3, "dora": 1e-3}


def asked(data, model, text=None, arms=("full", "lora"), **limits):
    text = text or TextArgs(("text",), "label")
    return Asked(DataArgs(data=data, **limits), ModelArgs(str(model)), text, PromptArgs(), SpeedArgs(), arms, (4, 2), 8)


@pytest.mark.parametrize(
    ("data", "text", "prompt", "classes"),
    [
        (DataArgs(dataset="enron"), TextArgs(), PromptArgs(), True),
        (DataArgs(dataset="alpaca"), TextArgs(), PromptArgs(), False),
        (DataArgs(), TextArgs(label_column="topic"), PromptArgs(), True),
        (DataArgs(), TextArgs(), PromptArgs(response_column="answer"), False),
    ],
)
def test_data_or_columns_say_whether_there_are_classes(data, text, prompt, classes):
    assert asks_for_classes(data, text, prompt) is classes


@pytest.mark.parametrize(
    ("data", "text", "prompt", "said"),
    [
        (DataArgs(), TextArgs(), PromptArgs(), "--data: name its columns"),
        (DataArgs(), TextArgs(("a",)), PromptArgs("b"), "--text-column is of classes, --prompt-column of instructions"),
        (DataArgs(dataset="enron"), TextArgs(), PromptArgs("b"), "--prompt-column: --dataset enron has classes"),
        (DataArgs(dataset="alpaca"), TextArgs(("a",)), PromptArgs(), "--dataset alpaca has instructions"),
    ],
)
def test_what_does_not_say_so_is_refused(data, text, prompt, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        asks_for_classes(data, text, prompt)


def test_little_data_tests_a_quarter_and_each_seed_draws_four_fifths_of_the_rest(tiny_model, mail_file):
    question = ask(asked(mail_file, tiny_model))
    rows = {name: len(part) for name, part in question.splits.named().items()}
    total = sum(rows.values())
    assert rows["test"] >= total / 4 and rows["validation"] == round(total / 5)
    assert question.train == round(0.8 * rows["train"])
    assert question.updates == 200


def test_shares_and_sizes_that_the_user_gives_are_used(tiny_model, mail_file):
    question = ask(asked(mail_file, tiny_model, test_share=0.5, validation_share=0.1, train_examples=10))
    rows = {name: len(part) for name, part in question.splits.named().items()}
    assert rows["test"] == round(sum(rows.values()) / 2) and question.train == 10


def test_a_share_of_a_part_that_the_data_has_is_noted_and_a_column_may_begin_with_a_dash(tiny_model, tmp_path):
    for name, count in (("train", 40), ("test", 20)):
        rows = [{"text": f"{name} {i}", "-x": "ab"[i % 2]} for i in range(count)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    question = ask(asked(tmp_path, tiny_model, TextArgs(("text",), "-x"), test_share=0.4))
    assert "--test-share 0.4 is not used, since the data has a test part" in question.splits.notes
    assert "--label-column=-x" in question.words


def of_prompts(tmp_path, model, prompts, answers, **limits):
    rows = [{"q": f"question {i}", "a": f"answer {i} {j}"} for i in range(prompts) for j in range(answers)]
    data = DataArgs(data=write_rows(tmp_path / "rows.jsonl", rows), **limits)
    return Asked(data, ModelArgs(str(model)), TextArgs(), PromptArgs("q", "", "a"), SpeedArgs(), ("full",), (4,), 8)


def test_many_answers_to_few_prompts_are_split_by_the_shares_of_the_study(tiny_model, tmp_path):
    rows = {n: len(part) for n, part in ask(of_prompts(tmp_path, tiny_model, 4, 20)).splits.named().items()}
    assert rows == {"train": 40, "validation": 20, "test": 20}


def test_too_few_prompts_for_three_parts_are_counted_in_the_refusal(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="the file has 2 prompts") as refusal:
        ask(of_prompts(tmp_path, tiny_model, 2, 40))
    assert "larger share" not in str(refusal.value) and len(str(refusal.value)) <= 300


def test_arms_are_named_after_what_they_train_and_lora_has_one_for_each_rank():
    arms = arms_of(["full", "full-blocks", "lora", "lora-embedding", "head", "dora"], [8, 2], 6, True, MIDDLES)
    assert [arm.name for arm in arms] == [
        "full",
        "full-blocks",
        "lora r8",
        "lora r2",
        "lora-embedding r8",
        "head",
        "dora r8",
    ]
    words = {arm.name: " ".join(arm.words) for arm in arms}
    assert words["full-blocks"] == "--method full --last-blocks 6"
    assert words["lora r2"] == "--method lora --lora-rank 2 --lora-alpha 16"
    assert words["lora-embedding r8"].endswith("--lora-rank 8 --lora-alpha 16 --train-embedding")
    assert arms[0].rate(-2) == 2.5e-5 and arms[3].rate(1) == 2e-3


@pytest.mark.parametrize(
    ("name", "said"), [("lora-lm-head", "a classifier has no LM head"), ("lorra", "--arms lorra: must be among full,")]
)
def test_an_arm_that_there_is_not_is_refused(name, said):
    with pytest.raises(ValueError, match=said) as refusal:
        arms_of([name], [8], 6, True, MIDDLES)
    assert len(str(refusal.value)) <= 300


@pytest.mark.parametrize("classes", [True, False])
def test_every_arm_is_a_command_that_its_script_accepts(classes, tiny_model, mail_file, question_file):
    names = ("full", "full-blocks", "lora", "lora-embedding", "head", "bitfit", "dora")
    text = TextArgs(("text",), "label") if classes else TextArgs()
    expected = {"full", "full-blocks", "lora r4", "lora r2", "lora-embedding r4", "head", "bitfit", "dora r4"}
    one = asked(mail_file, tiny_model, text, names if classes else (*names, "lora-lm-head"))
    if not classes:
        one = one._replace(data=DataArgs(data=question_file), text=TextArgs(), prompt=PromptArgs("instruction"))
        expected.add("lora-lm-head r4")
    assert {*ask(one).arms} == expected


def test_a_flag_that_the_run_would_refuse_is_refused_before_anything_runs(tiny_model, mail_file):
    with pytest.raises(ValueError, match="--max-length 9000: the context of"):
        ask(asked(mail_file, tiny_model, max_length=9000))
    one = asked(mail_file, tiny_model)._replace(ranks=(64,))
    with pytest.raises(ValueError, match="^--ranks 64: must be 1 to 16"):
        ask(one)


def test_a_folder_holds_one_study(tiny_model, mail_file, tmp_path):
    question = ask(asked(mail_file, tiny_model))
    for _ in range(2):
        with held(tmp_path / "s", check_folder(tmp_path / "s", question, 1), dry_run=False):
            pass
    assert json.loads((tmp_path / "s" / "study.json").read_text())["flags"] == [*question.words]
    assert check_folder(tmp_path / "s", question, 1)["watched"] == WATCHED
    with pytest.raises(ValueError, match="holds a study with other flags"):
        check_folder(tmp_path / "s", ask(asked(mail_file, tiny_model, max_length=64)), 1)
    (tmp_path / "other").mkdir()
    write_rows(tmp_path / "other" / "rows.jsonl", [{"a": 1}])
    with pytest.raises(ValueError, match="holds other files"):
        check_folder(tmp_path / "other", question, 1)
    for file in (tmp_path / "other" / "rows.jsonl", tmp_path / "other" / "rows.jsonl" / "s"):
        with pytest.raises(ValueError, match=re.escape(f"--output-dir {file}: is a file, or lies in one")):
            check_folder(file, question, 1)


def test_a_study_from_before_runs_watched_some_batches_goes_on_to_watch_all(tiny_model, mail_file, tmp_path):
    question, folder = ask(asked(mail_file, tiny_model)), tmp_path / "s"
    shared = check_folder(folder, question, 1)
    with held(folder, {name: value for name, value in shared.items() if name != "watched"}, dry_run=False):
        pass
    assert (shared["watched"], check_folder(folder, question, 1)["watched"]) == (WATCHED, None)
    recipe = Recipe(folder, question.script, question.words, question.arms, 100, 10)
    flags = [replace(recipe, watched=some).flags(Trial("full", 0, 0)) for some in (None, WATCHED)]
    assert ["--eval-batches" in words for words in flags] == [False, True]


def test_the_middle_rates_are_the_defaults_of_the_scripts(tiny_model, mail_file):
    defaults = load_script(ROOT / "scripts" / "finetune_cls.py").DEFAULTS
    arms = ask(asked(mail_file, tiny_model)).arms
    assert arms["full"].middle == defaults["full"][0] * 192 / 16
    assert arms["lora r4"].middle == arms["lora r2"].middle == defaults["lora"][0] * 192 / 16
