"""The monitor on a real broker: drift, rollouts, kill -9, bad input."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import ModelPromoted, ServingDesired, Stage
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.dataset import ChatMessage, DatasetCounts, DatasetManifest
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore

from .bus import PATIENCE_SECONDS, Bus, running
from .specs import declared, small_spec
from .verdicts import BASE, SHA, adapter_of

pytestmark = pytest.mark.integration

WINDOW = 20
GROUP = "monitor.inference-completed"
VALID = '{"category": "bell"}'
PARTS = ("bell", "horn", "lamp", "brake", "tyre", "lock")
TROUBLES = ("is broken", "came late", "fell off", "is missing", "makes noise")
BELLS = [f"{owner} {part} {what}" for owner in ("My", "Her", "The") for part in PARTS for what in TROUBLES]
KINDS = ("income", "inheritance", "property", "dividend", "payroll")
TAXES = [
    f"May I {verb} the {kind} tax of {year}?"
    for year in (1999, 2011)
    for verb in ("appeal", "postpone")
    for kind in KINDS
]
OVERRIDES = {
    "drift": {"window": WINDOW, "cooldown_completions": 0},
    "rollout": {"canary": {"min_requests": 10}},
}


def monitor(kafka: str, store: Path) -> Service:
    from tunewheel_monitor.main import make_app
    from tunewheel_monitor.settings import Settings

    return make_app(Settings(bootstrap_servers=kafka, store_url=store.as_uri()))


@dataclass
class Production:
    """One project with a model in production, and the traffic it sees."""

    bus: Bus
    project: str
    store: ObjectStore
    sent: int = 0

    @property
    def champion(self) -> str:
        return adapter_of(self.project, 1).model_id

    @property
    def candidate(self) -> str:
        return adapter_of(self.project, 2).model_id

    async def begin(self) -> None:
        dataset_id = f"ds-{self.project}"
        await self._store_dataset(dataset_id)
        await self.bus.publish(
            declared(self.project, **OVERRIDES), self._promotion(self.champion, Stage.PRODUCTION)
        )
        await self.serve((self.champion, RouteRole.PRODUCTION, 100), generation=1)

    async def _store_dataset(self, dataset_id: str) -> None:
        refs: list[Any] = []
        for split, texts in (("train", BELLS[:70]), ("holdout", BELLS[70:])):
            rows = [
                {"example_id": f"{split}-{n:03}", "messages": [{"role": "user", "content": text}]}
                for n, text in enumerate(texts)
            ]
            file = io.BytesIO()
            pl.DataFrame(rows).write_parquet(file)
            refs.append(await self.store.put(f"datasets/{dataset_id}/{split}.parquet", file.getvalue()))
        manifest = DatasetManifest(
            dataset_id=dataset_id,
            project=self.project,
            spec=small_spec(self.project),
            spec_sha256=SHA,
            criteria_sha256=SHA,
            rows_sha256=SHA,
            train=refs[0],
            holdout=refs[1],
            counts=DatasetCounts(records=90, examples=90, train=70, holdout=20),
            funnel=(),
        )
        await self.store.put(f"datasets/{dataset_id}/manifest.json", manifest.model_dump_json().encode())

    def _promotion(self, model_id: str, to_stage: Stage) -> Envelope[ModelPromoted]:
        data = ModelPromoted(
            project=self.project, model_id=model_id, from_stage=Stage.EVALUATED, to_stage=to_stage,
            cause="c", reason="r",
        )  # fmt: skip
        return new_event(data, source="/test")

    async def serve(self, *routes: tuple[str, RouteRole, int], generation: int) -> None:
        made = [
            Route(model_id=model, role=role, percent=percent, adapter=None, dataset_id=f"ds-{self.project}")
            for model, role, percent in routes
        ]
        data = ServingDesired(
            project=self.project,
            generation=generation,
            base=BASE,
            system_prompt="",
            desired=DesiredRoutes(routes=tuple(made)),
        )
        await self.bus.publish(new_event(data, source="/test"))

    async def begin_canary(self) -> None:
        await self.bus.publish(self._promotion(self.candidate, Stage.CANARY))
        await self.serve(
            (self.champion, RouteRole.PRODUCTION, 80), (self.candidate, RouteRole.CANARY, 20), generation=4
        )

    async def ask(self, texts: Sequence[str], **changes: Any) -> None:
        for text in texts:
            values: dict[str, Any] = {
                "project": self.project,
                "completion_id": f"{self.project}-{self.sent:05}",
                "model_id": self.champion,
                "role": RouteRole.PRODUCTION,
                "messages": (ChatMessage(role="user", content=text),),
                "output": VALID,
                "finish_reason": "stop",
                "completed_at": datetime.now(UTC) + timedelta(milliseconds=1),
            }
            self.sent += 1
            await self.bus.publish(new_event(InferenceCompleted(**(values | changes)), source="/test"))

    async def drifts(self, count: int) -> list[Envelope[Any]]:
        return await self.bus.collect(
            topics.DRIFT_DETECTED, count, where=lambda event: event.project == self.project
        )


async def test_drift_is_detected_and_bad_input_does_not_stop_it(kafka: str, tmp_path: Path, project: str):
    async with Bus(kafka) as bus:
        production = Production(bus, project, ObjectStore(tmp_path.as_uri()))
        await production.begin()
        async with running(monitor(kafka, tmp_path)):
            await production.ask(BELLS[::4][:WINDOW])
            await bus.send("inference.completed", b"x", b"{", {"ce_type": b"inference.completed"})
            await production.ask(TAXES[:WINDOW])
            (drift,) = await production.drifts(1)
            (letter,) = await bus.dead_letters("inference.completed", 1)
    assert drift.data.detector == "input"
    assert drift.data.dataset_id == f"ds-{project}"
    assert drift.data.window.completions == WINDOW
    assert any("tax" in example.excerpt for example in drift.data.examples)
    assert drift.causation_id
    assert letter.value == b"{"
    records = sorted((tmp_path / "monitor" / project).rglob("*.json"))
    assert [path.name for path in records] == ["00000001.json", "00000002.json"]


@pytest.mark.parametrize(("output", "verdict"), [(VALID, "passed"), ("no JSON", "failed")])
async def test_a_canary_is_judged_on_what_it_answered(
    kafka: str, tmp_path: Path, project: str, output: str, verdict: str
):
    async with Bus(kafka) as bus, running(monitor(kafka, tmp_path)):
        production = Production(bus, project, ObjectStore(tmp_path.as_uri()))
        await production.begin()
        await production.begin_canary()
        canary = {"model_id": production.candidate, "role": RouteRole.CANARY}
        await production.ask(BELLS[:5], **canary, pinned=True, output="no JSON")
        await production.ask(BELLS[:10])
        await production.ask(BELLS[:10], **canary, output=output)
        (judged,) = await bus.collect(topics.ROLLOUT_JUDGED, 1, where=lambda event: event.project == project)
    assert (judged.data.model_id, judged.data.stage) == (production.candidate, "canary")
    assert (judged.data.verdict, judged.data.requests, judged.data.generation) == (verdict, 10, 4)
    assert judged.data.reasons


@contextlib.contextmanager
def process(kafka: str, store: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
        "TUNEWHEEL_STORE_URL": store.as_uri(),
        "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",
    }
    with log.open("ab") as stream:
        started = subprocess.Popen(
            [sys.executable, "-m", "tunewheel_monitor.main"], env=environment, stdout=stream, stderr=stream
        )
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()
            started.wait(PATIENCE_SECONDS)


async def committed(kafka: str) -> int:
    """Return how many completions the monitor's group has committed."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=GROUP, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition("inference.completed", n) for n in range(3)]
        consumer.assign(partitions)
        return sum([await consumer.committed(partition) or 0 for partition in partitions])
    finally:
        await consumer.stop()


