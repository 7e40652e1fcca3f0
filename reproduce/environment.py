"""The settings of a table and of the report, read from the environment; README.md lists the variables."""

import hashlib
import re
import shlex
import shutil
import sys
from collections.abc import Mapping

DEFAULTS = {"SEEDS": "", "SCALE": "report", "VERSION": "both", "ONLY": "1/1", "RUNS": "runs/reproduce"}
DEFAULTS |= {"DATA_DIR": "data", "MODEL": "gpt2-nano", "JOBS": "", "RAY": "", "JUDGE_MODEL": ""}
# The report's scale needs a GPU, and one of the last years computes in bf16 several times faster than in fp32.
GPU = "--config_file accelerate_configs/gpu_bf16.yaml"
DEFAULTS |= {"LAUNCH": f"{shlex.quote(sys.executable)} -m accelerate.commands.launch {GPU}", "LIST": "", "DRY_RUN": ""}
MUST_BE = {
    "SEEDS": (r"|\d+( \d+)*", 'whole numbers, like "0 1 2"'),
    "SCALE": ("report|nano", "report or nano"),
    "VERSION": ("published|corrected|both", "published, corrected or both"),
    "ONLY": (r"[1-9]\d*/[1-9]\d*", "a share like 3/8, the third of eight"),
    "JOBS": (r"|[1-9]\d*", "a whole number, at least 1"),
    "LIST": ("|1", "1, or not be set"),
    "DRY_RUN": ("|1", "1, or not be set"),
}
OF_SCALE = {"MODEL": "nano", "JOBS": "nano", "LAUNCH": "report"}  # those that count at one scale alone
Settings = Mapping[str, str]


def settings_in(env: Mapping[str, str]) -> Settings:
    """Returns the settings, with defaults for variables that are not set. Raises ValueError for an impossible value."""
    found = {name: env.get(name) or default for name, default in DEFAULTS.items()}
    for name, (pattern, wanted) in MUST_BE.items():
        if not re.fullmatch(pattern, found[name]):
            raise ValueError(f"{name}={found[name]}: must be {wanted}")
    mine, of = map(int, found["ONLY"].split("/"))
    if mine > of:
        raise ValueError(f"ONLY={found['ONLY']}: there are {of} shares")
    return found


def check_of_runs(env: Mapping[str, str], settings: Settings) -> None:
    """Raises ValueError for a variable that is set and has no effect, and for a launcher that cannot be started."""
    for name, scale in OF_SCALE.items():
        if env.get(name) and settings["SCALE"] != scale:
            raise ValueError(f"{name}={env[name]}: counts at SCALE={scale} alone; set that too, or leave {name} out")
    if settings["JOBS"] and settings["RAY"]:
        raise ValueError(f"JOBS={settings['JOBS']}: has no effect with RAY; leave one of them out")
    if env.get("LAUNCH"):
        try:
            words = shlex.split(env["LAUNCH"])
        except ValueError as error:
            raise ValueError(f"LAUNCH={env['LAUNCH']}: cannot be read ({error}); close its quotes") from error
        if not words or shutil.which(words[0]) is None:
            raise ValueError(f"LAUNCH={env['LAUNCH']}: names no program that there is; see reproduce/README.md")


def in_share(place: str, share: str) -> bool:
    """Returns whether a run is in the share; identical runs are in the same share in every table."""
    mine, of = map(int, share.split("/"))
    return int(hashlib.sha256(place.encode()).hexdigest(), 16) % of == mine - 1
