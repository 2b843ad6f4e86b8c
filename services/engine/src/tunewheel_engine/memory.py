"""How much memory is left for weights."""

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
    """Return the bytes that weights on ``device`` may still take; None where the system does not tell.

    On CUDA: what the driver has free, and what torch holds without using it. Else: the machine's, within the
    limit of the process's control group.
    """
    if device.type != "cuda":
        return free_main_memory()
    import torch

    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + idle


def untouched_bytes(device: torch.device, promised: int) -> int:
    """Return how much of ``promised``, the bytes of weights and caches, is not in memory yet.

    A cache in main memory takes a page when it is first written; on a GPU it has all of them from the start.
    Whatever else the process holds counts as if it had been promised.
    """
    if device.type == "cuda":
        return 0
    try:
        resident = int(STATM.read_text().split()[1]) * PAGE
    except OSError:
        return promised
    return max(0, promised - resident)


def free_main_memory(*, meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Return the free bytes of main memory, or None.

    Source: ``MemAvailable`` of proc_meminfo(5); ``memory.max``, ``memory.current`` and ``inactive_file`` of
    the kernel's Control Group v2 documentation. Cached pages of files that were not read lately count as
    free, as Kubernetes counts them.
    """
    told = [_of_machine(meminfo), _of_group(cgroup)]
    return min((free for free in told if free is not None), default=None)


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
    """Read lines of a name and a number."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
