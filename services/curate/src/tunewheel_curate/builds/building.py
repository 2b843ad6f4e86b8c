"""Runs builds in a worker process, so that the event loop stays free for heartbeats and health checks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import structlog
from opentelemetry.metrics import NoOpMeter
from pydantic import SecretStr
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_runtime.telemetry import carried
from tunewheel_runtime.waiting import first_of

from tunewheel_curate.builds.metrics import Metrics
from tunewheel_curate.builds.order import BuildOrder, BuildOutcome
from tunewheel_curate.builds.worker import SCRATCH_PREFIX, TAKEN

log = structlog.get_logger(__name__)

WORKER = (sys.executable, "-m", "tunewheel_curate.builds.worker")
"""The command that starts a build worker."""

STDERR_TAIL = 2_000
_LINE_LIMIT = 64 * 1024 * 1024


class WorkerFailed(TunewheelError):
    """The worker died before it took a build: a fault of this machine, not of a project."""


class BuildFailed(TunewheelError):
    """A build died, took too long, or needs a source that does not answer. The message quotes no record."""


class BuildStopped(TunewheelError):
    """The build was told to stop."""


class Builder:
    """Runs each build in a worker process. ``prepare`` starts one ahead of need; otherwise the first build
    does. A worker is kept for the next build."""

    def __init__(
        self,
        *,
        regression_set: Path | None = None,
        pseudonym_secret: SecretStr | None = None,
        allowed: AllowedSources | None = None,
        seconds: float | None = None,
        worker: Sequence[str] = WORKER,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics(NoOpMeter("curate"))
        self._command = worker
        self._regression_set = None if regression_set is None else str(regression_set)
        self._pseudonym_secret = pseudonym_secret or SecretStr("")
        self._allowed = allowed or AllowedSources()
        self._seconds = seconds
        self._idle: list[asyncio.subprocess.Process] = []
        self._running = 0
        self._starting = asyncio.Lock()
        """Held while a worker is looked for or starts: a build takes the worker that ``prepare`` starts."""

    def pseudonyms(self, project: str) -> Pseudonyms:
        """Return the pseudonyms that builds of ``project`` give to customers, sources and experts."""
        return Pseudonyms(project, self._pseudonym_secret.get_secret_value())

    async def prepare(self) -> None:
        """Start a worker if none runs. It loads its libraries, so that the next build starts at once."""
        async with self._starting:
            if not self._running and not any(worker.returncode is None for worker in self._idle):
                self._idle = [await _start_worker(self._command)]

    async def close(self) -> None:
        """End the workers that run no build."""
        while self._idle:
            await _end(self._idle.pop())

    async def _take(self) -> asyncio.subprocess.Process:
        async with self._starting:
            while self._idle:
                if (worker := self._idle.pop()).returncode is None:
                    return worker
            return await _start_worker(self._command)

    @contextlib.asynccontextmanager
    async def build(
        self, order: BuildOrder, *, stop: asyncio.Event, memory: bytes | None = None
    ) -> AsyncIterator[tuple[BuildOutcome, Path]]:
        """Yield the outcome and the folder with the version's files. The folder is deleted after the block.

        The builder fills in these fields of ``order``: ``folder`` (a fresh folder), ``memory`` (a file that
        holds ``memory``), ``trace`` (the current one), and from the builder's own settings
        ``regression_set``, ``pseudonym_secret`` and ``allowed``.

        Raises:
            BuildStopped: ``stop`` was set during the build.
            BuildFailed: the build died or took too long, or a source that its spec names does not answer.
            WorkerFailed: the worker died before it took the build.
            TransientError: the records have not all reached the table yet, or the store is away.
        """
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, ignore_cleanup_errors=True) as name:
            folder, remembered = Path(name) / "version", Path(name) / "holdout_memory.parquet"
            folder.mkdir()
            if memory is not None:
                await asyncio.to_thread(remembered.write_bytes, memory)
            here = {
                "folder": str(folder),
                "memory": None if memory is None else str(remembered),
                "regression_set": self._regression_set,
                "pseudonym_secret": self._pseudonym_secret,
                "allowed": self._allowed,
                "trace": carried(),
            }
            outcome = await self._run(order.model_copy(update=here), stop)
            if outcome.behind is not None:
                raise TransientError(outcome.behind)
            if outcome.away is not None:
                raise BuildFailed(outcome.away)
            yield outcome, folder

    async def _run(self, order: BuildOrder, stop: asyncio.Event) -> BuildOutcome:
        self._running += 1
        try:
            return await self._run_in(await self._take(), order, stop)
        finally:
            self._running -= 1

    async def _run_in(
        self, worker: asyncio.subprocess.Process, order: BuildOrder, stop: asyncio.Event
    ) -> BuildOutcome:
        began, ended = time.perf_counter(), "failed"
        try:
            async with asyncio.timeout(self._seconds):
                outcome, _ = await first_of(_ask(worker, order), stop.wait())
            if outcome is None:
                ended = "stopped"
                raise BuildStopped("the build was told to stop")
            if outcome.away is None:
                ended = "built" if outcome.manifest is not None else "nothing"
        except TimeoutError as error:
            await _end(worker)
            raise BuildFailed(f"it did not end within {self._seconds:g} seconds") from error
        except BaseException:
            await _end(worker)
            raise
        finally:
            self._metrics.observe("build.seconds", time.perf_counter() - began, outcome=ended)
            self._metrics.add("builds.failed", int(ended == "failed"))
        self._idle.append(worker)
        return outcome


async def _start_worker(command: Sequence[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT,
        process_group=0,
    )


async def _ask(worker: asyncio.subprocess.Process, order: BuildOrder) -> BuildOutcome:
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stderr is not None
    errors = asyncio.create_task(worker.stderr.read())
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.stdin.write(order.model_dump_json().encode() + b"\n")
            await worker.stdin.drain()
        line = await worker.stdout.readline()
        if taken := line == TAKEN:
            line = await worker.stdout.readline()
        if line:
            return BuildOutcome.model_validate_json(line)
        tail = (await errors).decode(errors="replace")[-STDERR_TAIL:]
        code = await worker.wait()
        log.error("build_died", exit_code=code, stderr=tail)
        raise BuildFailed(_death(code)) if taken else WorkerFailed(f"{_death(code)}: {tail}")
    finally:
        errors.cancel()


def _death(code: int) -> str:
    """Return how a process with exit ``code`` ended. The worker exits with 128 + the signal that killed its
    fork."""
    killer = -code if code < 0 else code - 128
    if killer == signal.SIGKILL:
        return "its process was killed (signal 9), most likely for want of memory; give curate more memory"
    if killer > 0:
        return f"its process was ended by signal {killer}; curate's log may say more"
    return f"its process ended with exit code {code}; curate's log says why"


async def _end(worker: asyncio.subprocess.Process) -> None:
    """Kill the process group of the worker, which includes the build that it forked."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    await worker.wait()
