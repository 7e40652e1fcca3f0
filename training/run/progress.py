"""Shows the progress line of a run: how much is done, rate, time left, loss, learning rate."""

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

    def show(self, count: int, loss: float, lr: float, val_loss: float | None) -> None:
        measured = "" if val_loss is None else f"  val {val_loss:.4f}"
        self.bar.set_postfix_str(f"loss {loss:.4f}  lr {lr:.2e}{measured}", refresh=False)
        self.bar.update(count)

    def close(self) -> None:
        self.bar.close()
