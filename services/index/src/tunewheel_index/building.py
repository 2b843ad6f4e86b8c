"""Builds a project's next version and names it on the log.

In this order: how far the log was read is noted, files are stored, then their manifest, then the table of
document versions, and then ``index.versioned`` names them. A process that is killed in between has named
nothing; the next reads the log from where the last named version says, and comes to the same version under
the same name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import RecordsUpto
from tunewheel_contracts.formats.index import IndexCounts
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_embedding.embedders import Embedder, Embedders
from tunewheel_retrieval.building import Document, IndexFiles, build, config_sha256_of, index_id_of
from tunewheel_retrieval.index import BrokenIndex, Index
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact

from tunewheel_index.documents import Version
from tunewheel_index.metrics import Metrics
from tunewheel_index.project import Project, differing, records_in, without_text
from tunewheel_index.redacting import documents_of
from tunewheel_index.storing import IndexStore

log = structlog.get_logger(__name__)
NOT_ON_THE_LOG = "not_on_the_log"


@dataclass(frozen=True)
class Upto:
    """How far the log has been read, by topic and partition."""

    records: RecordsUpto
    withdrawals: RecordsUpto
    erasures: RecordsUpto


@dataclass(frozen=True)
class Plan:
    """One version to be built: what was known when it was begun."""

    project: str
    spec: RetrievalSpec
    config: str
    current: Sequence[Version]
    known: Sequence[Version]
    texts: dict[str, RecordIngested]
    previous: Index | None
    """The newest version, where its passages can be taken over."""
    upto: Upto

    @property
    def records(self) -> dict[str, str]:
        return {one.document_id: one.record_id for one in self.current}


@dataclass
class Builder:
    """Builds versions in threads; ``read_again`` reads the whole log for a project."""

    service: Service
    store: IndexStore
    embedders: Embedders
    upto: Callable[[], Upto]
    read_again: Callable[[Project], Awaitable[None]]
    metrics: Metrics
    max_passages: int
    kept_versions: int
    secret: str = ""

    async def build(self, project: Project) -> None:
        """Build the version that the documents make now, unless it is the newest already.

        Raises:
            InvalidSpec: the spec asks for what is not allowed, or cannot be, here.
            EmbeddingRefused: the endpoint does not give the vectors that the spec asks for.
            TransientError: broker, store or endpoint are away.
        """
        spec, pii = project.spec.retrieval, project.spec.dataset.pii
        assert spec is not None
        began = time.monotonic()
        embedder = await self.embedders.of(spec.embedding)
        config = config_sha256_of(spec, pii, embedder.name, secret=self.secret)
        newest = await self._newest(project)
        previous = newest if newest is not None and newest.manifest.config_sha256 == config else None
        held = records_in(previous)
        pruned = project.documents.prune()
        current = project.documents.current().values()
        if not project.is_whole or without_text(current, held, project.documents.texts):
            await self.read_again(project)
            pruned += project.documents.prune()
        plan = self._plan(project, spec, config, previous)
        if newest is not None and newest.manifest.index_id == index_id_of(config, plan.records):
            if pruned and project.newest is not None:
                await self._name(project, plan, project.newest.manifest, project.newest.counts, changed=0)
        else:
            files = await asyncio.to_thread(self._files, plan, embedder, project)
            manifest = await self.store.write(files)
            changed = differing(records_in(newest), plan.records)
            await self._name(project, plan, manifest, files.counts, changed=changed)
            project.index = await self._open(project, manifest)
            self.metrics.add("versions.named")
            for reason, count in files.counts.left_out.items():
                self.metrics.add("documents.left_out", count, of=reason)
            log.info(
                "indexed", project=project.name, index_id=files.index_id, changed=changed,
                seconds=round(time.monotonic() - began, 3), **files.counts.model_dump(),
            )  # fmt: skip
        for record_id in plan.texts:
            project.documents.texts.pop(record_id, None)

    def _plan(self, project: Project, spec: RetrievalSpec, config: str, previous: Index | None) -> Plan:
        """Return what is known now. No other task runs meanwhile, so that positions and documents agree."""
        documents = project.documents
        return Plan(
            project=project.name,
            spec=spec,
            config=config,
            current=list(documents.current().values()),
            known=documents.known(),
            texts=dict(documents.texts),
            previous=previous,
            upto=self.upto(),
        )

    def _files(self, plan: Plan, embedder: Embedder, project: Project) -> IndexFiles:
        held = records_in(plan.previous)
        kept: list[Document] = []
        fresh: list[tuple[Version, RecordIngested]] = []
        for one in plan.current:
            text = plan.texts.get(one.record_id)
            if held.get(one.document_id) == one.record_id:
                kept.append(_document(one, None))
            elif text is not None:
                fresh.append((one, text))
            else:
                log.error("document_not_on_the_log", project=plan.project, record_id=one.record_id)
                kept.append(_document(one, NOT_ON_THE_LOG))
        return build(
            [*kept, *documents_of(fresh, project.spec.dataset.pii, secret=self.secret)],
            embedder,
            plan.spec,
            plan.previous,
            project=plan.project,
            config_sha256=plan.config,
            max_passages=self.max_passages,
        )

    async def _name(
        self, project: Project, plan: Plan, manifest: ArtifactRef, counts: IndexCounts, *, changed: int
    ) -> None:
        versions = await self.store.write_versions(project.name, list(plan.known))
        event = IndexVersioned(
            project=project.name,
            index_id=index_id_of(plan.config, plan.records),
            manifest=manifest,
            retrieval_sha256=plan.spec.sha256,
            counts=counts,
            changed=changed,
            previous=project.newest.index_id if project.newest else None,
            versions=versions,
            records_upto=plan.upto.records,
            withdrawals_upto=plan.upto.withdrawals,
            erasures_upto=plan.upto.erasures,
        )
        project.published.append(event)
        await self.service.publish(self.service.new(event))
        project.newest = event
        keep = {name for name in (event.index_id, event.previous) if name}
        await self.store.drop_old(project.name, keep=keep, most=self.kept_versions, versions=versions)

    async def _newest(self, project: Project) -> Index | None:
        if project.index is None and project.newest is not None:
            project.index = await self._open(project, project.newest.manifest)
        return project.index

    async def _open(self, project: Project, manifest: ArtifactRef) -> Index | None:
        try:
            return await self.store.open(manifest)
        except (BrokenIndex, InvalidEvent, ArtifactMissing, CorruptArtifact) as error:
            log.warning("index_version_unreadable", project=project.name, error=str(error))
            return None


def _document(version: Version, left_out: str | None) -> Document:
    """Return a document as the version before has it, or one that has no passages."""
    return Document(
        version.document_id,
        version.record_id,
        sections=() if left_out else None,
        left_out=left_out,
        published_at=version.published_at,
    )
