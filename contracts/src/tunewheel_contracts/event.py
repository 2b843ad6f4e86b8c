"""The envelope: CloudEvents 1.0 over Kafka in binary mode.

Source: CloudEvents 1.0.2 core, and its Kafka protocol binding §3.2 (binary content mode): attributes
travel as ``ce_*`` headers, the JSON data is the record's value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar, cast

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import BaseModel, ConfigDict, ValidationError

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.identity import event_id

CONTENT_TYPE = "application/json"
REQUIRED_HEADERS = ("ce_specversion", "ce_id", "ce_source", "ce_type")
Headers = Mapping[str, bytes] | Iterable[tuple[str, bytes]]


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
        frozen=True, extra="ignore", protected_namespaces=(), use_attribute_docstrings=True
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
        dumped = self.model_dump(mode="json", include={*self.identity_fields, *given})
        return event_id(self.type, f"{self.project}\n{self.ce_subject}", dumped)


class UpstreamEvent(Event):
    """An event that other people's systems publish: a misspelt field is refused, not ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )


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
        attributes: dict[str, Any] = {
            "id": self.id,
            "type": self.data.type,
            "source": self.source,
            "subject": self.data.ce_subject,
            "time": self.time,
            "datacontenttype": CONTENT_TYPE,
            "project": self.project,
        }
        if self.causation_id:
            attributes["causationid"] = self.causation_id
        if self.correlation_id:
            attributes["correlationid"] = self.correlation_id
        # nulls stay: a field may be required and null, or null where its default is not
        message = to_binary(CloudEvent(attributes, self.data.model_dump_json().encode()), _READY_JSON)
        return KafkaRecord(
            topic=self.data.type,
            key=self.data.record_key.encode(),
            value=message.value,
            headers=message.headers,
        )

    @classmethod
    def from_kafka(cls, event_class: type[E], value: bytes | None, headers: Headers) -> Envelope[E]:
        """Decode one record of ``event_class``'s topic.

        Raises:
            InvalidEvent: the headers are not CloudEvents, or the value does not fit the schema; ``field``
                names the first offender.
        """
        attributes = _read_attributes(event_class, value, headers)
        data = decode_data(event_class, value or b"")
        if attributes["project"] not in (None, data.project):
            raise InvalidEvent(
                field="ce_project",
                reason=f"is {attributes['project']!r}, the data says {data.project!r}; send one in both",
            )
        return cls(
            data=data,
            source=attributes["source"],
            id=attributes["id"],
            time=attributes["time"],
            causation_id=attributes["causationid"],
            correlation_id=attributes["correlationid"],
        )


@dataclass(frozen=True, slots=True)
class KafkaRecord:
    """What is handed to a Kafka producer: header values are UTF-8 bytes."""

    topic: str
    key: bytes
    value: bytes
    headers: dict[str, bytes] = field(default_factory=dict[str, bytes])


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


def _ce_headers(headers: Headers) -> dict[str, bytes]:
    """Return the CloudEvents headers, names in lower case; the required ones are there, all are UTF-8."""
    pairs = cast("Mapping[str, bytes]", headers).items() if isinstance(headers, Mapping) else headers
    lowered = ((name.lower(), raw) for name, raw in pairs)
    ours = {name: raw or b"" for name, raw in lowered if name.startswith("ce_")}
    if not ours:
        raise InvalidEvent(
            field="ce_type", reason="is missing; send CloudEvents 1.0 in binary mode (ce_* headers)"
        )
    for name in REQUIRED_HEADERS:
        # the SDK would make an id up, another at each delivery
        if not ours.get(name):
            raise InvalidEvent(field=name, reason="is missing; CloudEvents 1.0 requires it")
    for name, raw in ours.items():
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidEvent(field=name, reason="is not UTF-8; encode the header as UTF-8") from error
    return ours


def _read_attributes(event_class: type[Event], value: bytes | None, headers: Headers) -> dict[str, Any]:
    if value is None:
        raise InvalidEvent(field="(body)", reason="is empty; send the event's data as JSON")
    ours = _ce_headers(headers)
    sent = ours.pop("ce_time", None)
    try:
        # the SDK's parser of times takes a quarter of the whole decoding
        time = datetime.fromisoformat(sent.decode()) if sent else datetime.now(UTC)
        event = from_binary(KafkaMessage(headers=ours, key=None, value=b""), _READY_JSON, CloudEvent)
    except CloudEventValidationError as error:
        name = next(iter(error.errors), "header")
        raise InvalidEvent(field=f"ce_{name}", reason=f"is not valid CloudEvents 1.0: {error}") from error
    except ValueError as error:
        raise InvalidEvent(field="ce_time", reason=f"is unreadable: {error}") from error
    if event.get_type() != event_class.type:
        raise InvalidEvent(
            field="ce_type", reason=f"is {event.get_type()!r} on the topic of {event_class.type!r}"
        )
    optional = {name: event.get_extension(name) for name in ("project", "causationid", "correlationid")}
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return {"id": event.get_id(), "source": event.get_source(), "time": time, **optional}


class _ReadyJson(JSONFormat):
    """The SDK's JSON format for data that pydantic writes and reads: bytes pass through as they are."""

    def write_data(self, data: Any, datacontenttype: str | None) -> bytes:
        return data

    def read_data(self, body: bytes, datacontenttype: str | None) -> bytes:
        return body


_READY_JSON = _ReadyJson()
