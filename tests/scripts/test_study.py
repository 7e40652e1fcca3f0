"""A study as a user makes it: its answer, its page, and what happens when it is stopped, asked again, or extended."""

import json
import os
import re
import signal
import time

import pytest
from forked import run_forked, start_forked
from helpers import ROOT, results_of, run_script

from evidence.runs import json_lines
from training.flags.scripts import load_script

STUDY = load_script(ROOT / "scripts" / "study.py")
FORKING = ["tests/in_forks.py", "scripts/study.py"]
ARMS = {"--arms": ("full", "lora"), "--ranks": (4,), "--seeds": (2,), "--updates": (8,), "--workers": (2,)}


def words(data, model, folder, *others):
    columns = ["--text-column", "text", "--label-column", "label"]
    known = ARMS if "--arms" not in others else {name: more for name, more in ARMS.items() if name != "--ranks"}
    arms = [word for name, more in known.items() if name not in others for word in (name, *more)]
    return ["--data", data, *columns, "--model", model, "--output-dir", folder, *arms, *others]


@pytest.fixture(scope="module")
def studied(few_tokens, mail_file, tmp_path_factory):
    """A finished study of classes, and what it said."""
    folder = tmp_path_factory.mktemp("studies") / "mail"
    done = run_script("study", *words(mail_file, few_tokens, folder))
    assert done.returncode == 0, done.stderr + done.stdout
    return folder, done.stdout


def runs_of(folder):
    return {
        str(path.parent.relative_to(folder)): path.parent
        for path in folder.glob("*-updates/*/lr-*/seed-*/results.json")
    }


def test_the_answer_has_its_parts_and_a_command_that_the_script_accepts(studied, tmp_path, run_here):
    folder, said = studied
    answer = (folder / "answer.md").read_text()
    parts = re.findall(r"^(\d)\. ", answer, re.MULTILINE)
    assert parts == ["1", "2", "3", "4", "5", "6"]
    plainly = answer.replace("\\", "").replace("``", "")
    assert all(line in said for line in plainly.splitlines() if line.startswith(("1.", "2.", "6.")))
    (command,) = re.findall(r"``python scripts/finetune_cls.py (.*--train-on all)``", answer)
    flags = command.split()
    assert "--eval-batches" not in flags
    done = run_here("finetune_cls", *flags, "--output-dir", tmp_path / "all", "--max-steps", 2)
    assert done.returncode == 0, done.stderr
    rows = results_of(tmp_path / "all")["data"]["rows"]
    assert rows["train"] > 0 and rows["validation"] == rows["test"] == 0


def test_only_what_was_chosen_is_tested_and_only_the_winner_keeps_its_weights(studied):
    folder, _ = studied
    runs = runs_of(folder)
    tested = {name for name, place in runs.items() if "test" in results_of(place)}
    cells = {name.rsplit("/", 1)[0] for name in tested}
    assert len(cells) == 2 and {cell.split("/")[1] for cell in cells} == {"full", "lora-r4"}
    assert len(runs) > len(tested)
    kept = [place for place in runs.values() if (place / "adapter").exists() or (place / "model").exists()]
    winner = re.search(r"use (full|lora r4) at lr", (folder / "answer.md").read_text())[1]
    assert {place.parts[-3] for place in kept} == {winner.replace(" ", "-")}


def test_each_seed_draws_its_own_training_rows_and_all_share_validation_and_test(studied):
    folder, _ = studied
    places = runs_of(folder).values()
    runs = [results_of(place) for place in places]
    by_seed = {seed: {run["data"]["sha256"] for run in runs if run["args"]["seed"] == seed} for seed in (0, 1)}
    assert all(len(hashes) == 1 for hashes in by_seed.values()) and by_seed[0] != by_seed[1]
    assert len({json.dumps(run["data"]["balance"]["test"]) for run in runs}) == 1
    tested = [place for place, run in zip(places, runs, strict=True) if "test" in run]
    for name, some in (("validation", places), ("predictions", tested)):
        rows = [[(row["id"], row["label"]) for row in json_lines(place / f"{name}.jsonl")] for place in some]
        assert len(rows) >= 4 and rows[0] and all(one == rows[0] for one in rows)
    assert {run["args"]["max_steps"] for run in runs} == {8}


