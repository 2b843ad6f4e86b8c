"""What a view makes of the records that it is given; following a real log is an integration test."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError
from structlog.testing import capture_logs
from tunewheel_contracts import topics
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.kafka_refusals import NotAllowed
from tunewheel_runtime.log import LogUnreadable, Place, Span
from tunewheel_runtime.newer_releases import LONGEST_NAME, MOST_FIELDS, NewerReleases
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.view import Begins, LogReader


def record(topic: TopicSpec, value: bytes | None, key: bytes = b"desk") -> Undecoded:
    headers = new_event(control(), source="/test").to_kafka().headers
    return Undecoded(Position(topic.name, 0, 7), key, value, headers, logged_ms=0)


def control() -> TrainControl:
    return TrainControl(project="desk", run_id="run-1", action=TrainAction.PAUSE, request="one")


class Told:
    """A reader of all topics that has read nothing yet, and all that it tells."""

    def __init__(self, begins: Begins | None = None) -> None:
        self.applied: list[Envelope[Any]] = []
        self.forgotten: list[tuple[TopicSpec, str]] = []
        self.warned: list[tuple[str, str | None]] = []
        self.reader = LogReader(
            ServiceSettings(),
            topics.TOPICS,
            lambda envelope, _: self.applied.append(envelope),
            failed=lambda error: None,
            forget=lambda topic, key: self.forgotten.append((topic, key)),
            warn=lambda name, text: self.warned.append((name, text)),
            begins=begins,
            newer=NewerReleases(lambda name, text: self.warned.append((name, text))),
        )

    def read(self, one: Undecoded) -> None:
        asyncio.run(self.reader._decode_and_apply(one))

    def begin(self, begins: dict[Place, int]) -> None:
        self.reader._warn_if_truncated(begins)


def test_a_tombstone_is_one_on_a_compacted_topic_alone() -> None:
    told = Told()
    told.read(record(topics.PROJECT_DECLARED, None))
    assert told.forgotten == [(topics.PROJECT_DECLARED, "desk")]
    with capture_logs() as logs:
        told.read(record(topics.TRAIN_CONTROL, None))
    assert (len(told.forgotten), told.applied) == (1, [])
    assert [(line["event"], line["offset"]) for line in logs] == [("view_skipped_record", 7)]


async def test_a_look_at_the_end_of_the_log_ends_while_no_broker_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    told = Told()
    monkeypatch.setattr("tunewheel_runtime.log.Cursor.look", lambda _: never())
    with pytest.raises(TransientError, match=r"cannot read .* to the end"):
        await told.reader.refresh(timeout_seconds=0.01)


@pytest.mark.parametrize("reads", ["take_up_added", "fetch"])
async def test_a_view_that_may_no_longer_read_ends_by_the_name_of_the_right(
    monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    async def nothing(_: object) -> list[Any]:
        return []

    causes = [TopicAuthorizationFailedError({"eval.passed"})]  # asked once

    async def refused(_: object) -> None:
        raise LogUnreadable("cannot read") from causes.pop()

    for name in ("take_up_added", "fetch"):
        monkeypatch.setattr(f"tunewheel_runtime.log.Cursor.{name}", refused if name == reads else nothing)
    with pytest.raises(NotAllowed, match=r"does not let this client use topic eval\.passed: grant"):
        await Told().reader._follow()


def test_a_log_that_lost_its_beginning_is_told_where_it_was_to_be_kept_for_ever() -> None:
    told = Told()
    told.begin({
        ("model.promoted", 0): 12,
        ("model.registered", 0): 0,
        ("inference.completed", 2): 9_000,
        ("project.declared", 0): 4,
    })  # fmt: skip
    ((name, text),) = told.warned
    assert name == "truncated model.promoted[0]"
    assert "begins at offset 12: earlier events were deleted from the log" in (text or "")


async def test_a_reader_begins_where_it_is_told() -> None:
    partitions = [("record.ingested", n) for n in range(3)]
    rest, whole = ("eval.passed", 0), ("document.withdrawn", 0)
    wanted: dict[str, dict[str, int] | None] = {"record.ingested": {"0": 5, "1": 11}, "eval.passed": None}

    async def begins() -> dict[str, dict[str, int] | None]:
        return wanted

    told = Told(begins)
    told.reader._cursor.spans = {TopicPartition(*place): Span(2, 10) for place in (*partitions, rest, whole)}
    starts = await told.reader._starts()
    assert starts == {partitions[0]: 5, partitions[1]: 11, partitions[2]: 2, rest: 10, whole: 2}


def declared(**tomorrow: Any) -> Undecoded:
    """Return the record of a project whose spec has fields of tomorrow."""
    spec = {
        "project": "desk", "base_model": "models/base", "task": {"system_prompt": "Answer."},
        "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
    }  # fmt: skip
    sent = new_event(
        ProjectDeclared.model_validate({"project": "desk", "spec": spec}), source="/tunewheel/cli"
    )
    record = sent.to_kafka()
    body = json.loads(record.value)
    body["spec"] |= tomorrow
    return Undecoded(Position(record.topic, 0, 8), record.key, json.dumps(body).encode(), record.headers, 0)


def test_a_project_with_fields_of_tomorrow_stays_declared_with_one_warning_and_log_line_each() -> None:
    told = Told()
    criteria = [{"metric": "rouge_l", "minimum": 0.1, "over_best": 0}]
    with capture_logs() as logs:
        for _ in range(3):
            told.read(declared(cells={"x": 1}, criteria=criteria))
    assert [event.data.spec.criteria[0].minimum for event in told.applied] == [0.1] * 3
    assert [line["field"] for line in logs] == ["spec.criteria.over_best", "spec.cells"]
    assert len(told.warned) == 2


def test_a_skipped_record_of_a_compacted_topic_warns_until_its_key_is_read_again() -> None:
    told = Told()
    told.read(declared(criteria="none"))
    (name, text), *_ = told.warned
    assert "desk" in (text or "")
    told.read(record(topics.TRAIN_CONTROL, b"{"))
    assert len(told.warned) == 1, "a topic that keeps all events has lost nothing else"
    told.read(declared())
    assert told.warned[1:] == [(name, None)]


def test_names_that_a_stranger_makes_up_are_bounded_in_number_and_length() -> None:
    told = Told()
    told.read(declared(**{f"{n}{'x' * 10_000}": 1 for n in range(300)}))
    assert len(told.applied) == 1
    assert 0 < len(told.warned) <= MOST_FIELDS
    assert all(len(name) < 2 * LONGEST_NAME for name, _ in told.warned)
