"""How often a job was begun, noted in the object store: neither a restart nor a ``kill -9`` resets the count.

A job that takes its process with it, for want of memory perhaps, would otherwise be begun again at every
start and keep its partition from everything behind it.
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

UNFINISHED = "the process ended while it ran (killed for want of memory, perhaps)"
LONGEST_REASON = 500
"""Characters of a reason that are kept."""


class Attempt(Frozen):
    """``attempts/<service>/<job>/<number>.json``: an attempt that was begun."""

    begun_at: Timestamp
    host: str
    token: str
    """Tells two attempts apart that two processes begin in the same moment."""


class Failure(Frozen):
    """``attempts/<service>/<job>/<number>.failure.json``: how it ended, where its process lived to say so."""

    reason: str


class AttemptsSpent(TunewheelError):
    """Every attempt that a job has failed. ``failures`` say how, the first one first."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__(f"gave up after {len(failures)} attempts; the last one: {failures[-1]}")
        self.failures = tuple(failures)


class Attempts:
    """The attempts of one service's jobs, ``limit`` for each."""

    def __init__(self, store: ObjectStore, service: str, *, limit: int) -> None:
        self._store = store
        self._service = service
        self._limit = limit

    @contextlib.asynccontextmanager
    async def begin(self, job: str, *, spared: tuple[type[Exception], ...] = ()) -> AsyncGenerator[int, None]:
        """Count an attempt at ``job`` (the id of its event) for as long as the block lasts; yield its number.

        A block that ends well clears the job's count. One that raises leaves its attempt counted, with the
        error as the reason; so does one whose process dies. What is not the job's fault gives the attempt
        back: a lost lease, a ``TransientError``, a cancellation, and the errors named in ``spared``.

        Raises:
            AttemptsSpent: the job has had all its attempts, so the block does not run; or it ran as the last
                of them and failed.
            TransientError: the store is away.
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
            # The words of other errors may hold what records say.
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
        with contextlib.suppress(TransientError):  # what was done must not be done again for its count
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
                continue  # another process has begun at the same time

    async def _begun(self, folder: str) -> list[str]:
        return [path for path in await self._store.list(folder) if not path.endswith(".failure.json")]

    async def _failure(self, path: str) -> str:
        data = await self._store.read(f"{path.removesuffix('.json')}.failure.json")
        return UNFINISHED if data is None else Failure.model_validate_json(data).reason

    async def _give_back(self, note: str) -> None:
        with contextlib.suppress(TransientError):  # counted after all; the error under way says more
            await self._store.delete([f"{note}.json"])
