"""Recognises that a machine has too little memory or disk: by exceptions of PyTorch, Python and the kernel,
and by the kernel's count of processes that it killed for lack of memory."""

from __future__ import annotations

import contextlib
import errno
import re
from pathlib import Path

from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Failed

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and polars give the kernel's error number only in their message
_OS_ERROR = re.compile(r"os error (\d+)")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
_OOM_KILL = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
"""The files with the kernel's count: of this control group (version 2; a container sees it as the root), else
of the machine."""


def oom_kills() -> int:
    """Return how many processes the kernel has killed so far for lack of memory; 0: unknown."""
    for file in _COUNTERS:
        with contextlib.suppress(OSError):
            if (count := _OOM_KILL.search(file.read_text())) is not None:
                return int(count.group(1))
    return 0


def out_of_memory() -> Failed:
    """Return the last message of a process whose micro-batches did not fit into memory."""
    reason = "does not fit this machine's memory; lower it"
    return Failed(field="train.micro_batch_size", reason=reason, out_of_memory=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that an allocation was refused."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """Return whether ``error`` says that a write was refused: no space, quota exceeded, or file too large."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    number = _OS_ERROR.search(str(error))
    if number is not None:
        return int(number.group(1)) in _FULL
    return "no space left on device" in str(error).lower()


def disk_full(error: BaseException) -> RunFailed:
    """Return the failure of a run whose base model, checkpoints or adapter did not fit on the disk."""
    first_line = next(iter(str(error).splitlines()), "")
    return RunFailed(
        field="(disk)",
        reason=f"has no space left on the disk ({first_line}); free some, or set TUNEWHEEL_WORK_DIR or "
        "TUNEWHEEL_CACHE_DIR to a larger disk",
    )
