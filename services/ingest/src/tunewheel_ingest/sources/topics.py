"""Reads the topics that the projects' sources name: one reader per source, as the declared specs say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from tunewheel_contracts.event import Envelope, UpstreamEvent, new_event
from tunewheel_contracts.events.upstream import DocumentPublished, ProjectDeclared
from tunewheel_contracts.formats.source_spec import SourceSpec, group_of
from tunewheel_contracts.principal import Principal, Trust
from tunewheel_contracts.reading import Reading
from tunewheel_contracts.sources.envelopes import opened, structured
from tunewheel_contracts.sources.mapping import PUBLISHED, mapped
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.deadletter import Undecoded
from tunewheel_runtime.foreign_topics import Foreign, ForeignReader, Handled
from tunewheel_runtime.service import Service
from tunewheel_runtime.view import View
from tunewheel_runtime.waiting import end_all

from tunewheel_ingest.records import ISSUER, lowering
from tunewheel_ingest.sources.registry import BY_SCHEMA, Registry
from tunewheel_ingest.sources.wire import KEY_ID, VALUE_ID, decoded, decoded_key

SOURCE = "/tunewheel/ingest"
LOOK_SECONDS = 1.0
_INTERNAL = ("erasure.", "__")


def as_published(
    event: UpstreamEvent, source: SourceSpec, *, time: datetime | None = None
) -> Envelope[UpstreamEvent]:
    """Wrap an event of a source's record, in the source's name and with the trust that its spec grants. A
    document is no answer, and as through any door only an expert's states a trust: with less, versions from
    elsewhere would replace those of the source."""
    trust = Trust(source.trust)
    is_answer = not isinstance(event, DocumentPublished)
    said = {
        "principal": Principal(name=f"{event.project}/{source.name}", issuer=ISSUER),
        "authority": trust if is_answer or trust is Trust.EXPERT else None,
    }
    known = {name: value for name, value in said.items() if name in type(event).model_fields}
    return new_event(event.model_copy(update=known), source=SOURCE, time=time)


async def handle(record: Undecoded, source: SourceSpec, project: str, registry: Registry) -> Handled:
    """Return the events of a topic's record. Their time is the record's, at each reading again.

    Raises:
        InvalidEvent: nothing of the record can be read.
        TransientError: see ``Registry.schema``.
    """
    lookup, headers = registry.lookup(source.format), record.headers
    key = await decoded_key(record.key, lookup, header=headers.get(KEY_ID, b""))
    value = await decoded(
        record.value, lookup, header=headers.get(VALUE_ID, b""), framed=source.format in BY_SCHEMA
    )
    if source.format == "cloudevents":
        value = structured(value, headers)
    message = opened(source.format, value, key)
    if message is None:
        return Handled()
    stamped = record.logged_ms is not None and record.logged_ms > 0
    logged = datetime.fromtimestamp((record.logged_ms or 0) / 1_000, UTC) if stamped else datetime.now(UTC)
    found = [*mapped(source, project, message, lambda: Reading(logged, is_strict=True))]
    refusals = [one.refusal for one in found if one.refusal is not None]
    return Handled(
        [
            as_published(one.event, source, time=one.changed_at or logged)
            for one in found
            if one.event is not None
        ],
        refusals[0] if refusals else None,
    )


def is_ours(topic: str, prefix: str) -> bool:
    """Return whether a name on the brokers is of a topic of Tunewheel or Kafka. These hold other projects'
    records. ``prefix``: the setting ``topic_prefix``."""
    name = topic.removeprefix(prefix)
    is_listed = topic in BY_NAME or name in BY_NAME
    return is_listed or topic.endswith(".dlq") or name.startswith(_INTERNAL)


class SourceTopics:
    """Starts and stops readers as projects are declared. ``allowed``: the setting ``source_topics``."""

    def __init__(
        self, service: Service, projects: View[ProjectDeclared], registry: Registry, *, allowed: str
    ) -> None:
        self._service = service
        self._projects = projects
        self._registry = registry
        self._allowed = [entry.strip().partition("=") for entry in allowed.split(",") if entry.strip()]
        self._sources: dict[tuple[str, str], SourceSpec] = {}
        """All declared sources, those with a webhook too, by project and name."""
        self._readers: dict[tuple[str, str], tuple[SourceSpec, ForeignReader]] = {}
        self._refused: set[str] = set()
        """The names of the warnings that stand."""
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._follower = asyncio.create_task(self._follow(), name="source-topics")

    async def stop(self) -> None:
        await end_all(self._follower)
        await asyncio.gather(*(self._stop(place) for place in [*self._readers]))

    async def _follow(self) -> None:
        while True:
            wanted = dict(self._declared())
            for place, (source, _) in [*self._readers.items()]:
                if wanted.get(place) != source:
                    await self._stop(place)
            for (project, name), source in wanted.items():
                if (project, name) not in self._readers:
                    self._start(project, source)
            await asyncio.sleep(LOOK_SECONDS)

    def _declared(self) -> Iterator[tuple[tuple[str, str], SourceSpec]]:
        refused, self._refused = self._refused, set()
        before = self._sources
        self._sources = {
            (declared.project, source.name): source
            for declared in self._projects.values()
            for source in declared.data.spec.sources
        }
        for (project, name), source in self._sources.items():
            if source.topic is not None and self._may_read(project, source):
                yield (project, name), source
        for warning in refused - self._refused:  # The source may be gone from its spec.
            self._service.health.warn(warning, None)
        for (project, name), source in before.items():
            if self._sources.get((project, name)) != source:
                self._service.health.warn(lowering(f"{project}/{name}"), None)

    def _may_read(self, project: str, source: SourceSpec) -> bool:
        topic, is_own = source.topic or "", is_ours(source.topic or "", self._service.settings.topic_prefix)
        listed = any(
            fnmatchcase(topic, pattern) and owner in ("", project) for pattern, _, owner in self._allowed
        )
        reason = "is a topic of Tunewheel itself" if is_own else "is not listed in TUNEWHEEL_SOURCE_TOPICS"
        if listed and not is_own:
            return True
        name = f"source {project}/{source.name}"
        self._refused.add(name)
        self._service.health.warn(name, f"{topic} {reason}; it is not read")
        return False

    def _start(self, project: str, source: SourceSpec) -> None:
        becomes = BY_NAME[PUBLISHED[source.mapping.kind or ""].type]
        foreign = Foreign(source.topic or "", group_of(project, source.name), project, becomes)

        async def take(record: Undecoded) -> Handled:
            return await handle(record, source, project, self._registry)

        reader = self._service.foreign_reader(foreign, take)
        self._readers[project, source.name] = source, reader
        reader.start()

    async def _stop(self, place: tuple[str, str]) -> None:
        _, reader = self._readers.pop(place)
        await reader.stop()
