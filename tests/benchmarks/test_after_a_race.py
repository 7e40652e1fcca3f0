"""The coverage of what a study says after its race, where the truth is known."""

import numpy as np
import pytest

import after_a_race
import racing

MAIL = racing.read_grid(racing.Path(racing.__file__).parent / "grids" / "mail.npz")


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    return [after_a_race.study(racing.Population(MAIL, rng), 300, rng) for _ in range(12)]


def test_every_arm_beside_the_winner_is_compared_on_the_seeds_that_both_have(found):
    for _, said in found:
        assert len(said) == len(MAIL.arms) - 1 and all(2 <= one.seeds <= 5 for one in said)
        assert all(-1 <= one.truth <= 1 and -1 <= one.value <= 1 for one in said)
        assert not any(one.differs for one in said if one.holds and one.truth == 0)
    assert {one.seeds for _, said in found for one in said} >= {2, 5}


def test_intervals_hold_the_truth_and_not_another(found):
    said = [one for _, said in found for one in said]
    assert np.mean([one.holds for one in said]) >= 0.9 and np.mean([winner.holds for winner, _ in found]) >= 0.75
    assert abs(np.mean([one.value - one.truth for one in said])) < 0.04
    assert np.std([one.truth for one in said]) > 0.02  # so that holding it says something


def test_a_truth_that_is_another_is_not_held(monkeypatch):
    """The seeds that the truth is a mean of are those of a population whose every loss is ten times as high."""
    seeds = racing.Population.seeds

    def spoilt(self, count, rng):
        return seeds(self, count, rng) * (10 if count == after_a_race.OTHERS else 1)

    monkeypatch.setattr(racing.Population, "seeds", spoilt)
    rng = np.random.default_rng(0)
    assert not any(after_a_race.study(racing.Population(MAIL, rng), 300, rng)[0].holds for _ in range(4))


def test_the_table_has_a_row_for_each_number_of_seeds(capsys):
    after_a_race.main(after_a_race.Args(racing.Path(racing.__file__).parent / "grids" / "mail.npz", 3, (150,)))
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[2 : lines.index("")]]
    assert rows[-1][:3] == ["150", "all", "12"] and sum(int(row[2]) for row in rows[:-1]) == 12
    assert lines[-2].startswith("150: ") and "of the winners' own intervals hold" in lines[-2]
