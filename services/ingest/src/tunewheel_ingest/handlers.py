"""The map of ingest: four upstream topics become one topic of records."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    ExamplePublished,
    FeedbackReceived,
    ProjectDeclared,
    TicketPublished,
)
from tunewheel_runtime.service import Service
from tunewheel_runtime.view import View

from tunewheel_ingest.records import RECORD_OF

Made = Envelope[RecordIngested] | None


def register(service: Service, projects: View[ProjectDeclared]) -> None:
    """Attach the handlers; ``projects`` is the view of declared projects."""

    async def ingest(event: Envelope[Any]) -> Made:
        await require_project(projects, event.project)
        record = RECORD_OF[type(event.data)](event)
        return service.new(record, cause=event) if record else None

    @service.on_each(topics.TICKET_PUBLISHED)
    async def on_ticket_published(event: Envelope[TicketPublished]) -> Made:
        return await ingest(event)

    @service.on_each(topics.DOCUMENT_PUBLISHED)
    async def on_document_published(event: Envelope[DocumentPublished]) -> Made:
        return await ingest(event)

    @service.on_each(topics.EXAMPLE_PUBLISHED)
    async def on_example_published(event: Envelope[ExamplePublished]) -> Made:
        return await ingest(event)

    @service.on_each(topics.FEEDBACK_RECEIVED)
    async def on_feedback_received(event: Envelope[FeedbackReceived]) -> Made:
        return await ingest(event)


async def require_project(projects: View[ProjectDeclared], project: str) -> None:
    """Raise ``InvalidEvent`` unless ``project`` is declared, reading the log to its end before saying so."""
    if await projects.fresh(project) is None:
        reason = f"{project!r} is not declared; run 'tunewheel declare project.yaml' first"
        raise InvalidEvent(field="project", reason=reason)