async def until_committed(kafka: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await committed(kafka) < count:
            await asyncio.sleep(0.1)


@pytest.mark.chaos
async def test_killed_in_the_middle_of_a_window_nothing_is_lost_or_said_twice(
    fresh_kafka: str, tmp_path: Path, project: str
):
    kafka = fresh_kafka
    log, store = tmp_path / "monitor.log", tmp_path / "store"
    async with Bus(kafka) as bus:
        production = Production(bus, project, ObjectStore(store.as_uri()))
        await production.begin()
        for upto in (7, 13, WINDOW):
            await production.ask(TAXES[production.sent : upto])
            with process(kafka, store, log) as started:
                await until_committed(kafka, upto)
                started.send_signal(signal.SIGKILL)
                started.wait(PATIENCE_SECONDS)
        (drift,) = await production.drifts(1)
        assert drift.data.window.completions == WINDOW
        # Drift of another kind, seen by a fifth process: were the first said again, it came before.
        await production.ask(TAXES[:WINDOW], output="no JSON")
        with process(kafka, store, log) as started:
            await until_committed(kafka, 2 * WINDOW)
            found = await production.drifts(2)
            assert started.poll() is None, log.read_text()
    assert found[0].id == drift.id
    assert [event.data.detector for event in found] == ["input", "format"], "the shift went on"
    starts = [event.data.window.first_completion_id for event in found]
    assert starts[0] < f"{project}-{WINDOW:05}" <= starts[1]
