"""What a run remembers of itself while it trains: the curve, the best step, and when things are due."""

from dataclasses import dataclass, field
from typing import Any

from training.flags.common import RunArgs

MOST_OVERFLOWS = 20


@dataclass(frozen=True)
class Intervals:
    """Optimizer steps between points of the curve, evaluations and checkpoints."""

    log: int
    evaluate: int
    save: int
    steps: int

    def due(self, every: int, done: int) -> bool:
        """Whether something that happens every so many steps is due after `done` of them; the last step always is."""
        return done % every == 0 or done == self.steps


def intervals(run: RunArgs, steps: int) -> Intervals:
    evaluate = run.eval_every or max(1, -(-steps // 10))
    return Intervals(run.log_every or max(1, -(-steps // 100)), evaluate, run.save_every or evaluate, steps)


@dataclass
class Record:
    """Saved in every checkpoint, so that a resumed run tells the same story as one that was never stopped."""

    step: int = 0  # optimizer steps done
    examples: int = 0
    tokens: int = 0
    loss_sum: float = 0.0  # since the last point of the curve
    loss_count: int = 0
    overflows: int = 0
    overflows_in_a_row: int = 0
    best_step: int = -1
    best_loss: float = float("inf")
    stale: int = 0  # evaluations since the best one
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)

    def add_step(self, loss_sum: float, count: int, examples: int, tokens: int, seconds: float) -> None:
        self.step += 1
        self.overflows_in_a_row = 0
        self.loss_sum += loss_sum
        self.loss_count += count
        self.examples += examples
        self.tokens += tokens
        self.train_seconds += seconds

    def add_overflow(self) -> None:
        """An fp16 update that overflowed; the same step is tried again at half the loss scale.

        Raises ValueError after so many in a row that the loss itself cannot be finite.
        """
        self.overflows += 1
        self.overflows_in_a_row += 1
        if self.overflows_in_a_row > MOST_OVERFLOWS:
            raise ValueError(f"step {self.step} overflows in fp16 at every loss scale; lower --lr or use bf16")

    def add_point(self, steps_per_epoch: int, **measured: float) -> dict[str, Any]:
        """A point of the curve; training loss is the mean per target since the point before."""
        point = {
            "step": self.step,
            "epoch": self.step / steps_per_epoch,
            "examples": self.examples,
            "tokens": self.tokens,
            "train_loss": self.loss_sum / max(self.loss_count, 1),
            **measured,
        }
        self.loss_sum, self.loss_count = 0.0, 0
        self.curve.append(point)
        return point

    def improved(self, val_loss: float) -> bool:
        """Whether this evaluation is the best so far; counts the others."""
        if val_loss < self.best_loss:
            self.best_step, self.best_loss, self.stale = self.step, val_loss, 0
            return True
        self.stale += 1
        return False

    def stale_for(self, evaluations: int | None) -> bool:
        """Whether so many evaluations in a row brought no lower loss; None never is."""
        return evaluations is not None and self.stale >= evaluations

    def last(self, name: str) -> float | None:
        """The latest value of something that is not measured at every point."""
        return next((point[name] for point in reversed(self.curve) if name in point), None)
