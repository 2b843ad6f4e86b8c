"""A base model that does not exist, an adapter that is no safetensors: told clearly, and the rest goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from tunewheel_basemodel.tiny import write_tiny_model
from tunewheel_cli.endpoint import Endpoint
from tunewheel_cli.feed import EventFeed
from tunewheel_cli.launch import Wheel
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.serving import DesiredRoutes
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.store import ObjectStore

from ..chaos.small_loop import ENVIRONMENT, publish_file, served, spec_event
from ..integration.bus import Bus
from ..integration.wheels import key_of, turning

pytestmark = pytest.mark.e2e

SERVICES = ("engine", "ingest", "curate", "train", "eval", "registry", "gateway")
GHOST, SOUND = "ghost", "sound"
NOWHERE = "/nowhere/model"
PATIENCE_SECONDS = 900.0
PICKLE = b"\x80\x04\x95" + b"not safetensors " * 8
BAD_MODEL = f"{SOUND}-badbadbadbad"


@dataclass(frozen=True)
class Told:
    """What the wheel said of the missing base model and of the forged adapter."""

    failed: Any
    champion: str
    verdict: Any
    rejected: Any
    before: str
    after: str
    failure: dict[str, Any]
    engine_answer: tuple[int, str]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return asyncio.run(_tell(tmp_path_factory.mktemp("wheel")))


async def _tell(root: Path) -> Told:
    base_model = str(write_tiny_model(root / "tiny"))
    async with (
        turning(root, SERVICES, environment=ENVIRONMENT, base_model=base_model) as (wheel, feed),
        Bus(wheel.bootstrap_servers) as bus,
        openai.AsyncOpenAI(
            base_url=f"{wheel.url_of('gateway')}/v1", api_key=key_of(wheel), timeout=120
        ) as client,
    ):
        await bus.publish(spec_event(NOWHERE, project=GHOST), spec_event(base_model, project=SOUND))
        failed, desired = await _train_both(wheel, feed)
        champion = desired.data.desired.routes[0].model_id
        before = await _answered_by(client, champion)
        forged = await _forge(wheel, feed)
        await bus.publish(forged)
        verdict = await _first(feed, topics.EVAL_FAILED, "run_id", "run-bad")
        rejected = await _first(feed, topics.MODEL_PROMOTED, "model_id", BAD_MODEL)
        await bus.publish(_serving(desired, forged.data.adapter))
        return Told(
            failed=failed.data,
            champion=champion,
            verdict=verdict.data,
            rejected=rejected.data,
            before=before,
            failure=await _failure(wheel.endpoint("gateway")),
            after=await _ask(client),
            engine_answer=await _load_into_engine(wheel, root),
        )


async def _first(feed: EventFeed, topic: TopicSpec, field: str, value: str) -> Envelope[Any]:
    return await feed.first(topic, lambda e: getattr(e.data, field) == value, patience=PATIENCE_SECONDS)


async def _train_both(wheel: Wheel, feed: EventFeed) -> tuple[Envelope[Any], Envelope[Any]]:
    """Have the ghost's dataset fail before the sound one is there; returns the failure and what is served."""
    await publish_file(wheel.endpoint("ingest"), project=GHOST)
    failed = await feed.first(topics.TRAIN_FAILED, patience=PATIENCE_SECONDS)
    await publish_file(wheel.endpoint("ingest"), project=SOUND)
    return failed, await served(feed, project=SOUND)


async def _forge(wheel: Wheel, feed: EventFeed) -> Envelope[Any]:
    """A train.completed whose weights are no safetensors, in all else like the champion's."""
    store = ObjectStore(wheel.plan.var.store_url)
    completed = feed.by_topic[topics.TRAIN_COMPLETED.name][0].data
    files: list[ArtifactRef] = []
    for file in completed.adapter.files:
        name = Path(file.path).name
        content = PICKLE if name.endswith(".safetensors") else await store.get(file)
        files.append(await store.put(f"adapters/{BAD_MODEL}/{name}", content))
    adapter = completed.adapter.model_copy(
        update={"model_id": BAD_MODEL, "path": f"adapters/{BAD_MODEL}", "files": tuple(files)}
    )
    return new_event(completed.model_copy(update={"run_id": "run-bad", "adapter": adapter}), source="/test")


def _serving(desired: Envelope[Any], adapter: Any) -> Envelope[Any]:
    """A later desired state that asks for ``adapter`` all the same; the champion of before may stand in."""
    (route,) = desired.data.desired.routes
    routes = DesiredRoutes(routes=(route.model_copy(update={"model_id": BAD_MODEL, "adapter": adapter}),))
    later = {"generation": desired.data.generation + 100, "desired": routes, "stand_ins": (route,)}
    return new_event(desired.data.model_copy(update=later), source="/test")


async def _answered_by(client: openai.AsyncOpenAI, model_id: str) -> str:
    """Wait until ``model_id`` can be asked; returns who answers for the project."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while model_id not in {model.id async for model in client.models.list()}:
            await asyncio.sleep(0.1)  # nothing to wait for over HTTP
    return await _ask(client)


async def _ask(client: openai.AsyncOpenAI) -> str:
    messages: Any = [{"role": "user", "content": "bell or horn?"}]
    return (await client.chat.completions.create(model=SOUND, messages=messages, max_tokens=4)).model


async def _failure(gateway: Endpoint) -> dict[str, Any]:
    """Wait until the gateway has given its reason for not loading the bad adapter."""
    async with (
        aiohttp.ClientSession(headers=gateway.headers) as session,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        while True:
            async with session.get(f"{gateway.url}/v1/status") as answer:
                failures = (await answer.json())["failed_adapters"]
            if BAD_MODEL in failures:
                return failures[BAD_MODEL]
            await asyncio.sleep(0.1)


async def _load_into_engine(wheel: Wheel, root: Path) -> tuple[int, str]:
    """Ask the engine itself, past the gateway's own check."""
    folder = root / "cache" / "adapters" / "forced"
    folder.mkdir(parents=True)
    for file in (root / "store" / "adapters" / BAD_MODEL).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    body, engine = {"lora_name": "forced", "lora_path": str(folder)}, wheel.endpoint("engine")
    async with (
        aiohttp.ClientSession(headers=engine.headers) as session,
        session.post(f"{engine.url}/v1/load_lora_adapter", json=body) as answer,
    ):
        return answer.status, await answer.text()


def test_a_missing_base_model_is_named_and_the_next_dataset_trains(told: Told) -> None:
    assert (told.failed.project, told.failed.field) == (GHOST, "base_model")
    assert NOWHERE in told.failed.reason
    assert "give the path of a directory" in told.failed.reason
    assert told.champion.startswith(f"{SOUND}-")
    assert told.before == told.champion


def test_eval_refuses_an_adapter_that_is_not_safetensors(told: Told) -> None:
    assert told.verdict.field == "adapter"
    assert "safetensors" in told.verdict.reasons[0]
    assert told.rejected.to_stage.value == "rejected"


def test_gateway_says_why_it_does_not_load_it_and_the_champion_keeps_serving(told: Told) -> None:
    assert "is not safetensors" in told.failure["reason"]
    assert told.after == told.champion


def test_engine_refuses_it_by_name(told: Told) -> None:
    status, text = told.engine_answer
    assert status == 400
    assert "safetensors" in text
