"""The life of a run: alone in its folder, resumed as it was begun, with trackers that fail and classes of any name."""

import json
from types import SimpleNamespace

import torch
from filelock import FileLock
from helpers import mails, results_of, run_in_process, run_script, write_rows
from test_commands import load_script
from test_resume import kill_at_a_random_moment

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.pretrained import save_pretrained
from gpt2_scratch.tokenizer import GPT2
from tasks import Splits
from tasks._examples import Rated
from training.flags.command_line import parse
from training.flags.common import UpdateArgs
from training.model.card import _metrics
from training.run.trackers import log_values


def test_a_run_that_stopped_while_it_trained_is_resumed_with_the_score_it_was_begun_with(
    tiny_model, mail_file, tmp_path
):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 60, "--eval-every", 20, "--save-every", 2]
    flags += ["--batch-size", 8, "--output-dir", tmp_path / "run"]
    kill_at_a_random_moment("finetune_cls", 1, [*flags, "--score", "validation"], tmp_path / "run", seed=0)
    done = run_in_process("finetune_cls", *flags, "--resume")
    assert done.returncode == 2 and "--score all: the run in" in done.stderr and "add --score validation" in done.stderr
    done = run_in_process("finetune_cls", *flags, "--resume", "--score", "validation")
    assert done.returncode == 0 and "test" not in results_of(tmp_path / "run"), done.stderr
    done = run_in_process("finetune_cls", *flags, "--resume")
    assert done.returncode == 0 and results_of(tmp_path / "run")["test"], done.stderr
    assert not (tmp_path / "run" / ".lock").exists()


def test_two_runs_do_not_work_in_one_folder(tiny_model, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 2, "--output-dir", tmp_path / "run"]
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        done = run_script("finetune_cls", *flags)  # from another process
        assert done.returncode == 2 and "another run works in it; wait for it" in done.stderr
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    done = run_in_process("finetune_cls", *flags)
    assert done.returncode == 0, done.stderr


def test_a_cache_in_the_folder_of_the_run_is_refused(tiny_model, mail_file, tmp_path):
    flags = ["--data", mail_file, "--model", tiny_model, "--output-dir", tmp_path / "run"]
    done = run_in_process("finetune_cls", *flags, "--cache-dir", tmp_path / "run" / "cache")
    assert done.returncode == 2 and "lies in the folder of the run, which clears it" in done.stderr


def test_other_answers_are_other_data():
    def fingerprint(response):
        return Splits([Rated(0, "Name a bird.", "", response, good=True)], [], []).fingerprint()

    assert fingerprint("Robin") == fingerprint("Robin") != fingerprint("Owl")


def test_bases_in_folders_of_the_same_name_have_folders_of_their_own():
    script, places = load_script("pretrain"), []
    for base in ("runs/pretrain/a/model", "runs/pretrain/b/model"):
        places.append(script.run_folder(parse(script.Args, ["--data", "x", "--tokens", "9", "--init-from", base]))[0])
    assert places[0] != places[1] and all(place.name.startswith("model-seed0-") for place in places)


def test_a_short_context_lowers_the_default_length_and_refuses_a_longer_one(mail_file, tmp_path):
    model = LanguageModel(GPT2Config(width=16, blocks=1, heads=2, context=64))
    initialise(model, torch.Generator().manual_seed(0))
    save_pretrained(model, tmp_path / "base", GPT2)
    flags = ["--data", mail_file, "--model", tmp_path / "base", "--max-steps", 1, "--output-dir", tmp_path / "run"]
    done = run_in_process("finetune_cls", *flags, "--max-length", 512)
    assert done.returncode == 2 and "--max-length 512: the context of" in done.stderr
    done = run_in_process("finetune_cls", *flags)
    assert done.returncode == 0, done.stderr
    assert results_of(tmp_path / "run")["args"]["max_length"] == 64 and "--max-length is 64" in done.stderr


def test_a_class_may_be_called_value(tiny_model, tmp_path):
    rows = [row | {"label": {"spam": "value", "ham": "service"}[row["label"]]} for row in mails(60)]
    flags = ["--data", write_rows(tmp_path / "a.jsonl", rows), "--model", tiny_model, "--max-steps", 2]
    done = run_in_process("finetune_cls", *flags, "--output-dir", tmp_path / "run", "--report-to", "tensorboard")
    assert done.returncode == 0, done.stderr
    table = _metrics(json.loads((tmp_path / "run" / "results.json").read_text()))
    assert "| accuracy |" in table and "classes" not in table
    assert _metrics({"test": None}) == "It was trained on all examples; none were held out to measure it."


def test_a_tracker_that_fails_is_dropped_with_a_word_and_the_others_go_on(capsys):
    logged = []

    class Tracker:
        def __init__(self, name):
            self.name = name

        def log(self, values, step):
            if self.name == "mlflow":
                raise RuntimeError("connection\nrefused")
            logged.append((values, step))

    accelerator = SimpleNamespace(trackers=[Tracker("mlflow"), Tracker("tensorboard")], is_main_process=True)
    for step in (1, 2):
        log_values(accelerator, {"loss": 0.5}, step)
    assert logged == [({"loss": 0.5}, 1), ({"loss": 0.5}, 2)]
    assert capsys.readouterr().err.count("--report-to mlflow: connection refused; the run goes on without it") == 1


def test_the_smallest_share_of_an_epoch_is_an_update():
    assert UpdateArgs(epochs=1e-9).steps(100) == 1
