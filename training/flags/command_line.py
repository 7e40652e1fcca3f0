"""Parses a command line into the flags of a script, and words its errors in our form."""

import contextlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import tyro

from tasks._headers import readable
from training.flags.fields import flags_of, mark_given
from training.flags.help import help_text
from training.flags.near_misses import meant, nearest, plain

T = TypeVar("T")
OMIT = (tyro.conf.OmitArgPrefixes,)
MOST = 4  # complaints in one message
DASHES = "\u2012\u2012"  # stand for the value --, as of a label, which argparse takes for the end of all flags
BASES = ("model", "init-from")  # a folder or a name
KINDS = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path", "STR": "a text"}


def _misused(arguments: Any, words: Sequence[str]) -> list[str]:
    """Finds switches with a value behind them, and empty paths, which would mean the current folder."""
    flags, found = flags_of(arguments).values(), []
    switches = {f"--{flag.name}" for flag in flags if flag.kind is bool}
    paths = {f"--{flag.name}" for flag in flags if Path in flag.types}
    for word, behind in zip_longest(words, words[1:]):
        name = f"--{plain(word)}"
        value = word.split("=", 1)[1] if "=" in word else behind
        if not word.startswith("--") or value is None:
            continue
        if name in switches and ("=" in word or not value.startswith("-")):
            found.append(f"{name} takes no value, but has {_cut(value)!r}: write {name} alone, or leave it out")
        if name in paths and not value.strip():
            found.append(f"{name}: is empty; name a path, or leave it out")
    return found


def at_home(arguments: Any, words: Sequence[str]) -> list[str]:
    """Writes ~ at the start of a path in full, which a shell does not do after = and a file of flags not at all."""
    paths = {f"--{flag.name}" for flag in flags_of(arguments).values() if Path in flag.types or flag.name in BASES}
    paths.add("--config")
    found, name = list[str](), ""
    for word in words:
        name = f"--{plain(word)}" if word.startswith("--") else name
        start, sign, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
        is_home = name in paths and value.startswith("~") and (sign or not word.startswith("--"))
        found.append(f"{start}{sign}{os.path.expanduser(value)}" if is_home else word)
    return found


class Missing(ValueError):
    """Raised when flags are missing that the script needs."""


def parse(arguments: type[T], words: Sequence[str], description: str | None = None) -> T:
    """Returns the flags. Raises ValueError with what is wrong with the words; --help prints the help and exits."""
    said, known = io.StringIO(), [f"--{name}" for name in (*flags_of(arguments), "config")]
    if asked := {"h", "help", "help-all"} & {plain(word) for word in words if word.startswith("-")}:
        print(help_text(arguments, description, "help-all" in asked), flush=True)
        raise SystemExit(0)
    if misused := _misused(arguments, words):
        raise ValueError("\n       ".join(misused[:MOST]))
    words = _without_bare_dashes(arguments, at_home(arguments, words))
    try:
        with contextlib.redirect_stderr(said):
            args, unknown = tyro.cli(arguments, args=words, config=OMIT, return_unknown_args=True, add_help=False)
    except SystemExit:
        slips = [word for word in words if word.startswith("--") and not _is_known(word, known)]
        if slips:
            raise ValueError(unknown_flags(slips, known)) from None
        raise _complaint(said.getvalue().replace(DASHES, "--"), words) from None
    if unknown:
        raise ValueError(unknown_flags(unknown, known, before=words[: words.index(unknown[0])]))
    _settle(args)
    mark_given(args, {name for word in words if word.startswith("--") for name in _names(word)})
    return args


def _without_bare_dashes(arguments: Any, words: Sequence[str]) -> list[str]:
    """Replaces -- where it is one of several values."""
    several = {f"--{flag.name}" for flag in flags_of(arguments).values() if flag.several and str in flag.types}
    found, name = list[str](), ""
    for word in words:
        name = f"--{plain(word)}" if word.startswith("--") and word != "--" else name
        found.append(DASHES if word == "--" and name in several else word)
    return found


