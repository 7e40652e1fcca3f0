"""What a study answers when something goes wrong: divergence, little time, other flags, texts without words."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from helpers import write_rows
from scripted import Engine, studied

import workers.cluster
import workers.local
from evidence.racing import Race
from gpt2_scratch.weights import weights_hash
from studies import making
from studies.arms import arms_of
from studies.making import Clock, Maker
from studies.phases import SHORTEST, settled
from studies.runs import Recipe
from workers.job import Done

LOSS = {"full": 0.3, "lora-r4": 0.5, "head": 0.9}


def near(arm, rate, seed, losses=LOSS):
    """Lowest at the middle rate: those of a model of width 16, whose seeds differ a little."""
    middle = {"full": 6e-3, "head": 0.12}.get(arm, 12e-3)
    return losses.get(arm, 0.45) + 0.04 * math.log2(rate / middle) ** 2 + 0.003 * ((7 * seed + len(arm)) % 5)


class Waiting(Maker):
    """Begins nothing early."""

    def _likely(self):
        return None


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    rows = [{"text": f"word{i % 50} thing{i % 7} number {i}", "label": "abc"[i % 3]} for i in range(300)]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows)


@pytest.fixture
def asked(many, few_tokens):
    return ["--data", many, "--model", few_tokens, "--ranks", 4, "--updates", 8]


@pytest.mark.parametrize("seed", [2, 4])
def test_an_arm_that_diverges_late_does_not_win_and_what_it_had_stopped_goes_on(monkeypatch, asked, tmp_path, seed):
    calm = Engine(near)
    answer = studied(monkeypatch, calm, tmp_path / "calm", *asked, "--arms", "full", "lora", "head")
    assert "use full at lr" in answer and "iverged" not in answer
    engine = Engine(lambda arm, rate, s: math.nan if arm == "full" and s >= seed else near(arm, rate, s))
    answer = studied(monkeypatch, engine, tmp_path / "s", *asked, "--arms", "full", "lora", "head")
    assert "use lora r4 at lr" in answer
    assert "Seeds that diverged are left out:" in answer and "of full" in answer
    assert "seeds, 75 examples" in answer and "(5 seeds" in answer


def test_an_arm_that_diverges_everywhere_is_named_and_the_page_is_written(monkeypatch, asked, tmp_path):
    engine = Engine(lambda arm, rate, seed: math.nan if arm == "head" else near(arm, rate, seed))
    answer = studied(monkeypatch, engine, tmp_path / "s", *asked, "--arms", "full", "lora", "head", page=True)
    assert "Diverged at every rate: head." in answer
    page = (tmp_path / "s" / "study.html").read_text()
    assert "Diverged at every rate: head." in page and "<td>diverged</td>" in re.sub(r"<td[^>]*>", "<td>", page)


def test_another_rank_is_another_arm(monkeypatch, asked, tmp_path):
    engine = Engine(near)
    words = [*asked, "--arms", "full", "lora-embedding", "dora", "--ranks"]
    studied(monkeypatch, engine, tmp_path / "s", *words, 4)
    answer = studied(monkeypatch, engine, tmp_path / "s", *words, 2, 4)
    raced = [run for run in engine.made if "timing" not in run]
    assert raced and all("-r2/" in run for run in raced)
    assert "dora r2" in answer and "dora r4" not in answer


def test_costs_are_of_arms_that_ran_in_turn_and_of_weights_that_there_were(monkeypatch, asked, tmp_path):
    engine = Engine(near)
    studied(monkeypatch, engine, tmp_path / "s", *asked, "--arms", "lora", "head")
    losses = LOSS | {"full": 0.2}
    engine.loss = lambda *run: near(*run, losses)
    first = studied(monkeypatch, engine, tmp_path / "s", *asked, "--arms", "lora", "full")
    timed = [run for run in engine.made if "timing" in run]
    assert [re.search("full|lora", run.split("timing")[1].split("updates")[1])[0] for run in timed] == [
        "full",
        "lora",
    ] * 3
    for answer in (first, studied(monkeypatch, engine, tmp_path / "s", *asked, "--arms", "lora", "full")):
        assert re.search(
            r"full [\d.]+ s an update, 100 MiB at most, 2.0 MB on disk; lora r4 .*, 0.1 MB on disk", answer
        )
    # An earlier winner wins again, and has its weights again.
    studied(monkeypatch, engine, tmp_path / "s", *asked, "--arms", "lora", "head")
    kept = [path.parts[-5] for path in (tmp_path / "s").glob("*-updates/*/*/*/model/w")]
    assert "lora-r4" in kept and not [*(tmp_path / "s" / "timing").rglob("model")]


def test_what_there_was_no_time_for_is_said(monkeypatch, asked, tmp_path):
    engine = Engine(near, seconds=20.0)
    words = [*asked, "--arms", "full", "lora", "head", "dora", "--train-sizes", 20]
    answer = studied(monkeypatch, engine, tmp_path / "s", *words, "--minutes", 1)
    assert (
        "no time for the arms head and dora r4, 3 of 5 seeds, 2 runs of the race at least and 20 training examples"
        in answer
    )
    assert "There was no time" not in studied(monkeypatch, Engine(near), tmp_path / "all", *words)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--test-share", 0], "--test-share 0: a study compares on test examples"),
        (["--validation-share", 0], "--validation-share 0: a study chooses on validation examples"),
    ],
)
def test_without_validation_or_test_examples_nothing_starts(monkeypatch, asked, tmp_path, more, said):
    engine = Engine(near)
    with pytest.raises(ValueError, match=said):
        studied(monkeypatch, engine, tmp_path / "s", *asked, *more)
    assert not engine.made


def test_so_few_examples_that_all_are_of_one_class_are_refused_before_anything_runs(monkeypatch, asked, tmp_path):
    rare = write_rows(
        tmp_path / "rare.jsonl", [{"text": f"mail {i} x{i}", "label": ["ham", "spam"][i % 20 == 0]} for i in range(400)]
    )
    engine = Engine(near)
    for flag in ("--train-sizes", "--train-examples"):
        with pytest.raises(ValueError, match=f"{flag} 8: only one class among the examples to train on"):
            studied(monkeypatch, engine, tmp_path / "s", *asked, "--data", rare, flag, 8)
    assert not engine.made


def test_a_number_of_examples_that_leaves_classes_untrained_is_named_as_it_came_about(monkeypatch, asked, tmp_path):
    rows = [{"text": f"mail {i} x{i}", "label": f"c{i % 30}"} for i in range(60)]
    words, engine = [*asked, "--data", write_rows(tmp_path / "classes.jsonl", rows)], Engine(near)
    with pytest.raises(
        ValueError, match="^--train-examples was not given, and is 26: the .* raise --train-examples"
    ) as why:
        studied(monkeypatch, engine, tmp_path / "s", *words)
    assert len(re.findall("c[0-9]+", str(why.value).partition("--leave-out-labels")[2])) > 1
    assert len(str(why.value)) <= 300 and not engine.made


def test_other_weights_under_the_same_name_are_another_study(monkeypatch, asked, few_tokens, tmp_path):
    base = shutil.copytree(few_tokens, tmp_path / "base")
    engine, words = Engine(near), [*asked, "--model", base, "--arms", "full"]
    studied(monkeypatch, engine, tmp_path / "s", *words)
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    weights_hash.cache_clear()
    with pytest.raises(ValueError, match="holds a study with other weights of --model"):
        studied(monkeypatch, engine, tmp_path / "s", *words)


def test_one_arm_alone_is_compared_with_none(monkeypatch, asked, tmp_path):
    """Beside it stands TF-IDF, which is worse here."""
    rows = [{"text": f"word{i}", "label": "ab"[i % 2]} for i in range(300)]
    words = [*asked, "--data", write_rows(tmp_path / "rows.jsonl", rows), "--arms", "full"]
    engine = Engine(lambda *cell: 0.01 * near(*cell))
    answer = studied(monkeypatch, engine, tmp_path / "s", *words, page=True)
    assert "Worse than it is TF-IDF" in answer
    assert re.search(r"^3\. There is no other arm\.", answer, re.MULTILINE)


@pytest.mark.parametrize(("seeds", "said"), [(1, "there are too few seeds to say"), (5, "told apart from full")])
def test_forgetting_is_told_apart_where_there_are_seeds_enough(monkeypatch, asked, tmp_path, seeds, said):
    words, engine = [*asked, "--arms", "full", "lora", "--seeds", seeds], Engine(lambda _, *cell: near("full", *cell))
    five = studied(monkeypatch, engine, tmp_path / "s", *words).partition("\n5. ")[2].partition("\n6. ")[0]
    assert five.startswith("It forgets: the loss of general text rises") and said in five
    assert ("told apart" in five) == (seeds == 5)


def test_general_text_that_is_learnt_better_is_not_called_forgotten(monkeypatch, asked, tmp_path):
    engine = Engine(near, general=-40.0)
    five = studied(monkeypatch, engine, tmp_path / "s", *asked, "--arms", "full", "lora", page=True)
    assert "5. The loss of general text changes, in nats a token, by" in five


def test_the_command_is_code_in_markdown(monkeypatch, asked, many, tmp_path):
    path = shutil.copy(many, tmp_path / "two_*_parts_*.jsonl")
    answer = studied(monkeypatch, Engine(near), tmp_path / "s", *asked, "--data", path, "--arms", "full")
    assert "`` --train-on all" in answer or re.search(
        r"``python scripts/finetune_cls\.py [^`]*--train-on all``", answer
    )
    assert answer.startswith(r"# two\_\*\_parts\_\*: which way of training?")


def test_full_fine_tuning_is_a_pilot_wherever_it_stands(tmp_path):
    arms = {a.name: a for a in arms_of(["full-blocks", "lora", "full"], [4], 3, True, {"full": 1e-3, "lora": 1e-3})}
    engine = Engine(lambda *_: math.nan)
    settled(Maker(engine, Clock(None, 2), lambda _: None), Recipe(tmp_path, "finetune_cls.py", (), arms, 8, 20), 5)
    assert {run.split("/")[-3] for run in engine.made} == {"full", "lora-r4"}


@pytest.mark.parametrize("text", ["我喜欢这本书{}", "{}"])
def test_texts_without_words_have_a_baseline_too(monkeypatch, asked, tmp_path, text):
    rows = [{"text": text.format("🙂🙃"[i % 2] * (i + 1)), "label": "ab"[i % 2]} for i in range(300)]
    words = [*asked, "--data", write_rows(tmp_path / "rows.jsonl", rows), "--arms", "full", "--seeds", 2]
    assert "TF-IDF + logistic regression has 100" in studied(monkeypatch, Engine(near), tmp_path / "s", *words)


def test_one_seed_tries_the_rates_beside_the_best_ones_alone():
    race = Race(["full", "lora"], 1)
    for trials in race.rounds():
        race.found |= {trial: np.full(9, 0.1 * trial.rate**2) for trial in trials}
    assert all(race.tried(arm) == [-2, -1, 0, 1, 2] for arm in race.arms)


def test_pilots_that_diverge_do_not_lengthen_the_study(tmp_path):
    arms = {arm.name: arm for arm in arms_of(["lora", "full"], [4, 2], 3, True, {"full": 1e-3, "lora": 1e-3})}
    recipe = Recipe(tmp_path, "finetune_cls.py", (), arms, 8, 20)
    engine = Engine(lambda *_: math.nan)
    assert settled(Maker(engine, Clock(None, 2), lambda _: None), recipe, 5) == recipe
    longer = [run.split("/")[-3] for run in engine.made if "20-examples-16-updates" in run]
    assert longer == ["full"] and not any("-32-updates" in run for run in engine.made)


@pytest.mark.parametrize(("needed", "found"), [(6400, 1600), (400, 400), (200, 200), (100, 100), (6, SHORTEST)])
def test_all_train_for_as_long_as_the_loss_falls_and_no_longer(monkeypatch, asked, tmp_path, needed, found):
    """The loss is the lowest after `needed` updates, and rises from there on, by more than what counts as a rise."""
    engine = Engine(lambda *cell: near(*cell) + 0.05 * abs(math.log2(engine.updates / needed)))
    engine.best = lambda updates: min(updates, needed)
    answer = studied(monkeypatch, engine, tmp_path / "s", *asked[:-2], "--arms", "full", "lora")
    assert f"for {found:,} updates" in answer
    assert ("More than 1,600 updates were not tried" in answer) == (needed > found)
    lengths = {int(run.parts[-4].split("-")[2]) for run in map(Path, engine.made) if "timing" not in run.parts}
    assert lengths <= {found // 2, found, 2 * found, 200, 400, 800, 100, 50}


def test_a_longer_run_that_is_best_in_its_first_half_does_not_lengthen_a_study(monkeypatch, asked, tmp_path):
    """As on 500 mails: each doubling was best after 200 updates, and a little better by its schedule alone."""
    engine = Engine(lambda *cell: near(*cell) + 10 / engine.updates, best=lambda updates: min(updates, 200))
    answer = studied(monkeypatch, engine, tmp_path / "s", *asked[:-2], "--arms", "full", "lora")
    assert "for 200 updates" in answer and "were not tried" not in answer
    assert not any("-800-updates" in run for run in engine.made)


def test_a_shorter_training_must_do_for_lora_too(monkeypatch, asked, tmp_path):
    engine = Engine(lambda arm, *cell: near(arm, *cell) + 4 * (arm != "full") / engine.updates, best=lambda _: 20)
    assert "for 200 updates" in studied(monkeypatch, engine, tmp_path / "s", *asked[:-2], "--arms", "full", "lora")


def test_a_finished_study_that_is_asked_again_with_a_short_time_says_the_same(monkeypatch, asked, tmp_path):
    engine, words = Engine(near, seconds=60.0), [*asked, "--arms", "full", "lora", "head", "--train-sizes", 20]
    answer = studied(monkeypatch, engine, tmp_path / "s", *words)
    assert studied(monkeypatch, engine, tmp_path / "s", *words, "--minutes", 0.1) == answer
    assert not [run for run in engine.made if "timing" not in run]


def test_arms_that_are_added_later_race_with_the_runs_that_there_are(monkeypatch, asked, tmp_path):
    engine, words = Engine(near), [*asked, "--train-sizes", 20, "--arms", "full", "lora"]
    monkeypatch.setattr(making, "Maker", Waiting)  # what would be begun early is another matter
    studied(monkeypatch, engine, tmp_path / "s", *words, page=True)
    answer = studied(monkeypatch, engine, tmp_path / "s", *words, "head", page=True)
    made = [run for run in engine.made if "timing" not in run]
    assert {Path(run).parts[-3] for run in made} == {"head"}, made
    assert "head at lr" in answer
    assert "training examples, with 95% intervals" in (tmp_path / "s" / "study.html").read_text()


def test_two_studies_do_not_work_in_one_folder(monkeypatch, asked, tmp_path):
    words, engine = [*asked, "--arms", "full", "lora"], Engine(near)
    answer = studied(monkeypatch, engine, tmp_path / "s", *words)
    with (
        FileLock(tmp_path / "s" / ".lock"),
        pytest.raises(ValueError, match="another study.py works in it"),
    ):
        studied(monkeypatch, engine, tmp_path / "s", *words)
    assert studied(monkeypatch, engine, tmp_path / "s", *words) == answer


def test_a_dry_run_writes_nothing_into_a_folder_and_refuses_that_of_another_study(monkeypatch, asked, tmp_path, capsys):
    (tmp_path / "s").mkdir()
    words, engine = [*asked, "--arms", "full", "lora"], Engine(near)

    def dry(*more):
        with pytest.raises(FileNotFoundError):  # there is no answer
            studied(monkeypatch, engine, tmp_path / "empty", *words, "--dry-run", *more)
        return capsys.readouterr().out

    assert "22 of 8 updates" in dry() and not (tmp_path / "empty").exists()
    (tmp_path / "empty").mkdir()
    assert "70 of 8 updates" in dry("--complete")
    assert "20 training examples: about 22 runs more" in dry("--train-sizes", 20)
    twice = dry("--train-sizes", 20, 20, 132)
    assert twice.count("22 runs more") == 1 and "132 training examples: the study itself" in twice
    assert not [*(tmp_path / "empty").iterdir()]
    studied(monkeypatch, engine, tmp_path / "s", *words)
    with pytest.raises(ValueError, match="holds a study with other flags"):
        studied(monkeypatch, engine, tmp_path / "s", *words, "--dry-run", "--max-length", 64)


def test_more_workers_than_there_is_memory_and_cores_for_are_told_and_not_counted(monkeypatch, asked, tmp_path, capsys):
    monkeypatch.setattr(workers.local, "free_mib", lambda: 1000.0)
    for count, crowded, waiting in (
        (500, "500 runs at a time are", True),
        (3, "3 runs at a time are", False),
        (1, "", 0),
    ):
        with pytest.raises(FileNotFoundError):  # there is no answer
            studied(monkeypatch, Engine(near, count=count), tmp_path / "s", *asked, "--arms", "full", "--dry-run")
        shown = capsys.readouterr()
        needed = f"note    {crowded} forecast to need {count * 501:,} MiB, and 1,000 are free; give fewer --workers\n"
        assert (needed in shown.err) == bool(crowded)
        assert ("--workers 500: there are cores for 8 runs at a time" in shown.err) == waiting
        assert re.search(rf"at a time +{min(count, 8)}\n", shown.out)


def test_a_cluster_is_opened_before_a_run_is_forecast_and_its_size_counts(monkeypatch, asked, tmp_path, capsys):
    words = [*asked, "--arms", "full", "--ray", "auto"]
    monkeypatch.setattr(workers.cluster, "cluster", lambda *_: Engine(near, count=40))
    with pytest.raises(FileNotFoundError):  # there is no answer
        studied(monkeypatch, Engine(near), tmp_path / "s", *words, "--dry-run")
    assert re.search(r"at a time +40\n", capsys.readouterr().out)

    def unreachable(*_):
        raise ValueError("cannot be reached")

    monkeypatch.setattr(workers.cluster, "cluster", unreachable)
    with pytest.raises(ValueError, match="cannot be reached"):
        studied(monkeypatch, Engine(near), tmp_path / "s", *words)
    assert not (tmp_path / "s" / "forecasts.json").exists()


def test_texts_that_are_cut_are_counted_before_the_study_and_in_its_answer(monkeypatch, asked, tmp_path, capsys):
    words, engine = [*asked, "--arms", "full", "--seeds", 1], Engine(near, cut=7)
    said = "examples of a run are longer than --max-length and are cut; TF-IDF + logistic regression reads them whole"
    answer = studied(monkeypatch, engine, tmp_path / "s", *words)
    shown = capsys.readouterr()
    assert "note    7 of the " in shown.out + shown.err and said in answer and said in shown.out + shown.err
    assert "are cut" not in studied(monkeypatch, Engine(near), tmp_path / "whole", *words)


@pytest.mark.parametrize(("sign", "end"), [(-1, "highest"), (1, "lowest"), (0, "")])
def test_a_best_rate_at_an_end_of_those_tried_is_told(monkeypatch, asked, tmp_path, sign, end):
    engine = Engine(lambda arm, rate, seed: near(arm, rate, seed) if not sign else 3 + sign * 0.2 * math.log2(rate))
    answer = studied(monkeypatch, engine, tmp_path / "s", *asked, "--arms", "full", "--seeds", 2)
    assert ("The best rate of full is the" in answer) == bool(sign)
    assert f"The best rate of full is the {end} that was tried." in answer or not sign


def test_what_a_short_time_leaves_out_is_said_before_the_race_and_in_the_forecast(monkeypatch, asked, tmp_path, capsys):
    words, engine = [*asked, "--arms", "full", "lora", "head", "--seeds", 5, "--minutes", 0.2], Engine(near, 20.0)
    answer = studied(monkeypatch, engine, tmp_path / "s", *words)
    shown, said = capsys.readouterr(), "here is no time for the arm head and 3 of 5 seeds"
    assert f"{said}; give more --minutes" in shown.err and "here was no time for the arm head" in answer
    with pytest.raises(FileNotFoundError):  # there is no answer
        studied(monkeypatch, engine, tmp_path / "new", *words, "--dry-run")
    shown = capsys.readouterr()
    assert f"{said}; give more --minutes" in shown.err and "; more than --minutes 0.2" in shown.out


def test_an_arm_that_the_race_has_stopped_gets_every_seed_if_asked_and_is_told_apart(monkeypatch, asked, tmp_path):
    def far(arm, rate, seed):
        return near(arm, rate, seed) + 0.8 * (arm == "head")

    engine, words = Engine(far), [*asked, "--arms", "full", "lora", "head"]
    answer = studied(monkeypatch, engine, tmp_path / "s", *words)
    assert re.search("Of too few seeds to say anything: lora r4 .* and head", answer) and "Stopped early" in answer
    answer = studied(monkeypatch, engine, tmp_path / "s", *words, "--every-seed")
    assert len(engine.made) == 2 * 3 * 2 and not any("/full/" in folder for folder in engine.made)  # trained, tested
    assert "too few seeds" not in answer and "Stopped early" not in answer
    assert re.search(r"Worse than it (is|are) .*head at lr", answer)


def test_where_the_tested_runs_were_made_is_told(monkeypatch, asked, tmp_path):
    class Moved(Engine):
        """Goes on with another torch, on another machine."""

        def leave(self, folder, arm, loss, words):
            super().leave(folder, arm, loss, words)
            path = folder / "results.json"
            device, torch, commit = ("a laptop", "2.12.0", "b") if arm == "head" else ("a server", "2.13.0", "a")
            made = {"device": device, "libraries": {"torch": torch}, "commit": commit}
            path.write_text(json.dumps(json.loads(path.read_text()) | {"environment": made}))

    words, said = [*asked, "--seeds", 2, "--arms", "full", "lora"], "The tested runs were made "
    answer = studied(monkeypatch, Moved(near), tmp_path / "s", *words)
    assert f"{said}on a server with torch 2.13.0." in answer
    answer = studied(monkeypatch, Moved(near), tmp_path / "s", *words, "head")
    places = "4 on a server with torch 2.13.0 and 2 on a laptop with torch 2.12.0"
    assert f"{said}{places}, by 2 versions of the project." in answer


def test_why_tf_idf_was_not_compared_is_told(monkeypatch, asked, tmp_path):
    words = [*asked, "--arms", "full", "lora", "--seeds", 2, "--test-examples", 1]
    answer = studied(monkeypatch, Engine(near), tmp_path / "s", *words)
    assert "and was not compared with it (fewer than two examples in common with full);" in answer
    assert "too few seeds" not in answer.partition("\n6. ")[2]


def test_a_size_whose_race_was_cut_short_is_not_told(monkeypatch, asked, tmp_path):
    engine = Engine(near, seconds=20.0)
    ended = Clock.has_room_for
    monkeypatch.setattr(
        Clock, "has_room_for", lambda clock, *args, **more: len(engine.made) < 30 and ended(clock, *args, **more)
    )
    words = [*asked, "--arms", "full", "lora", "--minutes", 100, "--train-sizes", 20]
    assert "There was no time for 20 training examples" in studied(monkeypatch, engine, tmp_path / "s", *words)


def test_a_run_that_fails_where_nobody_had_asked_for_it_ends_nothing(monkeypatch, asked, tmp_path):
    """It ends a study that asks for it."""
    words, failing = [*asked, "--arms", "full", "lora", "--seeds", 3], set()

    class Failing(Engine):
        def done(self, job):
            if str(job.folder) in failing:
                job.log.parent.mkdir(parents=True, exist_ok=True)
                job.log.write_text("error: no room\n")
                return Done(job, 1, 1.0)
            return super().done(job)

    engine, waits = Failing(near, count=4), Failing(near, count=4)
    studied(monkeypatch, engine, tmp_path / "s", *words)
    made = {*engine.made}
    shutil.rmtree(tmp_path / "s")
    with monkeypatch.context() as patched:
        patched.setattr(making, "Maker", Waiting)
        studied(monkeypatch, waits, tmp_path / "s", *words)
    shutil.rmtree(tmp_path / "s")
    failing |= made - {*waits.made}
    assert failing
    assert "use full at lr" in studied(monkeypatch, engine, tmp_path / "s", *words)
    shutil.rmtree(tmp_path / "s")
    failing.add(next(path for path in waits.made if "lr-0.024" in path or "lora-r4" in path))
    with pytest.raises(ValueError, match="a run has failed: no room"):
        studied(monkeypatch, engine, tmp_path / "s", *words)


def test_weights_that_an_earlier_command_left_are_deleted_in_the_end(monkeypatch, asked, tmp_path):
    """Of a run that it began early, of one that was stopped, and of the sizes."""
    words = [*asked, "--arms", "full", "lora", "--seeds", 3, "--train-sizes", 40, 20]
    studied(monkeypatch, Engine(near, count=4), tmp_path / "s", *words[:-3])
    left = [tmp_path / "s" / "132-examples-8-updates" / "lora-r4" / "lr-0.384" / f"seed-{seed}" for seed in (3, 4)]
    for place, name in zip(left, ("model", "checkpoint"), strict=True):
        (place / name).mkdir(parents=True)
    studied(monkeypatch, Engine(near, count=4), tmp_path / "s", *words)
    assert not any((place / name).exists() for place in left for name in ("model", "checkpoint"))
    assert len([*(tmp_path / "s").rglob("model")]) == 1 and not [*(tmp_path / "s").rglob("checkpoint")]


def test_a_study_that_had_no_time_for_more_updates_stays_at_its_length(monkeypatch, asked, tmp_path):
    engine = Engine(lambda *cell: near(*cell) + 4 / engine.updates, seconds=30.0, best=lambda updates: updates)
    words = [*asked[:-2], "--arms", "full", "lora", "--seeds", 2]
    short = studied(monkeypatch, engine, tmp_path / "s", *words, "--minutes", 9)
    assert "for 200 updates" in short and "More than 200 updates were not tried" in short
    assert studied(monkeypatch, engine, tmp_path / "s", *words) == short
    assert "for 200 updates" not in studied(monkeypatch, engine, tmp_path / "other", *words)


def test_nothing_is_said_to_be_forgotten_that_may_not_be(monkeypatch, asked, tmp_path):
    engine = Engine(near, general=-2.5)  # rises by 0 in the mean
    answer = studied(monkeypatch, engine, tmp_path / "s", *asked, "--arms", "full")
    assert "5. The loss of general text changes, in nats a token, by full" in answer


def test_where_nothing_could_be_tested_the_answer_says_so(monkeypatch, asked, tmp_path):
    answer = studied(monkeypatch, Engine(near), tmp_path / "s", *asked, "--arms", "full", "lora", "--seeds", 1)
    assert "Nothing could be compared with it." in answer and "told apart from it." not in answer.split("3. ")[0]
    assert "(fewer than two seeds in common with full)" in answer
    assert "over examples, since there is one seed." in answer


def test_a_free_worker_begins_early_what_is_wanted_later_and_the_answer_is_the_same(monkeypatch, asked, tmp_path):
    """The clock is the engine's; of what was begun in vain no weights stay."""
    words = [*asked[:-2], "--arms", "full", "lora", "head", "bitfit", "--seeds", 4]
    engines, answers = {}, {}
    for name, maker in (("waits", Waiting), ("early", Maker)):
        monkeypatch.setattr(making, "Maker", maker)
        engines[name] = Engine(near, count=4, seconds=10.0)
        answers[name] = studied(monkeypatch, engines[name], tmp_path / "s", *words).replace(str(tmp_path), "")
        (tmp_path / "s").rename(tmp_path / name)
    assert answers["early"] == answers["waits"]
    early, waits = ({run.replace(str(tmp_path / "s"), "") for run in engines[name].made} for name in ("early", "waits"))
    assert waits <= early and len(early - waits) <= 4
    assert engines["early"].now < 0.94 * engines["waits"].now and engines["early"].most == 4
    weights = {
        name: {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("model")} for name in answers
    }
    assert weights["early"] == weights["waits"] and len(weights["early"]) == 1


