"""The gateway between a real broker and an engine's wire protocol."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.formats.confidence import Certainty
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_local.kafka.ports import free_port
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing import engine
from tunewheel_testing.adapters import SMOLLM2, bundle_of
from tunewheel_testing.engine import FakeEngine
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, Bus, running, until
from .test_monitor import monitor
from .verdicts import stored_adapter

pytestmark = pytest.mark.integration

HELLO: Any = [{"role": "user", "content": "hello there"}]


def gateway(kafka: str, tmp_path: Path, engine_url: str, **settings: Any) -> Service:
    from tunewheel_serve_gateway.main import make_app
    from tunewheel_serve_gateway.settings import Settings

    return make_app(
        Settings(
            bootstrap_servers=kafka,
            store_url=(tmp_path / "store").as_uri(),
            cache_dir=tmp_path,
            engine_url=engine_url,
            # The stub shares this process: hundreds of requests at once let it accept none for seconds.
            engine_connect_seconds=60,
            **settings,
        )
    )


def desired(
    project: str, generation: int, *shares: tuple[AdapterRef, int], base: BaseModelRef = SMOLLM2
) -> Envelope[ServingDesired]:
    roles = (RouteRole.PRODUCTION, RouteRole.CANARY)
    routes = tuple(
        Route(model_id=adapter.model_id, role=role, percent=percent, adapter=adapter)
        for role, (adapter, percent) in zip(roles, shares, strict=False)
    )
    data = ServingDesired(
        project=project,
        generation=generation,
        base=base,
        system_prompt="Answer as JSON.",
        desired=DesiredRoutes(routes=routes),
    )
    return new_event(data, source="/test")


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"http://127.0.0.1:{service.doors.http_port}/v1"
    # No connection is kept: the gateway would close it just when the test asks again.
    http = openai.DefaultAsyncHttpxClient(limits=httpx.Limits(max_keepalive_connections=0))
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http) as client:
        yield client


async def who_answers(client: openai.AsyncOpenAI, project: str) -> str | None:
    try:
        return (await client.chat.completions.create(model=project, messages=HELLO, max_tokens=1)).model
    except openai.APIStatusError:
        return None


async def answered_by(client: openai.AsyncOpenAI, project: str, model_id: str) -> None:
    """Wait until ``model_id`` answers for ``project``."""
    await until(lambda: _is(who_answers(client, project), model_id))


async def _is(answer: Awaitable[str | None], model_id: str) -> bool:
    return await answer == model_id


async def test_the_log_decides_who_answers_and_learns_what_was_said(kafka: str, tmp_path: Path, project: str):
    store = ObjectStore((tmp_path / "store").as_uri())
    first, second = await stored_adapter(store, project, 1), await stored_adapter(store, project, 2)
    stub = FakeEngine(SMOLLM2.name)
    async with stub.serving() as engine, Bus(kafka) as bus:
        await bus.publish(declared(project), desired(project, 1, (first, 100)))
        async with running(gateway(kafka, tmp_path, engine)) as service, client_of(service) as client:
            await answered_by(client, project, first.model_id)
            answer = await client.chat.completions.create(model=project, messages=HELLO)
            (event,) = await bus.collect(
                topics.INFERENCE_COMPLETED, 1, where=lambda e: e.data.completion_id == answer.id
            )
            assert event.data.output == answer.choices[0].message.content
            assert event.data.model_id == first.model_id
            await bus.publish(desired(project, 2, (second, 100)))
            await answered_by(client, project, second.model_id)
            await until(lambda: set(stub.adapters) == {second.model_id})
            names = {model.id async for model in client.models.list()}
            assert {project, f"{project}/base", second.model_id, SMOLLM2.name} <= names


async def test_every_completion_is_on_the_log_after_a_clean_stop(kafka: str, tmp_path: Path, project: str):
    async with FakeEngine(SMOLLM2.name).serving() as engine, Bus(kafka) as bus:
        await bus.publish(declared(project))
        async with running(gateway(kafka, tmp_path, engine)) as service, client_of(service) as client:
            await answered_by(client, project, SMOLLM2.name)
            asked = [client.chat.completions.create(model=project, messages=HELLO) for _ in range(200)]
            ids = {answer.id for answer in await asyncio.gather(*asked)}
        # The log may have one twice: of a batch that the broker acknowledged too late.
        missing = ids.copy()

        def is_missing(event: Envelope[Any]) -> bool:
            was = len(missing)
            missing.discard(event.data.completion_id)
            return len(missing) < was

        await bus.collect(topics.INFERENCE_COMPLETED, len(ids), where=is_missing)
        assert not missing


async def rated(service: Service, completion_id: str, **body: Any) -> tuple[int, dict[str, Any]]:
    """Say at this gateway that an answer was bad."""
    url = f"http://127.0.0.1:{service.doors.http_port}/v1/feedback"
    said = {"completion_id": completion_id, "rating": "down", **body}
    async with aiohttp.ClientSession() as session, session.post(url, json=said) as response:
        return response.status, await response.json()


async def test_feedback_for_an_answer_of_any_gateway_is_on_the_log_before_it_is_accepted(
    kafka: str, tmp_path: Path, project: str
):
    secret = {"completion_secret": "shared by gateways"}
    async with FakeEngine(SMOLLM2.name).serving() as engine, Bus(kafka) as bus:
        await bus.publish(declared(project))
        first = gateway(kafka, tmp_path, engine, work_dir=tmp_path / "first", **secret)
        second = gateway(kafka, tmp_path, engine, work_dir=tmp_path / "second", **secret)
        async with running(second):
            async with running(first), client_of(first) as client:
                await answered_by(client, project, SMOLLM2.name)
                answers = [
                    await client.chat.completions.create(model=project, messages=HELLO) for _ in range(3)
                ]
                for service, answer in zip((first, second), answers, strict=False):
                    assert (await rated(service, answer.id, correction={"category": "bell"}))[0] == 202
            # The third is rated once the gateway that answered is gone.
            status, accepted = await rated(second, answers[2].id, correction={"category": "bell"})
            assert status == 202, accepted
            invented = answers[2].id[:-1] + ("1" if answers[2].id.endswith("0") else "0")
            assert (await rated(second, invented, project=project))[0] == 404
        events = await bus.collect(topics.FEEDBACK_RECEIVED, 3, where=lambda e: e.project == project)
    said = {event.data.completion_id: event for event in events}
    for answer in answers:
        event = said[answer.id]
        assert event.data.output == answer.choices[0].message.content
        assert event.data.messages[-1].content == HELLO[0]["content"]
        assert (event.data.model_id, event.data.correction) == (SMOLLM2.name, {"category": "bell"})


async def test_a_stop_changes_the_route_though_the_engine_stands_still(
    kafka: str, tmp_path: Path, project: str
):
    """What the registry says after ``tunewheel model stop`` counts at once. No call to the engine ever ends
    by a time-out here: the route would wait for ever, were it behind one."""
    store = ObjectStore((tmp_path / "store").as_uri())
    first, second = await stored_adapter(store, project, 1), await stored_adapter(store, project, 2)
    port = free_port()
    command = [sys.executable, "-m", "tunewheel_testing.engine", str(port), SMOLLM2.name]
    stub = await asyncio.to_thread(subprocess.Popen, command, cwd=Path(engine.__file__).parents[1])
    patient = {"engine_control_seconds": 3600, "engine_timeout_seconds": 3600}
    try:
        async with Bus(kafka) as bus:
            await bus.publish(declared(project), desired(project, 1, (first, 80), (second, 20)))
            service = gateway(kafka, tmp_path, f"http://127.0.0.1:{port}", **patient)
            async with running(service), client_of(service) as client:
                await answered_by(client, project, second.model_id)
                os.kill(stub.pid, signal.SIGSTOP)
                shares = ([(first, 60), (second, 40)], [(first, 100)], [])
                for generation, share in enumerate(shares, start=2):
                    await bus.publish(desired(project, generation, *share))
                    wanted = [(adapter.model_id, percent) for adapter, percent in share]
                    await until_routed(service, project, wanted or [(SMOLLM2.name, 100)])
                os.kill(stub.pid, signal.SIGCONT)
                await answered_by(client, project, SMOLLM2.name)
    finally:
        stub.kill()
        stub.wait(30)


@pytest.mark.nightly("kills")
async def test_a_gateway_that_starts_while_kafka_is_away_answers_and_takes_up_what_comes_later(
    broker_factory: Any, tmp_path: Path, project: str
):
    """Away is a broker that answers nobody, then one that was killed."""
    broker = await asyncio.to_thread(broker_factory)
    kafka, store = broker.bootstrap_servers, ObjectStore((tmp_path / "store").as_uri())
    models = [await stored_adapter(store, project, number) for number in (1, 2, 3)]
    snapshot = tmp_path / "work" / "serve-gateway" / "snapshot.jsonl"

    async def is_kept(model_id: str) -> None:
        await until(lambda: snapshot.exists() and model_id in snapshot.read_text())

    def signalled(number: int) -> Callable[[], None]:
        return lambda: os.killpg(broker.process.pid, number)

    ways = [(signalled(signal.SIGSTOP), signalled(signal.SIGCONT)), (broker.kill, broker.start)]
    # The bus is from before the outages: what is answered meanwhile may be published before anything else.
    async with FakeEngine(SMOLLM2.name).serving() as engine, Bus(kafka) as bus:
        await bus.publish(declared(project), desired(project, 1, (models[0], 100)))
        async with running(gateway(kafka, tmp_path, engine)):
            await is_kept(models[0].model_id)
        for generation, (goes, comes_back) in enumerate(ways, start=2):
            before, after = models[generation - 2 : generation]
            await asyncio.to_thread(goes)
            async with running(gateway(kafka, tmp_path, engine)) as service, client_of(service) as client:
                await answered_by(client, project, before.model_id)
                answer = await client.chat.completions.create(model=project, messages=HELLO)
                assert "Kafka has not answered since the start" in str(service.health.state()["warnings"])
                await asyncio.to_thread(comes_back)
                await bus.publish(desired(project, generation, (after, 100)))
                await answered_by(client, project, after.model_id)
                await until(lambda state=service.health.state: "warnings" not in state())
                await bus.collect(
                    topics.INFERENCE_COMPLETED,
                    1,
                    where=lambda e, id=answer.id: e.data.completion_id == id,
                )
                await is_kept(after.model_id)


async def until_routed(service: Service, project: str, wanted: list[tuple[str, int]]) -> None:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{service.doors.http_port}", timeout=PATIENCE_SECONDS
    ) as http:

        async def is_routed() -> bool:
            routes = (await http.get("/v1/status")).json()["projects"][project]["routes"]
            return [(route["model_id"], route["percent"]) for route in routes] == wanted

        await until(is_routed)


async def test_what_a_model_doubts_is_answered_by_the_endpoint_of_its_spec_or_asked_of_people(
    kafka: str, tmp_path: Path, project: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TUNEWHEEL_FALLBACK_KEY", "s3cret")
    adapter = await stored_adapter(ObjectStore((tmp_path / "store").as_uri()), project, 1)
    sure = Certainty(intercept=0.0, slope=1.0, least=0.99, label_field="said")
    event = desired(project, 1, (adapter, 100))
    (route,) = event.data.desired.routes
    judged = route.model_copy(update={"bundle": bundle_of(adapter.model_id, base=SMOLLM2, certainty=sure)})
    event = new_event(
        event.data.model_copy(update={"desired": DesiredRoutes(routes=(judged,))}), source="/test"
    )
    large = FakeEngine("large-1")
    large.api_key = "s3cret"
    settings = {"spec_hosts": "127.0.0.1=TUNEWHEEL_FALLBACK_KEY"}
    async with FakeEngine(SMOLLM2.name).serving() as engine, large.serving() as outside, Bus(kafka) as bus:
        endpoint = {"base_url": f"{outside}/v1", "model": "large-1", "api_key_env": "TUNEWHEEL_FALLBACK_KEY"}
        spec = {
            "task": {"system_prompt": "Answer.", "label_field": "said"},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
            "serving": {"abstain": {"risk": 0.05, "to": "endpoint", "endpoint": endpoint}},
        }
        await bus.publish(declared(project, **spec), event)
        store = tmp_path / "store"
        async with (
            running(gateway(kafka, tmp_path, engine, **settings)) as service,
            running(monitor(kafka, store)),
            client_of(service) as client,
        ):
            form: Any = {"response_format": {"type": "json_object"}}
            await answered_by(client, project, "large-1")
            known = await client.chat.completions.create(model=project, messages=HELLO, **form)
            assert (known.model, known.choices[0].message.refusal) == ("large-1", None)
            large.api_key = "another"
            asked: Any = [{"role": "user", "content": "who pays for this?"}]
            refused = await client.chat.completions.create(model=project, messages=asked, **form)
            assert (refused.model, refused.choices[0].message.content) == (adapter.model_id, None)
            (requested,) = await bus.collect(topics.LABELS_REQUESTED, 1, where=lambda e: e.project == project)
            assert requested.data.completion_ids == (refused.id,)
            withheld = await bus.collect(
                topics.INFERENCE_COMPLETED, 1, where=lambda e: e.data.answered_by == known.id
            )
            assert withheld[0].data.model_id == adapter.model_id
