"""Our message below the traceback that a launcher prints when one of its processes fails.

`accelerate launch` (without -q) and torchrun print ten lines and more of their own once the script is gone, and know no
way to leave that out for a script that has said what was wrong. So a process that outlives both says it again.
"""

import os
import sys
import time

LONGEST = 60.0  # seconds that a launcher may take to end; torchrun waits for its other processes
LAUNCHERS = ("accelerate", "accelerate-launch", "accelerate.commands", "torchrun", "torch.distributed.run")


def is_launcher(command: list[str]) -> bool:
    """Whether a command is a launcher, as .venv/bin/accelerate launch x.py and python -m torch.distributed.run are."""
    names = [os.path.basename(word) for word in command[:4]]
    known = any(name == known or name.startswith(f"{known}.") for name in names for known in LAUNCHERS)
    before_script = command[: next((i for i, word in enumerate(command) if "scripts/" in word), len(command))]
    return known and not {"-q", "--quiet"} & set(before_script)


def repeat_after_launcher(message: str) -> None:
    """Writes `message` once the launcher that started this process, if one did, has ended. Returns at once."""
    import psutil  # only here: most runs need no last word

    parent = psutil.Process().parent()
    try:
        if parent is None or not hasattr(os, "fork") or not is_launcher(parent.cmdline()):
            return
    except psutil.Error:  # it has ended, or is another user's
        return
    sys.stderr.flush()
    if os.fork() != 0:
        return
    try:
        os.setsid()  # out of reach of the Ctrl-C that ends the others
        deadline = time.monotonic() + LONGEST
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.02)
    except (psutil.Error, OSError):  # it ended between two looks
        pass
    finally:
        os.write(2, message.encode())
        os._exit(0)