def written(text):
    return lambda path: path.write_text(text)


def cut(path):
    path.write_text(path.read_text()[:-20])


def shortened(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))


def without(name):
    return lambda path: path.write_text(
        json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != name})
    )


def test_a_damaged_file_of_a_study_is_named_with_the_remedy(monkeypatch, asked, tmp_path):
    words, folder, engine = [*asked, "--arms", "full", "lora", "--seeds", 2], tmp_path / "s", Engine(near)
    answer = studied(monkeypatch, engine, folder, *words)
    changes = [("study.json", written("[]")), ("study.json", cut), ("forecasts.json", cut)]
    changes = [(folder / name, change) for name, change in [*changes, ("times-of-8-updates.json", cut)]]
    tested = [path.parent for path in folder.glob("*-updates/*/lr-*/seed-0/predictions.jsonl") if path.stat().st_size]
    assert {place.parts[-3] for place in tested} == {"full", "lora-r4"}
    lacking = [written("{"), written("{}"), without("seconds"), without("peak_memory_mib"), without("args")]
    ways = {"results.json": lacking, "predictions.jsonl": [Path.unlink, shortened, cut]}
    ways["validation.jsonl"] = [Path.unlink, shortened, cut, written("")]
    changes += [(place / name, change) for place in tested for name, made in ways.items() for change in made]
    for path, change in changes:
        kept = path.read_bytes()
        change(path)
        with pytest.raises(ValueError, match=f"{path}.*; delete (it|{folder})") as told:
            studied(monkeypatch, engine, folder, *words)
        assert len(str(told.value).replace(str(tmp_path), "")) < 300
        path.write_bytes(kept)
    shutil.rmtree(tested[0])
    assert studied(monkeypatch, engine, folder, *words) == answer
