from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, decode_data, new_event
from tunewheel_contracts.events.data import DatasetRequested, RecordIngested
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, ServingDesired, Stage
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.events.training import TrainAction, TrainControl, TrainProgressed
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.topics import TOPICS

EXAMPLES = Path(__file__).parents[1] / "examples"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OKAFOR = Principal(name="okafor")
TICKET = TicketPublished(project="helpdesk", ticket_id="T-1", body="It does not charge.")


def _control(request: str = "1") -> TrainControl:
    return TrainControl(project="helpdesk", run_id="run-1", action=TrainAction.PAUSE, request=request)


def _headers(**changes: bytes | None) -> dict[str, bytes]:
    headers = new_event(TICKET, source="tests", time=NOON).to_kafka().headers
    merged = {**headers, **changes}
    return {name: raw for name, raw in merged.items() if raw is not None}


def _refused(value: bytes | None, headers: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        Envelope.from_kafka(TicketPublished, value, headers)
    return caught.value


VALUE = new_event(TICKET, source="tests").to_kafka().value


# steps of models


STEP = {
    "project": "helpdesk", "model_id": "helpdesk-1", "from_stage": "evaluated", "to_stage": "evaluated",
    "cause": "e", "reason": "r",
}  # fmt: skip


def test_a_step_says_undecided_in_a_field_that_earlier_releases_leave_out() -> None:
    plain = ModelPromoted.model_validate(STEP)
    undecided = ModelPromoted.model_validate(STEP | {"undecided": True, "held_up": True, "to_show": -0.1})
    assert (plain.stage, undecided.stage) == (Stage.EVALUATED, Stage.UNDECIDED)
    assert undecided.to_stage is Stage.EVALUATED
    assert not {"undecided", "to_show", "gain"} & plain.model_dump().keys()  # as earlier releases wrote it
    assert plain.event_id() == undecided.event_id()


def test_a_trial_with_something_to_show_follows_an_undecided_verdict() -> None:
    trial = STEP | {"to_stage": "shadow"}
    told = (trial, trial | {"to_show": -0.1}, STEP | {"undecided": True, "to_show": -0.1})
    before = [ModelPromoted.model_validate(step).stage_before for step in told]
    assert before == [Stage.EVALUATED, Stage.UNDECIDED, Stage.EVALUATED]


def test_only_a_spent_margin_changes_the_id_of_the_desired_state() -> None:
    told = json.loads((EXAMPLES / "serving.desired/valid/canary.json").read_text())
    unspent, none, some = (
        ServingDesired.model_validate(told | spent) for spent in ({}, {"spent": 0}, {"spent": 0.02})
    )
    assert unspent.event_id() == none.event_id() != some.event_id()


# ids


def test_the_id_does_not_depend_on_time_source_or_cause() -> None:
    cause = new_event(TICKET, source="upstream")
    first = new_event(_control(), source="cli", time=NOON)
    second = new_event(_control(), source="console", time=NOON + timedelta(days=3), cause=cause)
    assert first.id == second.id


def test_the_id_changes_with_what_tells_the_event_apart() -> None:
    other_project = TrainControl.model_validate(_control().model_dump() | {"project": "another"})
    assert len({_control("1").event_id(), _control("2").event_id(), other_project.event_id()}) == 3


def test_a_known_id_stays() -> None:
    """Consumers deduplicate by it: were it to change, events handled before would be handled again."""
    assert _control().event_id() == "57405208-d538-5c8b-ac9a-f2ac7ab82542"


def test_the_same_ticket_with_a_new_answer_is_a_new_event() -> None:
    answered = TICKET.model_copy(update={"answer": {"reply": "Charge it overnight."}})
    assert TICKET.event_id() != answered.event_id()


def test_a_field_that_joined_the_identity_counts_only_where_it_is_given() -> None:
    """Tickets that were on the log before threads existed keep their ids."""
    assert TICKET.event_id() == "e89a7567-e567-5b42-b53e-1ff2e141ead5"
    threaded = TICKET.model_copy(update={"thread": (ChatMessage(role="user", content="Hello?"),)})
    assert threaded.event_id() != TICKET.event_id()


def test_a_command_of_somebody_else_is_another_command() -> None:
    """A command that was refused for who sent it must not stand in the way of the one that may."""
    sent = {_control().model_copy(update={"principal": by}).event_id() for by in (None, OKAFOR)}
    regrouped = _control().model_copy(update={"principal": OKAFOR.model_copy(update={"groups": ("leads",)})})
    assert len(sent | {regrouped.event_id()}) == 3


def test_data_is_the_same_whoever_sends_it() -> None:
    assert TICKET.model_copy(update={"principal": OKAFOR}).event_id() == TICKET.event_id()


def test_a_principal_that_is_not_given_is_not_written() -> None:
    """Readers that know no such field refuse a ticket that has it, even as null."""
    assert b"principal" not in new_event(TICKET, source="tests").to_kafka().value
    named = new_event(TICKET.model_copy(update={"principal": OKAFOR}), source="tests").to_kafka()
    assert Envelope.from_kafka(TicketPublished, named.value, named.headers).data.principal == OKAFOR


def test_the_events_that_people_cause_have_room_for_a_principal() -> None:
    having = {topic.name for topic in TOPICS if "principal" in topic.event.model_fields}
    assert having == {
        *("ticket.published", "document.published", "document.withdrawn", "example.published"),
        *(
            "feedback.received",
            "erasure.requested",
            "project.declared",
            "review.submitted",
            "record.ingested",
        ),
        *("train.control", "dataset.requested", "eval.passed", "eval.failed"),
        *("eval.requested", "review.answered", "model.commanded", "answers.compared"),
        *("record.judged", "completions.chosen", "redelivery.requested", "sweep.requested"),
    }


# causation and correlation


def test_the_first_event_names_the_turn_after_itself() -> None:
    first = new_event(TICKET, source="upstream")
    assert first.causation_id is None
    assert first.correlation_id == first.id


def test_an_effect_names_its_cause_and_stays_in_its_turn() -> None:
    first = new_event(TICKET, source="upstream")
    second = new_event(_control("a"), source="cli", cause=first)
    third = new_event(_control("b"), source="cli", cause=second)
    assert (second.causation_id, third.causation_id) == (first.id, second.id)
    assert third.correlation_id == second.correlation_id == first.id


def test_a_cause_without_correlation_gives_its_id() -> None:
    cause = Envelope(data=TICKET, source="elsewhere", id="foreign-1", time=NOON)
    assert new_event(_control(), source="cli", cause=cause).correlation_id == "foreign-1"


def test_a_given_correlation_outranks_the_causes() -> None:
    cause = new_event(TICKET, source="upstream")
    assert (
        new_event(_control(), source="cli", cause=cause, correlation_id="turn-2").correlation_id == "turn-2"
    )


# on the wire


def test_attributes_travel_as_headers_and_data_as_value() -> None:
    cause = new_event(TICKET, source="upstream")
    envelope = new_event(_control(), source="tunewheel/cli", cause=cause, time=NOON)
    record = envelope.to_kafka()
    assert record.topic == "train.control"
    assert record.key == b"helpdesk"
    assert {name: raw.decode() for name, raw in record.headers.items()} == {
        "ce_specversion": "1.0",
        "ce_id": envelope.id,
        "ce_type": "train.control",
        "ce_source": "tunewheel/cli",
        "ce_subject": "run-1",
        "ce_time": "2026-03-01T12:00:00Z",
        "ce_project": "helpdesk",
        "ce_causationid": cause.id,
        "ce_correlationid": cause.id,
        "content-type": "application/json",
    }
    assert json.loads(record.value) == {
        "project": "helpdesk", "run_id": "run-1", "action": "pause", "request": "1",
    }  # fmt: skip


def test_headers_are_read_in_any_case_as_pairs_and_beside_foreign_ones() -> None:
    pairs = [(name.upper(), raw) for name, raw in _headers().items()] + [("traceparent", b"\xff\xfe")]
    assert Envelope.from_kafka(TicketPublished, VALUE, pairs).data == TICKET


def test_without_a_project_header_the_data_decides() -> None:
    assert Envelope.from_kafka(TicketPublished, VALUE, _headers(ce_project=None)).project == "helpdesk"


def test_an_event_that_is_silent_about_its_time_happened_when_it_was_logged() -> None:
    """Read again after a withdrawal or an erasure, it must not count as published since."""
    logged = int(NOON.timestamp() * 1000) + 7
    silent = [Envelope.from_kafka(TicketPublished, VALUE, _headers(ce_time=None), logged_ms=logged)
              for _ in range(2)]  # fmt: skip
    assert [event.time for event in silent] == [NOON + timedelta(milliseconds=7)] * 2
    told = Envelope.from_kafka(
        TicketPublished, VALUE, _headers(ce_time=b"2026-03-01T12:00:00Z"), logged_ms=logged
    )
    assert told.time == NOON
    unknown = Envelope.from_kafka(TicketPublished, VALUE, _headers(ce_time=None), logged_ms=-1)
    assert unknown.time > NOON


@pytest.mark.parametrize(
    ("sent", "counts"),
    [
        ("2026-02-28T12:00:00Z", NOON - timedelta(days=1)),
        ("2026-03-01T12:00:00.000999Z", NOON + timedelta(microseconds=999)),
        ("2026-03-01T12:00:00.001Z", NOON),
        ("2026-03-01T14:00:00+01:00", NOON),
        ("2099-01-01T00:00:00Z", NOON),
    ],
    ids=["earlier", "same millisecond", "next millisecond", "hour ahead", "years ahead"],
)
def test_no_event_happened_after_it_was_logged(sent: str, counts: datetime) -> None:
    """What claims to be published in the future would escape erasures and withdrawals."""
    logged = int(NOON.timestamp() * 1000)
    headers = _headers(ce_time=sent.encode())
    assert Envelope.from_kafka(TicketPublished, VALUE, headers, logged_ms=logged).time == counts


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_moment_that_utc_has_not_is_refused(moment: str) -> None:
    """The first is what some systems write for "no date"."""
    body = json.dumps({"project": "p", "ticket_id": "t", "body": "b", "created_at": moment})
    error = _refused(body.encode(), _headers(ce_project=None))
    assert (error.field, "leave it out" in error.reason) == ("created_at", True)
    assert _refused(VALUE, _headers(ce_time=moment.encode())).field == "ce_time"


def test_a_log_whose_clock_is_lost_in_time_is_told() -> None:
    with pytest.raises(InvalidEvent) as caught:
        Envelope.from_kafka(TicketPublished, VALUE, _headers(ce_time=None), logged_ms=10**18)
    assert caught.value.field == "ce_time"


def test_null_survives_where_it_must_be_said() -> None:
    data = ModelRolledback(
        project="p", model_id="m", from_stage="canary", restored=None, cause="c", reason="worse"
    )
    record = new_event(data, source="registry").to_kafka()
    assert Envelope.from_kafka(ModelRolledback, record.value, record.headers).data.restored is None


def test_unknown_fields_of_a_newer_producer_are_ignored_but_not_at_a_door() -> None:
    body = _control().model_dump(mode="json") | {"since_v9": 1}
    assert decode_data(TrainControl, json.dumps(body).encode()) == _control()
    with pytest.raises(InvalidEvent) as caught:
        decode_data(TicketPublished, json.dumps(TICKET.model_dump() | {"since_v9": 1}).encode(), at_door())
    assert caught.value.field == "since_v9"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_values_that_json_cannot_represent_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        TrainProgressed(
            project="p", run_id="r", step=1, total_steps=2, epoch=0.5, loss=number, learning_rate=1e-3,
            tokens_per_second=1.0, eta_seconds=1.0,
        )  # fmt: skip
    body = json.dumps({"project": "p", "ticket_id": "t", "body": "b", "answer": {"x": number}})
    with pytest.raises(InvalidEvent) as caught:
        decode_data(TicketPublished, body.encode())
    assert caught.value.field == "answer"


# refused


@pytest.mark.parametrize("name", ["ce_id", "ce_source", "ce_type", "ce_specversion"])
def test_a_missing_attribute_is_named(name: str) -> None:
    assert _refused(VALUE, _headers(**{name: None})).field == name


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ce_type": b"train.control"}, "ce_type"),
        ({"ce_specversion": b"0.3"}, "ce_specversion"),
        ({"ce_time": b"yesterday"}, "ce_time"),
        ({"ce_source": b"\xff\xfe"}, "ce_source"),
        ({"ce_project": b"another"}, "ce_project"),
    ],
)
def test_a_wrong_attribute_is_named(changes: dict[str, bytes], field: str) -> None:
    assert _refused(VALUE, _headers(**changes)).field == field


