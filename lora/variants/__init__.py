"""The variants of LoRA, one file each: every file in this folder is a value of --method.

Each file states in constants what flags, defaults and tables need to know (`Variant`), and names its class `ADAPTER`.
The constants are read without importing the file, because importing torch takes seconds.
"""

import ast
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora.adapter import Adapter


@dataclass(frozen=True)
class Variant:
    """What a file says of its variant, each field as a constant in capitals."""

    title: str  # as its paper spells it
    help: str  # what it does differently
    cost: str = ""  # against LoRA
    inits: tuple[str, ...] = ("standard", "paper")  # values of --lora-init that it takes
    rate: float = 1.0  # its default learning rate over LoRA's


def _described_in(file: Path) -> Variant:
    names, said = {field.name.upper() for field in fields(Variant)}, {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in names:
                said[name.lower()] = ast.literal_eval(value)
    return Variant(**said)


_FILES = sorted(Path(__file__).parent.glob("[!_]*.py"))
VARIANTS = {file.stem.replace("_", "-"): _described_in(file) for file in _FILES}


def adapter_class(name: str) -> "type[Adapter]":
    """Returns the class of a variant; that of lora-fa is in lora_fa.py."""
    return import_module(f"lora.variants.{name.replace('-', '_')}").ADAPTER
