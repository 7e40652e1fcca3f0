"""The flags that all fine-tuning scripts share, and the run folder that follows from them."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from gpt2_scratch.config import GPT2Config
from training.flags.cli import note
from training.flags.common import DataArgs, MethodArgs, ModelArgs, RunArgs, UpdateArgs, fitted
from training.flags.compute import ComputeArgs
from training.flags.fields import changed_flags, given_flags
from training.flags.forgetting import ForgettingArgs
from training.storage.run_folder import base_of, check_folder, default_folder

A = TypeVar("A", bound="FineTuneArgs")


@dataclass(frozen=True)
class FineTuneArgs:
    """The flags that finetune_cls, finetune_ift, finetune_dpo and finetune_kto share."""

    data: DataArgs
    model: ModelArgs
    method: MethodArgs
    update: UpdateArgs
    compute: ComputeArgs
    forgetting: ForgettingArgs
    run: RunArgs


def on_base_of(start: Path | None, args: A) -> A:
    """Returns the flags with the base that `start` was trained on, where they name none.

    Raises ValueError for a damaged run or adapter.
    """
    base = base_of(start, "--start-from") if start is not None and "model" not in given_flags(args.model) else None
    if base is None or base == args.model.model:
        return args
    note(f"--model {base}: the base of --start-from {start}")
    return replace(args, model=replace(args.model, model=base))


def within_context(args: A, config: GPT2Config) -> A:
    """Returns the flags with a --max-length that the base has room for, where none was given."""
    return replace(args, data=fitted(args.data, config))


def run_folder(args: FineTuneArgs, task: str) -> tuple[Path, bool]:
    """Returns the run folder, and whether to go on from its checkpoint. Raises ValueError as `check_folder` does."""
    spelled: dict[str, Any] = {"dataset": task, "model": Path(args.model.model).name}
    spelled |= {"method": args.method.method, "seed": args.update.seed}
    name = "{dataset}-{model}-{method}-seed{seed}".format(**spelled)
    folder = args.run.output_dir or default_folder(Path(sys.argv[0]).stem, name, changed_flags(args), spelled)
    if args.compute.dry_run:
        return folder, False
    if args.compute.cache_dir.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"--cache-dir {args.compute.cache_dir}: lies in the folder of the run, which clears it; name another folder"
        )
    read = [("data", args.data.data), ("model", args.model.model), ("forgetting-data", args.forgetting.forgetting_data)]
    read += [("start-from", group.start_from) for group in vars(args).values() if hasattr(group, "start_from")]
    resuming = check_folder(folder, args.run.overwrite, args.run.resume, read)
    if args.run.resume and not resuming and args.run.output_dir is None:
        note(f"--resume: {folder} holds no run that was stopped; a new one starts")
    return folder, resuming
