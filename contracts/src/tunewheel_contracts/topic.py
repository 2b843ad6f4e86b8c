"""What a topic is. Each topic is specified beside its event's class, in a module of ``events/``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunewheel_contracts.event import Event

DAY_MS = 86_400_000
FOREVER = -1
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
DEAD_LETTER_OVERHEAD = 64 * 1024
"""Most bytes that a dead letter's headers add to the original message."""

Service = Literal[
    "upstream",
    "ingest",
    "curate",
    "train",
    "eval",
    "registry",
    "serve-gateway",
    "monitor",
    "index",
    "console",
]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """The specification of one topic.

    ``retention_ms``: milliseconds, or ``FOREVER`` for topics from which state is rebuilt. ``consumers``:
    services that share the partitions, in the consumer group ``<service>.<topic>``; a topic with consumers
    has a dead-letter topic. ``deleted_by``: the service that deletes records which every group has handled,
    some days after they were logged. ``replayed_by``: services of which every process reads the topic without
    a group. ``elects``: services whose active process is elected by the group ``<service>.active`` on this
    topic. The console reads every topic except ``NOT_SHOWN``, and is not listed.
    """

    event: type[Event]
    producers: tuple[Service, ...]
    consumers: tuple[Service, ...]
    partitions: int = 1
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int = FOREVER
    max_message_bytes: int = MAX_MESSAGE_BYTES
    replayed_by: tuple[Service, ...] = ()
    elects: tuple[Service, ...] = ()
    deleted_by: Service | None = None

    @property
    def name(self) -> str:
        return self.event.type

    @property
    def key(self) -> str:
        """The field of the data whose value is the record key."""
        return self.event.key_field

    @property
    def is_from_upstream(self) -> bool:
        """Whether other systems write this topic, so that its records cannot be trusted. The broker sets the
        timestamps of its records, because a record's timestamp is the latest time that its event may have
        (``Envelope.from_kafka``)."""
        return "upstream" in self.producers

    @property
    def is_signed(self) -> bool:
        """Whether the services among ``producers`` sign the events. Other systems have no key: their events
        count without a signature, but then they are trusted as their topic is (``dataset.trust``)."""
        return self.is_command or (self.is_from_upstream and "authority" in self.event.model_fields)

    @property
    def is_command(self) -> bool:
        """Whether the events count only with the signature of one of ``producers``."""
        return "signature" in self.event.model_fields

    @property
    def is_kept_for_ever(self) -> bool:
        """Whether all events must stay on the log."""
        return self.cleanup == "delete" and self.retention_ms == FOREVER and self.deleted_by is None

    def is_tombstone(self, value: bytes | None) -> bool:
        """Return whether a record with this value is a tombstone, which removes its key: null, on a compacted
        topic."""
        return value is None and self.cleanup == "compact"

    @property
    def dead_letter(self) -> str:
        return f"{self.name}.dlq"

    @property
    def handled_by(self) -> tuple[Service, ...]:
        """The services that handle the events in a consumer group, and write dead letters. The first writes
        the dead letter of an upstream record that none of them can read."""
        return tuple(service for service in self.consumers if service not in self.replayed_by)

    @property
    def dead_letter_exists(self) -> bool:
        return bool(self.handled_by)

    def groups_of(self, service: str) -> tuple[str, ...]:
        """Return the consumer groups of ``service`` on this topic."""
        groups: list[str] = []
        if service in self.handled_by:
            groups.append(f"{service}.{self.name.replace('.', '-')}")
        if service in self.elects:
            groups.append(f"{service}.active")
        return tuple(groups)

    @property
    def summary(self) -> str:
        """The first paragraph of the event's docstring, on one line."""
        return " ".join((self.event.__doc__ or "").split("\n\n")[0].split())
