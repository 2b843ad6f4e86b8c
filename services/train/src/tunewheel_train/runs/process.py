"""Starts the training processes of this machine, reads their messages, and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunewheel_runtime.worker_spans import trace_environment

from tunewheel_train.job import Job
from tunewheel_train.progress import Alive, Completed, Failed, Located, Message, Stopped, parse
from tunewheel_train.runs.slots import ALONE, Node, devices_of
from tunewheel_train.settings import Settings
from tunewheel_train.shortage import ended_by_bitsandbytes, oom_kills, out_of_memory

Last = Completed | Failed | Located | Stopped
OnMessage = Callable[[Message], Awaitable[None]]
Silence = Callable[[float], contextlib.AbstractAsyncContextManager[object]]
"""Raises ``TimeoutError`` in its body after the given seconds, like ``asyncio.timeout``."""


@dataclass(frozen=True)
class Patience:
    """How long a process may give no sign of life (``silent_seconds``), and how long it may make no progress
    (``stuck_seconds``), such as within one step. ``silence`` and ``clock`` measure the time."""

    silent_seconds: float = 600.0
    stuck_seconds: float = 3_600.0
    silence: Silence = asyncio.timeout
    clock: Callable[[], float] = time.monotonic


WORKER = (sys.executable, "-m", "tunewheel_train.worker")
"""The command of a training process; action and job are appended."""

SPELLS = 10
"""The time-out for a sign of life is divided into so many parts. If this service itself was stalled, only the
part in which it was stalled times out at once. The other parts give it time to read what the process wrote
meanwhile."""

MEETING_PORT = 29500
"""The port of node 0's pod where the processes of several nodes connect: PyTorch's default. A pod has one
run, so the port is free."""

_LONGEST_LINE = 16 << 20
"""The most bytes of a message. A failure names the records of its step, for which asyncio's 64 KiB are too
few."""

# By default glibc returns freed blocks above 128 KiB to the kernel, and gets them back page by page at the
# next step. Keeping them made steps 10-25 % faster.
_MALLOC = {
    "MALLOC_TOP_PAD_": str(512 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}


class ProcessDied(Exception):
    """The process ended without a last message: it was killed, or had an unexpected error."""

    def __init__(self, code: int | None, tail: str) -> None:
        how = "" if code is None else f" with signal {-code}" if code < 0 else f" with exit code {code}"
        super().__init__(f"the training process ended{how}" + (f": {tail}" if tail else ""))
        self.code = code


def environment(threads: int, devices: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment of a training process that uses ``threads`` threads (0: all it may use) and only
    the GPUs ``devices``."""
    count = str(threads or len(os.sched_getaffinity(0)))
    # Let a waiting OpenMP thread spin only briefly. On a busy machine it would take the core from the thread
    # that it waits for: libgomp's default, a hundred times longer, halved the speed. Not spinning at all cost
    # 20 % on an idle machine.
    seen = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}
    return {
        **os.environ, **trace_environment(), **_MALLOC, **seen,
        "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count,
        "GOMP_SPINCOUNT": "2000", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "TRL_EXPERIMENTAL_SILENCE": "1",
        # Rows differ in length, and blocks of fixed sizes would leave gaps between them.
        "PYTORCH_ALLOC_CONF": os.environ.get("PYTORCH_ALLOC_CONF")
        or os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        # cuBLAS needs this for deterministic products, in addition to PyTorch's settings.
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    }  # fmt: skip


async def run_process(
    action: Literal["locate", "train"],
    job: Job,
    *,
    directory: Path,
    threads: int,
    stop: asyncio.Event,
    stop_seconds: float,
    on_message: OnMessage,
    patience: Patience = Patience(),
    processes: int = 1,
    devices: Sequence[str] = (),
    worker: Sequence[str] = WORKER,
    node: Node = ALONE,
) -> Last:
    """Run one job in a process of its own; return its last message.

    If ``stop`` is set, the process must write a checkpoint and end; after ``stop_seconds`` it is killed. Its
    job file and its log are in ``directory``. It sees only the GPUs ``devices``. With several nodes this runs
    the part of ``node``. Raises ProcessDied: it ended without a last message, or was killed because it
    exceeded ``patience``.
    """
    log_file = directory / f"{action}.log"
    several = together(worker, processes, stop_seconds, node)
    command = (*several, action) if action == "train" else (*worker, action)
    seen = environment(threads, devices) | (one_of(node) if processes == 1 < node.count else {})
    process = await _start(command, job, directory / f"{action}.json", log_file, seen)
    async with _stopping(process, stop, stop_seconds):
        last: Last | None = None
        async for message in _messages(process, patience):
            if isinstance(message, Last):
                # if one of several processes fails, the others report Stopped: keep the failure
                last = last if isinstance(last, Failed) else message
            else:
                await on_message(message)
        code = await process.wait()
    if last is None:
        raise ProcessDied(code, await asyncio.to_thread(_last_line, log_file))
    return last


