"""Counts the cores and the memory that this process may use."""

import math
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # of a container: version 2, then version 1
# Of each version: the limit, what is used, and where and under which name it says what of that is a cache of files,
# which makes room for what is wanted.
LIMITS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def quota(root: Path = CGROUP) -> float:
    """Returns how many CPUs' time a container may use; infinity without a limit."""
    try:
        if (root / "cpu.max").exists():
            most, period = (root / "cpu.max").read_text().split()
        else:
            most, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(most) / int(period) if int(most) > 0 else math.inf
    except (OSError, ValueError):  # no such files, or "max"
        return math.inf


def usable_cores() -> int:
    """Returns the number of cores that the process may run on, but no more than a container's quota lets run at a
    time, since it would stop them in turn."""
    process = psutil.Process()
    allowed = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1
    return max(1, math.ceil(min(allowed, quota())))


def free_bytes(root: Path = CGROUP) -> int:
    """Returns the bytes of memory that are free on this machine, within what a container may use."""
    free = psutil.virtual_memory().available
    for limit, used, told, name in LIMITS:
        try:
            stat = (root / told).read_text() if (root / told).exists() else ""
            cached = next((int(line.split()[1]) for line in stat.splitlines() if line.startswith(f"{name} ")), 0)
            free = min(free, int((root / limit).read_text()) - int((root / used).read_text()) + cached)
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return max(free, 0)