def _settle(args: Any) -> None:
    """Puts -- back where it is a value, and spells names of columns as those of the data are spelled."""
    for field in fields(args):
        value = getattr(args, field.name)
        if is_dataclass(value):
            _settle(value)
            continue
        if isinstance(value, tuple) and DASHES in value:
            value = tuple("--" if part == DASHES else part for part in value)
        if value and field.name.endswith(("_column", "_columns")):
            value = readable(value) if isinstance(value, str) else tuple(map(readable, value))
        object.__setattr__(args, field.name, value)


def _names(word: str) -> tuple[str, str]:
    """Returns the fields that a word may set: no_header may be one, or the header that is switched off."""
    name = plain(word).replace("-", "_")
    return name, name.removeprefix("no_")


def _is_known(word: str, known: Sequence[str]) -> bool:
    return f"--{plain(word)}" in known or f"--{plain(word).removeprefix('no-')}" in known


def unknown_flags(words: Sequence[str], known: Sequence[str], before: Sequence[str] = ()) -> str:
    """Says what unknown flags were meant to be: "--learning-rate: no such flag; did you mean --lr?" `before`: the words
    in front of them."""
    slips = [word for word in words if word.startswith("-") and not re.fullmatch(r"-[\d.e-]+", word)]
    if not slips and plain(next((word for word in reversed(before) if word.startswith("--")), "")) == "data":
        return (
            f"{_cut(' '.join(words))}: --data takes one value; put several files into one folder, or quote a path "
            "that has spaces"
        )
    if not slips:
        return f"{_cut(' '.join(words))}: belongs to no flag; quote a value that has spaces, --help lists the flags"
    found = []
    for word in slips[:MOST]:
        better = meant(word, known)
        name = _cut(word.split("=", 1)[0])
        hint = f"did you mean {better}?" if better and better.startswith("--") else better
        found.append(f"{name}: no such flag; {hint or '--help lists the flags'}")
    if len(slips) > MOST:
        found.append(f"and {len(slips) - MOST} others")
    return "\n       ".join(found)


def _complaint(said: str, words: Sequence[str]) -> ValueError:
    """Turns tyro's boxed message into one line with the flag, its value and what is allowed."""
    text = " ".join(re.sub(r"[\u2500-\u257f]+", " ", said).split())
    if wrong := re.search(r"Error parsing (--[\w-]+):.*?Argument helptext: --[\w-]+ (\S+)", text):
        kinds = [KINDS.get(kind, kind.strip("{}").replace(",", ", ")) for kind in wrong[2].split("|")]
        kinds.sort(key=lambda kind: kind == "None")
        return ValueError(f"{wrong[1]} {_cut(typed(words, wrong[1]))}: must be {' or '.join(kinds)}")
    if wrong := re.search(r"invalid choice '(.*?)' for argument '(--[\w-]+)'. Expected one of \((.*?)\)", text):
        choices = re.findall(r"'([^']*)'", wrong[3])
        close = nearest(wrong[1], choices)
        hint = f" (did you mean {close}?)" if close else ""
        return ValueError(f"{wrong[2]} {_cut(wrong[1])}: must be one of {', '.join(choices)}{hint}")
    if wrong := re.search(r"Missing value for argument '(--[\w-]+)'", text):
        return ValueError(f"{wrong[1]}: needs a value")
    if "Missing from" in text:
        missing = re.findall(r"(?<= )(--[a-z-]+) (?:\[|\{|[A-Z]{3})", text)
        return Missing(f"{', '.join(missing)}: needed; --help explains every flag")
    return ValueError(_cut(text, 280))


def typed(words: Sequence[str], flag: str) -> str:
    """Returns the value of a flag on the command line; of several the last one counts."""
    for i in reversed(range(len(words))):
        if f"--{plain(words[i])}" == flag and words[i].startswith("--"):
            return words[i].split("=", 1)[1] if "=" in words[i] else " ".join(words[i + 1 : i + 2])
    return ""


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
