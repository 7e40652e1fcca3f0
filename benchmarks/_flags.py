"""Checks flags of several values, and rates, as training/flags/cli.py checks numbers that must not be too low."""

from typing import Any

from training.flags.cli import flag


def each_at_least(args: Any, least: int, *names: str) -> list[str]:
    """Returns a problem for each field of several values that has none, or one below `least`."""
    return [
        f"{flag(name)}{''.join(f' {value}' for value in values)}: name at least one number, each at least {least}"
        for name in names
        if not (values := getattr(args, name)) or min(values) < least
    ]


def above_zero(args: Any, *names: str) -> list[str]:
    return [f"{flag(name)} {value}: must be above 0" for name in names if not (value := getattr(args, name)) > 0]


def none_named(args: Any, *names: str) -> list[str]:
    """Returns a problem for each field of several values that has none."""
    return [f"{flag(name)}: name at least one" for name in names if not getattr(args, name)]
