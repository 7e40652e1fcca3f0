"""Pictures are drawn into files, whatever a notebook has set for its own."""

import subprocess
import sys

DRAWS = """
from dataclasses import dataclass
from pathlib import Path
from training.flags.cli import run
from training.run.plots import plot_curves

@dataclass(frozen=True)
class Args:
    into: Path

run(lambda args: plot_curves(args.into, [{"step": 1, "train_loss": 1.0, "lr": 0.1, "grad_norm": 1.0}], "run"), Args, "")
"""


def test_a_backend_that_is_not_installed_stops_no_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://not_installed.backend_inline")
    subprocess.run([sys.executable, "-c", DRAWS, "--into", str(tmp_path / "curves.png")], check=True)
    assert (tmp_path / "curves.png").stat().st_size > 1000
