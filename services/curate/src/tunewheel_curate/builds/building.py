"""Builds, kept away from the event loop: heartbeats and health go on while a worker process curates."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from pydantic import SecretStr
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_redaction.pseudonyms import Pseudonyms

from tunewheel_curate.builds.worker import SCRATCH_PREFIX, BuildOrder, BuildOutcome

WORKER = (sys.executable, "-m", "tunewheel_curate.builds.worker")
"""The command of a worker that carries out builds."""

STDERR_TAIL = 2_000
_LINE_LIMIT = 64 * 1024 * 1024


class BuildFailed(TunewheelError):
    """A worker died or answered nonsense: a fault of ours, not of the records."""


class BuildStopped(TunewheelError):
    """The build was told to stop."""


class Builder:
    """Runs one build at a time, in a worker started ahead of need (``prepare``) or on demand, and kept."""

    def __init__(
        self,
        *,
        regression_set: Path | None = None,
        pseudonym_secret: SecretStr | None = None,
        allowed: AllowedSources | None = None,
        worker: Sequence[str] = WORKER,
    ) -> None:
        self._command = worker
        self._regression_set = None if regression_set is None else str(regression_set)
        self._pseudonym_secret = pseudonym_secret or SecretStr("")
        self._allowed = allowed or AllowedSources()
        self._worker: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    def pseudonyms(self, project: str) -> Pseudonyms:
        """Return those that builds of ``project`` give to customers, sources and experts."""
        return Pseudonyms(project, self._pseudonym_secret.get_secret_value())

    async def prepare(self) -> None:
        """Have a worker load its libraries now, so that the next build starts at once."""
        if self._worker is not None and self._worker.returncode is None:
            return
        self._worker = await _start_worker(self._command)

    async def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await _end(worker)

    @contextlib.asynccontextmanager
    async def build(
        self, order: BuildOrder, *, stop: asyncio.Event, memory: bytes | None = None
    ) -> AsyncIterator[tuple[BuildOutcome, Path]]:
        """Yield the outcome and the folder that holds the version's files, for as long as the block lasts.

        ``order.folder`` and ``order.memory`` are replaced by a fresh folder and a file that holds ``memory``,
        ``order.regression_set``, ``order.pseudonym_secret`` and ``order.allowed`` by the builder's.

        Raises:
            BuildStopped: ``stop`` was set meanwhile.
            BuildFailed: the worker died.
            TransientError: the records have not all reached the table yet, or the store is away.
        """
        async with self._turn:
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
                }
                outcome = await self._run(order.model_copy(update=here), stop)
                if outcome.behind is not None:
                    raise TransientError(outcome.behind)
                yield outcome, folder

    async def _run(self, order: BuildOrder, stop: asyncio.Event) -> BuildOutcome:
        await self.prepare()
        worker = self._worker
        assert worker is not None
        answer = asyncio.create_task(_ask(worker, order))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({answer, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise BuildStopped("the build was told to stop")
            outcome = answer.result()
        except BaseException:
            await self.close()
            raise
        finally:
            for task in (answer, stopped):
                task.cancel()
            await asyncio.gather(answer, stopped, return_exceptions=True)
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
        if line:
            return BuildOutcome.model_validate_json(line)
        tail = (await errors).decode(errors="replace")[-STDERR_TAIL:]
        raise BuildFailed(f"the build's worker ended with {await worker.wait()}: {tail}")
    finally:
        errors.cancel()


async def _end(worker: asyncio.subprocess.Process) -> None:
    """Kill the worker and the build it has forked, which share a process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    await worker.wait()
