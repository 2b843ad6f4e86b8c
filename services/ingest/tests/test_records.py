from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, UpstreamEvent, new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    ExamplePublished,
    FeedbackReceived,
    TicketPublished,
)
from tunewheel_contracts.formats.data_quality import TopicTrust
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.principal import Principal, Trust
from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.formats.text import parse_markdown, parse_plain
from tunewheel_ingest.records import (
    MAX_VALUE_BYTES,
    document_record,
    example_record,
    feedback_record,
    require_size,
    ticket_record,
)

QUESTION = [{"role": "system", "content": "s"}, {"role": "user", "content": "where is my bell?"}]


def wrap(data: UpstreamEvent) -> Envelope[Any]:
    return new_event(data, source="/test")


def ticket(**fields: Any) -> Envelope[TicketPublished]:
    """Return a ticket as a door signed it that an expert sent it to."""
    known = {"project": "p", "ticket_id": "T-1", "body": "bell", "authority": "expert"}
    return wrap(TicketPublished.model_validate(known | fields))


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


def test_when_a_ticket_was_created_is_not_when_it_was_validated() -> None:
    created, validated = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 9, tzinfo=UTC)
    one = ticket_record(ticket(validated_by="eve", answer="Oil it.", created_at=created))
    assert (one.validated_at, one.occurred_at) == (None, created)
    two = ticket_record(
        ticket(validated_by="eve", answer="Oil it.", created_at=created, validated_at=validated)
    )
    assert (two.validated_at, two.occurred_at) == (validated, validated)
    assert one.record_id == two.record_id


def test_an_example_tells_when_it_was_validated() -> None:
    at = datetime(2026, 3, 9, tzinfo=UTC)
    data = ExamplePublished(project="p", example_id="e", input="q", output="a", validated_at=at)
    record = example_record(wrap(data))
    assert (record.validated_at, record.occurred_at) == (at, at)


def test_an_expert_s_example_out_of_scope_is_a_record_without_an_answer() -> None:
    told = {"output": "", "validated_by": "eve", "attributes": {"out_of_scope": "true"}}
    record = example_record(wrap(ExamplePublished(project="p", example_id="e", input="q", **told)))
    assert (record.output, record.trust, record.attributes) == (None, Trust.EXPERT, {"out_of_scope": "true"})


def test_an_answer_nobody_stands_behind_is_unverified() -> None:
    assert ticket_record(ticket(answer="ring")).trust is Trust.UNVERIFIED
    assert ticket_record(ticket(validated_by="eve")).trust is Trust.UNVERIFIED


def test_a_ticket_that_is_sent_again_with_its_customer_is_the_same_record_of_another_group() -> None:
    first, again = (ticket_record(ticket(**more)) for more in ({}, {"customer": "jane"}))
    assert first.record_id == again.record_id
    assert (first.group, again.group) == (first.source_id, "jane")


ANSWERED = {"answer": "a", "validated_by": "eve"}
EXAMPLE = {"project": "p", "example_id": "e", "input": "q", "output": "a", "validated_by": "eve"}
CORRECTION = {"correction": "a", "messages": QUESTION, "submitted_by": "eve"}
LOW = TopicTrust(**dict.fromkeys(TopicTrust.model_fields, Trust.UNVERIFIED))
HIGH = TopicTrust(**dict.fromkeys(TopicTrust.model_fields, Trust.EXPERT))


def answered(grants: TopicTrust, authority: str | None) -> Any:
    return ticket_record(ticket(**ANSWERED, authority=authority), grants)


def not_validated(grants: TopicTrust, authority: str | None) -> Any:
    return ticket_record(ticket(answer="a", authority=authority), grants)


def example(grants: TopicTrust, authority: str | None) -> Any:
    return example_record(wrap(ExamplePublished.model_validate(EXAMPLE | {"authority": authority})), grants)


def correction(grants: TopicTrust, authority: str | None) -> Any:
    return feedback_record(feedback(**CORRECTION, authority=authority), grants)


