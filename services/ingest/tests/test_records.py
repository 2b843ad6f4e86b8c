from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, UpstreamEvent, new_event
from tunewheel_contracts.events.data import RecordKind, Trust
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    ExamplePublished,
    FeedbackReceived,
    TicketPublished,
)
from tunewheel_ingest.records import (
    document_record,
    example_record,
    feedback_record,
    normalise,
    ticket_record,
)

QUESTION = [{"role": "system", "content": "s"}, {"role": "user", "content": "where is my bell?"}]


def wrap(data: UpstreamEvent) -> Envelope[Any]:
    return new_event(data, source="/test")


def ticket(**fields: Any) -> Envelope[TicketPublished]:
    return wrap(TicketPublished(**{"project": "p", "ticket_id": "T-1", "body": "bell"} | fields))


def feedback(**fields: Any) -> Envelope[FeedbackReceived]:
    known = {"project": "p", "feedback_id": "f", "completion_id": "c", "rating": "down"}
    return wrap(FeedbackReceived.model_validate(known | fields))


def test_a_validated_ticket_is_an_expert_record() -> None:
    record = ticket_record(
        ticket(
            subject=" Bell ",
            body="it\r\nrings  \n\n\n\nloud",
            customer="c-1",
            channel="chat",
            answer={"category": "bell"},
            validated_by="eve",
        )
    )
    assert (record.kind, record.trust, record.group) == (RecordKind.TICKET, Trust.EXPERT, "c-1")
    assert (record.title, record.input, record.output) == (
        "Bell",
        "it\nrings\n\nloud",
        '{"category": "bell"}',
    )
    assert record.attributes == {"channel": "chat"}


def test_an_answer_nobody_stands_behind_is_unverified() -> None:
    assert ticket_record(ticket(answer="ring")).trust is Trust.UNVERIFIED
    assert ticket_record(ticket(validated_by="eve")).trust is Trust.UNVERIFIED


def test_identity_follows_content_and_source_only() -> None:
    one = ticket_record(ticket())
    assert one.record_id == ticket_record(ticket()).record_id
    assert one.record_id != ticket_record(ticket(body="horn")).record_id
    assert one.record_id != ticket_record(ticket(ticket_id="T-2")).record_id


@pytest.mark.parametrize("blank", [" ", "\n\t", "\x00\x01", "\u00a0"])
def test_a_blank_text_is_refused_by_name(blank: str) -> None:
    with pytest.raises(InvalidEvent, match=r"^body is blank"):
        ticket_record(ticket(body=blank))


def test_documents_and_examples() -> None:
    document = document_record(wrap(DocumentPublished(project="p", document_id="a/b.md", content="# T")))
    assert (document.title, document.group, document.output) == ("a/b.md", "a/b.md", None)
    example = example_record(
        wrap(ExamplePublished(project="p", example_id="e", input="q", output="a", validated_by="eve"))
    )
    assert (example.trust, example.output, example.group) == (Trust.EXPERT, "a", "e")


def test_a_correction_is_a_record_and_a_thumb_is_not() -> None:
    assert feedback_record(feedback()) is None
    record = feedback_record(feedback(correction={"category": "bell"}, messages=QUESTION, submitted_by="eve"))
    assert record is not None
    assert (record.input, record.trust, record.source_id) == ("where is my bell?", Trust.CORRECTED, "c")


def test_a_correction_without_its_question_names_the_field() -> None:
    with pytest.raises(InvalidEvent, match=r"^messages hold no user message"):
        feedback_record(feedback(correction="x"))


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
