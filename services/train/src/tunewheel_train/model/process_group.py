"""The processes that train one model together, and the GPU of this one."""

from __future__ import annotations

import gc
import importlib
import os
from datetime import timedelta

import torch
from tunewheel_basemodel.loading import import_bitsandbytes
from tunewheel_basemodel.precision import compute_dtype
from tunewheel_planner.plan import processes_of

from tunewheel_train.job import Job
from tunewheel_train.model.machine import memory_limit

_MEETING = "MEETING_FILE"
"""The environment variable with the file where forked processes meet."""


def divide(job: Job) -> bool:
    """Fork a second process that trains ``job`` too, if the processor and its memory suffice. Each gets half
    of the threads. Return whether this is the second process.

    Call this before any thread of PyTorch runs. Both processes meet in a file and on the loopback device, so
    that no port is open to others.
    """
    if job.gpus or torch.cuda.is_available():
        return False
    threads = torch.get_num_threads()
    count = processes_of(
        job.recipe, job.base_parameters, memory_bytes=memory_limit(), threads=threads,
        precision=compute_dtype() if job.dtype == "auto" else job.dtype,
    )  # fmt: skip
    if count == 1:
        return False
    # import once what both processes need: it takes seconds
    import_bitsandbytes()  # before anything that imports peft
    for module in ("stages", "trainers.sft_trainer"):
        importlib.import_module(f"tunewheel_train.{module}")
    torch.set_num_threads(threads // count)
    meeting = job.work_dir / f".meeting-{os.getpid()}"
    meeting.parent.mkdir(parents=True, exist_ok=True)
    meeting.unlink(missing_ok=True)
    os.environ |= {
        _MEETING: str(meeting), "GLOO_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
    }  # fmt: skip
    gc.freeze()
    rank = next((rank for rank in range(1, count) if os.fork() == 0), 0)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    return rank > 0


def meet(seconds: float) -> None:
    """Join the process group, and return when all processes that train together have joined; alone, do
    nothing.

    No process waits longer than ``seconds`` for another. PyTorch's defaults (10 minutes for NCCL, 30 for
    gloo) are too short: the first process may take longer to hash a large checkpoint.
    """
    if (backend := group_backend()) is not None:
        from accelerate import PartialState

        meeting = os.environ.get(_MEETING)
        where = {"init_method": f"file://{meeting}"} if meeting else {}
        PartialState(cpu=backend == "gloo", backend=backend, timeout=timedelta(seconds=seconds), **where)
        wait_for_all()


def wait_for_all() -> None:
    """Return when all processes that train together have called this."""
    if group_backend() is not None:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def group_backend() -> str | None:
    """Return the backend of the process group; None: this process trains alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    return "nccl" if torch.cuda.is_available() else "gloo"


def device_of_process() -> str:
    """Return ``auto``, or the GPU of this process if several processes train together."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else "auto"
