"""Starts a script, and refuses what was typed in one form. Nothing heavy is imported."""

import atexit
import gc
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from inspect import signature
from typing import Any, TypeVar

from training.flags.command_line import parse
from training.flags.config_file import completed
from training.flags.fields import changed_flags as changed_flags
from training.flags.fields import flags_of
from training.flags.fields import given_flags as given_flags
from training.flags.fields import resolved as resolved
from training.flags.last_word import repeat_after_launcher
from training.flags.out_of_memory import ran_out, remedy
from training.flags.stderr import be_lenient
from training.storage.files import NoRoom

T = TypeVar("T")
GARBAGE = 100_000  # objects: the imports make many that stay; searching them takes a fifth of the imports' time
SILENCE = 10.0  # seconds
INTERRUPTED, CLOSED_PIPE = 130, 141  # the statuses that a shell gives to programs that SIGINT and SIGPIPE ended
before_stop: list[Callable[[], None]] = []  # called before the last message, to close a progress line
GOES_ON = "a training run goes on from its last checkpoint with --resume (not --overwrite)"


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def at_least(args: Any, least: int, *names: str) -> list[str]:
    """Returns a problem for each field `names` of `args` that is set and below `least`, or not finite."""
    return [
        f"{flag(name)} {value}: must be at least {least}" + (" and finite" if value == math.inf else "")
        for name in names
        if (value := getattr(args, name)) is not None and not least <= value < math.inf
    ]


def refuse(problems: Sequence[str]) -> None:
    """Raises one ValueError with all problems, if there are any."""
    if problems:
        raise ValueError("\n       ".join(problems))


def problems_between(**groups: Any) -> list[str]:
    """Returns what is wrong with each group of flags beside the others.

    A group's `problems_given` gets the `groups` that its parameters name; it is not called where one without a default
    is missing.
    """
    found = []
    for check in [group.problems_given for group in groups.values() if hasattr(group, "problems_given")]:
        wanted = signature(check).parameters
        if all(name in groups or parameter.default is not parameter.empty for name, parameter in wanted.items()):
            found += check(**{name: groups[name] for name in wanted if name in groups})
    return found


def problems_in(args: Any, **found: Any) -> list[str]:
    """Returns what is wrong with the flags of a script.

    The `problems` of each group check its own values. Where these are right, `problems_between` checks the groups
    beside each other and beside what is `found` by then, such as the `config` of the base.
    """
    groups = {field.name: getattr(args, field.name) for field in fields(args)}
    alone = [p for group in [*groups.values(), args] if hasattr(group, "problems") for p in group.problems()]
    return alone or problems_between(**groups, **found)


def speaks() -> bool:
    """Returns whether this process prints: one does on each host, since something can be wrong on one host alone."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def say(line: str) -> None:
    """Prints a line for the user on stderr."""
    if speaks():
        print(line, file=sys.stderr, flush=True)


@cache
def note(text: str) -> None:
    """Prints a note for the user on stderr, once in a run however often it is found."""
    say(f"note    {text}")


def run(main: Callable[[T], None], arguments: type[T], description: str | None, goes_on: str | None = None) -> None:
    """Parses the command line and calls `main`. `goes_on` says how to go on after an interruption.

    An error that a user can cause (ValueError, OSError, no memory left) becomes one message and exit status 2. Ctrl-C
    gives status 130. A closed pipe gives 141, without a message.
    """

    def way_on() -> str | None:
        return goes_on or (GOES_ON if "resume" in flags_of(arguments) else None)

    gc.set_threshold(GARBAGE)
    atexit.register(gc.freeze)  # at its end Python searches all that is left, which takes a second
    note.cache_clear()
    be_lenient()
    os.environ["MPLBACKEND"] = "agg"  # matplotlib does not even start with a notebook's that is not installed
    try:
        sys.argv[1:] = completed(arguments, sys.argv[1:])
        args = parse(arguments, sys.argv[1:], description)
        refuse(problems_in(args))
        main(args)
        if sys.stdout is not None:  # as after >&-
            sys.stdout.flush()
    except BrokenPipeError:  # as after | head: nobody reads the rest of the output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)
    except NoRoom as error:
        stop("; ".join(filter(None, [str(error), way_on()])), 2)
    except KeyboardInterrupt:
        stop(f"interrupted; {way_on() or 'nothing is left half-written'}", INTERRUPTED)
    except UnicodeEncodeError as error:
        stop(f"{error}: the output cannot show it; set PYTHONUTF8=1", 2)
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if ran_out(error):
            stop("; ".join(filter(None, [remedy(error, flags_of(arguments)), way_on()])), 2)
        if not isinstance(error, ValueError | OSError):
            raise
        stop(str(error), 2)


def stop(message: str, status: int) -> None:
    """Ends this process with a message. One that does not speak waits: a launcher ends all processes once one has
    failed. If it is still there after that, no other one has failed, as when one GPU of several has no memory left.
    Ctrl-C reaches all processes, of which those that do not speak say nothing."""
    for act in before_stop:
        act()
    if sys.stdout is not None:
        sys.stdout.flush()
    if not speaks():
        if status == INTERRUPTED:
            sys.exit(status)
        time.sleep(SILENCE)
    print(f"\nerror: {message}", file=sys.stderr, flush=True)
    repeat_after_launcher(f"\nerror: {message}\n")
    sys.exit(status)