def test_a_study_that_is_asked_again_makes_nothing_and_says_the_same(studied, few_tokens, mail_file, run_here):
    folder, _ = studied
    before = (folder / "answer.md").read_text()
    times = {name: (place / "results.json").stat().st_mtime_ns for name, place in runs_of(folder).items()}
    done = run_here(STUDY, *words(mail_file, few_tokens, folder))
    assert done.returncode == 0, done.stderr
    assert (folder / "answer.md").read_text() == before
    assert {name: (place / "results.json").stat().st_mtime_ns for name, place in runs_of(folder).items()} == times
    assert "validation loss" not in done.stdout.split("\n1. ")[0]


def test_the_page_is_one_file_that_loads_nothing(studied):
    page = (studied[0] / "study.html").read_text()
    assert page.count("<svg") >= 5 and "Every run&#x27;s command" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["--max-length", 64], "holds a study with other flags"),
        (["--draw-seed", 1], "--draw-seed: the study sets it itself"),
        (["--arms", "lorra"], "--arms lorra: must be among"),
        (["--ranks", 4, 4], "--ranks 4 4: name at least one, each once"),
        (["--ranks", 4, "--arms", "full", "head"], "--ranks 4: no arm of --arms has adapters; leave it out"),
        (["--ranks", 4, 8, "--arms", "full", "dora"], "--ranks 4 8: only the arm lora has several ranks"),
        (["--minutes", -1], "--minutes -1: must be above 0"),
        (["--workers", 2, "--ray", "auto"], "choose one"),
        (["--ray", ""], "--ray: is empty"),
        (["--train-sizes", 5000], "--train-sizes 5000: a seed has"),
    ],
)
def test_wrong_flags_are_refused_in_one_message(studied, few_tokens, mail_file, others, said, run_here):
    status, _, told = run_here(STUDY, *words(mail_file, few_tokens, studied[0], *others))
    assert status == 2 and said in told


def test_a_dry_run_says_what_could_be_found_and_writes_nothing(studied, few_tokens, mail_file, run_here):
    """Nothing starts, since the forecasts of this study are known; test_answers.py has a study that is new."""
    folder, _ = studied

    def files():
        return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}

    before = files()
    done = run_here(STUDY, *words(mail_file, few_tokens, folder, "--dry-run"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"runs +\d+ of 8 updates", done.stdout) and re.search(r"in all +\d+\.\d minutes", done.stdout)
    assert re.search(r"could be found +[\d.]+ points of accuracy or more", done.stdout)
    assert files() == before


def test_a_study_that_is_stopped_goes_on_to_the_same_answer(studied, few_tokens, mail_file, tmp_path):
    few = words(mail_file, few_tokens, tmp_path / "s", "--arms", "full", "--seeds", 1)

    def stopped(number, made):
        """The status and the words of the study, which is sent the signal when so many runs are made."""
        output = tmp_path / f"after-{made}"
        output.mkdir()
        (begun,) = start_forked([*FORKING, *few], output)
        deadline = time.monotonic() + 200
        while len(runs_of(tmp_path / "s")) < made and time.monotonic() < deadline:
            assert begun.exitcode is None, (output / "err").read_text()
            time.sleep(0.05)
        os.kill(begun.pid, number)
        begun.join(60)
        return begun.exitcode, (output / "err").read_text()

    status, said = stopped(signal.SIGKILL, 2)
    assert status == -signal.SIGKILL, said
    status, said = stopped(signal.SIGINT, 4)
    assert status == 130, said
    assert said.splitlines()[-1].endswith("the same command goes on where it was")
    done = run_forked([*FORKING, *few])
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        {n: results_of(p) for n, p in runs_of(f).items() if "/full/" in n} for f in (tmp_path / "s", studied[0])
    )
    common = ours.keys() & theirs.keys()  # beside other arms, other rates may have been tried
    assert len(common) >= 4 and all(ours[name]["val"] == theirs[name]["val"] for name in common)
    assert any("test" in one for one in ours.values()) and not any("before" in one for one in ours.values())


def test_instructions_have_an_answer_too(few_tokens, question_file, tmp_path):
    flags = ["--data", question_file, "--prompt-column", "instruction", "--response-column", "response"]
    flags += ["--model", few_tokens, "--arms", "full", "lora-lm-head", "--ranks", 4, "--seeds", 1, "--updates", 6]
    done = run_forked([*FORKING, *flags, "--output-dir", tmp_path / "s"])
    assert done.returncode == 0, done.stderr + done.stdout
    answer = (tmp_path / "s" / "answer.md").read_text()
    assert "perplexity of the response" in answer and "The untouched base has a response perplexity" in answer
