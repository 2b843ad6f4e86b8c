"""Turns upstream events into records: one shape for tickets, documents, examples and feedback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.events.upstream import (
    Answer,
    DocumentPublished,
    ExamplePublished,
    FeedbackReceived,
    TicketPublished,
)
from tunewheel_contracts.formats.data_quality import TopicTrust
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.document import groups_of, with_groups
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.principal import Trust
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES

from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.document import PARSER_VERSION, ParsedDocument

BY_TOPIC = TopicTrust()
ISSUER = "source"
"""Issuer of the principals of sources, whom no API key names."""
BLANK = "is blank; send text, or do not send the event"


def ticket_record(event: Envelope[TicketPublished], grants: TopicTrust = BY_TOPIC) -> RecordIngested:
    """Turn a ticket into a record. A ticket without an answer becomes a record too, but trains nothing
    yet."""
    ticket = event.data
    attributes = dict(ticket.attributes) | ({"channel": ticket.channel} if ticket.channel else {})
    return _record(
        event,
        grants.tickets,
        kind=RecordKind.TICKET,
        source_id=ticket.ticket_id,
        title=ticket.subject,
        input=_required("body", ticket.body),
        output=ticket.answer,
        history=ticket.thread,
        group=ticket.customer or ticket.ticket_id,
        trust=claimed(ticket),
        validated_by=ticket.validated_by,
        validated_at=ticket.validated_at,
        occurred_at=ticket.validated_at or ticket.created_at,
        attributes=attributes,
    )


def field_of(data: Any) -> str:
    """Return the field of a message that holds most of its text."""
    if not isinstance(data, DocumentPublished):
        return "(body)"
    return "content" if data.file is None else "file"


def document_record(event: Envelope[DocumentPublished], parsed: ParsedDocument) -> RecordIngested:
    """Turn a document, whose content is ``parsed``, into a record. It is no answer, so its trust is not
    asked."""
    document = event.data
    if not parsed.markdown.strip():
        raise InvalidEvent(field=field_of(document), reason=BLANK)
    return _record(
        event,
        Trust.EXPERT,
        kind=RecordKind.DOCUMENT,
        source_id=document.document_id,
        title=document.title or parsed.title or PurePosixPath(document.document_id).stem,
        input=parsed.markdown,
        output=None,
        group=document.document_id,
        trust=Trust.EXPERT,
        occurred_at=document.published_at,
        attributes=with_groups(
            parsed.attributes | document.attributes | {"media_type": document.media_type},
            document.allowed_groups,
        ),
        sections=parsed.sections,
    )


def example_record(event: Envelope[ExamplePublished], grants: TopicTrust = BY_TOPIC) -> RecordIngested:
    """Turn a validated question and answer into a record."""
    example = event.data
    rejected = _answer_text(example.rejected_output)
    if rejected is not None and rejected == _answer_text(example.output):
        raise InvalidEvent(
            field="rejected_output", reason="is the same as output; send the answer to avoid, or leave it out"
        )
    return _record(
        event,
        grants.examples,
        kind=RecordKind.EXAMPLE,
        source_id=example.example_id,
        input=_required("input", example.input),
        output=example.output,
        rejected_output=rejected,
        history=example.messages,
        group=example.group or example.example_id,
        trust=claimed(example),
        validated_by=example.validated_by,
        validated_at=example.validated_at,
        occurred_at=example.validated_at,
        attributes=dict(example.attributes),
    )


def feedback_record(
    event: Envelope[FeedbackReceived], grants: TopicTrust = BY_TOPIC
) -> RecordIngested | None:
    """Turn a correction, or a thumb without a correction, into a record.

    The answer that got a thumb down becomes the record's rejected answer. A thumb without its question and
    answer makes no record; only the monitor uses it.

    Raises:
        InvalidEvent: a correction comes without its conversation.
    """
    feedback = event.data
    asked = [n for n, message in enumerate(feedback.messages) if message.role == "user"]
    question = feedback.messages[asked[-1]].content if asked else ""
    rated = normalise(feedback.output or "")
    told: dict[str, Any]
    if feedback.correction is not None:
        if not asked:
            raise InvalidEvent(
                field="messages",
                reason="hold no user message, so the correction has no question; send them too",
            )
        told = {"output": feedback.correction, "rejected_output": _rejected(feedback)}
        told |= {"trust": Trust.CORRECTED, "attributes": {"rating": feedback.rating}}
    elif normalise(question) and rated:
        told = {"output": None, "rating": feedback.rating, "rated_output": rated, "trust": Trust.UNVERIFIED}
    else:
        return None
    return _record(
        event,
        grants.feedback,
        kind=RecordKind.FEEDBACK,
        source_id=feedback.completion_id,
        input=_required("messages", question),
        history=feedback.messages[: asked[-1]],
        group=feedback.customer or feedback.completion_id,
        validated_by=feedback.submitted_by,
        **told,
    )


RECORD_OF: dict[type[Any], Callable[[Envelope[Any], TopicTrust], RecordIngested | None]] = {
    TicketPublished: ticket_record,
    ExamplePublished: example_record,
    FeedbackReceived: feedback_record,
}


def _record(
    event: Envelope[Any],
    by_topic: Trust,
    *,
    title: str = "",
    input: str,
    output: Answer | None,
    rejected_output: str | None = None,
    history: Iterable[ChatMessage] = (),
    **fields: Any,
) -> RecordIngested:
    """Return a record. Its trust is what ``fields`` state, and at most what the event's door granted, or for
    an event that no door signed what its topic grants, ``by_topic``."""
    title, text, earlier = normalise(title), _answer_text(output), _turns(history)
    fields["trust"] = min(fields["trust"], event.data.authority or by_topic, key=lambda trust: trust.rank)
    cause = [event.project, fields["kind"], fields["source_id"], title, input, text, fields["trust"]]
    # Newer fields enter the id only if they are set, so that records without them keep their ids.
    cause += [["rejected", rejected_output]] if rejected_output else []
    cause += [["history", [turn.model_dump() for turn in earlier]]] if earlier else []
    cause += [["rating", fields["rating"], fields["rated_output"]]] if fields.get("rating") else []
    cause += [["sections", PARSER_VERSION]] if fields.get("sections") else []
    cause += [["groups", groups]] if (groups := groups_of(fields.get("attributes", {}))) is not None else []
    try:
        # As one dict, because pydantic would not check again the models that a field gets.
        own = {
            "project": event.project,
            "record_id": content_id("rec", cause),
            "source_event_id": event.id,
            "title": title,
            "input": input,
            "output": text,
            "rejected_output": rejected_output,
            "history": [turn.model_dump() for turn in earlier],
        }
        if event.signed_by is not None:  # Else no door identified anybody.
            own |= {"authority": event.data.authority, "principal": event.data.principal}
        return RecordIngested.model_validate(own | fields)
    except ValidationError as error:  # normalising a text, or writing an answer as JSON, made it too long
        raise InvalidEvent.from_validation(error) from error


def _turns(messages: Iterable[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Return the turns of a conversation without system messages, which belong to the project."""
    kept = [turn for turn in messages if turn.role != "system"]
    turns = (turn.model_copy(update={"content": normalise(turn.content)}) for turn in kept)
    return tuple(turn for turn in turns if turn.content)


