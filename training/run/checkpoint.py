"""Saves and loads all that a killed run needs to end with the same weights and curve as one that was not."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from training.flags.cli import flag
from training.model.methods import load_own_state, own_state
from training.run.record import Record
from training.step.optimizers import page_again
from training.step.processes import from_main
from training.step.sharding import is_sharded
from training.storage.files import replace_file
from training.storage.run_folder import FREE_FLAGS, LIGHTER_FLAGS, MOVABLE_FLAGS, STATE
from training.storage.shards import load_shards, save_shards

if TYPE_CHECKING:
    from training.run.run import Run

SHOWN = {"processes": "--num_processes", "precision": "--mixed-precision"}  # of an identity, otherwise of hashes


def save_checkpoint(run: "Run", trained: bool = False) -> None:
    """Saves the state of the run; of one that is `trained`, whose best weights are kept, only what it knows of itself.

    The main process writes it; sharded weights and optimizer states are written before by all processes that hold them.
    Raises OSError, with the previous checkpoint intact, when there is no room.
    """
    scaler, shards = run.accelerator.scaler, None
    if is_sharded(run.model) and not trained:
        shards = f"step-{run.step}"
        save_shards(run.folder / STATE.parent / shards, shared_state(run.model, run.optimizer))
    if not run.accelerator.is_main_process:
        return
    elsewhere = trained or shards is not None
    run.record.peak_memory_mib = run.peak_memory_mib
    state = {
        "flags": run.flags,
        "identity": run.identity,
        "threads": torch.get_num_threads(),
        "weights": None if elsewhere else own_state(run.model),
        "optimizer": None if elsewhere else run.optimizer.state_dict(),
        "scaler": None if trained or scaler is None else scaler.state_dict(),
        "record": asdict(replace(run.record, loss_sum=float(run.record.loss_sum))),
        "before": None if trained else run.before,
        "shards": shards,
    }

    def write(new: Path) -> None:
        try:
            torch.save(state, new)
        except RuntimeError as error:  # torch's writer raises it for a full disk
            raise OSError(str(error)) from error

    replace_file(run.folder / STATE, write)
    for old in (run.folder / STATE.parent).glob("step-*"):
        if old.name != shards:
            shutil.rmtree(old, ignore_errors=True)


def shared_state(model: nn.Module, optimizer: AcceleratedOptimizer) -> dict[str, Any]:
    """Returns sharded weights and optimizer states, each under the name of its parameter."""
    # Imported here because only sharded runs need it.
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return {"weights": own_state(model), "optimizer": get_optimizer_state_dict(model, optimizer.optimizer)}


def load_shared(folder: Path, model: nn.Module, optimizer: AcceleratedOptimizer) -> None:
    """Loads what `save_shards` made of `shared_state`, of any number of processes."""
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    state = shared_state(model, optimizer)
    load_shards(folder, state)
    set_optimizer_state_dict(model, optimizer.optimizer, state["optimizer"])


def saved_flag(folder: Path, name: str) -> Any:
    """Returns a flag of the stopped run."""
    return _read(folder / STATE)["flags"].get(name)


def load_checkpoint(run: "Run") -> None:
    """Loads the saved state into the run.

    Raises ValueError when the checkpoint is damaged, or belongs to other flags, data or weights.
    """
    state, flags = from_main(run.accelerator, lambda: _read(run.folder / STATE)), run.flags
    bound = [n for n in flags if n not in FREE_FLAGS | LIGHTER_FLAGS | MOVABLE_FLAGS]
    differing = [f"another {flag(n)}" for n in bound if flags[n] != state["flags"].get(n)]
    known, ours = state["identity"], run.identity
    for name in [n for n in known | ours if known.get(n) != ours.get(n)]:
        has_values = name in SHOWN and name in known and name in ours
        differing.append(f"{SHOWN[name]} {known[name]} (now {ours[name]})" if has_values else f"another {name}")
    if differing:
        raise ValueError(
            f"--resume: the checkpoint in {run.folder} was made with {' and '.join(differing)}; "
            "use the same, or start again with --overwrite"
        )
    before, now = state["flags"].get("score"), flags.get("score")
    if before != now and (state.get("shards") or state["weights"] is not None):
        raise ValueError(
            f"--score {now}: the run in {run.folder} stopped while it trained with --score {before}; add "
            f"--score {before}, and score it otherwise once it is trained"
        )
    if state.get("shards"):
        load_shared(run.folder / STATE.parent / state["shards"], run.model, run.optimizer)
    elif state["weights"] is not None:
        load_own_state(run.model, state["weights"])
        run.optimizer.load_state_dict(state["optimizer"])
        page_again(run.optimizer.optimizer)
        if run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(state["scaler"])
    threads = state.get("threads", torch.get_num_threads())
    if threads != torch.get_num_threads() and run.accelerator.is_main_process:
        print(f"note       goes on with {threads} threads, as it was begun: another number may round differently")
    torch.set_num_threads(threads)
    run.record, run.before = Record(**state["record"]), state["before"]
    is_trained = state["weights"] is None and not state.get("shards")
    if is_trained and not run.due.over(run.record):
        raise ValueError(
            f"--resume: the run in {run.folder} was trained for {run.step:,} updates, of more by its flags; start "
            "again with --overwrite"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state["flags"], state["identity"], state["weights"], state["optimizer"], state["record"], state["before"]
    except Exception as error:  # a damaged file fails in pickle, zipfile or torch, each with errors of its own
        reason = type(error).__name__
        raise ValueError(f"--resume: {path} is damaged ({reason}); start again with --overwrite") from error
    return state
