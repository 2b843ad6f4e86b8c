"""Readers of the log and of the store leave out what a newer release wrote; doors refuse it."""

from __future__ import annotations

import copy
import enum
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, Event, UpstreamEvent, decode_data, new_event
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.upstream import ProjectDeclared, TicketPublished
from tunewheel_contracts.fields import Timestamp
from tunewheel_contracts.formats.catalog import FORMATS
from tunewheel_contracts.reading import CLOCK_SKEW, MORE, MOST_NAMED, Reading, at_door
from tunewheel_contracts.topics import BY_NAME, TOPICS

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS: dict[str, type[BaseModel]] = {name: spec.event for name, spec in BY_NAME.items()} | FORMATS
TOMORROW = "of_tomorrow"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
TICKET = TicketPublished(project="helpdesk", ticket_id="T-1", body="b")
SOURCES = ("/tunewheel/ingest", "zendesk", "/tunewheels")
UNREADABLE = {
    "adapter-ref method", "alarm.opened detector", "answers.compared preference",
    "chat-example messages.role", "comparisons.requested stage", "dataset.requested reason",
    "desired-routes routes.adapter.method", "desired-routes routes.role",
    "drift.detected detector", "eval.failed adapter.method",
    "eval.passed adapter.method", "eval.undecided adapter.method", "example.published messages.role",
    "feedback.received messages.role", "feedback.received rating", "inference.completed messages.role",
    "inference.completed role", "inference.scored of", "inference.scored role",
    "label-prompts items.messages.role", "model.promoted from_stage", "model.promoted to_stage",
    "model.registered kind", "model.rolledback from_stage", "negative prompt.role",
    "preference-pair prompt.role", "project-spec criteria.labels", "record.ingested history.role",
    "record.ingested kind",
    "record.judged verdict",
    "review-set items.messages.role", "review.requested adapter.method", "review.submitted verdict",
    "rollout.judged stage", "rollout.judged verdict", "run-manifest adapter.method",
    "serving.desired desired.routes.adapter.method", "serving.desired desired.routes.role",
    "sweep.progressed state", "sweep.requested method",
    "ticket.published thread.role", "train.completed adapter.method", "train.control action",
    "train.planned plan.method", "train.started method",
}  # fmt: skip
"""The values without which a record or artifact says nothing, or something else. It is skipped or becomes a
dead letter, and nothing is decided by it."""
Path_ = tuple[str | int, ...]


def _examples() -> Iterator[tuple[str, BaseModel, dict[str, Any]]]:
    for path in sorted(EXAMPLES.glob("*/valid/*.json")):
        read = decode_data(MODELS[path.parts[-3]], path.read_bytes())
        yield path.parts[-3], read, read.model_dump(mode="json")


@pytest.mark.parametrize("of_then", [[{"low": 0.0, "right": 0.5}], {"rows": 40, "intercept": 0.2}])
def test_a_field_that_was_once_given_in_another_form_is_left_out(of_then: Any):
    """``calibration`` was a list, then an object; ``calibration_curve`` took its place."""
    told = json.loads((EXAMPLES / "eval.passed" / "valid" / "first.json").read_bytes())
    read = decode_data(MODELS["eval.passed"], json.dumps(told).encode())
    for contestant in told["contestants"]:
        contestant.pop("calibration_curve", None)
        contestant["calibration"] = of_then
    before = decode_data(MODELS["eval.passed"], json.dumps(told).encode())
    curves = [one.calibration_curve for one in read.contestants]
    assert any(curves)
    none = [None] * len(curves)
    assert [one.calibration_curve for one in before.contestants] == none
    assert [one.calibration for one in before.contestants] == none
    assert before.checks == read.checks


def _objects(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, BaseModel]]:
    if isinstance(value, BaseModel):
        yield path, value
        for name in type(value).model_fields:
            yield from _objects(getattr(value, name), (*path, name))
    elif isinstance(value, tuple | list):
        for n, item in enumerate(value):
            yield from _objects(item, (*path, n))


def _at(body: Any, path: Path_) -> Any:
    for part in path:
        if isinstance(body, dict) and part not in body:
            return None  # Left out of the dump, as a default.
        body = body[part]
    return body


def _dotted(path: Path_) -> str:
    return ".".join(part for part in path if isinstance(part, str))


