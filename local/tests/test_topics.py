"""Topics as the specs say, and how a cluster's differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from tunewheel_contracts.topics import (
    BY_NAME,
    DEAD_LETTER_OVERHEAD,
    ERASED_LETTERS,
    MAX_MESSAGE_BYTES,
    TOPICS,
)
from tunewheel_local.topics import (
    Difference,
    Topic,
    TopicRefused,
    TopicReport,
    compare,
    create_topics,
    read_configs,
    read_topics,
    settled,
    wanted_topics,
)


def test_every_spec_is_a_topic_with_a_dead_letter_where_somebody_consumes() -> None:
    wanted = {topic.name: topic for topic in wanted_topics()}
    assert set(BY_NAME) <= set(wanted)
    for spec in TOPICS:
        assert (spec.dead_letter in wanted) == spec.dead_letter_exists
        assert wanted[spec.name].partitions == spec.partitions
        assert wanted[spec.name].configs["cleanup.policy"] == spec.cleanup
        assert ("message.timestamp.type" in wanted[spec.name].configs) == spec.is_from_upstream
        assert ("segment.ms" in wanted[spec.name].configs) == (spec.deleted_by is not None)
    assert wanted["ticket.published"].configs["message.timestamp.type"] == "LogAppendTime"
    rolled = {name for name, topic in wanted.items() if "segment.ms" in topic.configs and name not in BY_NAME}
    assert rolled == set(ERASED_LETTERS), "records are deleted from these too"
    letters = wanted["ticket.published.dlq"]
    assert int(letters.configs["max.message.bytes"]) == MAX_MESSAGE_BYTES + DEAD_LETTER_OVERHEAD


def test_equal_topics_are_in_order() -> None:
    wanted = wanted_topics()
    assert compare(wanted, {topic.name: topic for topic in wanted}).in_order


def test_each_difference_is_told_and_foreign_settings_are_not() -> None:
    first, second, *_ = wanted_topics()
    actual = replace(
        first, partitions=first.partitions + 1, configs={**first.configs, "retention.ms": "5", "x": "y"}
    )
    report = compare([first, second], {first.name: actual})
    assert report.missing == (second.name,)
    assert [d.setting for d in report.differences] == ["partitions", "retention.ms"]
    assert not report.in_order


def test_partitions_can_grow_but_not_shrink() -> None:
    assert Difference("t", "partitions", wanted="3", actual="1").curable
    assert not Difference("t", "partitions", wanted="1", actual="3").curable
    assert Difference("t", "retention.ms", wanted="1", actual="3").curable


async def test_what_was_altered_is_compared_only_once_the_brokers_have_heard_of_it() -> None:
    """What nobody altered, such as partitions that cannot be taken away, is reported without waiting."""
    wanted = Topic("t", 1, {"retention.ms": "-1"})
    stale = replace(wanted, partitions=3, configs={"retention.ms": "5"})
    heard = replace(stale, configs={"retention.ms": "-1"})
    readings = iter([{}, {"t": stale}, {"t": stale}, {"t": heard}])

    async def read() -> Mapping[str, Topic]:
        return next(readings)

    altered = compare([wanted], {"t": stale}).differences[1:]
    assert [d.setting for d in altered] == ["retention.ms"]
    report = await settled(read, (wanted,), altered=altered)
    assert [d.setting for d in report.differences] == ["partitions"]
    assert next(readings, None) is None


@pytest.mark.parametrize("unknown", [["a"], ["b", "a"]])
async def test_a_topic_that_the_asked_broker_has_not_heard_of_yet_is_not_refused(unknown: list[str]) -> None:
    admin = Configs(dict.fromkeys(unknown, 3))
    assert await read_configs(admin, {"a": [], "b": [], "c": []}) == {
        name: {"retention.ms": "5"} for name in ("a", "b", "c") if name not in unknown
    }


async def test_a_topic_whose_settings_may_not_be_read_is_refused_beside_one_that_is_not_known() -> None:
    with pytest.raises(TopicRefused, match=r"^b: .*DescribeConfigs"):
        await read_configs(Configs({"a": 3, "b": 29}), {"a": [], "b": []})


@dataclass
class Configs:
    """Answers about topics' settings, with an error code for some of them."""

    codes: Mapping[str, int]

    async def describe_configs(self, resources: Sequence[Any]) -> list[Any]:
        answers = [
            (code, "", 2, one.name, [] if code else [("retention.ms", "5")])
            for one in resources
            for code in [self.codes.get(one.name, 0)]
        ]
        return [SimpleNamespace(resources=answers)]


def test_a_report_can_call_topics_as_the_cluster_does() -> None:
    report = TopicReport(("a",), ("b",), (Difference("c", "x", "1", "2"),), (Difference("d", "x", "1", "2"),))
    told = report.under("acme.")
    assert (told.missing, told.created) == (("acme.a",), ("acme.b",))
    assert str(told.altered[0]) == "acme.c: x is 2, the spec says 1"
    assert str(told.differences[0]) == "acme.d: x is 2, the spec says 1"


class Lagging:
    """A cluster whose brokers hear of a topic one after another. ``codes``: the answer to each creation."""

    def __init__(self, *, answers: int = 0, **codes: int) -> None:
        self.codes, self.answers = codes, answers

    async def describe_cluster(self) -> dict[str, Any]:
        return {"brokers": [1]}

    async def create_topics(self, new: Sequence[Any]) -> Any:
        return SimpleNamespace(topic_errors=[(one.name, self.codes[one.name], "") for one in new])

    async def describe_topics(self, _: None) -> list[dict[str, Any]]:
        return [{"topic": name, "partitions": [0]} for name in self.codes]

    async def describe_configs(self, resources: Sequence[Any]) -> list[Any]:
        self.answers -= 1
        codes = dict.fromkeys(self.codes, 0) | ({next(iter(self.codes)): 3} if self.answers >= 0 else {})
        return await Configs(codes).describe_configs(resources)


@pytest.mark.parametrize("codes", [{"a": 0, "b": 36}, {"a": 36, "b": 36}, {"a": 0, "b": 0}])
async def test_a_topic_that_existed_already_is_not_called_made(codes: dict[str, int]) -> None:
    made = await create_topics(Lagging(**codes), [Topic(name, 1, {}) for name in codes])
    assert made == tuple(name for name, code in codes.items() if code == 0)


@pytest.mark.parametrize("answers", [0, 1, 3])
async def test_a_topic_whose_settings_one_broker_does_not_know_yet_is_not_missing(answers: int) -> None:
    wanted = [Topic(name, 1, {"retention.ms": "5"}) for name in "ab"]
    assert compare(wanted, await read_topics(Lagging(answers=answers, a=0, b=0), wanted)).in_order
