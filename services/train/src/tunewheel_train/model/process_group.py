"""The processes that train one model together, and the GPU of this one."""

from __future__ import annotations

import os
from datetime import timedelta

import torch


def meet(seconds: float) -> None:
    """Join the process group, and return when all processes that train together have joined; alone, do
    nothing.

    No process waits longer than ``seconds`` for another. PyTorch's defaults (10 minutes for NCCL, 30 for
    gloo) are too short: the first process may take longer to hash a large checkpoint.
    """
    if (backend := group_backend()) is not None:
        from accelerate import PartialState

        PartialState(cpu=backend == "gloo", backend=backend, timeout=timedelta(seconds=seconds))
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
