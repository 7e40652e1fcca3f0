"""Adapters for frozen linear layers. Knows nothing of GPT-2: takes an `nn.Linear`, gives a module in its place.

One variant a file; the listing of this folder is the registry. Files that start with `_` are shared; conv.py and
peft_format.py are no variants either.
"""

from importlib import import_module
from pathlib import Path

from lora._adapter import (
    INITS,
    SCALINGS,
    Adapter,
    Factors,
    Spec,
    adapters,
    b_factors,
    merge,
    set_strength,
    unmerge,
)
from lora._frozen import dense, is_plain
from lora._quantised import QuantisedLinear, dequantise, load_bitsandbytes

_FILES = [f.stem for f in Path(__file__).parent.glob("[!_]*.py") if f.stem not in ("conv", "peft_format")]
VARIANTS = tuple(sorted(name.replace("_", "-") for name in _FILES))


def variant(name: str) -> type[Adapter]:
    """The adapter class of a method: lora-fa is that of `lora/lora_fa.py`."""
    return import_module(f"lora.{name.replace('-', '_')}").VARIANT


__all__ = [
    "INITS",
    "SCALINGS",
    "VARIANTS",
    "Adapter",
    "Factors",
    "QuantisedLinear",
    "Spec",
    "adapters",
    "b_factors",
    "dense",
    "dequantise",
    "is_plain",
    "load_bitsandbytes",
    "merge",
    "set_strength",
    "unmerge",
    "variant",
]
