"""The learning rate of every step against the authors' formula, and how many steps there are."""

import math

import pytest

from training.flags.common import UpdateArgs
from training.flags.update import FEWEST_UPDATES
from training.step.update import Schedule, build_schedule

PEAK, INIT, MINIMUM = 5e-5, 1e-5, 2e-6
SHAPES = ("cosine", "constant")


def authors_lr(t, steps, warmup, peak, initial_lr, min_lr):
    """`train_model` of the report's authors, with W = warmup and T = steps."""
    if t < warmup:
        return initial_lr + t * (peak - initial_lr) / warmup
    return min_lr + (peak - min_lr) * 0.5 * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup)))


def rates(steps, warmup, init=INIT, minimum=MINIMUM, shape="cosine"):
    schedule = Schedule(steps, warmup, PEAK, init, minimum, shape)
    return [schedule.lr_at(step) for step in range(steps)]


# The learning rate.


@pytest.mark.parametrize(("steps", "warmup"), [(2, 1), (10, 2), (750, 150), (6000, 1200), (100, 99), (37, 1)])
@pytest.mark.parametrize(("init", "minimum"), [(1e-5, 1e-5), (0.0, 0.0), (3e-5, 1e-6)])
def test_the_learning_rate_is_that_of_the_authors(steps, warmup, init, minimum):
    expected = [authors_lr(t, steps, warmup, PEAK, init, minimum) for t in range(steps)]
    assert rates(steps, warmup, init, minimum) == pytest.approx(expected, rel=1e-12, abs=1e-20)


def test_the_worked_example_of_the_schedule_holds():
    found = rates(10, 2, init=0.0, minimum=0.0)
    assert found[:3] == pytest.approx([0.0, PEAK / 2, PEAK])
    assert 0 < found[9] < 0.04 * PEAK


@pytest.mark.parametrize("shape", SHAPES)
def test_without_warmup_the_first_step_is_at_the_peak(shape):
    assert rates(10, 0, shape=shape)[0] == PEAK


@pytest.mark.parametrize("shape", SHAPES)
def test_a_warmup_of_one_step_starts_at_init_and_is_then_at_the_peak(shape):
    assert rates(10, 1, shape=shape)[:2] == pytest.approx([INIT, PEAK])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_warmup_over_all_steps_only_rises(shape):
    found = rates(10, 10, shape=shape)
    assert found == pytest.approx([INIT + (PEAK - INIT) * t / 10 for t in range(10)])
    assert math.isfinite(Schedule(10, 10, PEAK, INIT, MINIMUM, shape).lr_at(10))


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_training_of_one_step_has_a_learning_rate(warmup):
    assert rates(1, warmup) == pytest.approx([PEAK if warmup == 0 else INIT])


def test_a_constant_schedule_stays_at_the_peak_after_the_warmup():
    assert rates(20, 4, shape="constant")[4:] == [PEAK] * 16


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("warmup", [0, 1, 2, 7, 39, 40])
def test_the_learning_rate_rises_to_the_peak_and_then_never_again(warmup, shape):
    found = rates(40, warmup, shape=shape)
    rising, falling = found[: warmup + 1], found[warmup:]
    assert all(a < b for a, b in zip(rising, rising[1:], strict=False))
    assert all(a >= b for a, b in zip(falling, falling[1:], strict=False))
    assert shape == "constant" or all(a > b for a, b in zip(falling, falling[1:], strict=False))
    assert max(found) <= PEAK and (warmup == 40 or max(found) == PEAK)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("warmup", [0, 1, 13, 25])
def test_the_learning_rate_is_never_negative(warmup, shape):
    schedule = Schedule(25, warmup, PEAK, 0.0, 0.0, shape)
    assert all(schedule.lr_at(step) >= 0 for step in range(100))


def test_after_the_last_step_the_cosine_stays_at_the_minimum():
    schedule = Schedule(20, 4, PEAK, INIT, MINIMUM)
    assert schedule.lr_at(19) > MINIMUM
    assert [schedule.lr_at(step) for step in (20, 21, 60)] == pytest.approx([MINIMUM] * 3)


# From the flags.


def test_the_schedule_takes_every_flag():
    update = UpdateArgs(lr=PEAK, lr_init=INIT, lr_min=MINIMUM, schedule="constant", warmup_steps=3)
    assert build_schedule(update, 10) == Schedule(10, 3, PEAK, INIT, MINIMUM, "constant")