def together(
    worker: Sequence[str], processes: int, stop_seconds: float, node: Node = ALONE
) -> tuple[str, ...]:
    """Return the command that starts ``worker`` as ``processes`` processes of this machine, with PyTorch's
    launcher.

    The launcher gives the processes ``stop_seconds`` for their last checkpoint; its default is 30. It ends
    all processes of this machine when one dies. ``tries.py`` ends those of other nodes. accelerate, which TRL
    uses, joins the process group that the environment describes.
    """
    if processes == 1:  # no launcher needed
        return tuple(worker)
    python, *rest = worker
    # not --standalone: its launcher unpickles whatever any client sends to its port
    port = MEETING_PORT if node.count > 1 else _free_port()
    return (
        python, "-m", "torch.distributed.run", f"--nnodes={node.count}", f"--node-rank={node.rank}",
        f"--master-addr={node.master}", f"--master-port={port}", f"--nproc-per-node={processes}",
        f"--shutdown-timeout={math.ceil(stop_seconds)}", *rest,
    )  # fmt: skip


def _free_port() -> int:
    """Return a free port: each run of this machine needs its own."""
    with socket.socket() as free:
        free.bind((ALONE.master, 0))
        return int(free.getsockname()[1])


def one_of(node: Node) -> dict[str, str]:
    """Return the environment that PyTorch's launcher would give to the only process of ``node``."""
    return {
        "RANK": str(node.rank), "WORLD_SIZE": str(node.count), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": node.master, "MASTER_PORT": str(MEETING_PORT),
    }  # fmt: skip


async def _messages(process: asyncio.subprocess.Process, patience: Patience) -> AsyncIterator[Message]:
    assert process.stdout is not None
    last_news = patience.clock()
    while True:
        line = await _next_line(process.stdout, patience)
        if not line:
            return
        message = parse(line)
        if not isinstance(message, Alive):
            last_news = patience.clock()
        elif patience.clock() - last_news > patience.stuck_seconds:
            raise _came_no_further(patience)
        if message is not None:
            yield message


async def _next_line(stdout: asyncio.StreamReader, patience: Patience) -> bytes:
    for _ in range(SPELLS):
        with contextlib.suppress(TimeoutError):
            async with patience.silence(patience.silent_seconds / SPELLS):
                return await stdout.readline()
    raise _gave_no_sign(patience)


def _gave_no_sign(patience: Patience) -> ProcessDied:
    seconds = f"{patience.silent_seconds:.0f} s (TUNEWHEEL_SILENT_SECONDS)"
    return ProcessDied(None, f"it gave no sign of life for {seconds} and was killed")


def _came_no_further(patience: Patience) -> ProcessDied:
    seconds = f"{patience.stuck_seconds:.0f} s (TUNEWHEEL_STUCK_SECONDS)"
    return ProcessDied(None, f"it gave signs of life, but made no progress for {seconds} and was killed")


async def _start(
    command: Sequence[str], job: Job, job_file: Path, log_file: Path, env: dict[str, str]
) -> asyncio.subprocess.Process:
    await asyncio.to_thread(job_file.parent.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(job_file.write_text, job.model_dump_json(indent=1))
    with log_file.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *command, str(job_file),
            stdout=asyncio.subprocess.PIPE, stderr=log, stdin=asyncio.subprocess.DEVNULL,
            env=env, limit=_LONGEST_LINE,
        )  # fmt: skip


@contextlib.asynccontextmanager
async def _stopping(
    process: asyncio.subprocess.Process, stop: asyncio.Event, stop_seconds: float
) -> AsyncIterator[None]:
    """Stop the process if ``stop`` is set during the body. After the body it is ended in any case."""

    async def watch() -> None:
        await stop.wait()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.sleep(stop_seconds)
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    watcher = asyncio.create_task(watch(), name="stop-training")
    try:
        yield
    finally:
        watcher.cancel()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _last_line(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").splitlines()
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


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
    If the kernel or bitsandbytes ended a process for lack of memory, return that as its failure."""
    processes, kills = max(1, settings.train_processes), oom_kills()
    log = directory / "train.log"
    began = log.stat().st_size if log.exists() else 0
    try:
        return await run_process(
            "train", job, directory=directory, threads=settings.threads_of_a_run, stop=stop,
            stop_seconds=settings.stop_seconds,
            patience=Patience(settings.silent_seconds, settings.stuck_seconds),
            on_message=on_message, processes=processes,
            devices=devices_of(slot, processes=processes, gpus=settings.gpus), worker=worker, node=node,
        )  # fmt: skip
    except ProcessDied as error:
        # the kernel kills with SIGKILL; a launcher, or a process whose companion was killed so, exits with 1
        killed = error.code == -signal.SIGKILL or (job.processes != 1 and error.code == 1)
        if not stop.is_set() and error.code == 1 and ended_by_bitsandbytes(log, began):
            return out_of_memory()
        if stop.is_set() or not killed or oom_kills() == kills:
            raise
        return out_of_memory()
