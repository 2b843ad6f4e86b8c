"""Builds a project's next version and names it on the log.

A build notes its position on the log, then stores the files, their manifest and the table of document
versions. Only then does ``index.versioned`` name the version. A process that is killed before that has named
nothing. The next process reads the log from the position in the last named version, and builds the same
version under the same name.

An endpoint may take long to return vectors. If a document is erased meanwhile, the erasure removes it from
the newest version, and the build starts over without it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset_spec import DatasetSpec
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_embedding.embedders import Embedder, Embedders
from tunewheel_retrieval.building import Document, build
from tunewheel_retrieval.files import NOT_ON_THE_LOG, IndexFiles, config_sha256_of, without
from tunewheel_retrieval.index import BrokenIndex, Index
from tunewheel_runtime.service import Service

from tunewheel_index.documents import Version, documents_of
from tunewheel_index.metrics import Metrics
from tunewheel_index.planning import Plan, Upto, records_in
from tunewheel_index.project import Project
from tunewheel_index.storing import IndexStore

T = TypeVar("T")
log = structlog.get_logger(__name__)
AT_ONCE = 8
"""How many projects are built at the same time. A slow endpoint or a long read of the log delays only its own
project. Builds have threads of their own: one that waits for an endpoint takes no thread from the store."""
FARTHEST_BEHIND = 50_000
"""How many records a version may lie behind the log before it is named again. A starting process reads at
most about so many records, of all projects, for one project's sake: a few seconds."""


