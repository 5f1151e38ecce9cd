"""The memory that one call of a work takes beyond what is there before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

MEMORY_INFO = Path("/proc/meminfo")


def extra_mb(work: Callable[[], object], device: str = "cpu") -> float:
    """Call a work once; its peak of tensor memory, less what was held before, in MB of 10^6 bytes.

    On CUDA that is the allocator's own peak. On a CPU every allocation and release of tensor
    storage is summed in the order of their times. Neither counts the scratch space of the matrix
    libraries, nor the weights: they are there before.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        held += change
        peak = max(peak, held)
    return peak / 1e6


def available_bytes(device: str = "cpu") -> float:
    """What is free on the device; infinite where the system does not say."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    if not MEMORY_INFO.is_file():
        return float("inf")
    lines = dict(line.split(":") for line in MEMORY_INFO.read_text().splitlines())
    return float(lines["MemAvailable"].split()[0]) * 1024
