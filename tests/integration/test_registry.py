"""The registry on a real broker: the way of a model, restarts, redeliveries, bad input."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import ModelCommanded
from tunewheel_contracts.topics import TopicSpec
from tunewheel_local.connection import InvalidOption
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import SMOLLM2
from tunewheel_testing.engine import FakeEngine
from tunewheel_testing.model_commands import Answer, command, desired_of, meant
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, Bus, running
from .test_gateway import answered_by, client_of, gateway
from .verdicts import adapter_of, judged, passed, rejected, stored_adapter, trained

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

    async def newer(self, before: Any, *models: str) -> Any:
        """Return the first desired state after ``before`` whose routes are ``models``."""

        def fits(event: Envelope[Any]) -> bool:
            routes = tuple(r.model_id for r in event.data.desired.routes)
            newer = event.data.generation > before.generation
            return event.project == self._project and newer and routes == models

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
            before = await state_of(service, project, first)
        async with running(registry(kafka, tmp_path)) as service:
            assert await state_of(service, project, first) == before
            desired = await told(service, f"/v1/projects/{project}/desired")
            assert desired["desired"]["routes"][0]["model_id"] == first
            await bus.publish(passed(project, 1), trained(project, 1))  # redelivered
            await bus.publish(passed(project, 2))
            await reader.desired(first, adapter_of(project, 2).model_id)
            assert await state_of(service, project, first) == before
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


async def test_a_persons_rejection_takes_a_candidate_out_of_traffic(kafka: str, tmp_path: Path, project: str):
    first, second = (adapter_of(project, n).model_id for n in (1, 2))
    async with Bus(kafka) as bus, running(registry(kafka, tmp_path)):
        reader = Reader(bus, project)
        await bus.publish(declared(project), passed(project, 1), passed(project, 2))
        canary = await reader.desired(first, second)
        await bus.publish(rejected(project, 2))
        after = await reader.newer(canary, first)
        assert after.desired.routes[0].percent == 100
        code, answer = await order(kafka, "promote", project, second, "--force")
        assert (code, answer["outcome"], answer["field"]) == (1, "refused", "model_id")


async def test_a_command_by_the_command_line_is_carried_out_or_refused_with_the_reason(
    kafka: str, tmp_path: Path, project: str
):
    first, second = (adapter_of(project, n).model_id for n in (1, 2))
    async with Bus(kafka) as bus:
        async with running(registry(kafka, tmp_path)):
            reader = Reader(bus, project)
            await bus.publish(declared(project), passed(project, 1), passed(project, 2))
            before = await reader.desired(first, second)
            code, answer = await order(kafka, "promote", project, "challenger")
            assert (code, answer["outcome"], answer["model_id"]) == (0, "done", second)
            promoted = await reader.newer(before, second)
            told = await asyncio.gather(
                *(
                    at_once(kafka, action, project, second, promoted.generation)
                    for action in ("rollback", "pin")
                )
            )
            assert sorted(answer.outcome for answer in told) == ["done", "refused"]
            assert [answer.refusal.field for answer in told if answer.refusal] == ["generation"]
            with pytest.raises(InvalidOption, match="no challenger"):
                await order(kafka, "retire", project, "challenger")
            code, answer = await order(kafka, "stop", project, "base")
            assert (code, answer["outcome"], answer["model_id"]) == (0, "done", "base")
            await bus.collect(
                topics.SERVING_DESIRED,
                1,
                where=lambda e: e.project == project and [r.adapter for r in e.data.desired.routes] == [None],
            )
            code, answer = await order(kafka, "unpin", project, "base")
            assert (code, answer["outcome"]) == (0, "done")
        code, answer = await order(kafka, "unpin", project, first, "--timeout", "0.1")
        assert (code, answer["outcome"]) == (6, "unanswered")


async def test_a_rollback_brings_the_champion_before_back_in_the_gateway(
    kafka: str, tmp_path: Path, project: str
):
    store = ObjectStore((tmp_path / "store").as_uri())
    first, second = [await stored_adapter(store, project, n) for n in (1, 2)]
    async with (
        FakeEngine(SMOLLM2.name).serving() as engine,
        Bus(kafka) as bus,
        running(registry(kafka, tmp_path)),
    ):
        reader = Reader(bus, project)
        await bus.publish(declared(project))
        async with running(gateway(kafka, tmp_path, engine)) as served, client_of(served) as client:
            await bus.publish(passed(project, 1, adapter=first))
            await answered_by(client, project, first.model_id)
            await bus.publish(passed(project, 2, adapter=second))
            canary = await reader.desired(first.model_id, second.model_id)
            await bus.publish(judged(project, 2, "canary", "passed"))
            promoted = await reader.newer(canary, second.model_id)
            await answered_by(client, project, second.model_id)
            answer = await at_once(kafka, "rollback", project, second.model_id, promoted.generation)
            assert answer.outcome == "done"
            restored = await reader.newer(promoted, first.model_id)
            assert restored.desired.routes[0].adapter == first
            await answered_by(client, project, first.model_id)


async def at_once(kafka: str, action: str, project: str, model: str, generation: int) -> Answer:
    data = ModelCommanded(
        project=project,
        model_id=model,
        action=action,
        reason="refunds",
        request=action,
        generation=generation,
    )
    event = new_event(data, source="/test")
    return await command({"bootstrap_servers": kafka}, event, timeout_seconds=PATIENCE_SECONDS)


async def order(kafka: str, action: str, project: str, model: str, *more: str) -> tuple[int, Any]:
    """Command as the console does; return what became of it: 0 done, 1 refused, 6 no answer."""
    options = {"bootstrap_servers": kafka}
    desired = None if action == "stop" else await desired_of(options, project)
    data = ModelCommanded(
        project=project, model_id=model if action == "stop" else meant(desired, model), action=action,
        reason="refunds", request=str(uuid.uuid4()), force="--force" in more,
        generation=desired.generation if desired else None,
    )  # fmt: skip
    seconds = 0.1 if "0.1" in more else PATIENCE_SECONDS
    answer = await command(options, new_event(data, source="/test"), timeout_seconds=seconds)
    return {"done": 0, "refused": 1, "unanswered": 6}[answer.outcome], answer.as_json()


async def state_of(service: Service, project: str, model_id: str) -> Any:
    models = await told(service, f"/v1/projects/{project}/models")
    return next(model for model in models if model["model_id"] == model_id)


async def told(service: Service, path: str) -> Any:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{service.doors.http_port}", timeout=PATIENCE_SECONDS
    ) as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()