@pytest.mark.parametrize(
    ("made", "by_default", "claim"),
    [
        (answered, "unverified", "expert"), (not_validated, "unverified", "unverified"),
        (example, "expert", "expert"), (correction, "corrected", "corrected"),
    ],
)  # fmt: skip
def test_an_answer_has_the_trust_it_states_and_at_most_what_its_door_or_its_topic_grants(
    made: Any, by_default: str, claim: str
) -> None:
    assert made(TopicTrust(), None).trust == by_default
    assert (made(LOW, None).trust, made(HIGH, None).trust) == ("unverified", claim)
    doors = made(HIGH, "unverified").trust, made(LOW, "expert").trust
    assert doors == ("unverified", claim), "a door outranks its topic"


def test_a_record_names_the_caller_whom_a_door_identified_and_nobody_else() -> None:
    stated = ticket(**ANSWERED, principal={"name": "ceo"})
    record = ticket_record(stated)
    assert (record.principal, record.authority) == (None, None)
    signed = ticket_record(replace(stated, signed_by="ingest"))
    assert (signed.principal, signed.authority, signed.record_id) == (
        Principal(name="ceo"), Trust.EXPERT, record.record_id,
    )  # fmt: skip


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
    published = DocumentPublished(project="p", document_id="a/b.md", content="# T\n\ntext")
    document = document_record(wrap(published), parse_markdown(published.content))
    assert (document.title, document.group, document.output) == ("T", "a/b.md", None)
    assert [(s.path, s.text) for s in document.sections] == [(("T",), "text")]
    untitled = published.model_copy(update={"content": "text\n\n## A part\n\nmore"})
    assert document_record(wrap(untitled), parse_markdown(untitled.content)).title == "b"
    example = example_record(
        wrap(ExamplePublished(project="p", example_id="e", input="q", output="a", validated_by="eve"))
    )
    assert (example.trust, example.output, example.group) == (Trust.EXPERT, "a", "e")


def test_a_correction_is_a_record_and_a_thumb_is_not() -> None:
    assert feedback_record(feedback()) is None
    record = feedback_record(feedback(correction={"category": "bell"}, messages=QUESTION, submitted_by="eve"))
    assert record is not None
    assert (record.input, record.trust, record.source_id) == ("where is my bell?", Trust.CORRECTED, "c")
    assert record.group == "c"
    of = feedback_record(feedback(correction={"category": "bell"}, messages=QUESTION, customer="c-1"))
    assert of is not None
    assert of.group == "c-1", "erased and held out with their tickets"


@pytest.mark.parametrize("rating", ["up", "down"])
def test_a_thumb_by_itself_is_a_record_without_an_output(rating: str) -> None:
    record = feedback_record(feedback(rating=rating, messages=QUESTION, output=" ring \n", customer="c-1"))
    assert record is not None
    assert (record.input, record.output, record.rejected_output) == ("where is my bell?", None, None)
    assert (record.rating, record.rated_output, record.group) == (rating, "ring", "c-1")
    other = feedback_record(feedback(rating=rating, messages=QUESTION, output="rang"))
    assert other is not None
    assert other.record_id != record.record_id
    for unsaid in ({"output": " "}, {"output": None}, {"messages": []}):
        told = {"messages": QUESTION, "output": "ring"} | unsaid
        assert feedback_record(feedback(rating=rating, **told)) is None


def test_a_correction_without_its_question_names_the_field() -> None:
    with pytest.raises(InvalidEvent, match=r"^messages hold no user message"):
        feedback_record(feedback(correction="x"))


def test_a_rejected_answer_and_earlier_turns_travel_and_tell_records_apart() -> None:
    plain = {"project": "p", "example_id": "e", "input": "q", "output": {"a": 1}}
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": " hi\r\n"},
        {"role": "assistant", "content": " "},
    ]
    one, two, three = (
        example_record(wrap(ExamplePublished.model_validate(plain | more)))
        for more in ({}, {"rejected_output": {"a": 2}}, {"messages": turns})
    )
    assert len({one.record_id, two.record_id, three.record_id}) == 3
    assert (one.rejected_output, two.rejected_output) == (None, '{"a": 2}')
    assert three.history == (ChatMessage(role="user", content="hi"),)
    with pytest.raises(InvalidEvent, match=r"^rejected_output is the same as output"):
        example_record(wrap(ExamplePublished.model_validate(plain | {"rejected_output": {"a": 1}})))


def test_records_of_before_keep_their_ids() -> None:
    """curate knows them by these ids: were they to change, every record would be there twice."""
    assert ticket_record(ticket(answer="ring", customer="c")).record_id == "rec-1f5162e2a83975d0ec6c"
    assert (
        feedback_record(feedback(correction="x", messages=QUESTION)).record_id == "rec-5b8fcdfaad347f48f1d2"
    )


