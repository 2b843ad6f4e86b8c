"""Starts the measuring process, reads its messages, and makes sure that it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.waiting import first_of
from tunewheel_runtime.worker_spans import trace_environment

from tunewheel_eval.errors import UnfitCandidate, WorkerFailed
from tunewheel_eval.job import UNFIT_EXIT, UNREACHABLE_EXIT, Broken, Progress, Unfit, WorkerLine

OnProgress = Callable[[Progress], Awaitable[None]]

WORKER = (sys.executable, "-m", "tunewheel_eval.worker")
"""The command of a measuring process; the job is appended."""

_LINE: TypeAdapter[Progress | Unfit | Broken] = TypeAdapter(WorkerLine)
_TERMINATE_SECONDS = 5.0


class Stopped(Exception):
    """The worker was stopped because ``lost`` was set. Its rows are on disk."""


async def run_worker(
    job: Path, *, lost: asyncio.Event, on_progress: OnProgress, worker: Sequence[str] = WORKER
) -> None:
    """Run the measuring process on the job file ``job`` until it is done or ``lost`` is set.

    Raises:
        UnfitCandidate: the worker could not measure the candidate.
        Stopped: ``lost`` was set first. The process has ended.
        TransientError: the base model is not on this machine, and the hub does not answer.
        WorkerFailed: the process ended in another way.
    """
    process = await asyncio.create_subprocess_exec(
        *worker, str(job),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=_environment(),
    )  # fmt: skip
    try:
        ended, _ = await first_of(_listen(process, on_progress), lost.wait())
        if ended is None:
            raise Stopped
        last, status = ended
    finally:
        await _end(process)
    if status == UNFIT_EXIT and isinstance(last, Unfit):
        raise UnfitCandidate(field=last.field, reason=last.reason)
    if status == UNREACHABLE_EXIT:
        raise TransientError("the base model cannot be fetched at the moment; the measuring log says why")
    if status != 0:
        raise WorkerFailed(last.reason if isinstance(last, Broken) else _death(status))


def _death(status: int) -> str:
    if status == -signal.SIGKILL:
        return "the measuring process was killed (signal 9), most likely for want of memory; give it more"
    return f"the measuring process ended with status {status}; its log says why"


async def _listen(
    process: asyncio.subprocess.Process, on_progress: OnProgress
) -> tuple[Unfit | Broken | None, int]:
    """Pass progress on until the worker has ended. Return its last line, if it says why it failed, and its
    exit status."""
    last: Unfit | Broken | None = None
    assert process.stdout is not None
    async for raw in process.stdout:
        line = _LINE.validate_json(raw)
        if isinstance(line, Progress):
            await on_progress(line)
        else:
            last = line
    return last, await process.wait()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _TERMINATE_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _environment() -> dict[str, str]:
    # Decoding frees and allocates the same large blocks at every step. Keep glibc from returning them to the
    # system. 32 MiB is the largest mmap threshold that it accepts.
    keep = {
        "MALLOC_TOP_PAD_": str(64 << 20),
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    }
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    # A waiting OpenMP thread that spins takes the core from other processes, above all from the engine.
    polite = {"OMP_WAIT_POLICY": "PASSIVE"}
    return {**keep, **quiet, **polite, **os.environ, **trace_environment()}