@pytest.mark.parametrize(
    ("ratio", "steps", "warmup"),
    [(0.2, 6000, 1200), (0.05, 39, 1), (0.0, 10, 0), (1.0, 7, 7), (0.29, 100, 29), (0.55, 10, 5)],
)
def test_a_warmup_ratio_is_rounded_down_to_steps(ratio, steps, warmup):
    assert build_schedule(UpdateArgs(lr=PEAK, warmup_ratio=ratio), steps).warmup == warmup


def test_warmup_steps_override_the_ratio():
    assert build_schedule(UpdateArgs(lr=PEAK, warmup_ratio=0.5, warmup_steps=0), 10).warmup == 0


def test_a_warmup_longer_than_the_training_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match="--warmup-steps 11: longer than the training, which has 10 steps"):
        build_schedule(UpdateArgs(lr=PEAK, warmup_steps=11), 10)
    assert build_schedule(UpdateArgs(lr=PEAK, warmup_steps=10), 10).warmup == 10


@pytest.mark.parametrize(("flags", "named"), [({"warmup_steps": 1}, "steps 1"), ({"warmup_ratio": 1.0}, "ratio 1")])
def test_a_warmup_of_the_only_update_which_would_train_nothing_is_refused(flags, named):
    with pytest.raises(ValueError, match=f"--warmup-{named}: the only update runs at --lr-init 0"):
        build_schedule(UpdateArgs(lr=PEAK, **flags), 1)
    assert build_schedule(UpdateArgs(lr=PEAK, lr_init=INIT, **flags), 1).lr_at(0) == INIT