@pytest.mark.parametrize(
    ("rating", "output", "rejected"),
    [("down", " wrong ", "wrong"), ("up", "fine", None), ("down", None, None), ("down", "right", None)],
)
def test_a_thumb_down_with_a_correction_keeps_the_answer_to_avoid(
    rating: str, output: str | None, rejected: str | None
) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": "which?"}, {"role": "user", "content": "mine"}]
    record = feedback_record(feedback(rating=rating, output=output, correction="right", messages=messages))
    assert record is not None
    assert (record.input, record.output, record.rejected_output) == ("mine", "right", rejected)
    assert [turn.content for turn in record.history] == ["where is my bell?", "which?"]


def test_a_thread_becomes_the_history_of_a_ticket() -> None:
    record = ticket_record(ticket(thread=(ChatMessage(role="assistant", content="Which bike?"),)))
    assert record.history == (ChatMessage(role="assistant", content="Which bike?"),)


def test_a_text_that_grows_over_the_limit_is_refused_by_name() -> None:
    """U+0958 is two characters in NFC (a composition exclusion, UAX #15)."""
    with pytest.raises(InvalidEvent, match=r"^input .*at most 1000000"):
        ticket_record(ticket(body="\u0958" * 600_000))


LETTERS = ["b", '"', "\u044f", "\u9234", "\U0001f514"]
"""Characters of one to four bytes; JSON escapes the second."""


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_record_is_measured_in_bytes_as_the_log_measures_it(letter: str, beyond: int) -> None:
    def sized(text: str, title: str = "") -> RecordIngested:
        event = wrap(DocumentPublished(project="p", document_id="a.txt", content=letter, title=title or "t"))
        return document_record(event, parse_plain(text))

    def size(record: RecordIngested) -> int:
        return len(new_event(record, source="/test").to_kafka().value)

    of_one = size(sized(letter * 2)) - size(sized(letter))  # twice: whole and as a section
    count = min(1_000_000, (MAX_VALUE_BYTES - 10_000) // of_one)
    left = MAX_VALUE_BYTES + beyond - size(sized(letter * count))
    if left > 1_000_000:  # of the shortest characters a million do not fill the message
        require_size(sized(letter * count))
        return
    record = sized(letter * count, "t" * (1 + left))
    assert size(record) == MAX_VALUE_BYTES + beyond
    with pytest.raises(InvalidEvent, match="publish it in parts") if beyond > 0 else nullcontext():
        require_size(record)


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_record_s_texts_are_measured_in_characters(letter: str, beyond: int) -> None:
    with pytest.raises(InvalidEvent, match=r"^input .*at most 1000000") if beyond > 0 else nullcontext():
        event = ticket(body="b").data.model_copy(update={"body": letter * (1_000_000 + beyond)})
        assert len(ticket_record(wrap(event)).input) == 1_000_000 + beyond


def test_writing_in_another_direction_and_emoji_survive() -> None:
    text = "\u05e9\u05dc\u05d5\u05dd \u200fABC \U0001f469\u200d\U0001f527 \u202eabc\u202c"
    assert ticket_record(ticket(body=text)).input == text


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_of_one_line_takes_a_shorter_way_to_the_same_form(text: str) -> None:
    assert normalise(text) == normalise(f"{text}\n")


def test_a_document_for_groups_is_another_version_and_no_attribute_names_groups_by_itself() -> None:
    said = {"project": "p", "document_id": "a.md", "content": "text"}

    def published(**fields: Any) -> tuple[str, str, str | None]:
        event = wrap(DocumentPublished.model_validate(said | fields))
        record = document_record(event, parse_markdown("text"))
        return event.id, record.record_id, record.attributes.get("allowed_groups")

    public, legal = published(), published(allowed_groups=["legal", "board", "legal"])
    assert public[2] is None
    assert legal[2] == '["board", "legal"]'
    assert public[0] != legal[0]
    assert public[1] != legal[1] != published(allowed_groups=["hr"])[1]
    assert published(attributes={"allowed_groups": "[]"})[1:] == public[1:]
    assert published(allowed_groups=["board", "legal"])[1] == legal[1]
