"""Counts the attempts at a job in the object store, so that a restart or ``kill -9`` does not reset the
count.

A job may kill its own process, for example for lack of memory. Without the count it would be started again at
every restart, and would block all later events of its partition.
"""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import structlog
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.fields import Frozen, Timestamp
from tunewheel_contracts.identity import content_sha256

from tunewheel_runtime.jobs import LeaseLost
from tunewheel_runtime.store import ArtifactConflict, ObjectStore

log = structlog.get_logger(__name__)

UNFINISHED = "the process ended while the job ran (perhaps killed for lack of memory)"
LONGEST_REASON = 500
"""Most characters of a reason that are stored."""


class Attempt(Frozen):
    """The content of ``attempts/<service>/<job>/<number>.json``: an attempt that was begun."""

    begun_at: Timestamp
    host: str
    token: str
    """A random text that distinguishes two attempts which two processes begin at the same moment."""


class Failure(Frozen):
    """The content of ``attempts/<service>/<job>/<number>.failure.json``: how an attempt failed. The file is
    missing if the process was killed."""

    reason: str


class AttemptsSpent(TunewheelError):
    """All attempts at a job have failed. ``failures``: their reasons, in order."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__(f"gave up after {len(failures)} attempts; the last one: {failures[-1]}")
        self.failures = tuple(failures)


class Attempts:
    """The attempts at the jobs of one service. Each job has at most ``limit`` attempts."""

    def __init__(self, store: ObjectStore, service: str, *, limit: int) -> None:
        self._store = store
        self._service = service
        self._limit = limit

    @contextlib.asynccontextmanager
    async def begin(self, job: str, *, spared: tuple[type[Exception], ...] = ()) -> AsyncGenerator[int, None]:
        """Run the block as an attempt at ``job`` (the id of its event); yield the attempt's number.

        If the block succeeds, the job's count is cleared. If it raises, or if the process dies, the attempt
        stays counted. Failures that are not the job's fault are not counted: a lost lease, a
        ``TransientError``, a cancellation, and the errors in ``spared``.

        Raises:
            AttemptsSpent: no attempt is left, so the block does not run; or the block was the last attempt
                and failed.
            TransientError: the store is unavailable.
        """
        folder = f"attempts/{self._service}/{content_sha256(job.encode())[:32]}"
        number = await self._next(folder)
        note = f"{folder}/{number:04}"
        try:
            yield number
        except Exception as error:
            if isinstance(error, (LeaseLost, TransientError, *spared)):
                await self._give_back(note)
                raise
            # The message of any other error may quote a record's content.
            reason = (
                str(error) if isinstance(error, TunewheelError) else f"{type(error).__name__}; see the log"
            )
            reason = reason[:LONGEST_REASON]
            log.warning("attempt_failed", job=job, attempt=number, limit=self._limit, reason=reason)
            await self._store.put(f"{note}.failure.json", Failure(reason=reason).model_dump_json().encode())
            if len(begun := await self._begun(folder)) >= self._limit:
                raise AttemptsSpent([await self._failure(path) for path in begun]) from error
            raise
        except BaseException:
            await self._give_back(note)
            raise
        with contextlib.suppress(TransientError):  # A finished job must not be repeated for its count.
            await self._store.delete(await self._store.list(folder))

    async def _next(self, folder: str) -> int:
        attempt = Attempt(begun_at=datetime.now(UTC), host=socket.gethostname(), token=uuid.uuid4().hex)
        while True:
            begun = await self._begun(folder)
            if len(begun) >= self._limit:
                raise AttemptsSpent([await self._failure(path) for path in begun])
            number = 1 + max((int(path[-len("0001.json") :][:4]) for path in begun), default=0)
            try:
                await self._store.put(f"{folder}/{number:04}.json", attempt.model_dump_json().encode())
                return number
            except ArtifactConflict:
                continue  # Another process took this number at the same moment.

    async def _begun(self, folder: str) -> list[str]:
        return [path for path in await self._store.list(folder) if not path.endswith(".failure.json")]

    async def _failure(self, path: str) -> str:
        found = await self._store.document(f"{path.removesuffix('.json')}.failure.json", Failure)
        return UNFINISHED if found is None else found.reason

    async def _give_back(self, note: str) -> None:
        with contextlib.suppress(TransientError):  # Then the attempt stays counted.
            await self._store.delete([f"{note}.json"])
