"""Adapters for frozen linear layers. Knows nothing of GPT-2: takes an `nn.Linear`, gives a module in its place.

One variant a file; the listing of this folder is the registry. Files that start with `_` are shared.
"""

from importlib import import_module
from pathlib import Path

from lora._adapter import INITS, SCALINGS, Adapter, Spec, adapters, merge, unmerge

VARIANTS = tuple(sorted(f.stem for f in Path(__file__).parent.glob("[!_]*.py")))


def variant(name: str) -> type[Adapter]:
    """The adapter class of `lora/<name>.py`."""
    return import_module(f"lora.{name}").VARIANT


__all__ = ["INITS", "SCALINGS", "VARIANTS", "Adapter", "Spec", "adapters", "merge", "unmerge", "variant"]
