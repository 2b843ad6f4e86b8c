"""Opens the newest index version of each project. Until it is open, the previous version is searched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.formats.index import IndexManifest
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.waiting import end_all, within

from tunewheel_serve_gateway.metrics import Metrics

if TYPE_CHECKING:
    from tunewheel_retrieval.index import Index

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Followed:
    """The index versions of one project. ``changed`` is set when a newer version is announced."""

    newest: IndexVersioned | None = None
    index: Index | None = None
    built_for: str | None = None
    """The ``retrieval_sha256`` in the latest event that announced ``index``."""
    failure: str | None = None
    """Why ``newest`` could not be opened; None: it is open, or the first attempt is under way."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after the first attempt to open a version."""
    task: asyncio.Task[None] | None = None


class Indexes:
    """Opens the versions that ``index.versioned`` announces, for the projects for which ``is_wanted`` is
    true.

    An index is searched until a newer version is open. A version that cannot be opened is tried again for as
    long as it is the newest. ``prepare`` is called in a thread before an index is used.
    """

    def __init__(
        self,
        store: ObjectStore,
        metrics: Metrics,
        is_wanted: Callable[[str], bool],
        prepare: Callable[[IndexManifest], object],
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._is_wanted = is_wanted
        self._prepare = prepare
        self._backoff = backoff or Backoff(attempts=1, first=0.5, longest=60.0)
        self._followed: dict[str, Followed] = {}
        self._started = False
        metrics.gauge(
            "indexes",
            "Indexes that are open",
            lambda: sum(one.index is not None for one in self._followed.values()),
        )
        metrics.gauge(
            "indexes_waiting",
            "Projects whose newest index version is not open",
            lambda: sum(one.task is not None for one in self._followed.values()),
        )

    def on_versioned(self, event: IndexVersioned) -> None:
        one = self._followed.setdefault(event.project, Followed())
        one.newest = event
        if one.index is not None and one.index.manifest.index_id == event.index_id:
            one.built_for = event.retrieval_sha256  # Another spec may need the same index.
        self.on_change(event.project)

    def on_removed(self, project: str) -> None:
        """Forget the indexes of ``project``."""
        if project in self._followed:
            self._followed[project].newest = None
            self.on_change(project)

    def on_change(self, project: str) -> None:
        """Open the newest version of ``project`` if it is wanted and not open. Close the index of a project
        that no longer wants one."""
        one = self._followed.get(project)
        if one is None or not self._started:
            return
        if one.newest is None or not self._is_wanted(project):
            one.index = one.failure = None
        one.changed.set()
        if one.task is None and self._due(project, one) is not None:
            one.task = asyncio.create_task(self._follow(project, one), name=f"index of {project}")

    def of(self, project: str) -> Index | None:
        """Return the open index of ``project``; None: none is open."""
        one = self._followed.get(project)
        return one.index if one is not None else None

    def built_for(self, project: str) -> str | None:
        """Return the ``retrieval_sha256`` of the spec for which the open index was announced."""
        one = self._followed.get(project)
        return one.built_for if one is not None else None

    def status(self, project: str) -> dict[str, Any]:
        one = self._followed.get(project) or Followed()
        index, newest = one.index, one.newest
        return {
            "index": index.manifest.index_id if index else None,
            "passages": index.manifest.counts.passages if index else 0,
            "waiting_for": newest.index_id if newest and one.task is not None else None,
            "reason": one.failure,
        }

    async def start(self, *, timeout_seconds: float) -> None:
        """Begin to open the announced indexes. Return once each was tried, or after ``timeout_seconds``."""
        self._started = True
        for project in self._followed:
            self.on_change(project)
        tried = [one.tried.wait() for one in self._followed.values() if one.task is not None]
        await within(timeout_seconds, asyncio.gather(*tried))

    async def close(self) -> None:
        self._started = False
        await end_all(*(one.task for one in self._followed.values()))

    def _due(self, project: str, one: Followed) -> IndexVersioned | None:
        newest = one.newest if self._is_wanted(project) else None
        is_open = one.index is not None and newest and one.index.manifest.index_id == newest.index_id
        return None if is_open else newest

    async def _follow(self, project: str, one: Followed) -> None:
        """Try to open the newest version until it is open."""
        attempts = 0
        try:
            while (event := self._due(project, one)) is not None:
                one.changed.clear()
                if await self._open_one(project, one, event):
                    attempts = 0
                    continue
                await within(self._backoff.delay(attempts), one.changed.wait())
                attempts += 1
            one.failure = None
        finally:
            one.task = None

    async def _open_one(self, project: str, one: Followed, event: IndexVersioned) -> bool:
        """Open the version of ``event`` and use it. Return False where it cannot be opened; the previous
        version then stays in use."""
        try:
            index = await self._opened(event)
        except Exception as error:  # No error here may stop the version that is in use.
            self._note_failure(project, one, event, error)
            return False
        finally:
            one.tried.set()
        if one.newest is not None and self._is_wanted(project):
            # The same index may have been announced again, for another spec, while it was being opened.
            named = one.newest if one.newest.index_id == event.index_id else event
            one.index, one.built_for, one.failure = index, named.retrieval_sha256, None
            self._metrics.add("indexes.opened")
            passages = event.counts.passages
            log.info("index_opened", project=project, index_id=event.index_id, passages=passages)
        return True

    async def _opened(self, event: IndexVersioned) -> Index:
        from tunewheel_retrieval.index import BrokenIndex
        from tunewheel_retrieval.opening import open_index

        index = await open_index(self._store, event.manifest)
        for name in ("project", "index_id"):
            in_manifest, in_event = getattr(index.manifest, name), getattr(event, name)
            if in_manifest != in_event:
                reason = f"{in_manifest} in {event.manifest.path}, but {in_event} in index.versioned"
                raise BrokenIndex(name, reason)
        await asyncio.to_thread(self._prepare, index.manifest)
        return index

    def _note_failure(self, project: str, one: Followed, event: IndexVersioned, error: Exception) -> None:
        one.failure = str(error) or repr(error)
        self._metrics.add("indexes.failed")
        log.error(
            "index_not_opened",
            project=project,
            index_id=event.index_id,
            serving=one.index.manifest.index_id if one.index else None,
            reason=one.failure,
            exc_info=None if isinstance(error, TunewheelError | ValueError) else error,
        )
