"""The binding is held to the CloudEvents SDK's, which writes and reads the same headers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary, to_structured
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import example, given
from hypothesis import strategies as st
from tunewheel_contracts.binding import CONTENT_TYPE, STRUCTURED, read_event, to_headers
from tunewheel_contracts.errors import InvalidEvent

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))])
TIMES = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=ZONES)
EXTENSIONS = st.dictionaries(
    st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True).filter(lambda name: name not in {"data", "time"}),
    WORDS,
    max_size=3,
)
MINIMUM = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/s", "ce_type": b"t"}


@given(WORDS, WORDS, WORDS, WORDS, TIMES, EXTENSIONS)
def test_headers_are_the_sdks_byte_for_byte_and_in_its_order(
    id: str, type: str, source: str, subject: str, time: datetime, extensions: dict[str, str]
) -> None:
    given = {"id": id, "type": type, "source": source, "subject": subject, "time": time}
    ours = to_headers(**given, extensions=extensions)
    sdk = CloudEvent({**given, "datacontenttype": CONTENT_TYPE, **extensions}, b"{}")
    theirs = to_binary(sdk, JSONFormat()).headers
    assert list(ours.items()) == list(theirs.items())


@given(st.dictionaries(st.from_regex(r"(?i)ce_[a-z0-9]{1,8}", fullmatch=True), WORDS, max_size=3))
@example({"ce_subject": "s", "CE_DATASCHEMA": "d", "ce_partitionkey": "k"})
@example({"ce_subject": ""})
@example({"ce_dataschema": ""})
@example({"ce_datacontenttype": ""})
@example({"ce_data": "x"})
@example({"ce_with-hyphen": "x"})
@example({"ce_": "x"})
@example({"ce_specversion": "0.3"})
def test_the_binding_accepts_and_refuses_the_same_messages_as_the_sdk(others: dict[str, str]) -> None:
    headers = MINIMUM | {name: text.encode() for name, text in others.items() if name.lower() != "ce_time"}
    message = KafkaMessage(headers=headers, key=None, value=b"")
    try:
        theirs = from_binary(message, JSONFormat(), CloudEvent).get_attributes()
    except CloudEventValidationError as refusal:
        offenders = tuple(refusal.errors)
    else:
        del theirs["time"]  # the SDK makes one up
        assert read_event(headers, b"")[0] == theirs
        return
    with pytest.raises(InvalidEvent) as caught:
        read_event(headers, b"")[0]
    assert caught.value.field.removeprefix("ce_") in offenders


@pytest.mark.parametrize("name", ["id", "type", "source", "subject"])
def test_an_empty_attribute_never_reaches_the_log(name: str) -> None:
    given = {"id": "1", "type": "t", "source": "/s", "subject": "x"} | {name: ""}
    with pytest.raises(ValueError, match=f"{name}=''"):
        to_headers(**given, time=datetime.now(UTC), extensions={})


def test_a_time_without_a_zone_never_reaches_the_log() -> None:
    with pytest.raises(ValueError, match="time="):
        to_headers(id="1", type="t", source="/s", subject="x", time=datetime(2026, 1, 1), extensions={})


@given(WORDS, WORDS, WORDS, WORDS, TIMES, EXTENSIONS)
def test_a_structured_event_of_the_sdk_reads_as_its_binary_one(
    id: str, type: str, source: str, subject: str, time: datetime, extensions: dict[str, str]
) -> None:
    given = {"id": id, "type": type, "source": source, "subject": subject, "time": time}
    sdk = CloudEvent({**given, "datacontenttype": CONTENT_TYPE, **extensions}, {"a": [1, id]})
    structured = to_structured(sdk, JSONFormat())
    attributes, data = read_event(structured.headers, structured.value)
    binary = to_headers(**given, extensions=extensions)
    assert attributes | {"time": ""} == read_event(binary, b"")[0] | {
        "datacontenttype": CONTENT_TYPE,
        "time": "",
    }
    assert datetime.fromisoformat(attributes["time"]) == time
    assert json.loads(data) == {"a": [1, id]}


EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1}}
KINDS = {"content-type": f"{STRUCTURED}; charset=UTF-8".encode()}


def test_a_structured_event_may_have_data_in_base64_and_attributes_that_are_no_text() -> None:
    event = {**EVENT, "data": None, "data_base64": "eyJhIjogMX0=", "sequence": 7, "subject": None}
    attributes, data = read_event(list(KINDS.items()), json.dumps(event).encode())
    assert (attributes["sequence"], "subject" in attributes, json.loads(data)) == ("7", False, {"a": 1})


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (b"[" * 100_000, "(body)"),
        (b"\xff", "(body)"),
        (b"[]", "specversion"),
        (b'{"data": {}}', "specversion"),
        (json.dumps(EVENT | {"id": ""}).encode(), "ce_id"),
        (json.dumps(EVENT | {"specversion": "0.3"}).encode(), "ce_specversion"),
        (json.dumps(EVENT | {"a-b": "x"}).encode(), "ce_a-b"),
        (json.dumps(EVENT | {"data_base64": "e"}).encode(), "data_base64"),
        (json.dumps(EVENT | {"id": "\ud800"}).encode(), "id"),
        (json.dumps(EVENT | {"correlationid": "x\udfff"}).encode(), "correlationid"),
        (json.dumps(EVENT | {"\ud800": "x"}).encode(), r"\ud800"),
        (json.dumps(EVENT | {"id": {"a": 1}}).encode(), "id"),
        (json.dumps(EVENT | {"id": float("nan")}).encode(), "id"),
    ],
)
def test_what_is_no_structured_event_is_refused_by_its_field(value: bytes, field: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        read_event(KINDS, value)
    assert caught.value.field == field


def test_a_header_of_the_binary_mode_leaves_no_room_for_a_structured_event() -> None:
    with pytest.raises(InvalidEvent, match="ce_specversion"):
        read_event(KINDS | {"ce_signature": b"x"}, json.dumps(EVENT).encode())
    with pytest.raises(InvalidEvent, match="is missing; send CloudEvents"):
        read_event({"content-type": b"application/json"}, json.dumps(EVENT).encode())
