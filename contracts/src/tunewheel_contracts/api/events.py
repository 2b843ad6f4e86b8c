"""Events as they are told live: CloudEvents 1.0 in JSON."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.fields import Frozen, Timestamp


class CloudEvent(Frozen):
    """https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md. The extensions are
    those of the log."""

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: Timestamp
    project: str
    causationid: str | None = None
    correlationid: str | None = None
    data: dict[str, Any]

    @classmethod
    def of(cls, envelope: Envelope[Any]) -> CloudEvent:
        return cls(
            id=envelope.id,
            source=envelope.source,
            type=envelope.data.type,
            subject=envelope.data.ce_subject,
            time=envelope.time,
            project=envelope.project,
            causationid=envelope.causation_id,
            correlationid=envelope.correlation_id,
            data=envelope.data.model_dump(mode="json"),
        )
