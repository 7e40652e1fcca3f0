"""Under a launcher our message is the last thing on the screen, whatever the launcher prints of its own."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from forked import free_port
from helpers import ROOT

from training.flags import last_word
from training.flags.last_word import is_launcher

ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
TWO = [*ACCELERATE, "--config_file", "accelerate_configs/ddp.yaml", "--main_process_port", "PORT"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "PORT"]


def ported(words):
    return [free_port() if word == "PORT" else word for word in words]


@pytest.mark.parametrize("launcher", [ACCELERATE, [*TWO, "-q"], TORCHRUN], ids=["accelerate", "two, -q", "torchrun"])
def test_a_refusal_has_the_last_word(launcher, tiny_model):
    words = [*ported(launcher), "scripts/finetune_cls.py", "--data", "absent.csv", "--model", str(tiny_model)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1  # the launcher's own status for any failure
    assert "Traceback" in done.stdout  # the launcher's
    assert done.stdout.splitlines()[-1] == "error: --data absent.csv: no such file or folder"


def test_a_quiet_launcher_lets_the_message_be_said_once(tiny_model):
    words = [*ACCELERATE, "-q", "scripts/finetune_cls.py", "--data", "absent.csv", "--model", str(tiny_model)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, check=False)
    assert done.stdout.count("error: --data absent.csv") == 1 and "Traceback" not in done.stdout


@pytest.mark.parametrize("launcher", [ACCELERATE, TWO], ids=["accelerate", "two processes"])
def test_ctrl_c_has_the_last_word(launcher, tiny_model, mail_file, tmp_path):
    words = [*ported(launcher), "scripts/finetune_cls.py", "--data", mail_file, "--model", tiny_model]
    words += ["--max-steps", 5000, "--eval-every", 2500, "--save-every", 5, "--output-dir", tmp_path / "run"]
    run = subprocess.Popen(
        [*map(str, [*words, "--forgetting-data", "none"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,  # as a terminal has it: Ctrl-C goes to all of its processes
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline, saved = time.monotonic() + 240, tmp_path / "run" / "checkpoint" / "state.pt"
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    text, _ = run.communicate(timeout=120)
    assert saved.exists()
    assert text.splitlines()[-1].startswith("error: interrupted; a training run goes on from its last checkpoint")


def test_who_waits_for_the_launcher_holds_no_connection_open(monkeypatch):
    """Another process, which waits for numbers of one that has ended, hears of that at once."""
    launcher = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(last_word, "is_launcher", lambda _: True)
    monkeypatch.setattr(psutil.Process, "parent", lambda _: psutil.Process(launcher.pid))
    before = {child.pid for child in psutil.Process().children()}
    ours, theirs = socket.socketpair()
    last_word.repeat_after_launcher("the last word\n")
    (waiting,) = {child.pid for child in psutil.Process().children()} - before
    ours.close()
    theirs.settimeout(10)
    assert theirs.recv(1) == b""
    theirs.close()
    launcher.kill()
    launcher.wait()
    os.waitpid(waiting, 0)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (".venv/bin/python .venv/bin/accelerate launch scripts/finetune_cls.py -q", True),
        ("python -m accelerate.commands.launch scripts/finetune_cls.py", True),
        ("python /usr/bin/torchrun --nproc_per_node 2 scripts/finetune_cls.py", True),
        ("python .venv/bin/accelerate-launch scripts/finetune_cls.py", True),
        ("python .venv/bin/accelerate launch --quiet scripts/finetune_cls.py", False),
        ("bash reproduce/all.sh", False),
        ("python -m pytest tests", False),
        ("", False),
    ],
)
def test_a_launcher_is_known_by_its_command(command, expected, monkeypatch):
    assert is_launcher(command.split()) is expected
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # set for each of several processes, whose launcher ignores -q
    assert is_launcher(command.split()) is (expected or "-quiet" in command)
