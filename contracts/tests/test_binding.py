"""The binding is held to the CloudEvents SDK's, which writes and reads the same headers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import example, given
from hypothesis import strategies as st
from tunewheel_contracts.binding import CONTENT_TYPE, from_headers, to_headers
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
        assert from_headers(headers) == theirs
        return
    with pytest.raises(InvalidEvent) as caught:
        from_headers(headers)
    assert caught.value.field.removeprefix("ce_") in offenders


@pytest.mark.parametrize("name", ["id", "type", "source", "subject"])
def test_an_empty_attribute_never_reaches_the_log(name: str) -> None:
    given = {"id": "1", "type": "t", "source": "/s", "subject": "x"} | {name: ""}
    with pytest.raises(ValueError, match=f"{name}=''"):
        to_headers(**given, time=datetime.now(UTC), extensions={})


def test_a_time_without_a_zone_never_reaches_the_log() -> None:
    with pytest.raises(ValueError, match="time="):
        to_headers(id="1", type="t", source="/s", subject="x", time=datetime(2026, 1, 1), extensions={})
