"""A run that is killed and resumed ends like one that never was, and a full disk costs nothing."""

import shutil
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from helpers import kill_at_a_random_moment, results_of, run_in_process, run_script, weights_of

from training.run.cores import usable_cores

STEPS = 27


@pytest.mark.parametrize(
    ("script", "processes", "dropout", "method"),
    [
        ("finetune_cls", 1, 0.0, "lora"),
        ("finetune_cls", 1, 0.2, "full"),
        ("finetune_cls", 2, 0.2, "lora"),
        ("finetune_ift", 2, 0.2, "lora"),
    ],
)
def test_a_killed_and_resumed_run_ends_bit_for_bit_like_an_unbroken_one(
    script, processes, dropout, method, few_tokens, mail_file, question_file, tmp_path
):
    data = mail_file if script == "finetune_cls" else question_file
    flags = ["--data", data, "--model", few_tokens, "--max-steps", STEPS, "--batch-size", 8, "--micro-batch-size", 2]
    flags += ["--dropout", dropout, "--method", method, "--eval-every", 4, "--save-every", 3, "--lr", 1e-2]
    flags += ["--new-tokens", 4] if script == "finetune_ift" else []
    run_with = run_in_process if processes == 1 else partial(run_script, processes=processes)
    unbroken = run_with(script, *flags, "--output-dir", tmp_path / "a")
    assert unbroken.returncode == 0, unbroken.stderr

    broken = [*flags, "--output-dir", tmp_path / "b"]
    kill_at_a_random_moment(script, processes, broken, tmp_path / "b")
    resumed = run_with(script, *broken, "--resume")
    assert resumed.returncode == 0, resumed.stderr

    ours, theirs = weights_of(tmp_path / "b"), weights_of(tmp_path / "a")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    a, b = results_of(tmp_path / "a"), results_of(tmp_path / "b")
    assert len(a["curve"]) >= STEPS // 4
    assert a["curve"] == b["curve"]
    for name in ("before", "val", "test", "best_step", "data"):
        assert a[name] == b[name], name
    rows = "predictions.jsonl" if script == "finetune_cls" else "generations.jsonl"
    assert (tmp_path / "a" / rows).read_text() == (tmp_path / "b" / rows).read_text()
    assert not (tmp_path / "b" / "checkpoint").exists(), "a finished run keeps no checkpoint"


def test_a_run_on_all_threads_that_is_resumed_on_one_ends_bit_for_bit_the_same(few_tokens, mail_file, tmp_path):
    threads = min(usable_cores(), psutil.cpu_count(logical=False) or usable_cores())
    if threads == 1:
        pytest.skip("one core may be used: all threads are one")
    flags = ["--data", mail_file, "--model", few_tokens, "--max-steps", STEPS, "--eval-every", 4, "--save-every", 3]
    free = {"OMP_NUM_THREADS": ""}
    unbroken = run_in_process("finetune_cls", *flags, "--output-dir", tmp_path / "a", **free)
    assert unbroken.returncode == 0, unbroken.stderr
    broken = [*flags, "--output-dir", tmp_path / "b"]
    kill_at_a_random_moment("finetune_cls", 1, broken, tmp_path / "b", **free)
    resumed = run_in_process("finetune_cls", *broken, "--resume", OMP_NUM_THREADS="1")
    assert resumed.returncode == 0, resumed.stderr
    a, b = results_of(tmp_path / "a"), results_of(tmp_path / "b")
    assert a["environment"]["threads"] == b["environment"]["threads"] == threads
    assert a["curve"] == b["curve"] and a["test"] == b["test"]
    assert a["micro_batch"]["used"] == b["micro_batch"]["used"]