def test_a_warmup_in_steps_and_as_a_ratio_is_noted():
    (note,) = UpdateArgs(max_steps=9, warmup_steps=1, warmup_ratio=0.5).notes(9)
    assert note == "--warmup-steps 1 overrules --warmup-ratio 0.5"
    assert len(UpdateArgs(epochs=1.0, max_steps=9, warmup_steps=1, warmup_ratio=0.5).notes(9)) == 2
    assert UpdateArgs(max_steps=9, warmup_steps=1).notes(9) == []


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (UpdateArgs(lr=0.0), "--lr 0.0"),
        (UpdateArgs(lr=-1e-5), "--lr -1e-05"),
        (UpdateArgs(lr_min=-1.0), "--lr-min -1.0"),
        (UpdateArgs(lr_init=-1.0), "--lr-init -1.0"),
        (UpdateArgs(warmup_ratio=1.5), "--warmup-ratio 1.5"),
        (UpdateArgs(warmup_steps=-1), "--warmup-steps -1"),
        (UpdateArgs(epochs=0.0), "--epochs 0.0"),
        (UpdateArgs(max_steps=0), "--max-steps 0"),
        (UpdateArgs(batch_size=0), "--batch-size 0"),
        (UpdateArgs(micro_batch_size=0), "--micro-batch-size 0"),
        (UpdateArgs(max_grad_norm=0.0), "--max-grad-norm 0.0"),
        (UpdateArgs(momentum=1.0), "--momentum 1.0"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_flag(args, named):
    (problem,) = args.problems()
    assert problem.startswith(named + ":") and "must be" in problem


@pytest.mark.parametrize(
    ("flags", "noted"),
    [
        ({"warmup_ratio": 0.1, "lr_init": 0.0005}, ["--lr-init", "--warmup-ratio"]),
        ({"warmup_steps": 0, "lr_init": 0.3, "clip_after_warmup": True}, ["--lr-init", "--clip-after-warmup"]),
        ({"warmup_ratio": 0.2, "lr_init": 0.0005}, []),
        ({"warmup_ratio": 0.0}, []),
        ({"warmup_steps": 0}, []),
        ({}, []),
    ],
)
def test_flags_of_a_warmup_that_has_no_update_are_noted(flags, noted):
    notes = UpdateArgs(max_steps=9, **flags).notes(9)
    assert notes == [f"{name} changes nothing, since none of 9 updates warms up" for name in noted]


def test_a_norm_of_0_is_answered_with_how_not_to_clip():
    assert UpdateArgs(max_grad_norm=0.0).problems()[0].endswith("; None does not clip")


def test_default_values_have_no_problems():
    assert UpdateArgs().problems() == []


# How many steps.


@pytest.mark.parametrize(
    ("args", "examples", "steps"),
    [
        (UpdateArgs(epochs=1, batch_size=16), 160, 10),
        (UpdateArgs(epochs=1, batch_size=16), 161, 11),
        (UpdateArgs(epochs=3, batch_size=16), 161, 33),
        (UpdateArgs(epochs=1, batch_size=16), 5, 1),
        (UpdateArgs(epochs=1, batch_size=2), 12000, 6000),
        (UpdateArgs(epochs=0.5, batch_size=16), 160, 5),
        (UpdateArgs(epochs=0.25, batch_size=16), 160, 3),
        (UpdateArgs(epochs=1.5, batch_size=10), 31, 6),
        (UpdateArgs(epochs=0.001, batch_size=16), 160, 1),
        (UpdateArgs(max_steps=7, batch_size=16), 160, 7),
        (UpdateArgs(max_steps=700, batch_size=16), 160, 700),
        (UpdateArgs(max_steps=7, epochs=2, batch_size=16), 160, 7),
        (UpdateArgs(max_steps=70, epochs=2, batch_size=16), 160, 70),
        (UpdateArgs(epochs=3, batch_size=16, drop_last=True), 161, 30),
        (UpdateArgs(epochs=1, batch_size=16, drop_last=True), 16, 1),
        (UpdateArgs(epochs=0.5, batch_size=16, drop_last=True), 175, 5),
    ],
)
def test_the_number_of_steps_follows_from_epochs_batches_and_max_steps(args, examples, steps):
    assert args.steps(examples) == steps
    assert args.steps_per_epoch(examples) == (
        examples // args.batch_size if args.drop_last else -(-examples // args.batch_size)
    )


@pytest.mark.parametrize(("epochs", "per_epoch", "steps"), [(0.07, 100, 7), (0.55, 100, 55), (0.14, 50, 7)])
def test_a_fraction_that_makes_whole_steps_makes_exactly_these(epochs, per_epoch, steps):
    assert UpdateArgs(epochs=epochs, batch_size=1).steps(per_epoch) == steps


def test_a_drop_last_that_leaves_nothing_is_refused_with_the_numbers():
    with pytest.raises(ValueError, match="--drop-last: leaves nothing of 15 examples at --batch-size 16"):
        UpdateArgs(epochs=1, batch_size=16, drop_last=True).steps(15)


def test_open_flags_are_filled_in_and_given_ones_kept():
    filled = UpdateArgs().with_defaults(2e-3, 3.0, 768, 1000)
    assert (filled.lr, filled.epochs) == (pytest.approx(2e-3 * 192 / 768), 3.0)
    assert UpdateArgs(lr=1e-4, epochs=0.5).with_defaults(2e-3, 3.0, 768, 8) == UpdateArgs(lr=1e-4, epochs=0.5)


def test_epochs_that_give_more_updates_than_any_run_makes_are_refused():
    with pytest.raises(ValueError, match="--epochs 1e[+]06: gives 2,000,000,000 updates; at most 1,000,000,000"):
        UpdateArgs(epochs=1e6, batch_size=1).steps(2000)


def test_max_steps_alone_is_not_cut_by_the_default_epochs():
    filled = UpdateArgs(max_steps=500, batch_size=16).with_defaults(2e-3, 3.0, 768, 160)
    assert filled.steps(160) == 500


@pytest.mark.parametrize(("examples", "epochs"), [(319, 5), (320, 5), (10, 100), (1, 200), (800, 2), (100_000, 2)])
def test_default_epochs_are_as_many_as_200_updates_take_where_that_is_more(examples, epochs):
    filled = UpdateArgs().with_defaults(1e-3, 2.0, 192, examples)
    assert filled.epochs == epochs
    assert filled.steps(examples) >= FEWEST_UPDATES
    assert UpdateArgs().notes(filled.steps(examples)) == []
    assert UpdateArgs().with_defaults(1e-3, 2.0, 192, examples, fewest=1).epochs == 2


def test_given_epochs_and_steps_stay_and_too_few_epochs_are_said_to_be():
    few = UpdateArgs(epochs=2).with_defaults(1e-3, 2.0, 192, 319)
    assert few.epochs == 2 and few.steps(319) == 80
    (note,) = UpdateArgs(epochs=2).notes(80)
    assert note.startswith("--epochs 2 gives 80 updates") and "200" in note
    assert UpdateArgs(epochs=5).notes(200) == []
    assert UpdateArgs(max_steps=3).with_defaults(1e-3, 2.0, 192, 319).steps(319) == 3
    assert UpdateArgs(max_steps=3).notes(3) == []


# Clipping.


def test_clipping_can_wait_for_the_end_of_the_warmup():
    early, late = UpdateArgs(max_grad_norm=0.7), UpdateArgs(max_grad_norm=0.7, clip_after_warmup=True)
    assert [early.clip_at(step, warmup=2) for step in range(4)] == [0.7] * 4
    assert [late.clip_at(step, warmup=2) for step in range(4)] == [None, None, 0.7, 0.7]
    assert UpdateArgs(max_grad_norm=None).clip_at(3, warmup=0) is None
