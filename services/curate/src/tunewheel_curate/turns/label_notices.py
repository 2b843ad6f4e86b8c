"""What a project's webhook is told of prompts that wait for answers: ids and counts, no customer's word."""

from __future__ import annotations

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import LabelsRequested
from tunewheel_runtime.webhooks import Notice

TYPE = "labels.waiting"
FIELD = "drift.labels.webhook"


def notice_of(event: Envelope[LabelsRequested], *, page: str | None) -> Notice:
    """Return what is told of ``event``; ``page`` is where people answer."""
    asked = event.data
    told = {
        "project": asked.project,
        "request_id": asked.request_id,
        "alarm_id": asked.alarm_id,
        "wanted": asked.wanted,
        "prompts": len(asked.completion_ids),
        "url": page,
    }
    return Notice(event=event, type=TYPE, subject=asked.request_id, field=FIELD, data=told)