def _rejected(feedback: FeedbackReceived) -> str | None:
    """Return the answer that got a thumb down; None if the correction is the same."""
    if feedback.rating != "down" or feedback.output is None:
        return None
    rejected = normalise(feedback.output)
    return rejected if rejected and rejected != _answer_text(feedback.correction) else None


def _required(field: str, text: str) -> str:
    text = normalise(text)
    if not text:
        raise InvalidEvent(field=field, reason=BLANK)
    return text


def _answer_text(answer: Answer | None) -> str | None:
    if answer is None or isinstance(answer, str):
        return normalise(answer) or None if answer else None
    return json.dumps(answer, ensure_ascii=False)


def claimed(data: TicketPublished | ExamplePublished) -> Trust:
    """Return the trust that an answer states by naming who validated it."""
    answer = data.answer if isinstance(data, TicketPublished) else data.output
    return Trust.EXPERT if answer is not None and data.validated_by else Trust.UNVERIFIED


def source_of(data: Any) -> str | None:
    """Return ``project/source`` of an event that a source brought; None: another sender did."""
    return data.principal.name if data.principal is not None and data.principal.issuer == ISSUER else None


def lowering(of: str) -> str:
    """Return the name of the warning of lowered answers. ``of``: who sent them."""
    return f"lowered {of}"


def remedy_of(data: TicketPublished | ExamplePublished) -> str:
    """Return how an answer of this sender gets the trust that it states."""
    if (source := source_of(data)) is not None:
        return f"Write trust: expert in the source {source} of the spec if its validated_by is to be believed"
    return (
        "Publish them by a key with the role expert, or let the topic grant more (dataset.trust of project "
        f"{data.project})"
    )


def is_lowered(data: Any) -> bool:
    """Return whether an answer states more trust than its door granted."""
    if not isinstance(data, TicketPublished | ExamplePublished) or data.authority is None:
        return False
    return data.authority.rank < claimed(data).rank


MAX_VALUE_BYTES = MAX_MESSAGE_BYTES - 16 * 1024
"""The largest value of a message. Kafka's limit includes the key and the headers."""
LONGEST_CHARACTER = 6
"""The most bytes that one character takes in JSON: \\u00XX."""


def require_size(record: RecordIngested, data: Any = None) -> None:
    """Raise ``InvalidEvent`` if ``record`` of ``data`` is too large for the log. A record can be larger
    than its event: it holds a document twice, whole and in sections, and escapes an answer's quotes twice."""
    characters = sum(
        map(len, (record.title, record.input, record.output or "", record.rejected_output or ""))
    )
    characters += sum(len(turn.content) + 50 for turn in record.history)
    characters += sum(len(key) + len(value) + 10 for key, value in record.attributes.items())
    characters += sum(
        len(s.text) + len(s.summary or "") + sum(map(len, s.path)) + 300 for s in record.sections
    )
    if characters * LONGEST_CHARACTER < MAX_VALUE_BYTES:
        return  # most records need no second encoding
    size = len(record.model_dump_json().encode())
    if size > MAX_VALUE_BYTES:
        raise InvalidEvent(
            field=field_of(data),
            reason=f"makes a record of {size} bytes, the log takes {MAX_VALUE_BYTES}; publish it in parts, "
            "such as one per chapter",
        )
