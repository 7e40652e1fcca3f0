"""The comparison of races, on grids whose winner is known."""

import json

import numpy as np
import pytest

import racing
from racing import Grid, by_seed, friedman, halving, is_wrong, ours, read_grid, simulated, wilcoxon

ARMS, RATES, SEEDS, N = 4, 7, 5, 120
MAIL = racing.Path(racing.__file__).parent / "grids" / "mail.npz"


@pytest.fixture
def grid():
    """Arm 0 wins at its third rate; the others are worse by far, and by more from arm to arm."""
    rng = np.random.default_rng(0)
    means = 0.2 + 0.3 * np.arange(ARMS)[:, None] + 0.1 * (np.arange(RATES) - 2) ** 2
    losses = means[..., None, None] + rng.normal(0, 0.01, (ARMS, RATES, SEEDS, 1)) + rng.normal(0, 0.05, N)
    return Grid([*"abcd"], losses + rng.normal(0, 0.01, losses.shape), classes=True)


def nothing(losses):
    return np.zeros(len(losses), bool)


def test_a_complete_grid_is_never_wrong_and_saves_nothing(grid):
    raced = by_seed(nothing)(grid)
    assert raced.runs == ARMS * RATES * SEEDS and len(raced.left) == ARMS * RATES
    assert not is_wrong(grid, raced.left)


@pytest.mark.parametrize("race", [ours(0.01), by_seed(halving), by_seed(friedman), by_seed(wilcoxon)])
def test_where_one_arm_wins_by_far_every_race_keeps_it_and_saves(grid, race):
    raced = race(grid)
    assert (0, 2) in raced.left and not is_wrong(grid, raced.left)
    assert raced.runs < ARMS * RATES * SEEDS


def test_our_race_takes_less_than_a_third_of_that_grid(grid):
    assert ours(0.01)(grid).runs * 3 < ARMS * RATES * SEEDS


def test_a_race_is_wrong_when_all_that_is_left_is_worse_by_more_than_the_tolerance(grid):
    assert is_wrong(grid, []) and is_wrong(grid, [(3, 6)])
    near = grid.losses.copy()
    near[1, 2] = near[0, 2] + 1e-4
    assert not is_wrong(Grid(grid.arms, near, True), [(1, 2)])
    text = Grid(grid.arms, grid.losses, classes=False)
    assert is_wrong(text, [(0, 3)]) and not is_wrong(text, [(0, 2)])


def test_halving_halves_from_the_first_seed_on(grid):
    assert by_seed(halving)(grid).runs == 28 + 14 + 7 + 4 + 2


def test_a_simulated_grid_varies_as_the_recorded_one_does(grid):
    rng = np.random.default_rng(1)
    drawn = [simulated(grid, rng) for _ in range(40)]
    assert all(one.losses.shape == (ARMS, RATES, 5, N) for one in drawn)
    winners = {int(one.losses.mean((2, 3)).min(1).argmin()) for one in drawn}
    assert len(winners) > 1, "not always the same arm"
    between = np.mean([one.losses.mean(3).std(2, ddof=1).mean() for one in drawn])
    assert between == pytest.approx(grid.losses.mean(3).std(2, ddof=1).mean(), rel=0.3)


def rest(grid):
    """What seeds do to single examples, of losses over their mean: (arms, rates, seeds, n)."""
    shapes = grid.losses / grid.losses.mean(3)[..., None]
    return shapes - shapes.mean(2)[:, :, None]


def test_no_simulated_loss_is_negative_and_no_two_seeds_are_alike():
    recorded, rng = read_grid(MAIL), np.random.default_rng(0)
    for _ in range(5):
        drawn = simulated(recorded, rng)
        assert drawn.losses.min() >= 0
        alike = np.corrcoef(rest(drawn).transpose(2, 0, 1, 3).reshape(5, -1))
        assert (alike - np.eye(5)).max() < 0.5


def test_seeds_differ_on_an_example_as_much_as_recorded_ones_do(grid):
    rng = np.random.default_rng(2)
    found = np.mean([(rest(simulated(grid, rng)) ** 2).mean() for _ in range(20)])
    assert found == pytest.approx((rest(grid) ** 2).mean(), rel=0.1)


def test_a_grid_is_read_from_the_runs_of_a_study(tmp_path):
    for arm, rate, seed in [(a, r, s) for a in ("full", "lora-r4") for r in ("0.001", "0.002") for s in (0, 1)]:
        folder = tmp_path / arm / f"lr-{rate}" / f"seed-{seed}"
        folder.mkdir(parents=True)
        rows = [{"id": i, "prediction": "a", "loss": float(rate) * 1000 + seed} for i in range(3)]
        (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_grid(tmp_path)
    assert found.arms == ["full", "lora-r4"] and found.losses.shape == (2, 2, 2, 3) and found.classes
    assert found.losses[0, 1, 1, 0] == pytest.approx(3.0)


def test_the_table_has_a_line_for_each_way(grid, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(racing, "read_grid", lambda folder: grid)
    racing.main(racing.Args(grid=(tmp_path / "mail" / "x",), grids=20, alpha=(0.01, 0.05)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 + 5 and all(line.startswith("| mail |") for line in lines[2:])
    (complete,) = [line for line in lines if "complete grid" in line]
    assert "| 100.0% | 0.0% |" in complete and complete.endswith("| no |")


def test_the_recorded_grid_is_raced_rightly_at_less_than_half_its_cost():
    recorded = read_grid(MAIL)
    arms, rates, seeds, n = recorded.losses.shape
    assert (arms, rates, seeds, n) == (5, 7, 4, 300) and recorded.classes
    raced = ours(racing.ALPHA)(recorded)
    assert not is_wrong(recorded, raced.left) and 2 * raced.runs < arms * rates * seeds


def test_a_saved_grid_is_the_grid(grid, tmp_path):
    racing.save_grid(grid, tmp_path / "grid.npz")
    again = read_grid(tmp_path / "grid.npz")
    assert again.arms == grid.arms and again.classes and np.allclose(again.losses, grid.losses, atol=2e-3)
