"""Sends curves, flags, results and sample answers to the trackers of --report-to, through Accelerate."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from training.run.results import Results

PROJECT = "gpt2-lora-bench"
NAMED = {"wandb": "name", "trackio": "name", "mlflow": "run_name"}  # each library's argument for the name of a run
SAMPLES = 8  # answers that are shown


def _tracker(name: str, folder: Path, done_steps: int) -> GeneralTracker:
    kind = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        return kind(name, folder, purge_step=done_steps + 1)
    place = (folder,) if kind.requires_logging_directory else ()
    return kind(PROJECT, *place, **({NAMED[name]: folder.name} if name in NAMED else {}))


def open_trackers(
    accelerator: Accelerator,
    names: Sequence[str],
    folder: Path,
    done_steps: int,
    flags: Mapping[str, Any],
    in_folder: bool,
) -> None:
    """Starts those of the trackers `names` that write into the run folder (`in_folder`) or those that do not, and hands
    them the `flags` as hyperparameters.

    TensorBoard drops what a stopped run logged after `done_steps`; in other trackers a resumed run is a second run of
    the same name. Raises ValueError when a tracker does not start.
    """
    plain = {n: value if isinstance(value, bool | int | float) else str(value) for n, value in flags.items()}
    chosen = [n for n in names if n != "none" and LOGGER_TYPE_TO_CLASS[n].requires_logging_directory == in_folder]
    for name in chosen if accelerator.is_main_process else ():
        try:  # one by one, since init_trackers would give all of them one name, and start them at one time
            tracker = _tracker(name, folder, done_steps)
            tracker.start()
            tracker.store_init_configuration(plain)
        except Exception as error:  # each library has errors of its own
            raise ValueError(
                f"--report-to {name}: does not start ({_said(error)}); log in to it, or leave it out"
            ) from error
        accelerator.trackers.append(tracker)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__


def _values(results: Results) -> dict[str, float]:
    """Returns the metrics of results.json by names such as test/accuracy."""
    parts = {name: getattr(results, name) or {} for name in ("before", "val", "test", "forgetting")}
    return {
        f"{part}/{name}": metric["value"]
        for part, metrics in parts.items()
        for name, metric in metrics.items()
        if isinstance(metric, dict) and isinstance(metric.get("value"), int | float)  # not a table by class
    }


@contextmanager
def _surviving(accelerator: Accelerator, tracker: GeneralTracker) -> Iterator[None]:
    """Drops a tracker that fails, as when its server is gone, and says so: the training goes on without it."""
    try:
        yield
    except Exception as error:  # each library has errors of its own
        print(
            f"\nnote    --report-to {tracker.name}: {_said(error)}; the run goes on without it",
            file=sys.stderr,
            flush=True,
        )
        accelerator.trackers = [other for other in accelerator.trackers if other is not tracker]


def log_values(accelerator: Accelerator, values: Mapping[str, Any], step: int) -> None:
    """Sends numbers to the trackers, which the main process has."""
    for tracker in accelerator.trackers if accelerator.is_main_process else ():
        with _surviving(accelerator, tracker):
            tracker.log(dict(values), step=step)


def _log_text(accelerator: Accelerator, name: str, text: str, step: int) -> None:
    for tracker in accelerator.trackers:
        with _surviving(accelerator, tracker):
            if tracker.name == "mlflow":  # Accelerate's mlflow tracker takes only numbers
                import mlflow

                mlflow.log_text(text, f"{name}.md")
            else:
                tracker.log({name: text}, step=step)


def close_trackers(
    accelerator: Accelerator, step: int, results: Results, answers: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Logs the metrics of results.json and the first of the `answers` (rows of generations.jsonl), and ends them.

    Only the main process calls it.
    """
    log_values(accelerator, _values(results), step)
    given = [a for a in answers[:SAMPLES] if "response" in a]  # with --new-tokens 0 there is none
    if given:
        shown = [f"**{a['instruction']}**\n\n{a['input']}\n\n> {a['response']}\n" for a in given]
        _log_text(accelerator, "answers", "\n---\n".join(shown), step)
    for tracker in accelerator.trackers:
        with _surviving(accelerator, tracker):
            tracker.finish()
