"""What a table file is given, and what is asked of runs that several tables share."""

import subprocess
from types import SimpleNamespace

import pytest
from helpers import ROOT

from judge.failures import KEYS
from reproduce import run


@pytest.mark.parametrize(
    "words", [["table4_rank.sh", "--dry-run"], ["all.sh", "--help"], ["learning_rates.sh", "rows", "x"]], ids=" ".join
)
def test_arguments_are_refused_since_settings_are_variables(words):
    path, *rest = words
    done = subprocess.run(["bash", path, *rest], cwd=ROOT / "reproduce", capture_output=True, text=True, check=False)
    if rest[0] == "rows":  # what a table file is asked by run.py
        assert done.returncode == 0 and done.stdout.startswith("corrected\t")
    else:
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(
            f"error: {path} {rest[0]}: takes no"
        )


@pytest.mark.parametrize("name", ["LIST", "DRY_RUN"])
def test_what_is_not_switched_on_is_refused(name, monkeypatch, capsys):
    """LIST=0 would list."""
    monkeypatch.setenv(name, "0")
    assert run.to_the_end(lambda: run.main(ROOT / "reproduce/figure2_learning_rate.sh")) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err == f"error: {name}=0: must be 1, or not be set\n"


def test_a_run_of_two_tables_is_asked_the_questions_of_both_once(tmp_path, monkeypatch):
    asked = []

    def generate(words, **_):
        asked.append(words[words.index("--prompt") + 1 :])
        return SimpleNamespace(
            stdout="note    little room\n" + "".join(f"> {q}\nbase: a\nfine-tuned: b\n\n" for q in asked[-1])
        )

    monkeypatch.setattr(run.subprocess, "run", generate)
    runs = [run.Run(tmp_path / "seed0", "")]
    for questions in (["Name a bird."], ["Name a bird.", "Name a fish."], ["Name a bird."], ["Name a"]):
        run.ask(runs, questions)
    assert asked == [["Name a bird."], ["Name a fish."], ["Name a"]]
    text = (tmp_path / "seed0.answers.txt").read_text()
    assert [line for line in text.splitlines() if line.startswith(">")] == [
        "> Name a bird.",
        "> Name a fish.",
        "> Name a",
    ]


def test_answers_are_judged_by_each_judge_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run.subprocess, "run", lambda words, **_: asked.append(words[-1]))
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.setenv("GOOGLE_API_KEY", "x")
    outcomes = {"offline": "{}", "a_b-published": '{"scores": {"0": 5}}', "before-published": '{"score": {}}'}
    for name, outcome in outcomes.items():
        (tmp_path / "judge" / name).mkdir(parents=True)
        (tmp_path / "judge" / name / "judge.json").write_text(outcome)
    (tmp_path / "generations.jsonl").touch()
    for model in ("a/b", "c", "a", "before", ""):
        run.judge_answers([run.Run(tmp_path, "")], model)
    assert asked == ["c", "a", "before"]


def test_a_judge_without_a_key_is_told_of_and_not_asked(tmp_path, monkeypatch, capsys):
    for name in KEYS["gemini"]:
        monkeypatch.delenv(name, raising=False)
    run.judge_answers([run.Run(tmp_path, "")], "")
    assert not capsys.readouterr().out
    run.judge_answers([run.Run(tmp_path, "")], "a")
    assert "JUDGE_MODEL: without a key in GEMINI_API_KEY" in capsys.readouterr().out
