"""Reads PEFT's adapter_config.json: the rank and alpha of each layer, and what is not supported. Follows PEFT 0.21."""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

HEADS = ("score", "classifier")  # PEFT saves these whole with task_type SEQ_CLS
# Initialisations that leave the base as it is. The others (pissa, olora, corda, loftq, lora_ga) change its weights, so
# that their factors alone do not fit the base that others have.
PLAIN_INITS = (None, True, False, "gaussian", "orthogonal", "eva", "mica")
# READ settings are read here, FREE ones change no number of a trained adapter. Any other must be unset.
READ = {"peft_type", "bias", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"}
READ |= {"init_lora_weights", "lora_dropout", "modules_to_save"}
FREE = {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "task_type"}
FREE |= {"base_model_name_or_path", "revision", "peft_version", "auto_mapping", "inference_mode", "runtime_config"}
FREE |= {"eva_config", "corda_config", "lora_ga_config", "loftq_config", "megatron_core", "qalora_group_size"}
# Types, and settings of LoRA, that PEFT's merge_and_unload turns into plain weights, and those that it does not.
MERGED = {"LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "VERA", "HRA"}
UNMERGED = ("alora_invocation_tokens", "arrow_config")


def _is_rank(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # neither nan nor infinite


def _is_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))


# What a setting must be if it is given: a test, and the words for it.
KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "r": (_is_rank, "a whole number from 1"),
    "lora_alpha": (_is_number, "a number"),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "use_rslora": (lambda value: value is None or isinstance(value, bool), "true or false"),
    "use_dora": (lambda value: value is None or isinstance(value, bool), "true or false"),
    "modules_to_save": (_is_names, "a list of names"),
}
PATTERNS = {"rank_pattern": "r", "alpha_pattern": "lora_alpha"}  # each with the setting that it overrides for a layer


def _at_the_end(key: str) -> str:
    """Returns the regular expression with which PEFT finds the layers that a key of a pattern means."""
    return rf"(.*\.)?({key})"


def _setting(pattern: dict[str, Any], path: str, default: Any) -> Any:
    """Returns the value of the first key that matches the end of `path`, as PEFT looks it up."""
    return next((value for key, value in pattern.items() if re.fullmatch(_at_the_end(key), path)), default)


def rank_and_alpha(config: dict[str, Any], path: str) -> tuple[int, float]:
    """Returns rank and alpha of the layer at `path`, in a config without problems."""
    rank = _setting(config.get("rank_pattern") or {}, path, config.get("r", 8))
    return rank, _setting(config.get("alpha_pattern") or {}, path, config.get("lora_alpha", 8))


def _kind_problems(config: dict[str, Any]) -> Iterator[str]:
    """Yields a problem for each setting whose value PEFT would not write."""
    for name, (fits, words) in KINDS.items():
        if name in config and not fits(config[name]):
            yield f"{name}={config[name]!r}: must be {words}"
    for name, overruled in PATTERNS.items():
        pattern, (fits, words) = config.get(name), KINDS[overruled]
        if pattern is not None and not isinstance(pattern, dict):
            yield f"{name}={pattern!r}: must be an object, {words} for each layer"
            continue
        for key, value in (pattern or {}).items():
            if not fits(value):
                yield f"{name} {key!r}: {value!r} must be {words}"
            try:
                re.compile(_at_the_end(key))
            except (re.error, OverflowError, RecursionError) as error:
                yield f"{name} {key!r}: is not a regular expression ({error})"


def _starts_plain(config: dict[str, Any]) -> bool:
    init = config.get("init_lora_weights", True)
    return (init.lower() if isinstance(init, str) else init) in PLAIN_INITS


def merges_in_peft(config: dict[str, Any]) -> bool:
    """Returns whether PEFT can merge into its base what cannot be read here."""
    readable = config.get("peft_type") != "LORA" or not any(_kind_problems(config))
    known = config.get("peft_type") in MERGED and not any(config.get(name) for name in UNMERGED)
    return known and readable and _starts_plain(config)


def config_problems(config: dict[str, Any]) -> list[str]:
    """Lists what adapter_config.json asks for that cannot be done here."""
    if config.get("peft_type") != "LORA":
        return [f"peft_type {config.get('peft_type')}: only LORA is supported"]
    others = [name for name in config if name not in READ | FREE and config[name]]
    found = [f"{name}={repr(config[name])[:60]} is not supported" for name in others]
    if config.get("bias", "none") != "none":
        found.append(f"bias={config['bias']!r}: trained biases of the base; only 'none' is supported")
    if not _starts_plain(config):
        found.append(
            f"init_lora_weights={config['init_lora_weights']!r} has changed its base; save it as a plain "
            "adapter with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    whole = config.get("modules_to_save")
    unread = sorted(set(whole or ()) - set(HEADS)) if _is_names(whole) else []
    if unread:
        found.append(f"modules_to_save {', '.join(unread)}: only a class head ({', '.join(HEADS)}) may be saved whole")
    return [*found, *_kind_problems(config)]