@pytest.fixture(scope="module")
def killed(few_tokens, mail_file, tmp_path_factory):
    """The folder of a run that was killed, a copy of it, and the flags that go on with the run."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    flags = ["--data", mail_file, "--model", few_tokens, "--max-steps", 40, "--eval-every", 20, "--save-every", 2]
    flags += ["--batch-size", 8, "--micro-batch-size", 3, "--output-dir", folder]
    kill_at_a_random_moment("finetune_cls", 1, flags, folder, seed=0)
    return folder, shutil.copytree(folder, folder.with_name("copy")), flags


@pytest.fixture
def stopped(killed):
    """The flags and the folder, as the kill left it."""
    folder, copy, flags = killed
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    return flags, folder


def refused(flags, *words):
    done = run_in_process("finetune_cls", *flags)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_what_was_stopped_is_not_begun_again_unasked(stopped):
    flags, folder = stopped
    refused(flags, "--resume", "--overwrite")
    assert (folder / "checkpoint" / "state.pt").exists()


def test_a_checkpoint_is_not_resumed_into_another_run(stopped):
    flags, folder = stopped
    before = (folder / "checkpoint" / "state.pt").read_bytes()
    refused([*flags, "--resume", "--lr", 1e-4], "--lr", "--overwrite")
    refused([*flags, "--resume", "--train-examples", 20], "--train-examples")
    assert (folder / "checkpoint" / "state.pt").read_bytes() == before


def test_processes_and_precision_of_a_checkpoint_are_told(stopped):
    flags, folder = stopped
    path = folder / "checkpoint" / "state.pt"
    state = torch.load(path, weights_only=True)
    state["identity"] |= {"processes": "2", "precision": "bf16"}
    torch.save(state, path)
    refused([*flags, "--resume"], "was made with --num_processes 2 (now 1) and --mixed-precision bf16 (now no); use")


def test_the_folder_alone_is_enough_to_go_on(stopped):
    flags, folder = stopped
    started = yaml.safe_load((folder / "config.yaml").read_text())
    assert started["script"] == "finetune_cls" and started["max-steps"] == 40
    alone = ["--resume", "--output-dir", folder]
    refused([*alone, "--lr", 1e-4], f"--lr {started['lr']} (now 0.0001)", "--overwrite")
    refused([*alone, "--batch_size=4"], "--batch-size 8 (now 4)")
    wrong_script = run_in_process("finetune_ift", *alone)
    assert wrong_script.returncode == 2 and "holds a run of finetune_cls.py" in wrong_script.stderr
    done = run_in_process("finetune_cls", *alone, "--save-every", 100, "--micro-batch-size", "auto")
    assert done.returncode == 0, done.stderr
    results = results_of(folder)
    assert results["args"]["eval_every"] == 20 and results["curve"][-1]["step"] == 40
    assert results["micro_batch"] == {"asked": "auto", "used": 3}, "auto keeps the number that the run began with"
    refused(alone, "finished run, nothing is left to --resume")


def test_what_a_run_reads_may_have_moved_but_not_changed(stopped, few_tokens, mail_file, tmp_path):
    _, folder = stopped
    mails, model = shutil.copy(mail_file, tmp_path / "moved.jsonl"), shutil.copytree(few_tokens, tmp_path / "moved")
    moved = ["--resume", "--output-dir", folder, "--data", mails, "--model", model]
    (tmp_path / "other.jsonl").write_text("\n".join(Path(mail_file).read_text().splitlines()[:-1]))
    refused([*moved, "--data", tmp_path / "other.jsonl"], "was made with another data", "--overwrite")
    refused([*moved, "--model", "gpt2-nano"], "was made with another base", "--overwrite")
    done = run_in_process("finetune_cls", *moved)
    assert done.returncode == 0, done.stderr
    assert results_of(folder)["curve"][-1]["step"] == 40
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"] == str(mails)


def test_a_run_killed_before_its_first_checkpoint_starts_again_with_its_flags(stopped):
    flags, folder = stopped
    (folder / "checkpoint" / "state.pt").unlink()
    started = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(started.replace("max-steps: 40", "max-steps: 3"))
    done = run_in_process("finetune_cls", "--output-dir", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert results_of(folder)["curve"][-1]["step"] == 3


@pytest.mark.parametrize("content", [None, "{", "[]", "lora-rank: many"])
def test_a_folder_without_a_run_that_was_stopped_gets_one_message(content, tmp_path):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    wanted = "holds no run that was stopped" if content is None else f"--resume: {tmp_path / 'config.yaml'}: "
    refused(["--resume", "--output-dir", tmp_path], wanted)


def test_a_damaged_checkpoint_is_refused(stopped):
    flags, folder = stopped
    state = folder / "checkpoint" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    refused([*flags, "--resume"], "damaged", "--overwrite")


def test_overwrite_starts_again(stopped):
    flags, folder = stopped
    done = run_in_process("finetune_cls", *flags[:4], "--max-steps", 3, "--output-dir", folder, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert results_of(folder)["curve"][-1]["step"] == 3
