"""Where weights come from: bundled, a folder, or the hub. Imports no torch, so that a wrong name is refused at once."""

import json
from pathlib import Path

from gpt2_scratch.config import SIZES, GPT2Config, from_hf

ASSETS = Path(__file__).parent / "assets"
BUNDLED = {"gpt2-nano": ASSETS / "gpt2-nano"}
HUB = {name: f"openai-community/{name}" for name in SIZES if name not in BUNDLED}
FILES = ("config.json", "model.safetensors")


def resolve(source: str, asked: str = "--model") -> Path:
    """Name of a size, folder or hub repository -> folder that holds config.json and model.safetensors.

    Raises ValueError when it is none of these, OSError when the hub does not give it. `asked`: the flag that named it.
    """
    if source in BUNDLED:
        return BUNDLED[source]
    folder = Path(source)
    if folder.is_dir():
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{asked} {source}: the folder lacks {' and '.join(missing)}")
        return folder
    if source not in HUB and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise ValueError(
            f"{asked} {source}: not a folder; give a folder, a hub repository (owner/name) or one of {', '.join(SIZES)}"
        )
    from huggingface_hub import hf_hub_download

    return [Path(hf_hub_download(HUB.get(source, source), name)) for name in FILES][0].parent


def load_config(folder: Path, asked: str = "--model") -> GPT2Config:
    """Raises ValueError when config.json is no GPT-2's; `asked` is the flag that named the model."""
    try:
        return from_hf(json.loads((folder / "config.json").read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{asked} {folder}: config.json is not JSON ({error})") from error
    except (AttributeError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{asked} {folder}: config.json is not that of a GPT-2 ({error})") from error