def _is_enumeration(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return True
    parts = () if get_origin(annotation) is Literal else get_args(annotation)
    return get_origin(annotation) is Literal or any(map(_is_enumeration, parts))


def _with_unknown_value(holder: dict[str, Any], name: str) -> None:
    value = holder[name]
    if isinstance(value, list):
        value.append(TOMORROW)
    elif isinstance(value, dict):
        number = next((one for one in value.values() if not isinstance(one, str)), None)
        value[TOMORROW] = TOMORROW if number is None else number
    else:
        holder[name] = TOMORROW


def _read(name: str, body: Any) -> tuple[BaseModel, Any]:
    """Return what a reader of the log or of the store makes of ``body``, and what was unknown."""
    model, text = MODELS[name], json.dumps(body).encode()
    if issubclass(model, Event):
        headers = new_event(decode_data(model, text), source="/tunewheel/tests").to_kafka().headers
        read = Envelope.from_kafka(model, text, headers, logged_ms=NOON_MS)
        return read.data, read.unknown
    reading = Reading()
    return decode_data(model, text, reading), reading.unknown


def test_a_reader_leaves_out_unknown_fields_at_every_level_and_a_door_refuses_them() -> None:
    is_closed: dict[str, bool] = {}
    for name, example, body in _examples():
        same = _read(name, body)[0]
        for path, model in _objects(example):
            newer, place = copy.deepcopy(body), _dotted((*path, TOMORROW))
            if f"{name} {place}" in is_closed or (holder := _at(newer, path)) is None:
                continue
            holder[TOMORROW] = {"x": [1]}
            read, unknown = _read(name, newer)
            assert (read, list(unknown)) == (same, [place])
            is_closed[f"{name} {place}"] = model.model_config["extra"] == "forbid"
            if is_closed[f"{name} {place}"]:
                with pytest.raises(InvalidEvent):
                    decode_data(MODELS[name], json.dumps(newer).encode(), at_door())
    assert len(is_closed) > 150
    assert sum(is_closed.values()) > 60


def test_a_reader_survives_unknown_values_of_every_enumeration_and_a_door_refuses_them() -> None:
    read, refused = set[str](), set[str]()
    for name, example, body in _examples():
        for path, model in _objects(example):
            for field, info in type(model).model_fields.items():
                newer, place = copy.deepcopy(body), f"{name} {_dotted((*path, field))}"
                holder = _at(newer, path)
                if place in read | refused or holder is None or field not in holder:
                    continue
                if not _is_enumeration(info.annotation):
                    continue
                _with_unknown_value(holder, field)
                with pytest.raises(InvalidEvent):
                    decode_data(MODELS[name], json.dumps(newer).encode(), at_door())
                try:
                    assert _read(name, newer)[1], place
                    read.add(place)
                except InvalidEvent:
                    refused.add(place)
    assert refused == UNREADABLE
    assert len(read) >= 40


def test_a_route_of_an_unknown_role_leaves_its_share_to_production() -> None:
    (body,) = [body for name, _, body in _examples() if name == "serving.desired"][:1]
    production, *_ = body["desired"]["routes"]
    body["desired"]["routes"] = [production | {"percent": 90}, production | {"percent": 10, "role": TOMORROW}]
    read, unknown = _read("serving.desired", body)
    assert isinstance(read, ServingDesired)
    assert [(one.role, one.percent) for one in read.desired.routes] == [("production", 100)]
    assert unknown


def test_a_candidate_never_gets_the_share_of_a_route_that_was_left_out() -> None:
    (body,) = [body for name, _, body in _examples() if name == "serving.desired"][:1]
    production, *_ = body["desired"]["routes"]
    canary = production | {"role": "canary", "percent": 10}
    newer = production | {"percent": 50, "role": TOMORROW}
    body["desired"]["routes"] = [canary, newer, production | {"percent": 40}]
    read = _read("serving.desired", body)[0]
    assert isinstance(read, ServingDesired)
    assert {one.role: one.percent for one in read.desired.routes} == {"canary": 10, "production": 90}
    unreadable = production | {"role": TOMORROW}
    for routes in (
        [unreadable | {"percent": 90}, canary],
        [unreadable],
        [unreadable, production | {"role": "shadow"}],
    ):
        body["desired"]["routes"] = routes
        with pytest.raises(InvalidEvent):
            _read("serving.desired", body)


def test_an_unknown_policy_logs_no_texts_and_an_unknown_outcome_counts_as_failed() -> None:
    bodies = {name: body for name, _, body in _examples()}
    declared = bodies["project.declared"]
    declared["spec"]["serving"] = {"log": TOMORROW}
    scored = bodies["inference.scored"] | {"outcome": TOMORROW}
    spec, score = _read("project.declared", declared)[0], _read("inference.scored", scored)[0]
    assert isinstance(spec, ProjectDeclared)
    assert isinstance(score, InferenceScored)
    assert (spec.spec.serving.log, score.outcome) == ("off", "failed")


def test_other_systems_topics_refuse_unknown_fields_unless_our_own_door_published_the_event() -> None:
    body = b'{"project":"helpdesk","ticket_id":"T-1","body":"b","of_tomorrow":1}'
    ours, *others = [new_event(TICKET, source=source).to_kafka().headers for source in SOURCES]
    assert Envelope.from_kafka(TicketPublished, body, ours, from_anybody=True).unknown == ("of_tomorrow",)
    for headers in others:
        with pytest.raises(InvalidEvent) as caught:
            Envelope.from_kafka(TicketPublished, body, headers, from_anybody=True)
        assert caught.value.field == "of_tomorrow"


def test_what_is_wrong_for_another_reason_stays_refused_and_names_the_field() -> None:
    body = b'{"project":"helpdesk","ticket_id":"T-1","body":"","of_tomorrow":1}'
    with pytest.raises(InvalidEvent) as caught:
        decode_data(TicketPublished, body)
    assert caught.value.field == "body"


MANY = {f"of_tomorrow_{n}": 1 for n in range(MOST_NAMED + 1)}


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (MANY, [*[*MANY][:MOST_NAMED], MORE]),
        ({"thread": [{"role": "user", "content": "c", TOMORROW: 1}] * 200}, ["thread.of_tomorrow"]),
    ],
)
def test_a_reader_names_each_unknown_field_once_and_only_so_many(
    more: dict[str, Any], names: list[str]
) -> None:
    reading = Reading()
    read = decode_data(TicketPublished, json.dumps(TICKET.model_dump(mode="json") | more).encode(), reading)
    assert read.body == TICKET.body
    assert reading.unknown == names


