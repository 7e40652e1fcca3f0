"""Keeps what a run knows of itself while it trains: its progress, the curve, the best step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from training.data.examples import Data
from training.flags.common import RunArgs
from training.flags.finetuning import FineTuneArgs
from training.flags.update import UpdateArgs
from training.step.update import Schedule, build_schedule

MOST_OVERFLOWS = 20
What = Literal["log", "evaluate", "save"]


@dataclass
class Record:
    """The progress of a run. Every checkpoint holds it, so that a resumed run reports the same as an unbroken one."""

    step: int = 0  # optimizer steps done
    examples: int = 0
    tokens: int = 0
    loss_sum: float | Tensor = 0.0  # since the last point of the curve, where it is read; until then on the device
    loss_count: int = 0
    overflows: int = 0
    overflows_in_a_row: int = 0
    best_step: int = -1
    best_loss: float = float("inf")
    stale: int = 0  # evaluations since the best one
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    peak_memory_mib: float = 0.0  # of all processes that the run went through, one after the other
    curve: list[dict[str, Any]] = field(default_factory=list)

    def add_step(self, loss_sum: float | Tensor, count: int, examples: int, tokens: int, seconds: float) -> None:
        self.step += 1
        self.overflows_in_a_row = 0
        self.loss_sum += loss_sum
        self.loss_count += count
        self.examples += examples
        self.tokens += tokens
        self.train_seconds += seconds

    def add_overflow(self) -> None:
        """Counts an fp16 update that overflowed; the same step is tried again at half the loss scale.

        Raises ValueError after so many in a row that the loss itself must be infinite or NaN.
        """
        self.overflows += 1
        self.overflows_in_a_row += 1
        if self.overflows_in_a_row > MOST_OVERFLOWS:
            raise ValueError(f"step {self.step} overflows in fp16 at every loss scale; lower --lr or use bf16")

    def add_point(self, steps_per_epoch: int, **measured: float) -> dict[str, Any]:
        """Adds a point to the curve; its training loss is the mean per target since the point before."""
        point = {
            "step": self.step,
            "epoch": self.step / steps_per_epoch,
            "examples": self.examples,
            "tokens": self.tokens,
            "train_loss": float(self.loss_sum) / max(self.loss_count, 1),
            **measured,
        }
        self.loss_sum, self.loss_count = 0.0, 0
        self.curve.append(point)
        return point

    def improved(self, val_loss: float) -> bool:
        """Returns whether this evaluation is the best so far, and counts those that are not."""
        if val_loss < self.best_loss:
            self.best_step, self.best_loss, self.stale = self.step, val_loss, 0
            return True
        self.stale += 1
        return False

    def last(self, name: str) -> float | None:
        """Returns the latest value of `name`, which not every point has."""
        return next((point[name] for point in reversed(self.curve) if name in point), None)


@dataclass(frozen=True)
class Intervals:
    """Optimizer steps between points of the curve, evaluations and checkpoints, and of the whole training."""

    log: int
    evaluate: int
    save: int
    steps: int
    early_stop: int | None = None  # evaluations without a lower validation loss after which the run ends
    unit = "ex"  # of the progress line

    def advance(self, record: Record) -> None:
        """Does nothing, since the record itself says how far the run is."""

    def over(self, record: Record) -> bool:
        return record.step >= self.steps or (self.early_stop is not None and record.stale >= self.early_stop)

    def is_time_for(self, what: What, record: Record) -> bool:
        """Returns whether `what` is due at this step; at the last step it always is."""
        every: int = getattr(self, what)
        return record.step % every == 0 or record.step == self.steps

    def progress(self, record: Record) -> int:
        """Returns the number of examples, which the progress line counts."""
        return record.examples


def intervals(run: RunArgs, steps: int) -> Intervals:
    """Returns the intervals of the flags. By default a hundredth of the run lies between points of the curve."""
    evaluate = run.evaluates_every(steps)
    log = run.log_every or max(1, -(-steps // 100))
    return Intervals(log, evaluate, run.save_every or evaluate, steps, run.early_stop)


def resolve_update(
    args: FineTuneArgs, defaults: Mapping[str, tuple[float, float]], width: int, data: Data[Any], fewest: int
) -> tuple[UpdateArgs, Schedule, Intervals]:
    """Returns the update with its defaults filled in, the schedule, and when things are due.

    `defaults`: peak learning rate at width 192, and epochs, of each method; `fewest`: updates that default epochs make
    at least. `data` gets notes on a shorter length and on flags that change nothing. Raises the errors of
    `UpdateArgs.steps` and `build_schedule`.
    """
    examples = len(data.train)
    update = args.update.with_defaults(*defaults[args.method.method], width, examples, fewest)
    steps = update.steps(examples)
    data.facts.notes.extend(args.update.notes(steps, fewest) + args.run.notes(steps, data.validation))
    return update, build_schedule(update, steps), intervals(args.run, steps)
