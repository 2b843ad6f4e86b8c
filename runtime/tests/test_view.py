"""What a view makes of the records that it is given; following a real log is an integration test."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from structlog.testing import capture_logs
from tunewheel_contracts import topics
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.newer_releases import LONGEST_NAME, MOST_FIELDS, NewerReleases
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.view import LogReader


def record(topic: TopicSpec, value: bytes | None, key: bytes = b"desk") -> ConsumerRecord[bytes, bytes]:
    headers = new_event(control(), source="/test").to_kafka().headers
    return ConsumerRecord(topic.name, 0, 7, 0, 0, key, value, None, 0, 0, tuple(headers.items()))


def control() -> TrainControl:
    return TrainControl(project="desk", run_id="run-1", action=TrainAction.PAUSE, request="one")


class Told:
    """A reader of all topics that has read nothing yet, and all that it tells."""

    def __init__(self) -> None:
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
            newer=NewerReleases(lambda name, text: self.warned.append((name, text))),
        )

    def read(self, one: ConsumerRecord[bytes, bytes]) -> None:
        asyncio.run(self.reader._decode_and_apply(one))  # pyright: ignore[reportPrivateUsage]

    def begin(self, begins: dict[TopicPartition, int]) -> None:
        self.reader._warn_if_truncated(begins)  # pyright: ignore[reportPrivateUsage]


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
    monkeypatch.setattr(told.reader, "_consumer", object())  # it was connected once
    monkeypatch.setattr("tunewheel_runtime.partitions.LogEnds.ask", lambda _: never())
    with pytest.raises(TransientError, match=r"cannot read .* to the end"):
        await told.reader.refresh(timeout_seconds=0.01)


def test_a_log_that_lost_its_beginning_is_told_where_it_was_to_be_kept_for_ever() -> None:
    told = Told()
    told.begin({
        TopicPartition("model.promoted", 0): 12,
        TopicPartition("model.registered", 0): 0,
        TopicPartition("inference.completed", 2): 9_000,
        TopicPartition("project.declared", 0): 4,
    })  # fmt: skip
    ((name, text),) = told.warned
    assert name == "truncated model.promoted[0]"
    assert "begins at offset 12: earlier events were deleted from the log" in (text or "")


class Partitions:
    """The ends of a log's partitions, and from where a consumer was told to read."""

    def __init__(self, ends: dict[TopicPartition, int]) -> None:
        self._ends = ends
        self.sought: dict[TopicPartition, int] = {}

    async def end_offsets(self, _: list[TopicPartition]) -> dict[TopicPartition, int]:
        return self._ends

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought[partition] = offset


async def test_a_reader_begins_where_it_is_told_unless_that_is_of_another_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records, rest = [TopicPartition("record.ingested", n) for n in range(4)], TopicPartition("eval.passed", 0)
    whole = TopicPartition("document.withdrawn", 0)
    begins = dict.fromkeys([*records, rest, whole], 2)
    told, log = Told(), Partitions(dict.fromkeys(begins, 10))
    monkeypatch.setattr(told.reader, "_applied", dict(begins))
    wanted = {"record.ingested": {"0": 5, "1": 11, "2": 1}, "eval.passed": None}
    await told.reader._skip_to(wanted, log)  # type: ignore[arg-type]
    assert log.sought == {records[0]: 5, rest: 10}
    assert told.reader.upto(topics.RECORD_INGESTED) == {"0": 5, "1": 2, "2": 2, "3": 2}
    assert told.reader.upto(topics.EVAL_PASSED) == {"0": 10}
    assert told.reader.upto(topics.DOCUMENT_WITHDRAWN) == {"0": 2}


def declared(**tomorrow: Any) -> ConsumerRecord[bytes, bytes]:
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
    headers = tuple(record.headers.items())
    return ConsumerRecord(
        record.topic, 0, 8, 0, 0, record.key, json.dumps(body).encode(), None, 0, 0, headers
    )


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
