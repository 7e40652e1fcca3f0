"""The record of a run: the loss may stay on a device until it is read, and is then the same to the last bit."""

import torch

from training.run.record import Record


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
