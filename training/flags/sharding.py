"""What a launch with FSDP2 (accelerate_configs/fsdp2.yaml) can and cannot be combined with. Nothing heavy is imported.

The launcher says in the environment that weights are to be sharded; training/step/sharding.py does it.
"""

import os

from training.flags.common import ModelArgs, UpdateArgs

OFF = ("", "false", "0", "no")
# What Accelerate's `fsdp_config` may ask for: values that say what is done anyway, and what to do instead of others.
FSDP_CONFIG = {
    "FSDP_VERSION": (("2",), "only fsdp_version: 2 is known here"),
    "FSDP_OFFLOAD_PARAMS": (OFF, "never tried here; use more cards"),
    "FSDP_ACTIVATION_CHECKPOINTING": (OFF, "use --checkpoint-activations"),
    "FSDP_RESHARD_AFTER_FORWARD": (("", "true", "full_shard"), "never tried here; leave it out"),
}


def launched_sharded() -> bool:
    """Returns whether the launcher asked for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() not in OFF


def launch_problems(shardable: bool) -> list[str]:
    """Returns what is wrong with a launch with FSDP, of a script that is `shardable` or not."""
    if not launched_sharded():
        return []
    if not shardable:
        return ["FSDP: this script trains without it; launch with accelerate_configs/ddp.yaml"]
    found = [
        f"{name}={os.environ.get(name, '')} in the environment: {remedy} (accelerate_configs/fsdp2.yaml)"
        for name, (known, remedy) in FSDP_CONFIG.items()
        if os.environ.get(name, "").lower() not in known
    ]
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        found.append("FSDP: one process has nothing to share; raise --num_processes, or use gpu_bf16.yaml or cpu.yaml")
    return found


def sharding_problems(
    precision: str | None, cache_frozen: str | None, model: ModelArgs, update: UpdateArgs
) -> list[str]:
    """Returns which flags cannot be used while weights are sharded."""
    if not launched_sharded():
        return []
    precision = precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    refused = {
        "--mixed-precision fp16": (precision == "fp16", "use bf16"),
        f"--cache-frozen {cache_frozen}": (cache_frozen is not None, "leave it out"),
        f"--base-bits {model.base_bits}": (model.base_bits is not None, "leave it out"),
        f"--optimizer {update.optimizer}": ("8bit" in update.optimizer, "use adamw"),
        "--micro-batch-size auto": (update.micro_batch_size == "auto", "give a number; --dry-run forecasts its memory"),
    }
    return [f"{asked}: never tried with FSDP; {remedy}" for asked, (given, remedy) in refused.items() if given]
