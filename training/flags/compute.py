"""Flags of speed and memory: they change how an update is computed, not what it is."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt2_scratch.config import GPT2Config
from training.flags.common import MethodArgs, ModelArgs, UpdateArgs
from training.flags.fields import Rare
from training.flags.sharding import OFF, launch_problems, sharding_problems
from training.storage.run_folder import unwritable

YES, NO = ("y", "yes", "t", "true", "on", "1"), ("n", "no", "f", "false", "off", "0")
UNTRIED = "never tried here; launch with accelerate_configs/ddp.yaml or fsdp2.yaml"
# Environment variables that Accelerate reads, set by a shell, `accelerate launch` or its default configuration: the
# values that change nothing, and what to do instead of any other.
ENVIRONMENT = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (("", "1"), "it divides every gradient; use --micro-batch-size"),
    "ACCELERATE_GRADIENT_CLIPPING": (("",), "use --max-grad-norm"),
    "ACCELERATE_DYNAMO_BACKEND": (("", "no"), "these scripts compile nothing"),
    "ACCELERATE_USE_DEEPSPEED": (OFF, UNTRIED),
    "ACCELERATE_USE_MEGATRON_LM": (OFF, UNTRIED),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (OFF, UNTRIED),
}


def truth(value: str) -> bool:
    """Reads a truth value as Accelerate does."""
    if value.lower() not in (*YES, *NO):
        raise ValueError(f"{value} is no truth value")
    return value.lower() in YES


# Those that a library converts, with an error that does not name them: how, and what they must be.
CONVERTED: dict[str, tuple[Callable[[str], Any], str]] = {
    **dict.fromkeys(("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"), (int, "a whole number")),
    **dict.fromkeys(("ACCELERATE_USE_CPU", "ACCELERATE_DEBUG_MODE"), (truth, "true or false")),
    **dict.fromkeys(("TQDM_MININTERVAL", "TQDM_MAXINTERVAL", "TQDM_MINITERS", "TQDM_SMOOTHING"), (float, "a number")),
}
# Those that a launcher sets beside LOCAL_RANK, and what must be true of their values.
RENDEZVOUS: dict[str, Callable[[str], bool]] = {
    "RANK": bool,
    "WORLD_SIZE": bool,
    "MASTER_ADDR": bool,
    "MASTER_PORT": str.isdecimal,
}


def _is_read(name: str, value: str) -> bool:
    try:
        CONVERTED[name][0](value)
    except ValueError:
        return False
    return True


def environment_problems() -> list[str]:
    """Returns a problem for each environment variable that would silently change an update, or that a library cannot
    read."""
    found = [
        f"{name}={os.environ[name]} in the environment: {remedy}; unset it, or change Accelerate's configuration"
        for name, (harmless, remedy) in ENVIRONMENT.items()
        if os.environ.get(name, "").lower() not in harmless
    ]
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision.lower() not in ("", "no", "bf16", "fp16"):
        found.append(f"ACCELERATE_MIXED_PRECISION={precision} in the environment: must be no, bf16 or fp16")
    rank, beside = os.environ.get("LOCAL_RANK", "-1"), {name: os.environ.get(name, "") for name in RENDEZVOUS}
    wrong = [f"{name}={value}" for name, value in beside.items() if not RENDEZVOUS[name](value)]
    if rank != "-1" and wrong:
        found.append(
            f"LOCAL_RANK={rank} in the environment, but {', '.join(wrong)}: no launcher sets them so; unset what is "
            "left over from another launch, or start the processes with accelerate launch"
        )
    return found + [
        f"{name}={value} in the environment: must be {wanted}; unset it"
        for name, (_, wanted) in CONVERTED.items()
        if (value := os.environ.get(name)) is not None and not _is_read(name, value)
    ]


@dataclass(frozen=True)
class SpeedArgs:
    """Speed and memory"""

    mixed_precision: Literal["no", "bf16", "fp16"] | None = None
    """precision of the computation; None: as the launcher says (accelerate_configs/)"""
    tf32: Rare[bool] = False
    """compute fp32 matrix products on a CUDA GPU with 10 bits of mantissa: faster, but no longer exact to 1e-5"""
    deterministic: Rare[bool] = False
    """let torch take only algorithms that sum in a fixed order, so that a run on a CUDA GPU can be repeated and resumed
    bit for bit. It is then slower; on a CPU a run can be repeated anyway"""
    checkpoint_activations: Rare[bool] = False
    """compute each trained block twice instead of keeping its activations: less memory, a third more time"""

    def problems(self) -> list[str]:
        return environment_problems() or launch_problems(self.shardable())

    def shardable(self) -> bool:
        """Returns whether the script can share its weights among processes."""
        return False


@dataclass(frozen=True)
class ComputeArgs(SpeedArgs):
    """Speed and memory"""

    cache_frozen: Literal["memory", "disk"] | None = None
    """compute frozen blocks once for each text. These are the blocks below the first trained one; their activations
    are kept in the memory of each process, or in a file for all of them"""
    cache_dir: Rare[Path] = Path("cache")
    """folder for cached activations, log-probabilities and the base's loss on general text, which other runs use too"""
    dry_run: bool = False
    """forecast the memory and time of the run, and stop. This describes the data too, and writes nothing"""

    def shardable(self) -> bool:
        return True

    def problems_given(self, method: MethodArgs, model: ModelArgs, update: UpdateArgs, config: GPT2Config) -> list[str]:
        """Returns what cannot be used with FSDP, and why --cache-frozen is of no use; whether the cache fits is known
        once there is a model."""
        found = sharding_problems(self.mixed_precision, self.cache_frozen, model, update)
        if self.cache_frozen is None or found:
            return found
        asked = f"--cache-frozen {self.cache_frozen}:"
        head_alone = method.method == "head" or (method.adapts and method.lora_targets == ("lm-head",))
        if method.train_embedding:
            found.append(f"{asked} --train-embedding changes what the blocks read; leave out one of the two")
        if not head_alone and method.last_blocks in (None, config.blocks):
            found.append(f"{asked} all {config.blocks} blocks train; add --last-blocks n, or leave it out")
        if model.dropout > 0:
            found.append(f"{asked} --dropout {model.dropout} acts on frozen blocks too; leave out one of the two")
        return found + unwritable("--cache-dir", self.cache_dir)
