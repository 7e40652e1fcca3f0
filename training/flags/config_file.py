"""Reads --config FILE, flags from a YAML file. A run writes all of its own into one, from which --resume goes on.

A file stands for words in front of those on the command line; of two values the last one counts.
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from training.flags.command_line import Missing, at_home, parse, typed, unknown_flags
from training.flags.fields import Flag, flags_of, resolved, words_of
from training.flags.near_misses import plain
from training.storage.files import write_text
from training.storage.run_folder import CONFIG, FREE_FLAGS, LIGHTER_FLAGS, MOVABLE_FLAGS, RESULTS, STATE, finished

DATA = {"dataset", "data"}  # no run starts without one of these flags
PLACE = ("output_dir", "overwrite", "resume", "dry_run", "score")  # where and how a run is started, not which run it is
SWITCH = {"true": "", "yes": "", "on": "", "false": "no-", "no": "no-", "off": "no-"}
SCRIPT = "script"  # the key beside the flags
HEADER = "# All flags of a run: python scripts/SCRIPT.py --config FILE gives the same again.\n"


class Texts(yaml.SafeLoader):
    """Reads values as text, as on the command line, also no, 1e-3 and 007; only null is None."""

    yaml_implicit_resolvers = {
        first: [known for known in resolvers if known[0] == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [plain(str(key.value)) for key, _ in node.value]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"has {twice[0]} twice; keep one of the two lines")
        return super().construct_mapping(node, deep)


def _words(flag: Flag, value: Any) -> list[str]:
    """Returns a flag and its value as words of a command line. Raises ValueError for a value that it cannot hold."""
    name, several = f"--{flag.name}", isinstance(value, list)
    if value is None and NoneType in flag.types:
        return [name, "None"]
    if several and flag.several and all(isinstance(part, str) for part in value):
        return [name, *value] if len(value) != 1 else _words(flag, value[0])
    if not isinstance(value, str):
        held = "no value" if value is None else "several values" if several else "flags of its own"
        raise ValueError(f"{name}: has {held}; give it {'texts' if flag.several else 'one value'}, or leave it out")
    if flag.kind is bool:
        if value.lower() not in SWITCH:
            raise ValueError(f"{name} {value}: must be true or false")
        return [f"--{SWITCH[value.lower()]}{flag.name}"]
    return [name, value] if flag.several and not value.startswith("-") else [f"{name}={value}"]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Texts)
    except OSError as error:
        raise ValueError(f"{error.strerror}; name a YAML file of flags") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"is not YAML{line}; write a flag a line: lora-rank: 8") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError("holds no flags; write a flag a line: lora-rank: 8")
    if {"compute_environment", "distributed_type"} & {*content}:
        raise ValueError("is Accelerate's; it goes before the script: accelerate launch --config_file FILE scripts/...")
    return content


def read_config(path: Path, arguments: type, asked: str) -> list[str]:
    """Returns the words of a file. Raises ValueError, beginning with `asked`, for a file that the script cannot use."""
    try:
        content = _content(path)
        script, here = content.pop(SCRIPT, None), Path(sys.argv[0]).stem
        if script not in (None, here):
            raise ValueError(f"holds a run of {script}.py; use that script")
        flags, values = flags_of(arguments), {plain(name): value for name, value in content.items()}
        if others := [f"--{name}" for name in values if name not in flags]:
            raise ValueError(unknown_flags(others, [f"--{name}" for name in flags]))
        words = [word for name, value in values.items() for word in _words(flags[name], value)]
        with contextlib.suppress(Missing):  # the missing flags may be on the command line
            args: Any = parse(arguments, words)
            if script is not None:  # a run names all flags; those at their defaults may not have been given
                words = words_of(args)
    except ValueError as error:
        raise ValueError(f"{asked} {path}: {error}") from error
    return words


def write_config(path: Path, flags: Mapping[str, Any]) -> None:
    """Writes a file from which the run with these resolved `flags` can be started again."""
    script = Path(sys.argv[0]).stem
    said = {SCRIPT: script} | {name.replace("_", "-"): v for name, v in flags.items() if name not in PLACE}
    text = HEADER.replace("SCRIPT", script) + yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=10**6)
    write_text(path, text)


def completed(arguments: type, words: Sequence[str]) -> list[str]:
    """Returns the command line with the words of --config in front, and before them those of the run to be resumed, so
    that --resume --output-dir FOLDER is enough.

    Raises ValueError for a file that the script cannot use, and when the folder holds no stopped run, or one with other
    flags than those given.
    """
    known, words = flags_of(arguments), at_home(arguments, words)
    typed_names = [plain(word) for word in words if word.startswith("--")]
    if twice := [name for name in known if known[name].several and typed_names.count(name) > 1]:
        raise ValueError(f"--{twice[0]}: stands twice, and only the last would count; name all values behind one")
    words = _with_config(arguments, words)
    given, folder = {plain(word) for word in words if word.startswith("--")}, Path(typed(words, "--output-dir"))
    if "resume" in given and not given & {"output-dir", *DATA}:
        raise ValueError("--resume: which run is to go on? Add its --output-dir, or all of its flags")
    if not {"resume", "output-dir"} <= given & {*known}:
        return words
    if (folder / RESULTS).exists() and not (folder / STATE).exists():
        raise ValueError(finished(folder, resuming=True))
    if not (folder / CONFIG).exists():
        if given & DATA or not {*known} & DATA:  # with all its flags, it may be a new run
            return words
        raise ValueError(f"--resume --output-dir {folder}: holds no run that was stopped; give the flags of a new one")
    saved = read_config(folder / CONFIG, arguments, "--resume:")
    before, now = (resolved(parse(arguments, some)) for some in (saved, [*saved, *words]))
    free = FREE_FLAGS | LIGHTER_FLAGS | (MOVABLE_FLAGS if (folder / STATE).exists() else set())
    differing = [
        f"--{name.replace('_', '-')} {before[name]} (now {now[name]})"
        for name in now
        if name not in free and now[name] != before[name]
    ]
    if differing:
        raise ValueError(
            f"--resume: the run in {folder} was started with {', '.join(differing[:3])}; leave it out, or start again "
            "with --overwrite"
        )
    return [*saved, *words]


def _with_config(arguments: type, words: Sequence[str]) -> list[str]:
    """Returns the words with those of the file that --config names in front."""
    for i, word in enumerate(words):
        if word.startswith("--") and plain(word) == "config":
            path = typed(words, "--config")
            rest = [*words[:i], *words[i + (1 if "=" in word else 2) :]]
            if not path.strip() or path.startswith("--"):
                raise ValueError("--config: needs a YAML file of flags")
            return read_config(Path(path), arguments, "--config") + _with_config(arguments, rest)
    return [*words]
