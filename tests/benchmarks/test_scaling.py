"""The simulation of many workers, against schedules that can be worked out by hand."""

import scaling


def test_whoever_is_free_first_takes_the_next_run():
    assert scaling.finish([[3, 2, 2]], workers=2) == (4, 3)
    assert scaling.finish([[2, 2, 3]], workers=2) == (5, 3)
    assert scaling.finish([[3, 2, 2]], workers=1) == (7, 3)
    assert scaling.finish([[3, 2, 2]], workers=512) == (3, 3)


def test_a_round_waits_for_all_runs_of_the_one_before():
    assert scaling.in_rounds([1, 4, 3, 1], 2) == [[1, 4], [3, 1]]
    assert scaling.finish([[1, 4], [3, 1]], workers=2) == (7, 7)
    assert scaling.finish([[1, 4], [3, 1]], workers=1) == (9, 7)
    assert scaling.finish([[1, 4, 3, 1]], workers=2) == (5, 4)


def test_every_recorded_run_of_fine_tuning_has_a_duration(capsys):
    scaling.main(scaling.Args(workers=(1, 2), runs=20, rounds=(5,), draws=3))
    told = capsys.readouterr().out
    assert told.startswith("608 recorded runs of ")
    rows = [line.split(" | ") for line in told.splitlines() if line.startswith("| ") and "workers" not in line]
    assert len(rows) == 6 and all(row[3:5] == ["1.0", "0"] for row in rows[:3])  # one worker is never idle