def test_a_message_that_is_no_cloud_event_is_told_what_to_be() -> None:
    error = _refused(VALUE, {"content-type": b"application/json"})
    assert error.field == "ce_type"
    assert "ce_* headers" in error.reason


@pytest.mark.parametrize(
    ("value", "field", "word"),
    [
        (None, "(body)", "empty"),
        (b"", "(body)", "JSON"),
        (b"\xc3\x28", "(body)", "UTF-8"),
        (b'{"project": "helpdesk"', "(body)", "JSON"),
        (b"[]", "(body)", "object"),
        (b'{"project": "helpdesk", "ticket_id": "T-1"}', "body", "missing"),
        (b'{"project": "helpdesk", "ticket_id": 1, "body": "b"}', "ticket_id", "text in quotes"),
        (b'{"project": "../x", "ticket_id": "T-1", "body": "b"}', "project", "does not match"),
    ],
)
def test_a_wrong_value_is_named(value: bytes | None, field: str, word: str) -> None:
    error = _refused(value, _headers())
    assert error.field == field
    assert word.lower() in error.reason.lower()


def test_types_are_taken_as_strictly_as_the_schema_takes_them() -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_data(TrainProgressed, b'{"project":"p","run_id":"r","step":"3"}')
    assert caught.value.field == "step"


