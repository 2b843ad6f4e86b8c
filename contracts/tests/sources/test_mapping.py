"""A project's own mapping, and the envelopes of messages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent, complaints
from tunewheel_contracts.formats.source_spec import FIELDS, SourceSpec
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.sources.envelopes import Message, opened, structured
from tunewheel_contracts.sources.mapping import PUBLISHED, Mapped, mapped

OWN: dict[str, Any] = {
    "name": "crm", "kind": "ticket", "each": "cases", "where": "state == 'closed'",
    "map": {"ticket_id": "no", "body": "text", "answer.category": "category", "attributes.region": "region"},
    "set": {"channel": "phone", "attributes.team": "north"},
}  # fmt: skip


def result(record: Any, **changed: Any) -> list[Mapped]:
    return [*mapped(SourceSpec.model_validate(OWN | changed), "helpdesk", Message(record), at_door)]


def complaint(**changed: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        SourceSpec.model_validate({**OWN, **changed})
    return complaints(caught.value)[0]


def test_records_are_taken_by_paths_constants_and_a_filter() -> None:
    closed = {"no": 7, "text": "Hello", "state": "closed", "category": "greeting", "region": None}
    one, left_out = result({"cases": [closed, {**closed, "state": "open"}]})
    assert one.event is not None
    assert one.event.model_dump(exclude_defaults=True) == {
        "project": "helpdesk", "ticket_id": "7", "body": "Hello", "channel": "phone",
        "answer": {"category": "greeting"}, "attributes": {"team": "north"},
    }  # fmt: skip
    assert (left_out.event, left_out.refusal) == (None, None)


def test_a_faulty_record_is_refused_without_the_others_and_says_where_it_was_read() -> None:
    closed = {"no": "7", "text": "Hello", "state": "closed"}
    faulty, right = result({"cases": [{**closed, "text": None}, closed]})
    assert faulty.refusal is not None
    assert faulty.refusal.field == "body"
    assert "text" in faulty.refusal.reason
    assert right.event is not None


@pytest.mark.parametrize("record", [{"other": []}, {"cases": None}])
def test_a_message_without_the_list_is_refused(record: Any) -> None:
    with pytest.raises(InvalidEvent, match="each"):
        result(record)


def test_a_reason_quotes_no_value_of_the_record() -> None:
    changed = OWN["map"] | {"subject": "join(', ', text)"}
    (refused,) = result({"cases": [{"no": "7", "text": "jane@acme.com", "state": "closed"}]}, map=changed)
    assert refused.refusal is not None
    assert refused.refusal.field == "subject"
    assert "jane" not in refused.refusal.reason


def test_the_fields_of_a_mapping_are_those_of_its_event() -> None:
    for kind, event in PUBLISHED.items():
        doors = {"project", "principal", "authority", "signature", "file"}
        assert FIELDS[kind] == event.model_fields.keys() - doors


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"map": {**OWN["map"], "ticket": "no"}}, "map.ticket"),
        ({"map": {"body": "text"}}, "map.ticket_id"),
        ({"set": {"group": "x"}}, "set.group"),
        ({"kind": None}, "kind"),
        ({"topic": "a", "webhook": "github"}, "webhook"),
        ({"format": "avro"}, "format"),
        ({"where": "state = 'closed'"}, "where"),
        ({"where": "lower(state)"}, "where"),
        ({"each": "[@,@,@] | [@,@,@] | [@,@,@] | [@,@,@] | [@,@,@]"}, "each"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused_where_it_is_declared(changed: Any, field: str) -> None:
    assert complaint(**changed)[0] == field


def test_a_built_in_mapping_is_refined_by_the_source_that_uses_it() -> None:
    spec = SourceSpec.model_validate(
        {
            "name": "z",
            "use": "zendesk",
            "where": "status == 'solved'",
            "map": {"subject": "id"},
            "set": {"channel": "z"},
        }
    )
    assert spec.mapping.where == "status == 'solved'"
    assert spec.mapping.map["subject"] == "id"
    assert "requester_id" in spec.mapping.map["customer"]


@pytest.mark.parametrize(
    "wrong",
    ["soon", {}, "2999-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00"],
)
def test_a_time_of_change_that_cannot_be_is_refused_by_its_field(wrong: Any) -> None:
    (one,) = result({"cases": [{"no": 7, "text": "Hi", "state": "closed", "at": wrong}]}, changed_at="at")
    assert one.refusal is not None
    assert one.refusal.field == "changed_at"


def test_a_deleted_record_is_withdrawn_by_its_id_alone() -> None:
    (one,) = mapped(SourceSpec.model_validate(OWN | {"each": None}), "p", Message({"no": 7}, True), at_door)
    assert one.event is not None
    assert one.event.model_dump(exclude_defaults=True) == {
        "project": "p", "document_id": "7", "kind": "ticket", "reason": "deleted in crm",
    }  # fmt: skip


# Envelopes


def row(op: str, **parts: Any) -> dict[str, Any]:
    return {"before": None, "after": None, "source": {"table": "tickets"}, "op": op, "ts_ms": 1, **parts}


def test_debezium_rows_are_read_with_and_without_their_schema() -> None:
    for op in ("c", "r", "u"):
        change = row(op, after={"id": 1})
        for value in (change, {"schema": {}, "payload": change}):
            assert opened("debezium", value) == Message({"id": 1})
    assert opened("debezium", {"id": 1, "__deleted": "false"}) == Message({"id": 1, "__deleted": "false"})


def test_debezium_deletes_and_tombstones_delete_the_row_of_their_key() -> None:
    key = {"schema": {}, "payload": {"id": 1}}
    assert opened("debezium", row("d", before={"id": 1, "text": "x"})) == Message(
        {"id": 1, "text": "x"}, True
    )
    assert opened("debezium", row("d"), key) == Message({"id": 1}, True)
    assert opened("debezium", None, key) == Message({"id": 1}, True)
    assert opened("debezium", {"id": 1, "__deleted": "true"}) == Message({"id": 1, "__deleted": "true"}, True)
    assert opened("json", None, "T-1") == Message({"key": "T-1"}, True)
    assert opened("json", None) is None


@pytest.mark.parametrize("value", [row("t"), row("x"), row("u"), [], "text", row("c", after=[])])
def test_other_changes_are_refused_and_messages_of_debezium_itself_are_left_out(value: Any) -> None:
    with pytest.raises(InvalidEvent):
        opened("debezium", value)
    assert opened("debezium", row("m")) is None


def test_cloud_events_are_one_whether_structured_or_binary() -> None:
    event = {"specversion": "1.0", "type": "case.closed", "id": "1", "source": "/crm"}
    headers = {f"ce_{name}": text.encode() for name, text in event.items()}
    whole = Message({**event, "data": {"no": 1}})
    assert opened("cloudevents", {**event, "data": {"no": 1}}) == whole
    assert opened("cloudevents", structured({"no": 1}, headers)) == whole
    encoded = base64.b64encode(json.dumps({"no": 1}).encode()).decode()
    found = opened("cloudevents", {**event, "data_base64": encoded})
    assert found is not None
    assert found.record["data"] == {"no": 1}
    for wrong in ({"data": {}}, {**event, "data_base64": "?"}, []):
        with pytest.raises(InvalidEvent):
            opened("cloudevents", wrong)
