"""Records become events of the right kind, or refusals that name the field."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_cli.publishing.events import MAX_VALUE_BYTES, encode, fields_of, make_event
from tunewheel_cli.publishing.items import Found, Kind, Refusal
from tunewheel_contracts.event import Envelope, KafkaRecord

TICKET = {"ticket_id": "T-1", "body": "help"}


def make(fields: dict[str, Any], kind: Kind | None = None) -> Envelope[Any] | Refusal:
    return make_event(Found("line 7", 7, fields), project="p", kind=kind)


def made(fields: dict[str, Any], kind: Kind | None = None) -> Envelope[Any]:
    envelope = make(fields, kind)
    assert isinstance(envelope, Envelope), envelope
    return envelope


@pytest.mark.parametrize(
    ("fields", "event_type"),
    [
        (TICKET, "ticket.published"),
        ({"example_id": "E-1", "input": "a", "output": "b"}, "example.published"),
        ({"document_id": "a/b.md", "content": "c"}, "document.published"),
    ],
)
def test_the_id_field_tells_the_kind_and_the_project_is_filled_in(
    fields: dict[str, Any], event_type: str
) -> None:
    envelope = made(fields)
    assert envelope.data.type == event_type
    assert envelope.project == "p"


def test_the_same_record_is_the_same_event_whatever_the_hour() -> None:
    assert made(TICKET).id == made(TICKET).id
    assert made(TICKET).id != made(TICKET | {"body": "other"}).id


def test_the_expert_of_a_file_is_the_expert_of_answers_that_name_none() -> None:
    def expert(fields: dict[str, Any]) -> Any:
        said = make_event(Found("line 7", 7, fields), project="p", kind=Kind.TICKET, validated_by="kim")
        assert isinstance(said, Envelope), said
        return said.data.validated_by, said.data.ticket_id

    assert expert(TICKET) == expert(TICKET | {"validated_by": None}) == ("kim", "T-1")
    assert expert(TICKET | {"validated_by": "okafor"}) == ("okafor", "T-1")
    assert expert({"body": "help"}) == ("kim", made({"body": "help"}, Kind.TICKET).data.ticket_id)
    document = Found("a.md", None, {"document_id": "a.md", "content": "c"})
    assert isinstance(make_event(document, project="p", kind=None, validated_by="kim"), Envelope)


def test_a_record_without_id_is_named_by_its_content_when_the_kind_is_said() -> None:
    fields = {"input": "a", "output": {"label": "b"}}
    first, again = made(fields, Kind.EXAMPLE), made(dict(fields), Kind.EXAMPLE)
    assert first.data.example_id == again.data.example_id
    assert first.data.example_id != made(fields | {"input": "c"}, Kind.EXAMPLE).data.example_id


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"body": "help"}, "(kind)", "cannot be told; add one of ticket_id, example_id, document_id"),
        (TICKET | {"example_id": "E"}, "(kind)", "by ticket_id, example_id; keep one"),
        (TICKET | {"body": 5}, "body", "is a number; give text in quotes"),
        ({"ticket_id": "T-1"}, "body", "is missing; add it"),
        (TICKET | {"priority": "high"}, "priority", "is no known field"),
        (TICKET | {"project": "other"}, "project", "is 'other', not 'p'"),
        (TICKET | {"ticket_id": "a\x00b"}, "ticket_id", "contains control characters"),
        ({"document_id": "../../etc/passwd", "content": "x"}, "document_id", "must be a relative path"),
        ({"document_id": "/etc/passwd", "content": "x"}, "document_id", "must be a relative path"),
        (TICKET | {"body": "x" * 1_000_001}, "body", "at most 1000000 characters"),
    ],
)
def test_a_bad_record_names_the_field(fields: dict[str, Any], field: str, words: str) -> None:
    refusal = make(fields)
    assert isinstance(refusal, Refusal)
    assert (refusal.line, refusal.field) == (7, field)
    assert words in refusal.reason


def test_an_event_that_no_topic_takes_is_refused() -> None:
    found = Found("line 7", 7, TICKET | {"answer": {"reply": "x" * MAX_VALUE_BYTES}})
    envelope = make_event(found, project="p", kind=None)
    assert isinstance(envelope, Envelope)
    refusal = encode(found, envelope)
    assert isinstance(refusal, Refusal)
    assert "are allowed; shorten it" in refusal.reason
    assert isinstance(encode(found, made(TICKET)), KafkaRecord)


def test_a_record_does_not_say_who_publishes_it() -> None:
    record = {"body": "x", "principal": {"name": "somebody else"}}
    made = make_event(Found("f", 1, record), project="p", kind=Kind.TICKET)
    assert not isinstance(made, Refusal)
    assert made.data.principal is None
    assert "principal" not in fields_of(None)