def test_a_list_that_is_too_long_stays_refused_where_its_entries_have_unknown_fields() -> None:
    body = TICKET.model_dump(mode="json")
    body["thread"] = [{"role": "user", "content": "c", TOMORROW: 1}] * 201
    with pytest.raises(InvalidEvent) as caught:
        decode_data(TicketPublished, json.dumps(body).encode())
    assert caught.value.field == "thread"


# dates


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _dates(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path of each date at any depth, and how its type is written."""
    for name, info in model.model_fields.items():
        if "datetime" in str(info.annotation):
            yield (*path, name), f"{info.annotation} {info.metadata}"
        for inner in _models(info.annotation):
            yield from _dates(inner, (*path, name))


CAPPED = [(spec.event, *date) for spec in TOPICS if spec.event.caps_dates for date in _dates(spec.event)]
LOGGED = [(event_class, path[0]) for event_class, path, _ in CAPPED if len(path) == 1]


def test_every_date_of_an_upstream_event_has_the_type_that_caps_it() -> None:
    assert {spec.event for spec in TOPICS if issubclass(spec.event, UpstreamEvent)} <= {
        spec.event for spec in TOPICS if spec.event.caps_dates
    }
    assert {event_class for event_class, _, _ in CAPPED} >= {RecordIngested, TicketPublished}
    assert len(CAPPED) >= 8
    assert [path for _, path, written in CAPPED if "_utc" not in written] == []


def test_a_date_within_a_list_is_capped_too() -> None:
    class Nested(TicketPublished):
        history: tuple[dict[str, Timestamp], ...] = ()

    body = {"project": "p", "ticket_id": "t", "body": "b", "history": [{"at": "9999-01-01T00:00:00Z"}]}
    assert decode_data(Nested, json.dumps(body).encode(), Reading(NOON)).history == ({"at": NOON},)


def _logged(event_class: type[Event], body: dict[str, Any]) -> Event:
    headers = new_event(decode_data(event_class, json.dumps(body).encode()), source="crm").to_kafka().headers
    return Envelope.from_kafka(event_class, json.dumps(body).encode(), headers, logged_ms=NOON_MS).data


@pytest.mark.parametrize(
    "date",
    ["9999-12-31T23:59:59Z", "2026-03-01T12:00:01Z", "2026-03-01T21:00:00", "2026-03-01T13:30:00+01:00"],
)
def test_no_date_of_an_upstream_event_is_later_than_its_time_on_the_log(date: str) -> None:
    examples = {name: body for name, _, body in _examples()}
    for event_class, name in LOGGED:
        said = _logged(event_class, examples[event_class.type] | {name: date})
        assert getattr(said, name) == NOON, (event_class, name)


def test_a_date_of_the_past_stays_and_a_capped_one_keeps_the_id() -> None:
    event = new_event(TICKET, source="crm")
    record = event.to_kafka()
    for date in (NOON, NOON - timedelta(days=900)):
        body = {**json.loads(record.value), "validated_at": date.isoformat()}
        assert _logged(TicketPublished, body) == TICKET.model_copy(update={"validated_at": date})
    late = json.dumps({**json.loads(record.value), "validated_at": "2099-01-01T00:00:00Z"}).encode()
    read = [Envelope.from_kafka(TicketPublished, late, record.headers, logged_ms=NOON_MS) for _ in range(2)]
    assert read[0] == read[1]
    assert read[0].id == event.id


def test_a_door_refuses_dates_more_than_five_minutes_ahead_and_says_how_to_write_them() -> None:
    for event_class, name in LOGGED:
        body = {n: b for n, _, b in _examples()}[event_class.type]
        for ahead in (CLOCK_SKEW + timedelta(minutes=1), timedelta(days=30)):
            for late in (datetime.now(UTC) + ahead, (datetime.now(UTC) + ahead).replace(tzinfo=None)):
                with pytest.raises(InvalidEvent) as caught:
                    decode_data(event_class, json.dumps(body | {name: late.isoformat()}).encode(), at_door())
                assert caught.value.field == name
                assert "offset" in caught.value.reason
        soon = body | {name: (datetime.now(UTC) + CLOCK_SKEW / 2).isoformat()}
        decode_data(event_class, json.dumps(soon).encode(), at_door())
