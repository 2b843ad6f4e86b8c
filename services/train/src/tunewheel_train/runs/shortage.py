"""What says that a machine is too small: exceptions, told apart by what PyTorch, Python and the kernel call
them, and the kernel's count of processes that it killed for want of memory."""

from __future__ import annotations

import contextlib
import errno
import re
from pathlib import Path

from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Failed

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and polars put the kernel's number into their message only
_OS_ERROR = re.compile(r"os error (\d+)")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
_OOM_KILL = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
"""Of this control group (version 2, which a container sees as the root), else of the machine."""


def oom_kills() -> int:
    """How many processes the kernel has killed so far for want of memory; 0 where it does not say."""
    for file in _COUNTERS:
        with contextlib.suppress(OSError):
            if (count := _OOM_KILL.search(file.read_text())) is not None:
                return int(count.group(1))
    return 0


def out_of_memory() -> Failed:
    """The last word of a process whose micro-batches found no memory."""
    reason = "does not fit this machine's memory; lower it"
    return Failed(field="train.micro_batch_size", reason=reason, out_of_memory=True)


def is_out_of_memory(error: BaseException) -> bool:
    """True for what Python and PyTorch raise when an allocation is refused."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """True where a write was refused for want of space, or of quota, or for a file's size."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    number = _OS_ERROR.search(str(error))
    if number is not None:
        return int(number.group(1)) in _FULL
    return "no space left on device" in str(error).lower()


def disk_full(error: BaseException) -> RunFailed:
    """The failure of a run whose base model, checkpoints or adapter found no space."""
    first_line = next(iter(str(error).splitlines()), "")
    return RunFailed(
        field="(disk)",
        reason=f"has no space left ({first_line}); free some, or set TUNEWHEEL_WORK_DIR or "
        "TUNEWHEEL_CACHE_DIR",
    )
