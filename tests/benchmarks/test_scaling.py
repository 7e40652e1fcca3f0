"""The simulation of many workers, against schedules that can be worked out by hand."""

import numpy as np

import racing
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
    assert told.startswith("653 recorded runs of ")
    lists, races = told.split("\n\n")[1:]
    rows = [line.split(" | ") for line in lists.splitlines() if line.startswith("| ") and "workers" not in line]
    assert len(rows) == 6 and all(row[3:5] == ["1.0", "0"] for row in rows[:3])  # one worker is never idle
    rows = [
        line.strip("| ").split(" | ") for line in races.splitlines() if line.startswith("| ") and "idle" not in line
    ]
    assert [row[:2] for row in rows] == [[n, name] for n in "12" for name in ("waits", "begins early")]
    assert rows[0][2:] == rows[1][2:] and rows[0][5] == "0"


def test_a_race_with_early_runs_asks_for_the_same_and_is_done_sooner():
    grids = [racing.simulated(racing.read_grid(scaling.GRID), np.random.default_rng(i)) for i in range(3)]
    for grid in grids:
        alone, _, _ = scaling.raced(grid, 1, False, 0)
        waits, asked, nothing = scaling.raced(grid, 4, False, 0)
        early, same, in_vain = scaling.raced(grid, 4, True, 0)
        assert asked == same and nothing == 0 and in_vain <= 4
        assert early < waits < alone and early >= 0.9 * asked / 4 and 0.9 * asked < alone < 1.1 * asked
