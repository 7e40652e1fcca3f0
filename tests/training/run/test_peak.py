"""The peak memory in results.json, in the units of each system."""

import resource
import sys
from pathlib import Path

import psutil
import pytest

from training.run.results import peak_resident


def test_the_peak_is_at_least_what_the_process_holds():
    held = psutil.Process().memory_info().rss
    assert 0.9 * held <= peak_resident() <= psutil.virtual_memory().total


@pytest.mark.parametrize(("system", "unit"), [("darwin", 1), ("freebsd14", 1024)])
def test_getrusage_counts_in_bytes_on_macos_and_in_kibibytes_elsewhere(system, unit, monkeypatch):
    def missing(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "read_text", missing)
    assert peak_resident() == unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
