"""Everything a killed run needs to end with the same weights and the same curve as one that was never killed."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from training.flags.cli import flag
from training.model.methods import load_own_state, own_state
from training.run.record import Record
from training.step.processes import from_main
from training.storage.files import replace_file
from training.storage.run_folder import FREE_FLAGS, STATE


class Training(NamedTuple):
    """What a checkpoint has to restore, and what it must not be restored into anything else than."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: AcceleratedOptimizer
    identity: dict[str, str]
    flags: dict[str, Any]


def save_checkpoint(folder: Path, training: Training, record: Record, before: dict[str, Any]) -> None:
    """Saves the state of `training`, and what was measured `before` it.

    Raises OSError, with the previous checkpoint intact, when there is no room.
    """
    scaler = training.accelerator.scaler
    state = {
        "flags": training.flags,
        "identity": training.identity,
        "weights": own_state(training.model),
        "optimizer": training.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "record": asdict(record),
        "before": before,
    }

    def write(new: Path) -> None:
        try:
            torch.save(state, new)
        except RuntimeError as error:  # how torch's writer reports a full disk
            raise OSError(str(error)) from error

    replace_file(folder / STATE, write)


def saved_flag(folder: Path, accelerator: Accelerator, name: str) -> Any:
    """A flag of the run that stopped, on all processes."""
    return from_main(accelerator, lambda: _read(folder / STATE)["flags"].get(name))


def load_checkpoint(folder: Path, training: Training) -> tuple[Record, dict[str, Any]]:
    """Puts the saved state into `training`; returns the record and what was measured before the training.

    Raises ValueError when the checkpoint is damaged, or belongs to other flags, data or weights.
    """
    state = from_main(training.accelerator, lambda: _read(folder / STATE))
    flags = training.flags
    differing = [flag(n) for n in flags if n not in FREE_FLAGS and flags[n] != state["flags"].get(n)]
    differing += [n for n, value in training.identity.items() if value != state["identity"].get(n)]
    if differing:
        raise ValueError(
            f"--resume: the checkpoint in {folder} was made with another {', '.join(differing)}; "
            "use the same, or start again with --overwrite"
        )
    load_own_state(training.model, state["weights"])
    training.optimizer.load_state_dict(state["optimizer"])
    if training.accelerator.scaler is not None:
        training.accelerator.scaler.load_state_dict(state["scaler"])
    return Record(**state["record"]), state["before"]


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state["flags"], state["identity"], state["weights"], state["optimizer"], state["record"], state["before"]
    except Exception as error:  # a damaged file fails in pickle, zipfile or torch, each with errors of its own
        reason = type(error).__name__
        raise ValueError(f"--resume: {path} is damaged ({reason}); start again with --overwrite") from error
    return state
