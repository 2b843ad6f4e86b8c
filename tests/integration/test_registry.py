"""The registry on a real broker: the way of a model, restarts, redeliveries, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.service import Service

from .bus import Bus, running
from .specs import declared
from .verdicts import adapter_of, judged, passed, trained

pytestmark = pytest.mark.integration


def registry(kafka: str, tmp_path: Path) -> Service:
    from tunewheel_registry.main import make_app
    from tunewheel_registry.settings import Settings

    return make_app(Settings(bootstrap_servers=kafka, store_url=(tmp_path / "store").as_uri()))


class Reader:
    """Reads one project's events off the bus."""

    def __init__(self, bus: Bus, project: str) -> None:
        self._bus, self._project = bus, project

    async def first(self, topic: TopicSpec, count: int) -> list[Any]:
        found = await self._bus.collect(topic, count, where=lambda e: e.project == self._project)
        return [event.data for event in found]

    async def desired(self, *models: str) -> Any:
        """Return the first desired state whose routes are ``models``, in order."""

        def fits(event: Envelope[Any]) -> bool:
            routes = event.data.desired.routes
            return event.project == self._project and tuple(r.model_id for r in routes) == models

        (event,) = await self._bus.collect(topics.SERVING_DESIRED, 1, where=fits)
        return event.data


async def test_a_model_goes_its_way_to_production(kafka: str, tmp_path: Path, project: str):
    first, second = (adapter_of(project, n).model_id for n in (1, 2))
    async with Bus(kafka) as bus, running(registry(kafka, tmp_path)):
        reader = Reader(bus, project)
        await bus.publish(declared(project), trained(project, 1), passed(project, 1))
        assert (await reader.desired(first)).system_prompt == "Answer as JSON."
        await bus.publish(trained(project, 2), passed(project, 2))
        canary = await reader.desired(first, second)
        assert [r.percent for r in canary.desired.routes] == [80, 20]
        await bus.publish(judged(project, 2, "canary", "passed"))
        assert (await reader.desired(second)).generation > canary.generation
        steps = await reader.first(topics.MODEL_PROMOTED, 5)
        assert [(s.model_id, s.to_stage.value) for s in steps] == [
            (first, "evaluated"),
            (first, "production"),
            (second, "evaluated"),
            (second, "canary"),
            (second, "production"),
        ]
        assert steps[-1].replaces == first
        (retired,) = (await reader.first(topics.MODEL_PROMOTED, 6))[5:]
        assert (retired.model_id, retired.to_stage.value) == (first, "retired")


async def test_a_failed_canary_is_rolled_back(kafka: str, tmp_path: Path, project: str):
    first, second = (adapter_of(project, n).model_id for n in (1, 2))
    async with Bus(kafka) as bus, running(registry(kafka, tmp_path)):
        reader = Reader(bus, project)
        await bus.publish(declared(project), passed(project, 1))
        await reader.desired(first)
        await bus.publish(passed(project, 2))
        canary = await reader.desired(first, second)
        await bus.publish(judged(project, 2, "canary", "failed"))
        (rolled_back,) = await reader.first(topics.MODEL_ROLLEDBACK, 1)
        assert (rolled_back.model_id, rolled_back.restored) == (second, first)
        states = await bus.collect(
            topics.SERVING_DESIRED,
            1,
            where=lambda e: e.project == project and e.data.generation > canary.generation,
        )
        assert [r.model_id for r in states[0].data.desired.routes] == [first]


async def test_a_new_process_knows_what_the_old_one_did_and_repeats_nothing(
    kafka: str, tmp_path: Path, project: str
):
    first = adapter_of(project, 1).model_id
    async with Bus(kafka) as bus:
        reader = Reader(bus, project)
        async with running(registry(kafka, tmp_path)) as service:
            await bus.publish(declared(project), trained(project, 1), passed(project, 1))
            await reader.desired(first)
            before = await told(service, f"/v1/models/{first}")
        async with running(registry(kafka, tmp_path)) as service:
            assert await told(service, f"/v1/models/{first}") == before
            desired = await told(service, f"/v1/projects/{project}/desired")
            assert desired["desired"]["routes"][0]["model_id"] == first
            await bus.publish(passed(project, 1), trained(project, 1))  # redelivered
            await bus.publish(passed(project, 2))
            await reader.desired(first, adapter_of(project, 2).model_id)
            assert await told(service, f"/v1/models/{first}") == before
        steps = await reader.first(topics.MODEL_PROMOTED, 4)
        assert len({(s.model_id, s.to_stage) for s in steps}) == 4


async def test_bad_input_is_a_dead_letter_and_the_rest_flows(kafka: str, tmp_path: Path, project: str):
    first = adapter_of(project, 1).model_id
    async with Bus(kafka) as bus, running(registry(kafka, tmp_path)):
        reader = Reader(bus, project)
        await bus.publish(passed(f"{project}-unknown", 1))
        await bus.send("eval.passed", b"x", b"{", {"ce_type": b"eval.passed"})
        letters = await bus.dead_letters("eval.passed", 2)
        assert letters[0].field == "project"
        assert "not declared" in letters[0].reason
        await bus.publish(declared(project), judged(project, 1, "canary", "passed"))
        (unknown,) = await bus.dead_letters("rollout.judged", 1, about=project)
        assert (unknown.field, "not registered" in unknown.reason) == ("model_id", True)
        await bus.publish(passed(project, 1))
        await reader.desired(first)


async def told(service: Service, path: str) -> Any:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}") as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()
