"""Circumstances that a run meets: other flags for want of memory, strange files, trackers that fail, odd outputs."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from filelock import FileLock
from helpers import ROOT, command, results_of
from test_commands import load_script

import training.forecast.micro_batch as sizing
import training.run.trackers as trackers
from judge.store import Store
from judge.verdicts import Reply, read_score
from training.flags.cli import problems_in, refuse
from training.flags.command_line import parse
from training.flags.common import DataArgs, MethodArgs, ModelArgs, RunArgs, UpdateArgs
from training.flags.config_file import completed, read_config, write_config
from training.flags.finetuning import run_folder
from training.flags.task import HeadArgs
from training.run.cores import free_bytes
from training.step.update import build_schedule
from training.storage.content_cache import CachedFile
from training.storage.files import alone
from training.storage.run_folder import check_folder, unwritable

CLS = load_script("finetune_cls")


NEEDS_FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
TELLS = """
from dataclasses import dataclass
from training.flags.cli import note, run
from training.run.progress import ProgressLine

@dataclass(frozen=True)
class Args:
    lr: float = 0.1

def main(args):
    line = ProgressLine(2, 0, True)
    note("is told")
    line.show(2, args.lr, lambda name: None)
    line.close()

run(main, Args, "")
"""


@pytest.fixture(autouse=True)
def _named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["finetune_cls.py"])


def flags(*words):
    return parse(CLS.Args, ["--dataset", "spamassassin", *map(str, words)])


def test_a_run_that_goes_on_in_less_memory_goes_on_in_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = run_folder(flags("--lora-rank", 4), "spamassassin")[0]
    for lighter in (["--micro-batch-size", 2], ["--checkpoint-activations"], ["--micro-batch-size", "auto"]):
        assert run_folder(flags("--lora-rank", 4, *lighter, "--resume"), "spamassassin")[0] == before
    assert f"--resume: {before} holds no run that was stopped; a new one starts" in capsys.readouterr().err
    assert run_folder(flags("--lora-rank", 8), "spamassassin")[0] != before


@pytest.mark.parametrize("name", [".aim", ".DS_Store", "Thumbs.db", ".ipynb_checkpoints", "thesis.tex"])
def test_what_others_left_beside_a_stopped_run_does_not_keep_it_from_going_on(tmp_path, name):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state.pt").touch()
    (tmp_path / name).mkdir()
    assert check_folder(tmp_path, overwrite=False, resume=True)
    if name == "thesis.tex":
        with pytest.raises(ValueError, match="holds other files"):
            check_folder(tmp_path, overwrite=True, resume=False)
    else:
        assert check_folder(tmp_path, overwrite=True, resume=False) is False


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    assert "lies in one" in unwritable("--output-dir", tmp_path / "notes.txt" / "x" / "y")[0]
    assert "is a file" in unwritable("--cache-dir", tmp_path / "notes.txt")[0]
    assert unwritable("--cache-dir", tmp_path / "new" / "folder") == []
    monkeypatch.setattr(os, "access", lambda *_: False)
    for words, asked in ((["--cache-frozen", "memory", "--last-blocks", 1], "--cache-dir"), ([], "--output-dir")):
        with pytest.raises(ValueError, match=f"{asked} .*cannot be written"):
            refuse(problems_in(flags(*words), config=SimpleNamespace(blocks=6, context=1024, width=192)))
            run_folder(flags(*words, "--output-dir", tmp_path / "a"), "spamassassin")


def test_what_the_main_process_knows_of_a_stopped_run_counts_on_all_hosts(monkeypatch):
    """The other host has no folder: without this one of the two would wait for the other for ever."""
    asked = []

    def from_main(_, function):
        asked.append(function())
        return 3

    monkeypatch.setattr(sizing, "from_main", from_main)
    workload = SimpleNamespace(accelerator=None, update=UpdateArgs(micro_batch_size=None), model=None)
    assert sizing.resolve_micro_batch(workload, None).micro_batch_size == 3
    assert asked == [None]


@pytest.mark.parametrize("version", [1, 2])
def test_a_cache_of_files_does_not_count_as_used_memory(tmp_path, version):
    folder, names = (tmp_path, ("memory.max", "memory.current", "inactive_file"))
    if version == 1:
        folder = tmp_path / "memory"
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        folder.mkdir()
    (folder / names[0]).write_text("4000000\n")
    (folder / names[1]).write_text("3900000\n")
    (folder / "memory.stat").write_text(f"anon 7\n{names[2]} 3000000\nactive_file 100000\n")
    assert free_bytes(tmp_path) == 3_100_000


def test_max_steps_overrules_epochs_and_says_so():
    update = UpdateArgs(max_steps=5000, epochs=2)
    assert update.steps(100) == 5000
    assert update.notes(5000) == ["--max-steps 5000 overrules --epochs 2"]


def test_a_rate_that_would_rise_to_its_end_is_refused():
    update = UpdateArgs(lr=1e-4, lr_min=1.0, epochs=1)
    with pytest.raises(ValueError, match="--lr-min 1: is above the peak, --lr 0.0001"):
        build_schedule(update, 10)
    assert build_schedule(replace(update, lr_min=1e-4), 10).lr_at(9) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        (DataArgs("imdb", train_on="all", test_share=0.3), "--train-on all: leaves nothing for --test-share"),
        (DataArgs("imdb", train_on="all", validation_share=0.0), "leaves nothing for --validation-share"),
        (RunArgs(report_to=("tensorboard", "tensorboard")), "names a tracker twice"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(group, problem):
    assert any(problem in found for found in group.problems())


@pytest.mark.parametrize(("untied", "refused"), [(True, False), (False, True)])
def test_a_frozen_head_that_is_the_embedding_does_not_train_with_it(untied, refused):
    head = HeadArgs(head="lm-token", head_training="frozen+lora")
    found = head.problems_given(MethodArgs(train_embedding=True), ModelArgs(untie_head=untied))
    assert any("--train-embedding" in problem for problem in found) == refused


def test_untie_head_without_an_lm_head_is_refused(run_here):
    status, _, said = run_here(CLS, "--dataset", "spamassassin", "--model", "gpt2-nano", "--untie-head")
    assert status == 2 and "--untie-head: a classifier with a linear head has no LM head" in said


class Failing(trackers.GeneralTracker):
    name, requires_logging_directory, tracker = "wandb", False, None

    def __init__(self, *_, **__):
        pass

    def start(self):
        raise RuntimeError("no API key configured")


def test_a_tracker_that_does_not_start_leaves_the_earlier_run_as_it_was(
    run_here, tmp_path, monkeypatch, tiny_model, mail_file
):
    words = ["--data", mail_file, "--model", tiny_model, "--max-steps", 1, "--output-dir", tmp_path / "run"]
    words += ["--forgetting-data", "none", "--max-length", 32]
    assert run_here(CLS, *words)[0] == 0
    before = results_of(tmp_path / "run")
    monkeypatch.setitem(trackers.LOGGER_TYPE_TO_CLASS, "wandb", Failing)
    monkeypatch.setattr("training.flags.common.find_spec", lambda _: True)
    status, _, said = run_here(CLS, *words, "--overwrite", "--report-to", "tensorboard", "wandb")
    assert status == 2 and "--report-to wandb: does not start (no API key configured)" in said
    assert results_of(tmp_path / "run") == before


def test_home_is_found_after_an_equals_sign_by_resume_and_config_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_config(tmp_path / "f.yaml", {"dataset": "imdb"})
    assert completed(CLS.Args, ["--config=~/f.yaml"]) == ["--dataset", "imdb"]
    (tmp_path / "runs" / "checkpoint").mkdir(parents=True)
    (tmp_path / "runs" / "checkpoint" / "state.pt").touch()
    write_config(tmp_path / "runs" / "config.yaml", {"dataset": "imdb"})
    assert completed(CLS.Args, ["--resume", "--output-dir=~/runs"])[:2] == ["--dataset", "imdb"]


@pytest.mark.parametrize("columns", [["-x"], ["--label"], ["a b"]])
def test_a_column_that_looks_like_a_flag_comes_back_from_the_file_of_flags(tmp_path, columns):
    write_config(tmp_path / "config.yaml", {"dataset": "imdb", "text_column": columns})
    words = read_config(tmp_path / "config.yaml", CLS.Args, "--config")
    assert parse(CLS.Args, words).text.text_column == tuple(columns)


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), (["--dataset", "imdb", "--lora-rank", "0"], 2)])
def test_a_closed_output_changes_neither_status_nor_message(words, status):
    line = " ".join([*map(str, command("finetune_cls")), *words, ">&-"])
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert done.returncode == status and "Traceback" not in done.stderr
    assert ("--lora-rank 0" in done.stderr) == (status == 2)


@pytest.mark.parametrize("where", ["2>&-", pytest.param("2>/dev/full", marks=NEEDS_FULL)])
def test_messages_that_cannot_be_written_end_no_run(where, tmp_path):
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {where}', sys.executable, TELLS], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_an_output_that_cannot_show_a_text_says_what_to_set(run_here, monkeypatch):
    def main(_):
        "\u2019".encode("ascii")

    script = SimpleNamespace(main=main, run=CLS.run, Args=CLS.Args, __doc__="", __file__="finetune_cls.py")
    status, _, said = run_here(script, "--dataset", "imdb")
    assert status == 2 and "set PYTHONUTF8=1" in said


def test_a_score_of_four_hundred_digits_is_out_of_range():
    found = read_score(Reply('{"score": ' + "9" * 400 + "}"))
    assert found == read_score(Reply('{"score": 101}'))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_worked_on_without_them(tmp_path, monkeypatch, number):
    def acquire(*_, **__):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with alone(tmp_path / "run", "--output-dir", "another run"):
        pass
    Store(tmp_path / "replies.jsonl").close()
    file = CachedFile(tmp_path / "cache", "key", "name", 3)
    file.write([b"abc"])
    assert file.complete and [path.name for path in file.path.parent.glob("*") if path.name != "lock"] == ["name"]
