"""The record of a run: the loss may stay on a device until it is read, and is then the same to the last bit."""

import pytest
import torch

from training.flags.common import RunArgs
from training.run.record import Record, intervals


def test_losses_that_are_read_at_points_of_the_curve_are_those_read_at_every_step():
    losses = torch.rand(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = losses.clone()
    read, unread = Record(), Record()
    for step, loss in enumerate(losses, start=1):
        read.add_step(float(loss), 3, 1, 10, 0.5)
        unread.add_step(loss, 3, 1, 10, 0.5)
        assert isinstance(unread.loss_sum, torch.Tensor)
        if step in (2, 7):
            assert unread.add_point(4) == read.add_point(4)
            assert isinstance(unread.curve[-1]["train_loss"], float)
    assert unread == read and torch.equal(losses, before)


@pytest.mark.parametrize(
    ("flags", "points", "evaluations", "saves"),
    [
        ({"log_every": 7}, [7, 14, 20], [*range(2, 21, 2)], [*range(2, 21, 2)]),
        ({"eval_every": 8}, [*range(1, 21)], [8, 16, 20], [8, 16, 20]),
        ({"log_every": 9, "eval_every": 8, "save_every": 6}, [9, 18, 20], [8, 16, 20], [6, 12, 18, 20]),
    ],
)
def test_the_flags_say_at_which_of_20_steps_what_is_due(flags, points, evaluations, saves):
    found = intervals(RunArgs(**flags), 20)
    for what, steps in {"log": points, "evaluate": evaluations, "save": saves}.items():
        assert [step for step in range(1, 21) if found.is_time_for(what, Record(step=step))] == steps, what


@pytest.mark.parametrize(
    ("flags", "validation", "notes"),
    [
        ({"early_stop": 10}, [0], ["--early-stop 10 stops nothing, since there are 10 evaluations"]),
        ({"early_stop": 2, "eval_every": 8}, [0], []),
        ({"early_stop": 3, "eval_every": 8}, [0], ["--early-stop 3 stops nothing, since there are 3 evaluations"]),
        ({"eval_every": 2, "eval_batches": 1}, [], ["--eval-every changes nothing", "--eval-batches changes nothing"]),
        ({}, [], []),
        ({"eval_every": 2, "eval_batches": 1}, [0], []),
    ],
)
def test_flags_of_evaluation_that_change_nothing_in_20_steps_are_noted(flags, validation, notes):
    found = RunArgs(**flags).notes(20, validation)
    assert len(found) == len(notes) and all(text.startswith(note) for text, note in zip(found, notes, strict=True))
