"""Writes --help and --help-all: a paragraph for each flag, in the groups of the dataclasses."""

import ast
import inspect
import re
import shutil
import textwrap
from dataclasses import MISSING, is_dataclass
from functools import cache
from itertools import pairwise
from typing import get_type_hints

from training.flags.fields import AS_PUBLISHED, RARE, Flag, Help, flags_of

COLUMN = 26  # where the help of a flag begins
WIDEST = 120
PUBLISHED = "As published: what the report's authors did, slips included"
GENERAL = {
    "--help, --help-all": "the flags that most runs need, or all of them",
    "--config FILE": "a YAML file of flags (lora-rank: 8); those on the command line win",
}


@cache  # one reading of the source serves all flags of the group
def _texts(group: type) -> dict[str, str]:
    """Returns the text under each field of a dataclass, inherited fields included."""
    found: dict[str, str] = {}
    for part in filter(is_dataclass, reversed(group.__mro__)):
        (described,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(described, ast.ClassDef), "the source of a class"
        for field, text in pairwise(described.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    found[name.replace("_", "-")] = " ".join(said.split())
    return found


def text_of(flag: Flag, whole: bool) -> str:
    """Returns the help of a flag (unless `whole`, its first sentence), with its default if that is not None or off."""
    text = next((note.text for note in flag.notes if isinstance(note, Help)), None) or _texts(flag.group)[flag.name]
    text = text if whole else re.split(r"(?<=[\w)/])[.] ", text)[0]
    if flag.default is MISSING:
        return f"{text} (needed)"
    if flag.default is None or flag.default is False or flag.default in ((), ""):
        return text
    values = flag.default if flag.several else (flag.default,)
    return f"{text} ({'on' if flag.default is True else ' '.join(map(str, values))})"


def _entry(invocation: str, text: str, width: int) -> str:
    start = f"  {invocation}".ljust(COLUMN)
    indent = " " * COLUMN
    if len(start) > COLUMN or start[-1] != " ":  # too long to have its help beside it
        return "\n".join([start.rstrip(), *textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)])
    return textwrap.fill(text, width, initial_indent=start, subsequent_indent=indent)


def _title(flag: Flag, arguments: type) -> str:
    """Returns the title of the group that a flag is shown in."""
    if AS_PUBLISHED in flag.notes:
        return PUBLISHED
    return "Flags" if flag.group is arguments else (inspect.getdoc(flag.group) or "").split("\n\n")[0]


def help_text(arguments: type, description: str | None, everything: bool) -> str:
    """Returns the help of a script; with `everything`, rare flags too, those that repeat published runs last."""
    width = min(shutil.get_terminal_size((100, 24)).columns, WIDEST)
    flags, kinds = [*flags_of(arguments).values()], get_type_hints(arguments)
    first = {flags[0].group, *(kinds[name] for name in inspect.get_annotations(arguments))}
    flags.sort(key=lambda flag: flag.group not in first)  # a script's own flags follow those of its first group
    shown = [flag for flag in flags if everything or not {RARE, AS_PUBLISHED} & {*flag.notes}]
    groups: dict[str, list[str]] = {"Help": [_entry(*one, width) for one in GENERAL.items()]}
    groups |= {_title(flag, arguments): [] for flag in shown if AS_PUBLISHED not in flag.notes} | {PUBLISHED: []}
    for flag in shown:
        name = f"--{flag.name}" + f", --no-{flag.name}" * (flag.default is True)
        entry = _entry(f"{name} {flag.values}".rstrip(), text_of(flag, everything), width)
        groups[_title(flag, arguments)].append(entry)
    parts = [f"{textwrap.fill(title, width)}\n" + "\n".join(entries) for title, entries in groups.items() if entries]
    more = len(flags) - len(shown)
    return "\n\n".join([(description or "").strip(), *parts] + [f"--help-all shows {more} more flags"] * bool(more))
