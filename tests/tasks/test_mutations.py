"""Some hundred files of mutations.py: whole ones are read rightly, damaged ones rightly or refused in few words."""

import signal
from collections import Counter
from dataclasses import replace

import mutations
import pytest
from mutated_files import KINDS, make

FILES = 400


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutated")
    cases = [make(1, number) for number in range(FILES)]
    return [(case, mutations.judge(case, folder)) for case in cases]


def test_no_file_surprises(verdicts):
    assert [(case.ending, case.done, v.outcome, v.surprise) for case, v in verdicts if v.surprise] == []


def test_what_is_refused_though_others_read_it_is_refused_for_a_known_reason(verdicts):
    outcomes = {v.outcome for _, v in verdicts if "though" in v.outcome}
    assert outcomes
    assert [o for o in outcomes if not any(reason in o for reason in mutations.KNOWN_DIFFERENCES)] == []


def test_files_of_every_kind_were_read_and_refused(verdicts):
    counts = Counter((case.ending.removesuffix(".gz"), v.outcome.split(":")[1].split(",")[0]) for case, v in verdicts)
    for kind in KINDS:
        assert counts[kind, " read rightly"] > 10 and counts[kind, " refused"] > 10


def test_a_reader_that_loses_rows_is_found_out(tmp_path, monkeypatch):
    right = mutations.read_rows

    def careless(path, encoding=None):
        source = right(path, encoding)
        return replace(source, parts={"all": source.parts["all"][1:] or source.parts["all"]})

    monkeypatch.setattr(mutations, "read_rows", careless)
    cases = [make(1, number) for number in range(60)]
    surprises = [case.rows is None for case in cases if mutations.judge(case, tmp_path).surprise]
    assert surprises.count(False) > 5 and surprises.count(True) > 0


def test_a_timer_that_ran_before_runs_on(tmp_path):
    def strike(*_):
        raise AssertionError

    handler, timer = signal.signal(signal.SIGALRM, strike), signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        mutations.judge(make(1, 0), tmp_path)
        assert signal.getsignal(signal.SIGALRM) is strike and 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 500
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)
