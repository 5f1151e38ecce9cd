"""How many bytes a device has left for this process."""

from __future__ import annotations

import math
from pathlib import Path

import torch

# Files of a control group: its limit, its use; and the key of the use that is cache.
GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
CGROUPS = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> float:
    """Bytes that a process may still take; infinite where the system does not tell.

    On a CPU, the least of what the machine, the control group and `ulimit -v` leave.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type != "cpu":
        return math.inf
    return min(_of_machine(), _of_group(), _of_process())


def _of_machine() -> float:
    kilobytes = _table(Path("/proc/meminfo")).get("MemAvailable:", math.inf)
    return kilobytes * 1024


def _of_group() -> float:
    for most, taken, kept in GROUPS:
        folder = (CGROUPS / most).parent
        try:
            limit = float((CGROUPS / most).read_text())
            used = float((CGROUPS / taken).read_text())
        except (OSError, ValueError):  # none of this version, or "max"
            continue
        return limit - used + _table(folder / "memory.stat").get(kept, 0)
    return math.inf


def _of_process() -> float:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = float(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return math.inf
    unlimited = limit == resource.RLIM_INFINITY
    return math.inf if unlimited else limit - pages * resource.getpagesize()


def _table(path: Path) -> dict[str, float]:
    """The first number of each line, by the word before it."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: float(words[1]) for words in lines if len(words) > 1}
