"""Keeps every project that has an index, and decides when its next version is built."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import Any

import structlog
from tunewheel_contracts import topics
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.errors import InvalidSpec, TunewheelError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested, RecordJudged, RecordKind
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.judgements import Judgements
from tunewheel_contracts.withdrawals import Withdrawals
from tunewheel_embedding.errors import EmbeddingRefused
from tunewheel_runtime.deadletter import Position, Warn
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact
from tunewheel_runtime.view import View
from tunewheel_runtime.waiting import end_all, reporting

from tunewheel_index.building import AT_ONCE, FARTHEST_BEHIND, Builder
from tunewheel_index.documents import Documents, Version
from tunewheel_index.metrics import Metrics
from tunewheel_index.project import Project, takes_of
from tunewheel_index.storing import IndexStore

log = structlog.get_logger(__name__)
IN_MEMORY = 4
"""How many newest versions stay in memory between builds. Others are read from the store when needed."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0


class Indexer:
    """Applies events to projects, and has ``builder`` build: one version at a time for each project."""

    def __init__(
        self,
        declared: View[ProjectDeclared],
        newest: View[IndexVersioned],
        store: IndexStore,
        *,
        metrics: Metrics,
        quiet_seconds: float,
        retry_seconds: float,
        warn: Warn,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._declared, self._newest, self._store = declared, newest, store
        self._metrics, self._warn, self._failed = metrics, warn, failed
        self._quiet_seconds, self._retry_seconds = quiet_seconds, retry_seconds
        self.withdrawals, self.erasures, self.judgements = Withdrawals(), Erasures(), Judgements()
        self.projects: dict[str, Project] = {}
        self.builder: Builder
        self._room, self._wake = asyncio.Semaphore(AT_ONCE), asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._builds: dict[str, asyncio.Task[None]] = {}
        self._has_begun = False
        self._read = 0
        """Records read since the last check for projects whose newest version lies far behind the log."""
        declared.on_change(self._on_declared)
        declared.on_removal(self._on_removed)
        newest.on_change(self._on_versioned)

    def _on_removed(self, project: str) -> None:
        """Forget a project and cancel its build, which would not learn of erasures any more."""
        self.projects.pop(project, None)
        if (build := self._builds.get(project)) is not None:
            build.cancel()

    def _on_versioned(self, envelope: Envelope[IndexVersioned]) -> None:
        """Accept a version that another process named: a stalled former leader may have published last."""
        project, event = self.projects.get(envelope.project), envelope.data
        if not self._has_begun or project is None:
            return
        if event in project.published:
            project.published.remove(event)
        elif event != project.newest:
            log.warning("versioned_by_another_process", project=event.project, index_id=event.index_id)
            project.newest, project.index = event, None
            self.touch(project)

    async def begins(self) -> dict[str, dict[str, int] | None]:
        """Restore every project from its newest version; return the positions from which to read records.

        A project without a version reads all records at its first build.
        """
        for envelope in self._declared.values():
            await self._take_up(envelope.data.spec)
        self._has_begun = True
        starts = [one.newest.records_upto for one in self.projects.values() if one.newest and one.is_whole]
        if not starts:
            return {topics.RECORD_INGESTED.name: None}
        partitions = {partition for upto in starts for partition in upto}
        return {
            topics.RECORD_INGESTED.name: {at: min(upto.get(at, 0) for upto in starts) for at in partitions}
        }

    def on_record(self, envelope: Envelope[Any], _: Position) -> None:
        """Apply one record."""
        project = self.projects.get(envelope.project)
        if project is not None and apply(project, envelope.data, envelope.time):
            self.touch(project)
        self._read += 1
        if self._read == FARTHEST_BEHIND:
            self._wake.set()

    def on_takeback(self, envelope: Envelope[Any], position: Position) -> None:
        """Apply one withdrawal, one erasure, or one decision of a person about a record."""
        data = envelope.data
        self.withdrawals.apply(envelope, position.partition, position.offset)
        self.judgements.apply(envelope, position.partition, position.offset)
        self.erasures.apply(envelope)
        project = self.projects.get(envelope.project)
        if project is None:
            return
        if isinstance(data, RecordJudged):
            if project.documents.judge(data.record_id):
                self.touch(project)
            return
        if isinstance(data, DocumentWithdrawn):
            if data.kind != RecordKind.DOCUMENT:
                return
            subject = data.document_id
        else:
            subject = self.erasures.asked_by(envelope).subject
        if project.documents.take_back(subject):
            self.touch(project)

    def start(self, begins: Mapping[str, int]) -> None:
        """Start building. Every restored project is due at once.

        ``begins``: where the partitions of the log begin, now that they were read. A project whose newest
        version ends before that lacks records which left the log meanwhile.
        """
        for project in self.projects.values():
            seen = project.newest.records_upto if project.newest is not None and project.is_whole else {}
            if any(seen.get(partition, 0) < begin for partition, begin in begins.items()):
                project.is_whole, project.seen_upto = False, seen
            self.touch(project)
        self._worker = asyncio.create_task(self._work(), name="indexer")
        self._worker.add_done_callback(reporting(self._failed))

    async def stop(self) -> None:
        await end_all(*self._builds.values(), self._worker)

    async def settle(self, name: str) -> Project | None:
        """Build one project now and return it. None: the project has no index.

        Raises:
            InvalidSpec, EmbeddingRefused, TransientError: see ``Builder.build``.
        """
        project = self.projects.get(name)
        if project is not None:
            async with self._room:
                project.begin(time.monotonic(), self._retry_seconds)
                await self.builder.build(project)
                self._make_room(project)
        return project

    def touch(self, project: Project) -> None:
        """Mark a project as changed and wake the worker."""
        project.touch(time.monotonic())
        self._wake.set()

    def _on_declared(self, envelope: Envelope[ProjectDeclared]) -> None:
        """Build a version when a spec asks for retrieval for the first time or with other settings."""
        spec = envelope.data.spec
        if not self._has_begun:
            return  # ``begins`` restores the projects that were declared before
        if spec.retrieval is None:
            self._on_removed(spec.project)
            return
        project = self.projects.get(spec.project)
        if project is None:
            newest = self._newest.get(spec.project)
            project = self._add(spec, newest.data if newest else None, ())
            project.is_whole = False
        project.spec = spec
        self.touch(project)

    async def _take_up(self, spec: ProjectSpec) -> None:
        if spec.retrieval is None:
            return
        newest, versions = self._newest.get(spec.project), list[Version]()
        is_whole = newest is not None
        if newest is not None:
            try:
                versions = await self._store.versions(newest.data)
            except (ArtifactMissing, CorruptArtifact) as error:
                log.warning("document_versions_unreadable", project=spec.project, error=str(error))
                is_whole = False
        self._add(spec, newest.data if newest else None, versions).is_whole = is_whole

    def _add(self, spec: ProjectSpec, newest: IndexVersioned | None, versions: Iterable[Version]) -> Project:
        name = spec.project
        documents = Documents(
            takes_of(name, self.withdrawals, self.erasures),
            versions,
            refused=lambda record_id: self.judgements.verdict(name, record_id) == "refuse",
        )
        self.projects[name] = project = Project(spec, documents, newest)
        return project

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            now = time.monotonic()
            idle = {name: one for name, one in self.projects.items() if name not in self._builds}
            due = {name: one.due_at(self._quiet_seconds, self._retry_seconds) for name, one in idle.items()}
            for name in [name for name, at in due.items() if at is not None and at <= now]:
                self._begin(name, self._try(name))
            if self._read >= FARTHEST_BEHIND:
                self._read = 0
                for name in [name for name, at in due.items() if at is None or at > now]:
                    self._begin(name, self._move_on(self.projects[name]))
            later = [at for at in due.values() if at is not None and at > now]
            try:
                async with asyncio.timeout(max(0.0, min(later) - time.monotonic()) if later else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._builds[name] = task = asyncio.create_task(work, name=f"index {name}")
        task.add_done_callback(lambda _: self._built(name))
        task.add_done_callback(reporting(self._failed))

    async def _try(self, name: str) -> None:
        topic, project = f"index {name}", self.projects.get(name)
        if project is None:
            return
        try:
            await self.settle(name)
        except (InvalidSpec, EmbeddingRefused) as error:  # no retry until the spec or a document changes
            self._metrics.add("builds.failed", of="refused")
            self._warn(topic, f"the index of {name} cannot be built: {error}")
        except TunewheelError as error:  # must not stop the builds of other projects
            self._metrics.add("builds.failed", of="unavailable")
            self._warn(topic, f"the index of {name} waits: {error}")
            wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**project.troubles)
            project.troubles += 1
            project.waits_since = project.changed_at = time.monotonic() + wait
        else:
            project.troubles = 0
            self._warn(topic, None)
        await self._move_on(project)

    async def _move_on(self, project: Project) -> None:
        try:
            async with self._room:
                await self.builder.move_on(project)
        except TunewheelError as error:  # tried again after the next build, or after many records
            log.warning("not_moved_on", project=project.name, error=str(error))

    def _built(self, name: str) -> None:
        self._builds.pop(name, None)
        self._wake.set()

    def _make_room(self, latest: Project) -> None:
        others = [one for one in self.projects.values() if one.index is not None and one is not latest]
        for project in others[: max(0, len(others) + 1 - IN_MEMORY)]:
            project.index = None


def apply(
    project: Project, record: RecordIngested, published_at: datetime, *, again: Collection[str] | None = ()
) -> bool:
    """Apply a record to a project's documents; return whether it changes them.

    ``again``: the records whose texts are kept, while all records are read once more; None: all records.
    """
    if record.kind is not RecordKind.DOCUMENT or record.project != project.name:
        return False
    is_wanted = again is None or record.record_id in again
    return project.documents.apply(record, published_at, again=is_wanted)
