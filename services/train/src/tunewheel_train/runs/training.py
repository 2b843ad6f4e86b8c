"""Starts the training processes of this machine once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

from tunewheel_train.job import Job
from tunewheel_train.runs.node import ALONE, Node
from tunewheel_train.runs.process import Last, OnMessage, Patience, ProcessDied, run_process
from tunewheel_train.runs.shortage import oom_kills, out_of_memory
from tunewheel_train.runs.slots import devices_of
from tunewheel_train.settings import Settings


async def train_once(
    job: Job,
    settings: Settings,
    *,
    directory: Path,
    stop: asyncio.Event,
    on_message: OnMessage,
    worker: Sequence[str],
    slot: int = 0,
    node: Node = ALONE,
) -> Last:
    """Train ``job`` in the processes and on the GPUs that ``settings`` give to ``slot``; see ``run_process``.
    If the kernel killed a process for lack of memory, return that as its failure."""
    processes, kills = max(1, settings.train_processes), oom_kills()
    try:
        return await run_process(
            "train", job, directory=directory, threads=settings.train_threads, stop=stop,
            stop_seconds=settings.stop_seconds,
            patience=Patience(settings.silent_seconds, settings.stuck_seconds),
            on_message=on_message, processes=processes,
            devices=devices_of(slot, processes=processes, gpus=settings.gpus), worker=worker, node=node,
        )  # fmt: skip
    except ProcessDied as error:
        # the kernel kills with SIGKILL; a launcher, or a process whose companion was killed so, exits with 1
        killed = error.code == -signal.SIGKILL or (job.processes != 1 and error.code == 1)
        if stop.is_set() or not killed or oom_kills() == kills:
            raise
        return out_of_memory()
