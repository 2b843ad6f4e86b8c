"""The webhook notice about prompts that wait for answers. It has ids and counts, and no customer's text."""

from __future__ import annotations

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import LabelsRequested
from tunewheel_runtime.webhooks import Notice

TYPE = "labels.waiting"
FIELD = "drift.labels.webhook"


def notice_of(event: Envelope[LabelsRequested], *, page: str | None) -> Notice:
    """Return the notice about ``event``; ``page`` is the URL where people answer."""
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
