"""What routes ask of the log beside the state: that it is read to its end, and that ingest has read it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import Any, Self

import polars as pl
import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.topics import (
    DOCUMENT_PUBLISHED,
    EXAMPLE_PUBLISHED,
    FEEDBACK_RECEIVED,
    INDEX_VERSIONED,
    RECORD_INGESTED,
    TICKET_PUBLISHED,
    TopicSpec,
)
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.partitions import Backlog, group_backlog
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore
from tunewheel_runtime.view import LogReader

log = structlog.get_logger(__name__)
RECORDS_FROM = (TICKET_PUBLISHED, DOCUMENT_PUBLISHED, EXAMPLE_PUBLISHED, FEEDBACK_RECEIVED)
"""The topics from which ingest makes records."""
OF_DOCUMENT = b'"kind":"document"'
"""Stands in the JSON of a document's record. In a text of another record the quotes would be escaped."""
POLL_SECONDS = 0.5
DOCUMENTS_SECONDS = 10.0
"""How long a request waits until the published documents are read."""
Backlogs = Callable[[], Awaitable[list[Backlog]]]
"""Returns how far ingest has read each of ``RECORDS_FROM``, always in this order."""


class Documents:
    """The ids of a project's documents: the newest index lists some, and the log holds the latest ones for
    some days. A project without an index has no list of its older documents. The topics are read when
    somebody first asks, and followed from then on. Only ids are kept."""

    def __init__(self, settings: ServiceSettings, store: ObjectStore) -> None:
        self._settings, self._store = settings, store
        self._ids: defaultdict[str, set[str]] = defaultdict(set)
        self._listed: dict[str, ArtifactRef] = {}
        """By project, the newest index's table of document versions."""
        self._reader: LogReader | None = None
        self._reading: asyncio.Task[None] | None = None

    async def of(self, project: str) -> set[str]:
        """Return the ids of a project's documents. Raises TransientError: the broker does not answer, or the
        topic has not been read yet."""
        if self._reader is None or self._reading is None:
            self._reader = LogReader(
                self._settings,
                (DOCUMENT_PUBLISHED, RECORD_INGESTED, INDEX_VERSIONED),
                self._add,
                failed=self._fail,
                forget=self._forget,
                begins=_beginning,
                keep=_is_other,
            )
            self._reading = asyncio.create_task(self._reader.start(), name="documents")
        reading = self._reading
        done, _ = await asyncio.wait([reading], timeout=DOCUMENTS_SECONDS)
        if not done:
            raise TransientError("the published documents are still being read; send the request again")
        if (error := reading.exception()) is not None:
            self._fail(error)
            raise TransientError(f"the published documents cannot be read: {error}") from error
        await self._reader.refresh(timeout_seconds=DOCUMENTS_SECONDS)
        return self._ids[project] | await self._in_index(project)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._reader is not None:
            await self._reader.stop()

    def _add(self, event: Envelope[Any], _: Position) -> None:
        match event.data:
            case IndexVersioned() as data:
                self._listed[event.project] = data.versions
            case RecordIngested() as data:
                self._ids[event.project].add(data.source_id)
            case data:
                self._ids[event.project].add(data.document_id)

    def _forget(self, _: TopicSpec, project: str) -> None:
        self._listed.pop(project, None)

    async def _in_index(self, project: str) -> set[str]:
        if (ref := self._listed.get(project)) is None:
            return set()
        try:
            table = await self._store.get(ref)
        except (ArtifactMissing, CorruptArtifact) as error:  # a newer index may just have replaced it
            log.warning("documents_of_index_unreadable", project=project, error=str(error))
            return set()
        return set(await asyncio.to_thread(lambda: pl.read_parquet(BytesIO(table))["document_id"]))

    def _fail(self, _: BaseException) -> None:
        self._reading = None


async def _is_other(record: Undecoded) -> bool:
    """Return whether this is the record of anything but a document, which need not be decoded."""
    return record.position.topic == RECORD_INGESTED.name and OF_DOCUMENT not in (record.value or b"")


async def _beginning() -> Mapping[str, Mapping[str, int] | None]:
    """Read from the beginning, and apply events as they come: the log of documents need not fit in memory."""
    return {}


@dataclass(frozen=True, slots=True)
class Log:
    refresh: Callable[[], Awaitable[None]]
    """Reads the log to its current end. Raises ``TransientError``."""
    backlogs: Backlogs
    documents: Callable[[str], Awaitable[set[str]]]
    """Returns the ids of a project's documents, as far as they are known. Raises ``TransientError``."""

    @classmethod
    def of(
        cls, settings: ServiceSettings, refresh: Callable[[], Awaitable[None]], documents: Documents
    ) -> Self:
        options = client_options(settings)

        async def backlogs() -> list[Backlog]:
            reads = ((topic.name, *topic.groups_of("ingest")) for topic in RECORDS_FROM)
            return await asyncio.gather(*(group_backlog(options, name, group=group) for name, group in reads))

        return cls(refresh, backlogs, documents.of)

    async def settled(self, patience_seconds: float) -> None:
        """Wait until ingest has made records of what is on the log now, so that a version has it. Raises
        Refused: ingest was not done within ``patience_seconds``. TransientError: the broker does not answer.
        """
        loop = asyncio.get_running_loop()
        ends_at, now = loop.time() + patience_seconds, await self.backlogs()
        wanted = [one.ends for one in now]
        while behind := sum(_behind(one, ends) for one, ends in zip(now, wanted, strict=True)):
            if loop.time() >= ends_at:
                reason = (
                    f"is true, and ingest is {behind:,} events behind what was published; ask again later, "
                    "or send false to build from the records that there are"
                )
                raise Refused(HTTPStatus.CONFLICT, "wait", reason)
            await asyncio.sleep(POLL_SECONDS)
            now = await self.backlogs()


def _behind(backlog: Backlog, ends: Mapping[int, int]) -> int:
    return sum(max(0, end - backlog.kept.get(partition, 0)) for partition, end in ends.items())
