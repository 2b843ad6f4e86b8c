"""The registry, killed with -9 between the events of one decision."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import ModelCommanded, ModelPromoted
from tunewheel_testing.specs import declared

from ..integration.bus import PATIENCE_SECONDS, Bus
from ..integration.verdicts import adapter_of, judged, passed, trained
from .dying_registry import serve

pytestmark = pytest.mark.chaos

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tunewheel_registry.main"])
"""Processes of the service, forked from one that has its libraries: each would take three seconds of a
processor to load them. The service itself is made in the fork."""


@contextmanager
def registry(kafka: str, tmp_path: Path, *, dies_after: int) -> Iterator[BaseProcess]:
    environment = {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
        "TUNEWHEEL_STORE_URL": (tmp_path / "store").as_uri(),
        "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",
    }
    process = PROCESSES.Process(target=serve, args=(environment, tmp_path / "registry.log", dies_after))
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join(PATIENCE_SECONDS)
        assert process.exitcode is not None


async def killed(process: BaseProcess) -> bool:
    """Wait until ``process`` has ended; return whether it killed itself."""
    await asyncio.to_thread(process.join, PATIENCE_SECONDS)
    return process.exitcode == -signal.SIGKILL


def trail(events: list[Envelope[ModelPromoted]]) -> list[tuple[str, str]]:
    return [(event.data.model_id, event.data.to_stage.value) for event in events]


@pytest.mark.parametrize("deaths", [(3,), pytest.param((3, 1, 2), marks=pytest.mark.nightly("kills"))])
async def test_whatever_is_cut_off_is_made_up_for_and_nothing_is_doubled(
    fresh_kafka: str, tmp_path: Path, project: str, deaths: tuple[int, ...]
):
    first, second = (adapter_of(project, n).model_id for n in (1, 2))
    async with Bus(fresh_kafka) as bus:
        await bus.publish(declared(project), trained(project, 1), passed(project, 1), passed(project, 2))
        for dies_after in deaths:
            with registry(fresh_kafka, tmp_path, dies_after=dies_after) as process:
                assert await killed(process)
        with registry(fresh_kafka, tmp_path, dies_after=-1):
            (desired,) = await bus.collect(
                topics.SERVING_DESIRED, 1, where=lambda e: len(e.data.desired.routes) == 2
            )
        registered = await bus.collect(topics.MODEL_REGISTERED, 3)
        promoted = await bus.collect(topics.MODEL_PROMOTED, 4)
    assert sorted(e.data.kind for e in registered) == ["adapter", "adapter", "base"]
    assert trail(promoted) == [
        (first, "evaluated"),
        (first, "production"),
        (second, "evaluated"),
        (second, "canary"),
    ]
    assert desired.data.generation == 7  # as many as there are events: none doubled, none missing
    assert [r.model_id for r in desired.data.desired.routes] == [first, second]


@pytest.mark.nightly("kills")
async def test_a_command_that_was_cut_off_after_each_of_its_events_is_carried_out_once(
    fresh_kafka: str, tmp_path: Path, project: str
):
    """A rejection of the champion: it is rolled back, its predecessor comes back, it is rejected."""
    first, second = (adapter_of(project, n).model_id for n in (1, 2))
    values = {"project": project, "model_id": second, "action": "reject", "reason": "refunds", "request": "1"}
    command = new_event(ModelCommanded.model_validate(values), source="/test")
    async with Bus(fresh_kafka) as bus:
        await bus.publish(declared(project), passed(project, 1), passed(project, 2))
        with registry(fresh_kafka, tmp_path, dies_after=-1):
            await bus.collect(topics.SERVING_DESIRED, 1, where=lambda e: len(e.data.desired.routes) == 2)
            await bus.publish(judged(project, 2, "canary", "passed"))
            await bus.collect(topics.MODEL_PROMOTED, 6)
        await bus.publish(command)
        for _ in range(3):
            with registry(fresh_kafka, tmp_path, dies_after=1) as process:
                assert await killed(process)
        with registry(fresh_kafka, tmp_path, dies_after=-1):
            (desired,) = await bus.collect(topics.SERVING_DESIRED, 1, where=lambda e: e.data.generation == 12)
        promoted = await bus.collect(topics.MODEL_PROMOTED, 8)
        rolled_back = await bus.collect(topics.MODEL_ROLLEDBACK, 1)
    assert trail(promoted)[6:] == [(first, "production"), (second, "rejected")]
    assert rolled_back[0].data.restored == first
    assert [route.model_id for route in desired.data.desired.routes] == [first]
