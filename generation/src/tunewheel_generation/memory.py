"""Measures the memory that is left for weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PAGE = os.sysconf("SC_PAGE_SIZE")
STATM = Path("/proc/self/statm")
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """Return the free bytes on ``device``; None where the system does not report them.

    On CUDA: the driver's free memory plus torch's unused reserve. Otherwise: the free main memory within the
    limit of the process's control group.
    """
    if device.type != "cuda":
        return free_main_memory()
    import torch

    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + idle


def untouched_bytes(device: torch.device, promised: int) -> int:
    """Return how many of the ``promised`` bytes of weights and caches are not in memory yet.

    A page of a cache in main memory is allocated when it is first written. On a GPU all memory is allocated
    from the start. Other memory of the process is counted as if it belonged to ``promised``.
    """
    if device.type == "cuda":
        return 0
    try:
        resident = int(STATM.read_text().split()[1]) * PAGE
    except OSError:
        return promised
    return max(0, promised - resident)


def free_main_memory(*, meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Return the free bytes of main memory; None where the system does not report them.

    Source: ``MemAvailable`` of proc_meminfo(5); ``memory.max``, ``memory.current`` and ``inactive_file`` of
    the kernel's Control Group v2 documentation. Cached pages of files that were not read recently count as
    free; Kubernetes does the same.
    """
    limits = [_of_machine(meminfo), _of_group(cgroup)]
    return min((free for free in limits if free is not None), default=None)


def _of_machine(meminfo: Path) -> int | None:
    kibibytes = _figures(meminfo).get("MemAvailable:")
    return None if kibibytes is None else kibibytes << 10


def _of_group(cgroup: Path) -> int | None:
    try:
        limit, used = ((cgroup / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return None
    if limit == "max":
        return None
    return int(limit) - int(used) + _figures(cgroup / "memory.stat").get("inactive_file", 0)


def _figures(file: Path) -> dict[str, int]:
    """Read a file whose lines hold a name and a number."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
