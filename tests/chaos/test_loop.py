"""Every service of the loop killed with -9 in the middle of its work: the wheel ends where it would have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_local.launch import Wheel
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.feed import EventFeed
from tunewheel_testing.tiny import write_tiny_model

from ..integration.held import FOLDER as HELD_IN
from ..integration.held import held_service
from ..integration.wheels import turning
from .reaper import Reaper
from .small_loop import (
    CAUSED,
    COUNT,
    ENVIRONMENT,
    SERVICES,
    Traces,
    publish_file_again_and_again,
    traces,
    turn,
)

pytestmark = [pytest.mark.chaos, pytest.mark.nightly("kills")]

POINTS = {"curate": "building", "train": "training", "eval": "measuring"}
"""Where services wait to be killed."""


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def undisturbed(base_model: str, tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """A turn where nobody is killed."""

    async def run(root: Path) -> Traces:
        async with turning(root, SERVICES, environment=ENVIRONMENT) as (wheel, feed):
            return traces(wheel, feed, await turn(wheel, feed, base_model=base_model))

    return asyncio.run(run(tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture(scope="module")
def disturbed(base_model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Traces, Reaper]:
    """The same turn with one kill for each service."""

    async def run(root: Path) -> tuple[Traces, Reaper]:
        for name in ("scratch", "held"):
            (root / name).mkdir()
        environment = ENVIRONMENT | {"TMPDIR": str(root / "scratch"), HELD_IN: str(root / "held")}
        holds = {service: root / "held" / point for service, point in POINTS.items()}
        for hold in holds.values():
            hold.touch()
        commands = {service: held_service(f"tunewheel_{service}") for service in holds}
        async with turning(root, SERVICES, environment=environment, commands=commands) as (wheel, feed):
            reaper, half_sent = Reaper(wheel), asyncio.Event()

            async def publish(ingest: Endpoint) -> None:
                await publish_file_again_and_again(ingest, half_sent=half_sent)

            async with asyncio.TaskGroup() as tasks:
                for service, moment in moments(wheel, feed, half_sent).items():
                    tasks.create_task(reaper.kill(service, moment, hold=holds.get(service)))
                turned = tasks.create_task(turn(wheel, feed, base_model=base_model, publish=publish))
            return traces(wheel, feed, turned.result()), reaper

    return asyncio.run(run(tmp_path_factory.mktemp("disturbed")))


def moments(wheel: Wheel, feed: EventFeed, half_sent: asyncio.Event) -> dict[str, Any]:
    """When each service is in the middle of its work."""
    root = wheel.plan.var.root

    def mid_file() -> bool:
        return half_sent.is_set() and bool(feed.by_topic[topics.RECORD_INGESTED.name])

    def mid_build() -> bool:
        return any((root / "scratch").glob("tunewheel-curate-*/version/train.parquet"))

    def mid_epoch() -> bool:
        return feed.find(topics.TRAIN_PROGRESSED, lambda e: e.data.step > 30) is not None

    def mid_generation() -> bool:
        # Its first line is the header; it is held a little later.
        rows = list((wheel.plan.var.work / "eval").glob("*/candidate.jsonl"))
        return any(path.read_bytes().count(b"\n") > 1 for path in rows)

    def between_events() -> bool:
        return feed.find(topics.MODEL_REGISTERED, lambda e: e.data.kind == "adapter") is not None

    return {
        "ingest": mid_file,
        "curate": mid_build,
        "train": mid_epoch,
        "eval": mid_generation,
        "registry": between_events,
    }


def test_each_service_died_once(disturbed: tuple[Traces, Reaper]) -> None:
    _, reaper = disturbed
    assert sorted(reaper.killed) == sorted(SERVICES)
    assert reaper.killed[:3] == ["ingest", "curate", "train"]


def test_the_dataset_and_the_adapter_are_the_same(undisturbed: Traces, disturbed: tuple[Traces, Any]) -> None:
    traces, _ = disturbed
    assert traces.dataset_id == undisturbed.dataset_id
    assert traces.model_id == undisturbed.model_id
    assert traces.desired_id == undisturbed.desired_id
    assert traces.adapters == undisturbed.adapters == (traces.model_id,)


def test_training_resumed_and_ended_with_the_same_weights(
    undisturbed: Traces, disturbed: tuple[Traces, Any]
) -> None:
    traces, _ = disturbed
    assert undisturbed.resumed_from == (0,)
    fresh, resumed = traces.resumed_from
    assert fresh == 0
    assert resumed >= 20
    assert traces.weights_sha256 == undisturbed.weights_sha256


@pytest.mark.parametrize("topic", [topic.name for topic in CAUSED])
def test_no_event_is_lost_or_doubled(undisturbed: Traces, disturbed: tuple[Traces, Any], topic: str) -> None:
    traces, _ = disturbed
    assert traces.ids[topic]
    assert traces.ids[topic] == undisturbed.ids[topic]


def test_nothing_was_refused(undisturbed: Traces, disturbed: tuple[Traces, Any]) -> None:
    for left in (undisturbed, disturbed[0]):
        assert not any(left.refusals.values()), left.refusals


def test_a_record_that_came_twice_counts_once(undisturbed: Traces, disturbed: tuple[Traces, Any]) -> None:
    traces, _ = disturbed
    assert undisturbed.records == undisturbed.distinct_records == COUNT
    # The file was sent once and a half: what was taken of the first attempt came again, under equal ids.
    assert traces.deliveries[topics.TICKET_PUBLISHED.name] > COUNT
    assert traces.distinct_records == COUNT
