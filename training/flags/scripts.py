"""Loads a script as a module, for who needs its flags and defaults without running it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_script(path: Path) -> ModuleType:
    """Returns the module of a script, which is executed once and never as the main program."""
    name = f"script_{path.stem}"
    if name not in sys.modules:
        found = importlib.util.spec_from_file_location(name, path)
        assert found is not None and found.loader is not None, "a Python file"
        sys.modules[name] = importlib.util.module_from_spec(found)  # where tyro looks for the types of the fields
        found.loader.exec_module(sys.modules[name])
    return sys.modules[name]
