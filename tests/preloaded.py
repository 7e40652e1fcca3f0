"""What a forked script finds imported (tests/forked.py): libraries and this project, its tokenizer and flags read."""

import gc
import importlib
import pkgutil

from workers.local import HEAVY

LIBRARIES = [*HEAVY, "openai", "google.genai", "bitsandbytes"]
PROJECT = ["gpt2_scratch", "lora", "tasks", "training", "evidence", "judge"]

gc.disable()  # a fifth of the time is the search for garbage, and there is none
for name in LIBRARIES:
    importlib.import_module(name)
for package in map(importlib.import_module, PROJECT):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

from gpt2_scratch.tokenizer import encoding  # noqa: E402
from scripts import finetune_cls, finetune_ift  # noqa: E402
from training.flags.command_line import parse  # noqa: E402

encoding()
for script in (finetune_cls, finetune_ift):
    parse(script.Args, [])  # the parser remembers the groups of flags
gc.enable()