# any content

SLUGS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)
)  # fmt: skip

for model in (TicketPublished, RecordIngested, DatasetRequested, RolloutJudged):
    model.model_rebuild()  # models are built at first use, and hypothesis reads the required fields before

EVENTS = st.one_of(
    st.builds(
        TicketPublished, project=SLUGS, ticket_id=NAMES, subject=TEXT, body=TEXT.filter(bool),
        customer=st.none() | NAMES, channel=st.none(), validated_by=st.none() | NAMES,
        answer=st.none() | TEXT | st.dictionaries(TEXT, st.none() | FLOATS | TEXT, max_size=4),
        validated_at=st.none() | TIMES, created_at=st.none() | TIMES,
        attributes=st.dictionaries(TEXT, TEXT, max_size=3),
    ),
    st.builds(
        RecordIngested, project=SLUGS, record_id=SLUGS, source_id=NAMES, source_event_id=TEXT, title=TEXT,
        input=TEXT, output=st.none() | TEXT, group=NAMES, validated_by=st.none() | NAMES,
        occurred_at=st.none() | TIMES, attributes=st.dictionaries(TEXT, TEXT, max_size=3),
    ),
    st.builds(DatasetRequested, project=SLUGS, request=NAMES),
    st.builds(
        RolloutJudged, project=SLUGS, model_id=SLUGS, generation=st.integers(0, 2**53),
        requests=st.integers(0, 2**53), candidate=st.dictionaries(TEXT, FLOATS, max_size=3),
        champion=st.dictionaries(TEXT, FLOATS, max_size=3), reasons=st.lists(TEXT, max_size=2).map(tuple),
    ),
)  # fmt: skip


@given(EVENTS, NAMES, TIMES)
def test_any_event_comes_back_as_it_went(data: Any, source: str, time: datetime) -> None:
    envelope = new_event(data, source=source, time=time)
    record = envelope.to_kafka()
    assert Envelope.from_kafka(type(data), record.value, record.headers) == envelope
    assert json.loads(record.value) == data.model_dump(mode="json")
