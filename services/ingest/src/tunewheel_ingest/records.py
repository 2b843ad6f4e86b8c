"""What upstream says, as records: one shape for tickets, documents, examples and feedback."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested, RecordKind, Trust
from tunewheel_contracts.events.upstream import (
    Answer,
    DocumentPublished,
    ExamplePublished,
    FeedbackReceived,
    TicketPublished,
)
from tunewheel_contracts.identity import content_id

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TRAILING_SPACE = re.compile(r"[ \t]+(?=\n|$)")
_BLANK_LINES = re.compile(r"\n{3,}")


def normalise(text: str) -> str:
    """Return ``text`` in Unicode NFC (UAX #15) with LF line ends, without control characters, trailing
    spaces and runs of blank lines. Words, case and spelling are left as people wrote them."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    text = _TRAILING_SPACE.sub("", _CONTROL.sub("", text))
    return _BLANK_LINES.sub("\n\n", text).strip()


def ticket_record(event: Envelope[TicketPublished]) -> RecordIngested:
    """Turn a ticket into a record; one without an answer is kept, but teaches nothing yet."""
    ticket = event.data
    attributes = dict(ticket.attributes) | ({"channel": ticket.channel} if ticket.channel else {})
    return _record(
        event,
        kind=RecordKind.TICKET,
        source_id=ticket.ticket_id,
        title=ticket.subject,
        input=_required("body", ticket.body),
        output=ticket.answer,
        group=ticket.customer or ticket.ticket_id,
        trust=_trust(ticket.answer, ticket.validated_by),
        validated_by=ticket.validated_by,
        occurred_at=ticket.validated_at or ticket.created_at,
        attributes=attributes,
    )


def document_record(event: Envelope[DocumentPublished]) -> RecordIngested:
    """Turn a document into a record."""
    document = event.data
    return _record(
        event,
        kind=RecordKind.DOCUMENT,
        source_id=document.document_id,
        title=document.title or document.document_id,
        input=_required("content", document.content),
        output=None,
        group=document.document_id,
        trust=Trust.EXPERT,
        occurred_at=document.published_at,
        attributes=dict(document.attributes) | {"media_type": document.media_type},
    )


def example_record(event: Envelope[ExamplePublished]) -> RecordIngested:
    """Turn a validated question and answer into a record."""
    example = event.data
    return _record(
        event,
        kind=RecordKind.EXAMPLE,
        source_id=example.example_id,
        input=_required("input", example.input),
        output=example.output,
        group=example.group or example.example_id,
        trust=_trust(example.output, example.validated_by),
        validated_by=example.validated_by,
        occurred_at=example.validated_at,
        attributes=dict(example.attributes),
    )


def feedback_record(event: Envelope[FeedbackReceived]) -> RecordIngested | None:
    """Turn a correction into a record; a bare thumb is for the monitor and makes none.

    Raises:
        InvalidEvent: a correction without the conversation it corrects.
    """
    feedback = event.data
    if feedback.correction is None:
        return None
    questions = [message.content for message in feedback.messages if message.role == "user"]
    if not questions:
        raise InvalidEvent(
            field="messages", reason="hold no user message, so the correction has no question; send them too"
        )
    return _record(
        event,
        kind=RecordKind.FEEDBACK,
        source_id=feedback.completion_id,
        input=_required("messages", questions[-1]),
        output=feedback.correction,
        group=feedback.completion_id,
        trust=Trust.CORRECTED,
        validated_by=feedback.submitted_by,
        attributes={"rating": feedback.rating},
    )


RECORD_OF: dict[type[Any], Callable[[Envelope[Any]], RecordIngested | None]] = {
    TicketPublished: ticket_record,
    DocumentPublished: document_record,
    ExamplePublished: example_record,
    FeedbackReceived: feedback_record,
}


def _record(
    event: Envelope[Any], *, title: str = "", input: str, output: Answer | None, **fields: Any
) -> RecordIngested:
    title, text = normalise(title), _answer_text(output)
    cause = [event.project, fields["kind"], fields["source_id"], title, input, text, fields["trust"]]
    return RecordIngested(
        project=event.project,
        record_id=content_id("rec", cause),
        source_event_id=event.id,
        title=title,
        input=input,
        output=text,
        **fields,
    )


def _required(field: str, text: str) -> str:
    text = normalise(text)
    if not text:
        raise InvalidEvent(field=field, reason="is blank; send text, or do not send the event")
    return text


def _answer_text(answer: Answer | None) -> str | None:
    if answer is None or isinstance(answer, str):
        return normalise(answer) or None if answer else None
    return json.dumps(answer, ensure_ascii=False)


def _trust(answer: Answer | None, validated_by: str | None) -> Trust:
    return Trust.EXPERT if answer is not None and validated_by else Trust.UNVERIFIED
