"""Repeats our message below the traceback that a launcher prints when one of its processes fails.

`accelerate launch` and torchrun print ten lines and more of their own once the script has ended, and cannot be told
that the script has explained the error; with -q the first prints none, but only if it starts one process. So a process
that outlives both prints the message again.
"""

import os
import sys
import time

LONGEST = 60.0  # seconds that a launcher may take to end; torchrun waits for its other processes
LAUNCHERS = ("accelerate", "accelerate-launch", "accelerate.commands", "torchrun", "torch.distributed.run")


def is_launcher(command: list[str]) -> bool:
    """Returns whether a command is that of a launcher that prints, such as python -m torch.distributed.run."""
    names = [os.path.basename(word) for word in command[:4]]
    known = any(name == known or name.startswith(f"{known}.") for name in names for known in LAUNCHERS)
    before_script = command[: next((i for i, word in enumerate(command) if "scripts/" in word), len(command))]
    return known and ("TORCHELASTIC_RUN_ID" in os.environ or not {"-q", "--quiet"} & set(before_script))


def repeat_after_launcher(message: str) -> None:
    """Writes `message` once the launcher that started this process, if one did, has ended. Returns at once."""
    import psutil  # imported only here, since most runs succeed

    parent = psutil.Process().parent()
    try:
        if parent is None or not hasattr(os, "fork") or not is_launcher(parent.cmdline()):
            return
    except psutil.Error:  # the launcher has ended, or belongs to another user
        return
    sys.stderr.flush()
    if os.fork() != 0:
        return
    try:
        os.setsid()  # out of reach of the Ctrl-C that ends the others
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # else another process would wait for what ours no longer sends
        deadline = time.monotonic() + LONGEST
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.02)
    except (psutil.Error, OSError):  # the launcher ended between two checks
        pass
    finally:
        os.write(2, message.encode())
        os._exit(0)
