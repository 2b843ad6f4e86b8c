"""What earlier versions wrote leads every later version to the same state, under the same names."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from tunewheel_contracts import topics
from tunewheel_runtime.partitions import all_partitions_of
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.tiny import write_tiny_model

from ..chaos.small_loop import ENVIRONMENT
from ..integration.wheels import turning
from .record import BASE, PROJECT
from .snapshot import Line, load_log, load_state, read_log, read_state, settled, unpack_store, write_log

pytestmark = pytest.mark.integration

SNAPSHOTS = sorted(path.parent for path in Path(__file__).parent.glob("*/log.jsonl.gz"))
SERVICES = ("ingest", "curate", "train", "eval", "registry", "monitor", "console")
REBUILT = ("records", "caches")
"""Folders of the store that curate makes of the log: they are left out, so that it has to."""
TURNS = {topics.TURN_COMPLETED.name, topics.TURN_COMPLETED_V2.name}
MAY_GROW = {topics.ERASURE_COMPLETED.name, topics.SERVING_DESIRED.name, *TURNS}
"""Topics on which a later version may say more of old events: more services prove what they erased, a desired
state is told again with what it did not say before, and turns that were over long ago are said to be."""
HANDLED = {
    topics.INFERENCE_COMPLETED: "monitor.inference-completed",
    topics.FEEDBACK_RECEIVED: "monitor.feedback-received",
}
"""Traffic that the monitor had taken in, by its groups' offsets: it judged it then, and does not again."""


def test_there_is_a_snapshot() -> None:
    assert SNAPSHOTS
    for folder in SNAPSHOTS:
        state = load_state(folder)
        assert len(load_log(folder)) > 300
        assert len(state["records"]) >= 60
        assert {model["stage"] for model in state["models"]} == {"registered", "retired", "production"}


@pytest.mark.parametrize("folder", SNAPSHOTS, ids=lambda path: path.name)
async def test_an_old_log_leads_to_the_same_state_under_the_same_names(
    folder: Path, fresh_kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await asyncio.to_thread(write_tiny_model, tmp_path / BASE)
    lines = load_log(folder)
    await write_log(fresh_kafka, lines)
    for topic, group in HANDLED.items():
        await commit_to_the_end(fresh_kafka, topic.name, group)
    store = tmp_path / "store"
    unpack_store(folder, store, without=REBUILT)
    # The log is from before events named who is behind them.
    environment = ENVIRONMENT | {"TUNEWHEEL_IDENTITY": "open", "TUNEWHEEL_ENCODED_PER_HOUR": "0"}
    async with turning(tmp_path, SERVICES, environment=environment, kafka=fresh_kafka) as (wheel, _):
        await settled(fresh_kafka)
        state = await read_state(Endpoint.of("registry", wheel.plan.var), store, PROJECT)
    assert told_of(load_state(folder), state) == load_state(folder)
    before, after = names(lines), names(await read_log(fresh_kafka))
    for topic in before.keys() | after.keys():
        assert before[topic] <= after[topic], topic
        assert topic in MAY_GROW or after[topic] <= before[topic], topic


async def commit_to_the_end(kafka: str, topic: str, group: str) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = await all_partitions_of({"bootstrap_servers": kafka}, [topic])
        consumer.assign(partitions)
        await consumer.commit(await consumer.end_offsets(partitions))
    finally:
        await consumer.stop()


def told_of(before: Any, after: Any) -> Any:
    """Return ``after`` without the fields that ``before`` does not have: a later version may add some."""
    if isinstance(before, dict) and isinstance(after, dict):
        return {name: told_of(before[name], after[name]) for name in before if name in after}
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [told_of(*pair) for pair in zip(before, after, strict=True)]
    return after


def names(lines: Iterable[Line]) -> defaultdict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        found[line.topic].add(line.name)
    return found
