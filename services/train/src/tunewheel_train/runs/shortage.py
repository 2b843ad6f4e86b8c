"""Exceptions that say a machine is too small, told apart by what PyTorch, Python and the kernel call them."""

from __future__ import annotations

import errno
import re

from tunewheel_train.errors import RunFailed

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and polars put the kernel's number into their message only
_OS_ERROR = re.compile(r"os error (\d+)")


def is_out_of_memory(error: BaseException) -> bool:
    """True for what Python and PyTorch raise when an allocation is refused."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


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
