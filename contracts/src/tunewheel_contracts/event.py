"""Events and their envelope: CloudEvents 1.0 over Kafka, with attributes as headers (``binding.py``) and the
data as JSON value."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewheel_contracts.binding import Headers, read_event, to_headers
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.identity import event_id
from tunewheel_contracts.reading import Reading, read_json


class Event(Frozen):
    """The data of one event.

    Class attributes:
        type: topic name and ``ce_type``, ``<entity>.<past participle>``. subject_field: the field that names
        the entity of the event. key_field: the field that is the record key. Events with the same key stay in
        order on the log. identity_fields: the fields that, with the subject, determine the event's id. They
        hold causes and never
            times, so that handling a cause twice gives the same id.
        identity_when_given: fields that joined the identity later. They count only where they differ from
            their default, so that earlier events keep their ids.
        caps_dates: whether no date in the data may be later than the record's time on the log.
    """

    type: ClassVar[str]
    subject_field: ClassVar[str]
    key_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ()
    identity_when_given: ClassVar[tuple[str, ...]] = ()
    caps_dates: ClassVar[bool] = False

    project: str

    @property
    def ce_subject(self) -> str:
        return str(getattr(self, self.subject_field))

    @property
    def record_key(self) -> str:
        return str(getattr(self, self.key_field))

    def event_id(self) -> str:
        """Return this event's deterministic id."""
        names = set(self.identity_fields)
        for name in self.identity_when_given:
            if getattr(self, name) != type(self).model_fields[name].default:
                names.add(name)
        dumped = self.model_dump(mode="json", include=names) if names else {}
        return event_id(self.type, f"{self.project}\n{self.ce_subject}", dumped)


class UpstreamEvent(Event):
    """An event that other systems publish. An unknown field is refused, because it may be misspelt."""

    caps_dates: ClassVar[bool] = True

    model_config = ConfigDict(extra="forbid")


OUR_SOURCES = "/tunewheel/"
"""The sources of events that Tunewheel's own services and commands publish begin with it."""
E = TypeVar("E", bound=Event)
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Envelope(Generic[E]):
    """An event with its CloudEvents attributes.

    ``causation_id``: id of the event that caused this one. Following it back from an adapter leads to every
    source record, which is the lineage. ``correlation_id``: the turn of the wheel.
    """

    data: E
    source: str
    id: str
    time: datetime
    causation_id: str | None = None
    correlation_id: str | None = None
    unknown: tuple[str, ...] = field(default=(), compare=False)
    """Names of fields that a newer release wrote and that were left out."""
    signed_by: str | None = field(default=None, compare=False)
    """The service whose signature on upstream data was verified. None: nobody signed it, or nobody looked."""

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
            # Nulls are written, since a field may be required and null, or null with another default.
            value=self.data.model_dump_json().encode(),
            headers=headers,
        )

    @classmethod
    def from_kafka(
        cls,
        event_class: type[E],
        value: bytes | None,
        headers: Headers,
        *,
        logged_ms: int | None = None,
        from_anybody: bool = False,
    ) -> Envelope[E]:
        """Decode one record of ``event_class``'s topic. What a newer release added is left out
        (``reading.py``).

        ``logged_ms`` is the record's own timestamp (milliseconds since 1970). It is the event's time if the
        headers have none, so that the time is the same at every reading. It is also the latest time that an
        event may have: an event from the future would escape every erasure. The same holds for the dates in
        the data of an upstream event. ``from_anybody``: the topic is a door for other systems, so an unknown
        field is refused, unless one of our own doors published the event.

        Raises:
            InvalidEvent: the message is no CloudEvent, or the value does not fit the schema;
                ``field`` names the first wrong field.
        """
        if value is None:
            raise InvalidEvent(field="(body)", reason="is empty; send the event's data as JSON")
        attributes, value = read_event(headers, value)
        time = _read_time(attributes.get("time"), logged_ms)
        if (kind := attributes["type"]) != event_class.type:
            raise InvalidEvent(field="ce_type", reason=f"is {kind!r} on the topic of {event_class.type!r}")
        strict = from_anybody and not attributes["source"].startswith(OUR_SOURCES)
        reading = Reading(_logged_at(logged_ms) if event_class.caps_dates else None, is_strict=strict)
        data = decode_data(event_class, value, reading)
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
            unknown=tuple(dict.fromkeys(reading.unknown)),
        )


@dataclass(frozen=True, slots=True)
class KafkaRecord:
    """A record for a Kafka producer. Header values are UTF-8 bytes."""

    topic: str
    key: bytes
    value: bytes
    headers: dict[str, bytes] = field(default_factory=dict[str, bytes])
    timestamp_ms: int | None = None
    """Original timestamp of a record that is written again. None: the present time."""
    is_copy: bool = False
    """Whether this is another's message, which is written again as it was. Nobody signs it anew."""


def new_event(
    data: E,
    *,
    source: str,
    cause: Envelope[Any] | None = None,
    correlation_id: str | None = None,
    time: datetime | None = None,
) -> Envelope[E]:
    """Wrap ``data`` in an envelope. The id is derived from the data's identity, the correlation from the
    cause."""
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


def decode_data(model: type[M], value: bytes, reading: Reading | None = None) -> M:
    """Parse JSON bytes as ``model``: an event's data, or an artifact such as ``DatasetManifest``. What a
    newer release added is left out (``reading.py``), except by the ``reading`` of ``at_door()``.

    Types are strict, as in JSON Schema: ``"3"`` is not a number.

    Raises:
        InvalidEvent: not UTF-8, not JSON, or not of the schema; ``field`` names the first wrong field.
    """
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 (byte {error.start}); encode the JSON as UTF-8"
        raise InvalidEvent(field="(body)", reason=reason) from error
    try:
        return read_json(model, text, reading or Reading())
    except ValidationError as error:
        raise InvalidEvent.from_validation(error) from error


def _read_time(sent: str | None, logged_ms: int | None) -> datetime:
    """Return an event's time: the time that it states (UTC if it has no zone), but at most the time at which
    it was logged. Without both, the present time."""
    try:
        logged = _logged_at(logged_ms)
        if not sent:
            return logged or datetime.now(UTC)
        time = datetime.fromisoformat(sent)
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        time.astimezone(UTC)  # Fails here, and not in later code, for a time outside the supported years.
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidEvent(field="ce_time", reason=f"is unreadable: {error}") from error
    return Reading(logged).capped(time)


def _logged_at(logged_ms: int | None) -> datetime | None:
    return None if logged_ms is None or logged_ms < 0 else datetime.fromtimestamp(logged_ms / 1000, UTC)
