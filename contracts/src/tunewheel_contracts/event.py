"""The envelope: CloudEvents 1.0 over Kafka, attributes as headers (``binding.py``), JSON data as value."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewheel_contracts.binding import Headers, from_headers, to_headers
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.identity import event_id


class Event(BaseModel):
    """The data of one event. Frozen; fields that a newer producer added are ignored.

    Class attributes:
        type: topic name and ``ce_type``, ``<entity>.<past participle>``.
        subject_field: the field that names the entity the event is about.
        key_field: the field whose value keeps its order on the log (the record key).
        identity_fields: with the subject, the fields that tell this event from its siblings. They hold
            causes, never clocks, so that handling a cause twice gives the same id.
        identity_when_given: fields that joined the identity later: they count where they are not their
            default, so that an event without them keeps the id it always had.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), use_attribute_docstrings=True, defer_build=True
    )

    type: ClassVar[str]
    subject_field: ClassVar[str]
    key_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ()
    identity_when_given: ClassVar[tuple[str, ...]] = ()

    project: str

    @property
    def ce_subject(self) -> str:
        return str(getattr(self, self.subject_field))

    @property
    def record_key(self) -> str:
        return str(getattr(self, self.key_field))

    def event_id(self) -> str:
        """Return this event's deterministic id."""
        given = {
            name
            for name in self.identity_when_given
            if getattr(self, name) != type(self).model_fields[name].default
        }
        names = given.union(self.identity_fields)
        dumped = self.model_dump(mode="json", include=names) if names else {}
        return event_id(self.type, f"{self.project}\n{self.ce_subject}", dumped)


class UpstreamEvent(Event):
    """An event that other people's systems publish: a misspelt field is refused, not ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True, defer_build=True
    )


LOG_TICK = timedelta(milliseconds=1)
"""The log counts whole milliseconds, rounded down."""
E = TypeVar("E", bound=Event)
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Envelope(Generic[E]):
    """An event with the attributes it travels under.

    ``causation_id`` is the id of the event that caused this one, ``correlation_id`` names the turn of the
    wheel. Walking causation back from an adapter reaches every source record: that is the lineage.
    """

    data: E
    source: str
    id: str
    time: datetime
    causation_id: str | None = None
    correlation_id: str | None = None

    @property
    def project(self) -> str:
        return self.data.project

    def to_kafka(self) -> KafkaRecord:
        """Encode for the log.

        Raises:
            ValueError: a number is NaN or infinite.
        """
        headers = to_headers(
            id=self.id,
            type=self.data.type,
            source=self.source,
            subject=self.data.ce_subject,
            time=self.time,
            extensions={
                "project": self.project,
                "causationid": self.causation_id,
                "correlationid": self.correlation_id,
            },
        )
        return KafkaRecord(
            topic=self.data.type,
            key=self.data.record_key.encode(),
            # nulls stay: a field may be required and null, or null where its default is not
            value=self.data.model_dump_json().encode(),
            headers=headers,
        )

    @classmethod
    def from_kafka(
        cls, event_class: type[E], value: bytes | None, headers: Headers, *, logged_ms: int | None = None
    ) -> Envelope[E]:
        """Decode one record of ``event_class``'s topic.

        ``logged_ms`` is the record's own timestamp (milliseconds since 1970): when the event happened where
        its headers do not say, so that it happened at the same time whenever it is read. An event that
        claims a later time happened then too: a publication from the future would escape every erasure.

        Raises:
            InvalidEvent: the headers are not CloudEvents, or the value does not fit the schema; ``field``
                names the first offender.
        """
        if value is None:
            raise InvalidEvent(field="(body)", reason="is empty; send the event's data as JSON")
        attributes = from_headers(headers)
        time = _read_time(attributes.get("time"), logged_ms)
        if (kind := attributes["type"]) != event_class.type:
            raise InvalidEvent(field="ce_type", reason=f"is {kind!r} on the topic of {event_class.type!r}")
        data = decode_data(event_class, value)
        if (project := attributes.get("project", data.project)) != data.project:
            raise InvalidEvent(
                field="ce_project",
                reason=f"is {project!r}, the data says {data.project!r}; send one in both",
            )
        return cls(
            data=data,
            source=attributes["source"],
            id=attributes["id"],
            time=time,
            causation_id=attributes.get("causationid"),
            correlation_id=attributes.get("correlationid"),
        )


@dataclass(frozen=True, slots=True)
class KafkaRecord:
    """What is handed to a Kafka producer: header values are UTF-8 bytes."""

    topic: str
    key: bytes
    value: bytes
    headers: dict[str, bytes] = field(default_factory=dict[str, bytes])
    timestamp_ms: int | None = None
    """Of a record that is written anew: when it was written first. None: now."""


def new_event(
    data: E,
    *,
    source: str,
    cause: Envelope[Any] | None = None,
    correlation_id: str | None = None,
    time: datetime | None = None,
) -> Envelope[E]:
    """Wrap ``data``; its id follows from the data's identity, its correlation from the cause."""
    identity = data.event_id()
    inherited = cause.correlation_id or cause.id if cause else None
    return Envelope(
        data=data,
        source=source,
        id=identity,
        time=time or datetime.now(UTC),
        causation_id=cause.id if cause else None,
        correlation_id=correlation_id or inherited or identity,
    )


def decode_data(model: type[M], value: bytes) -> M:
    """Parse JSON bytes as ``model``: an event's data, or an artifact such as ``DatasetManifest``.

    Types are taken strictly, as the JSON Schema does: ``"3"`` is no number.

    Raises:
        InvalidEvent: not UTF-8, not JSON, or not of the schema; ``field`` names the first offender.
    """
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 (byte {error.start}); encode the JSON as UTF-8"
        raise InvalidEvent(field="(body)", reason=reason) from error
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise InvalidEvent.from_validation(error) from error


def _read_time(sent: str | None, logged_ms: int | None) -> datetime:
    """Return when an event happened: what it says (UTC where it names no zone), at the latest when it was
    logged; where nobody says, now."""
    try:
        logged = None
        if logged_ms is not None and logged_ms >= 0:
            logged = datetime.fromtimestamp(logged_ms / 1000, UTC)
        if not sent:
            return logged or datetime.now(UTC)
        time = datetime.fromisoformat(sent)
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        time.astimezone(UTC)  # or those who bring it there fail
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidEvent(field="ce_time", reason=f"is unreadable: {error}") from error
    return time if logged is None or time < logged + LOG_TICK else logged
