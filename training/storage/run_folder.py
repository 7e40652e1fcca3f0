"""Checks what may be written into the folder of a run. Nothing heavy is imported, so that a refusal comes at once."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt2_scratch.sources import read_json
from training.storage.files import LOCK

RESULTS = "results.json"
ADAPTER, MODEL = "adapter", "model"  # folders of what was trained
FACTS, PEFT_CONFIG = "adapter.json", "adapter_config.json"  # what we and PEFT say of an adapter
PEFT_BASE = "base_model_name_or_path"
SCHEMA = 1  # of results.json (docs/results.schema.json); raise it when readers have to change
GENERATIONS = "generations.jsonl"  # of instructions
VALIDATION = "validation.jsonl"  # scores of the validation examples
STATE = Path("checkpoint") / "state.pt"
CONFIG = "config.yaml"  # all resolved flags
# Flags that do not change a result: a resumed run may differ in them from the run that stopped.
FREE_FLAGS = {"output_dir", "overwrite", "resume", "dry_run", "save_every", "cache_dir", "score"}
FREE_FLAGS |= {"report_to", "push_to_hub"}
# How an update is computed, not what it is: a run that stopped for want of memory may go on with others.
LIGHTER_FLAGS = {"micro_batch_size", "checkpoint_activations"}
# Places whose content a checkpoint has hashes of, which decide: what a run reads may have moved.
MOVABLE_FLAGS = {"data", "model", "init_from", "start_from", "forgetting_data"}
OURS = {
    RESULTS,
    CONFIG,
    "predictions.jsonl",
    VALIDATION,
    GENERATIONS,
    "trained_on.json",
    "curves.png",
    "forgetting.png",
}
OURS |= {"tensorboard", ".aim", ADAPTER, MODEL, "checkpoint", "judge"}  # judge/ holds replies that were paid for
STRAY = {LOCK, ".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints"}  # nobody has put them there


def nearest(path: Path) -> Path:
    """Returns `path`, or the closest of its parents that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def unwritable(asked: str, folder: Path) -> list[str]:
    """Returns what keeps a folder from being made or written, in a message that begins with the flag `asked`."""
    place = nearest(folder)
    if not place.is_dir():
        return [f"{asked} {folder}: is a file, or lies in one; name a folder"]
    return [] if os.access(place, os.W_OK) else [f"{asked} {folder}: cannot be written; name another folder"]


def default_folder(script: str, name: str, changed: Mapping[str, Any], spelled: Mapping[str, Any]) -> Path:
    """Returns runs/SCRIPT/NAME, with a hash of the flags that change the result and are not at their defaults.

    `changed` holds the flags that were given, `spelled` those that the name spells out, with their values there.
    """
    others = {
        flag: os.path.relpath(value) if isinstance(value, Path) else value
        for flag, value in changed.items()
        if flag not in FREE_FLAGS | LIGHTER_FLAGS and not (flag in spelled and spelled[flag] == value)
    }
    told = json.dumps(others, sort_keys=True, default=str)
    ending = f"-{hashlib.sha256(told.encode()).hexdigest()[:8]}" if others else ""
    return Path("runs") / script / f"{name}{ending}"


def finished(folder: Path, resuming: bool) -> str:
    """Returns the refusal of a folder that holds a finished run."""
    nothing_left = ", nothing is left to --resume" if resuming else ""
    return f"--output-dir {folder}: holds a finished run{nothing_left}; add --overwrite or choose another folder"


def check_folder(
    folder: Path, overwrite: bool, resume: bool, read: Iterable[tuple[str, Path | str | None]] = ()
) -> bool:
    """Returns whether there is a checkpoint to go on from. Nothing is changed. `read` pairs flags with what
    the run reads.

    Raises ValueError for a finished run without --overwrite, an unfinished one without either flag, other files, and a
    folder that holds what the run reads, since a new run clears it.
    """
    at = f"--output-dir {folder}:"
    if problems := unwritable("--output-dir", folder):
        raise ValueError(problems[0])
    # What a kill left beside a file counts as that file.
    every = {re.sub(r"^\.(.+)\.(new|old)$", r"\1", path.name) for path in folder.glob("*")}
    predictions = {name for name in every if name.startswith("predict-")}  # of predict.py
    present = every - predictions - STRAY
    if predictions and not present:
        raise ValueError(
            f"{at} holds predictions ({', '.join(sorted(predictions)[:3])}), which a run clears; choose a new folder"
        )
    unfinished = (folder / STATE).exists()  # beside results: a run with --score validation, of which a part is left
    if (others := sorted(present - OURS)) and not (resume and unfinished):  # which clears nothing
        raise ValueError(f"{at} holds other files ({', '.join(others[:3])}); choose a new folder")
    if (folder / RESULTS).exists() and not (overwrite or (resume and unfinished)):
        raise ValueError(finished(folder, resume))
    if present and not present & {RESULTS, CONFIG, STATE.parent.name}:
        raise ValueError(f"{at} holds no run, but {', '.join(sorted(present)[:3])}; choose a new folder")
    if present and not (overwrite or resume):
        raise ValueError(f"{at} holds an unfinished run; add --resume to go on, or --overwrite to start again")
    if not (unfinished and resume):
        for name, path in read:
            if path is not None and Path(path).exists() and Path(path).resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{at} holds --{name} {path}, and a run clears its folder; choose another folder")
    return unfinished and resume


def prepare_folder(folder: Path, resuming: bool) -> None:
    """Makes the folder and, unless resuming, clears what an earlier run left. Raises ValueError when it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in () if resuming else [path for path in folder.glob("*") if path.name != LOCK]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise ValueError(f"--output-dir {folder}: cannot be written ({error.strerror})") from error


def _instead_of_a_run(folder: Path, asked: str) -> str:
    if folder.name in (ADAPTER, MODEL) and (folder.parent / RESULTS).exists():
        return f"; it is a part of one: give {folder.parent}"
    remedy = ": give it as --adapter" if asked == "--run" else ""
    return f"; it is an adapter without its run{remedy}" if (folder / PEFT_CONFIG).exists() else ""


def read_run(folder: Path, asked: str = "--run") -> dict[str, Any]:
    """Reads results.json of a finished run of fine-tuning. Raises ValueError when there is none.

    `asked` is the flag that named the folder.
    """
    path = folder / RESULTS
    if not path.exists():
        raise ValueError(
            f"{asked} {folder}: holds no finished run ({RESULTS} is missing){_instead_of_a_run(folder, asked)}"
        )
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        results["args"], results["data"]["sha256"], results["model"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{asked} {folder}: {RESULTS} is damaged ({error})") from error
    if results.get("schema") != SCHEMA:
        raise ValueError(f"{asked} {folder}: {RESULTS} is of another version of these scripts; train again")
    if not results["script"].startswith("finetune"):
        raise ValueError(
            f"{asked} {folder}: is not a run of fine-tuning; the model of a run of pretrain.py is a base: "
            f"{folder / 'model'}, for --model of fine-tuning, generate.py or playground.py"
        )
    return results


def base_of(folder: Path, asked: str = "--adapter") -> str | None:
    """Returns the name that a finished run, or an adapter of ours or PEFT's, has for its base, None where it has none.
    Raises ValueError for a damaged file; `asked` is the flag that named the folder."""
    if (folder / RESULTS).exists():
        base = read_run(folder, asked)["model"]
    else:
        base = read_json(folder / FACTS).get("base") or {"name": read_json(folder / PEFT_CONFIG).get(PEFT_BASE)}
    name = base.get("name") if isinstance(base, dict) else None
    return name if isinstance(name, str) and name else None
