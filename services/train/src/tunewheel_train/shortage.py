"""Recognises that a machine has too little memory or disk, and changes the job to need less memory.

The signs are exceptions of PyTorch, Python and the kernel, and the kernel's count of processes that it killed
for lack of memory.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.run import Adjustment
from tunewheel_planner.plan import rungs

from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.progress import Failed

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors, polars, and an error that tells of another, give the number only in their message
_OS_ERROR = re.compile(r"(?:os error |\[Errno )(\d+)")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
_BITSANDBYTES = re.compile(r"^Error out of memory at line \d+ in file ", re.MULTILINE)
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


def ended_by_bitsandbytes(log: Path, began: int) -> bool:
    """Return whether bitsandbytes ended a process for want of memory. It writes a line to the log, after its
    first ``began`` bytes, and calls ``exit(1)``, so that no exception is raised."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(began)
        return _BITSANDBYTES.search(file.read().decode(errors="replace")) is not None
    return False


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


@contextlib.contextmanager
def full_disk_fails() -> Iterator[None]:
    """Turn a full disk into the run's failure. Waiting does not help, and the next run may need less space.
    The disk may also be that of an object store in a directory."""
    try:
        yield
    except (OSError, TransientError) as error:
        if not is_disk_full(error):
            raise
        raise disk_full(error) from error


def next_rung(job: Job, plan: TrainPlan | None, *, after_step: int) -> tuple[Job, Adjustment] | None:
    """Return the job that needs less memory, and the change; None: there is no further rung.

    A run goes down one rung after each failure, in the order of the planner's ``rungs``:

    0. one process instead of two on a processor, if the run had the choice: half of the memory, the same
       weights
    1. smaller micro-batches, halved down to one example: the same optimizer steps
    2. gradient checkpointing: activations are computed twice instead of kept
    3. QLoRA instead of LoRA, if ``on_out_of_memory`` is ``quantize``: this gives another model, and the
       adapter's metadata says so

    ``plan`` has the values that were used where the job left the choice to the plan.
    """
    if job.recipe.on_out_of_memory == "fail":
        return None
    if plan is not None and job.processes == 0 and plan.processes > 1:
        alone: dict[str, object] = {"processes": 1}
        return _adjusted(job, alone, "processes", "1", after_step)
    if plan is not None and job.gradient_checkpointing is None:
        recipe = job.recipe.model_copy(update={"micro_batch_size": plan.micro_batch_size})
        job = job.model_copy(update={"recipe": recipe, "gradient_checkpointing": plan.gradient_checkpointing})
    recipe = job.recipe
    micro, recomputing = recipe.micro_batch_size, bool(job.gradient_checkpointing)
    for size, checkpointing in rungs(recipe):
        # each failure costs a restart: no rung that may need as much as this one did
        if checkpointing == recomputing and size <= micro // 2:
            changed = recipe.model_copy(update={"micro_batch_size": size})
            same: dict[str, object] = {"recipe": changed, "gradient_checkpointing": recomputing}
            return _adjusted(job, same, "micro_batch_size", str(size), after_step)
        if checkpointing and not recomputing and size <= micro:
            more: dict[str, object] = {"gradient_checkpointing": True}
            return _adjusted(job, more, "gradient_checkpointing", "true", after_step)
    smaller = recipe.method.traits.smaller
    if recipe.on_out_of_memory == "quantize" and smaller is not None:
        quantized = recipe.model_copy(update={"method": TrainMethod(smaller)})
        return _adjusted(job, {"recipe": quantized}, "method", smaller, after_step)
    return None


def _adjusted(
    job: Job, changed: dict[str, object], field: str, value: str, after_step: int
) -> tuple[Job, Adjustment]:
    return job.model_copy(update=changed), Adjustment(field=field, value=value, after_step=after_step)
