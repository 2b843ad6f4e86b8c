"""What ingest does with each event: four upstream topics become one topic of records; an erasure deletes
files and dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import ErasureCompleted, RecordIngested, RedeliveryRequested
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    ErasureRequested,
    ExamplePublished,
    FeedbackReceived,
    ProjectDeclared,
    TicketPublished,
)
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Trust
from tunewheel_runtime.deadletter import Undecoded, letter_id, original
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.log import records_at
from tunewheel_runtime.service import Service
from tunewheel_runtime.view import View

from tunewheel_ingest.documents import Documents, carry_out
from tunewheel_ingest.records import RECORD_OF, document_record, lowering, remedy_of, require_size, source_of
from tunewheel_ingest.settings import DOCUMENTS_AT_ONCE, TICKETS_AT_ONCE

SOURCE = "/tunewheel/ingest"
LOWERED_SECONDS = 3_600.0
"""How long a warning of lowered answers stands after the latest of them."""
LOWERED = "answers on {event.data.type} name who validated them, and count as unverified. {remedy}"
Made = Envelope[RecordIngested] | None


def register(service: Service, projects: View[ProjectDeclared], documents: Documents) -> None:
    """Register the handlers; ``projects`` is the view of declared projects."""
    erasures = Erasures()
    asked = service.replay((topics.ERASURE_REQUESTED,), erasures.apply)
    service.withhold(erasures, asked)

    async def ingest(event: Envelope[Any]) -> Made:
        spec = await require_project(projects, event.project)
        record = RECORD_OF[type(event.data)](event, spec.dataset.trust)
        if record is not None and record.trust is Trust.UNVERIFIED and record.validated_by and record.output:
            name = lowering(source_of(event.data) or f"{event.data.type} {event.project}")
            text = LOWERED.format(event=event, remedy=remedy_of(event.data))
            service.health.warn(name, text, seconds=LOWERED_SECONDS)
        return made(record, event)

    @service.on_each(topics.TICKET_PUBLISHED, max_records=TICKETS_AT_ONCE)
    async def on_ticket_published(event: Envelope[TicketPublished]) -> Made:
        return await ingest(replace(event, data=await documents.read_ticket(event.data)))

    @service.on_each(topics.DOCUMENT_PUBLISHED, max_records=DOCUMENTS_AT_ONCE)
    async def on_document_published(event: Envelope[DocumentPublished]) -> Made:
        await require_project(projects, event.project)
        return made(document_record(event, await documents.read(event.data)), event)

    @service.on_each(topics.EXAMPLE_PUBLISHED)
    async def on_example_published(event: Envelope[ExamplePublished]) -> Made:
        return await ingest(event)

    @service.on_each(topics.FEEDBACK_RECEIVED)
    async def on_feedback_received(event: Envelope[FeedbackReceived]) -> Made:
        return await ingest(event)

    @service.on(topics.ERASURE_REQUESTED)
    async def on_erasure_requested(event: Envelope[ErasureRequested]) -> Envelope[ErasureCompleted]:
        await require_project(projects, event.project)
        await asked.refresh()
        proof = await carry_out(event, erasures.asked_by(event), service=service, documents=documents)
        return service.new(proof, cause=event)

    @service.on(topics.REDELIVERY_REQUESTED)
    async def on_redelivery_requested(event: Envelope[RedeliveryRequested]) -> None:
        asked = event.data
        await service.access.require(asked.principal, Role.OPERATOR, event.project, field="principal")
        await service.publisher.send([original(await letter_of(asked, client_options(service.settings)))])


async def letter_of(asked: RedeliveryRequested, options: Mapping[str, Any]) -> Undecoded:
    """Return the dead letter whose message is to be handled again. ``options`` are aiokafka's.

    Raises:
        InvalidEvent: its topic's messages are not handled again, or the letter does not lie there any more.
        TransientError: the broker does not answer.
    """
    names = {topic.name: topic.dead_letter for topic in topics.TAKEN_AGAIN}
    if asked.topic not in names:
        raise InvalidEvent(field="topic", reason=f"is none of {', '.join(names)}")
    place = asked.partition, asked.offset
    letter = (await records_at(options, names[asked.topic], [place])).get(place)
    if letter is None or letter_id(letter) != asked.letter_id:
        raise InvalidEvent(field="letter_id", reason="does not lie there any more; ask for it again")
    if letter.headers.get("ce_project") != asked.project.encode():
        raise InvalidEvent(field="project", reason="is not that of the message")
    return letter


def made(record: RecordIngested | None, cause: Envelope[Any]) -> Made:
    """Wrap a record in an event with the time of its cause. Withdrawals and erasures compare with the time of
    publication, not with the time at which ingest read it."""
    if record is None:
        return None
    require_size(record, cause.data)
    return new_event(record, source=SOURCE, cause=cause, time=cause.time)


async def require_project(projects: View[ProjectDeclared], project: str) -> ProjectSpec:
    """Return the spec of ``project``. The log is read to its end before raising.

    Raises:
        InvalidEvent: the project is not declared.
    """
    if (declared := await projects.fresh(project)) is None:
        reason = f"{project!r} is not declared; run 'tunewheel project declare project.yaml' first"
        raise InvalidEvent(field="project", reason=reason)
    return declared.data.spec
