"""The flags of a script, read off its dataclasses: a field is a flag. Nothing heavy is imported.

A field of type `Rare[...]` is shown by --help-all only; one of type `AsPublished[...]` too, in a group of its own,
since it repeats what the report's authors did. --help shows all others.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
RARE, AS_PUBLISHED = "rare", "as published"
Rare = Annotated[T, RARE]
AsPublished = Annotated[T, AS_PUBLISHED]


@dataclass(frozen=True)
class Help:
    """The help of a flag whose text is computed; other flags have theirs under the field."""

    text: str


@dataclass(frozen=True)
class Flag:
    """A flag, made from the field of a dataclass; its name has dashes and no prefix, such as lora-rank."""

    name: str
    kind: Any  # its type without annotations
    notes: tuple[Any, ...]  # its annotations
    default: Any  # dataclasses.MISSING where there is none
    group: type  # the dataclass that it is a field of

    @property
    def several(self) -> bool:
        """Whether it takes any number of values."""
        return get_origin(self.kind) is tuple

    @property
    def types(self) -> tuple[Any, ...]:
        """The types that a value may have."""
        if self.several:
            return get_args(self.kind)[:1]
        return get_args(self.kind) if get_origin(self.kind) in (UnionType, Union) else (self.kind,)

    @property
    def values(self) -> str:
        """What the help shows behind the flag, such as {adamw,sgd}; nothing for a switch."""
        names = {str: "TEXT", int: "INT", float: "NUMBER", Path: "PATH"}
        written = [
            "{" + ",".join(map(str, get_args(kind))) + "}" if get_origin(kind) is Literal else names[kind]
            for kind in self.types
            if kind not in (NoneType, bool)
        ]
        return "|".join(written) + " ..." * self.several


def flags_of(arguments: Any) -> dict[str, Flag]:
    """Returns every flag of a script, by name."""
    found: dict[str, Flag] = {}
    hints = get_type_hints(arguments, include_extras=True)
    for field in fields(arguments):
        hint, name = hints[field.name], field.name.replace("_", "-")
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        own = {name: Flag(name, kind, tuple(notes), field.default, arguments)}
        found |= flags_of(kind) if is_dataclass(kind) else own
    return found


def resolved(args: Any) -> dict[str, Any]:
    """Returns all flags in one flat dictionary, as plain values for results.json."""
    flat: dict[str, Any] = {}
    for field in fields(args):
        value = getattr(args, field.name)
        flat |= asdict(value) if is_dataclass(value) else {field.name: value}  # type: ignore[arg-type]
    return {name: _plain(value) for name, value in flat.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def mark_given(args: Any, names: Collection[str]) -> None:
    """Remembers which flags stood on the command line, whatever their values, for `given_flags`."""
    object.__setattr__(args, "_given", frozenset(names))
    for field in fields(args):
        if is_dataclass(value := getattr(args, field.name)):
            mark_given(value, names)


def given_flags(args: Any) -> dict[str, Any]:
    """Returns the flags of a group that stood on the command line, or are not at their defaults."""
    given: frozenset[str] = getattr(args, "_given", frozenset())
    values = {field.name: getattr(args, field.name) for field in fields(args)}
    return {name: value for name, value in values.items() if name in given} | changed_flags(args)


def words_of(*groups: Any) -> list[str]:
    """Writes the flags of `groups` that are not at their defaults as words of a command line."""
    words: list[str] = []
    for name, value in (pair for group in groups for pair in changed_flags(group).items()):
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
            continue
        values = [*map(str, value)] if isinstance(value, tuple) else [str(value)]
        single = len(values) == 1 and values[0].startswith("-")  # which behind a space would be another flag
        words += [f"{flag}={values[0]}"] if single else [flag, *values]
    return words


def changed_flags(args: Any) -> dict[str, Any]:
    """Returns the flags that are not at their defaults."""
    found: dict[str, Any] = {}
    for field in fields(args):
        value = getattr(args, field.name)
        if is_dataclass(value):
            found |= changed_flags(value)
        elif value != field.default:
            found[field.name] = value
    return found
