"""Shows the progress line of a run: how much is done, rate, time left, loss, learning rate."""

from collections.abc import Callable

from tqdm import tqdm

from training.flags.cli import before_stop


class ProgressLine:
    """Counts examples (`unit`) towards `total`; only the main process shows it. It stays on the screen at the end."""

    def __init__(self, total: int, done: int, shown: bool, unit: str = "ex") -> None:
        self.bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            dynamic_ncols=True,
            disable=not shown,
            bar_format="{percentage:3.0f}%|{bar:20}| {n:>6}/{total} {rate_fmt:>11} {remaining} left{postfix}",
        )
        before_stop.append(self.close)  # or it would be drawn once more below the message

    def show(self, count: int, lr: float, last: Callable[[str], float | None]) -> None:
        """Counts `count` more, beside the `last` losses that were measured."""
        losses = {"loss": last("train_loss"), "val": last("val_loss")}
        shown = [f"{name} {loss:.4f}" for name, loss in losses.items() if loss is not None]
        self.bar.set_postfix_str("  ".join([*shown, f"lr {lr:.2e}"]), refresh=False)
        self.bar.update(count)

    def close(self) -> None:
        self.bar.close()