@dataclass
class Builder:
    """Builds versions in threads.

    ``read_again`` reads the given records of a project and keeps their texts; None: all that it has not seen.
    ``released`` tells of a project's record whether a person released it.
    """

    service: Service
    store: IndexStore
    embedders: Embedders
    upto: Callable[[], Upto]
    read_again: Callable[[Project, Collection[str] | None], Awaitable[None]]
    released: Callable[[str, str], bool]
    metrics: Metrics
    max_passages: int
    kept_versions: int
    secret: str = ""
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(AT_ONCE, thread_name_prefix="build")
    )

    async def close(self) -> None:
        """Wait for the threads of builds. Close the embedders first, so that no thread waits for an
        endpoint."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def build(self, project: Project) -> None:
        """Build a version of the current documents, unless the newest version already is that one.

        Raises:
            InvalidSpec: this installation does not allow, or cannot do, what the spec asks for.
            EmbeddingRefused: the endpoint does not give the vectors that the spec asks for.
            TransientError: the broker, the store or the endpoint is away.
            LeadershipLost: another process is the active one now.
        """
        while not await self._build_once(project):
            log.info("build_begun_again", project=project.name)

    async def take_out(self, project: Project, document_id: str, versions: Sequence[Version]) -> None:
        """Remove the withdrawn and erased versions of a document from the newest index version, and name the
        result.

        The rest of ``project.index`` is reused: no text is read and nothing is embedded. ``versions``: the
        document versions that the newest index version's table lists. Hold ``project.writing`` meanwhile.

        Raises:
            TransientError, LeadershipLost: see ``build``.
        """
        index, newest = project.index, project.newest
        assert index is not None
        assert newest is not None
        takes = project.documents.takes
        left = [one for one in versions if one.document_id != document_id or not takes(one)]
        standing = {one.record_id for one in left if one.document_id == document_id}

        def rest() -> IndexFiles:
            is_gone = records_in(index).get(document_id) not in standing
            return without(index, {document_id} if is_gone else ())

        files = await asyncio.to_thread(rest)  # not in a build thread: all of them may wait for endpoints
        changed = {
            "index_id": files.index_id,
            "manifest": await self.store.write(files),
            "counts": files.counts,
            "changed": int(files.index_id != newest.index_id),
            "versions": await self.store.write_versions(project.name, left),
        }
        await self._name(project, newest.model_copy(update=changed))
        project.documents.forgotten.pop(document_id, None)

    async def move_on(self, project: Project) -> None:
        """Name the newest version again if its position lies far behind the log. The next process starts to
        read, for all projects, at the earliest position that any project's newest version names.

        Raises:
            TransientError, LeadershipLost: see ``build``.
        """
        async with project.writing:
            upto, newest, documents = self.upto(), project.newest, project.documents
            if newest is None or not project.is_whole:
                return
            behind = sum(end - newest.records_upto.get(at, 0) for at, end in upto.records.items())
            if behind >= FARTHEST_BEHIND:
                forgotten = documents.forgotten.copy()
                await self._name_again(project, documents.all(), upto, forgotten, newest.retrieval_sha256)

    async def _build_once(self, project: Project) -> bool:
        """Build once. False: the result is out of date because, meanwhile, a document was erased or another
        version was named."""
        spec, dataset = project.spec.retrieval, project.spec.dataset
        assert spec is not None
        began = time.monotonic()
        embedder = await self.embedders.of(spec.embedding)
        searches = dataset.injections != "keep"
        config = config_sha256_of(spec, dataset.pii, embedder.name, secret=self.secret, searches=searches)
        plan = await self._plan_with_texts(project, spec, dataset, config)
        files = None
        if not await self._in_thread(lambda: plan.is_newest):
            files = await self._in_thread(lambda: self._files(plan, embedder))
            if plan.previous is not None and files.index_id == plan.previous.manifest.index_id:
                files = None  # the documents that were tried again are left out again
        async with project.writing:
            if plan.is_outdated(project):
                return False
            if files is not None:
                changed = await self._store_and_name(project, plan, files)
                log.info(
                    "indexed", project=project.name, index_id=files.index_id, changed=changed,
                    seconds=round(time.monotonic() - began, 3), **files.counts.model_dump(),
                )  # fmt: skip
            elif plan.forgotten or plan.newest is None or plan.newest.retrieval_sha256 != spec.sha256:
                await self._name_again(project, plan.versions, plan.upto, plan.forgotten, spec.sha256)
            project.tries_again = False
            if plan.previous is None:
                project.tried_at = time.monotonic()  # every document was tried
        for record_id in plan.texts:
            project.documents.texts.pop(record_id, None)
        return True

    async def _plan_with_texts(
        self, project: Project, spec: RetrievalSpec, dataset: DatasetSpec, config: str
    ) -> Plan:
        """Return a plan after reading the texts that it lacks. Texts that are gone stay missing."""
        if not project.is_whole:
            await self.read_again(project, None)
            return await self._plan(project, spec, dataset, config)
        plan, asked = await self._plan(project, spec, dataset, config), set[str]()
        while missing := (await self._in_thread(lambda plan=plan: plan.missing_texts)) - asked:
            asked |= missing
            await self.read_again(project, missing)
            # meanwhile another version may have been named, whose passages cannot be reused
            plan = await self._plan(project, spec, dataset, config)
        return plan

    async def _plan(self, project: Project, spec: RetrievalSpec, dataset: DatasetSpec, config: str) -> Plan:
        index = await self.open_newest(project)
        documents = project.documents  # no await from here on, so that positions and documents agree
        current = list(documents.current().values())
        return Plan(
            project=project.name,
            spec=spec,
            pii=dataset.pii,
            searches=dataset.injections != "keep",
            config=config,
            current=current,
            versions=documents.all(),
            texts=dict(documents.texts),
            newest=project.newest,
            index=index,
            forgotten=documents.forgotten.copy(),
            erasures=len(project.erased),
            upto=self.upto(),
            released={one.record_id for one in current if self.released(project.name, one.record_id)},
            tries_again=project.tries_again,
        )

    def _files(self, plan: Plan, embedder: Embedder) -> IndexFiles:
        kept: list[Document] = []
        fresh: list[tuple[Version, RecordIngested]] = []
        lost = 0
        for one in plan.current:
            text = plan.texts.get(one.record_id)
            if plan.held.get(one.document_id) == one.record_id:
                kept.append(_document(one, None))
            elif text is not None:
                fresh.append((one, text))
            else:
                lost += 1
                kept.append(_document(one, NOT_ON_THE_LOG))
        if lost:
            log.warning("documents_not_on_the_log", project=plan.project, documents=lost)
        return build(
            [*kept, *documents_of(fresh, plan.pii, secret=self.secret)],
            embedder,
            plan.spec,
            plan.previous,
            project=plan.project,
            config_sha256=plan.config,
            max_passages=self.max_passages,
            searches=plan.searches,
            released=plan.released,
        )

    async def _store_and_name(self, project: Project, plan: Plan, files: IndexFiles) -> int:
        """Store and name a version; return how many documents changed."""
        self.service.require_active()  # else this process could store what another one has just erased
        event = IndexVersioned(
            project=project.name,
            index_id=files.index_id,
            manifest=await self.store.write(files),
            retrieval_sha256=plan.spec.sha256,
            counts=files.counts,
            changed=await self._in_thread(lambda: plan.changed(files)),
            versions=await self.store.write_versions(project.name, plan.versions),
            records_upto=plan.upto.records,
            withdrawals_upto=plan.upto.withdrawals,
            erasures_upto=plan.upto.erasures,
        )
        await self._name(project, event)
        project.documents.forgotten -= plan.forgotten
        self.metrics.add("versions.named")
        for reason, count in files.counts.left_out.items():
            self.metrics.add("documents.left_out", count, of=reason)
        await self.open_newest(project)
        return event.changed

    async def _name_again(
        self,
        project: Project,
        versions: Sequence[Version],
        upto: Upto,
        forgotten: Counter[str],
        retrieval_sha256: str,
    ) -> None:
        """Name the newest version again, unchanged, with a new position, table of documents and spec hash."""
        assert project.newest is not None
        changed = {
            "changed": 0,
            "versions": await self.store.write_versions(project.name, versions),
            "records_upto": upto.records,
            "withdrawals_upto": upto.withdrawals,
            "erasures_upto": upto.erasures,
            "retrieval_sha256": retrieval_sha256,
        }
        await self._name(project, project.newest.model_copy(update=changed))
        project.documents.forgotten -= forgotten

    async def _name(self, project: Project, event: IndexVersioned) -> None:
        """Publish ``event``, whose files are stored: it names the newest version from now on."""
        before = project.newest
        event = event.model_copy(update={"previous": before.index_id if before else None})
        project.published.append(event)
        await self.service.publish(self.service.new(event))
        project.newest = event
        if before is None or before.manifest != event.manifest:
            project.index = None
        keep = {name for name in (event.index_id, event.previous) if name}
        await self.store.drop_old(project.name, keep=keep, most=self.kept_versions, versions=event.versions)

    async def open_newest(self, project: Project) -> Index | None:
        """Open and return the newest version. None: there is none, or it cannot be read."""
        while project.index is None and (newest := project.newest) is not None:
            index = await self._open(project, newest.manifest)
            if project.newest is newest:
                project.index = index
                break
        return project.index

    async def _open(self, project: Project, manifest: ArtifactRef) -> Index | None:
        try:
            return await self.store.open(manifest)
        except BrokenIndex as error:
            log.warning("index_version_unreadable", project=project.name, error=str(error))
            return None

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _document(version: Version, left_out: str | None) -> Document:
    """Return a document whose passages are reused from the newest version, or one that is ``left_out``."""
    return Document(
        version.document_id,
        version.record_id,
        sections=() if left_out else None,
        left_out=left_out,
        published_at=version.published_at,
    )
