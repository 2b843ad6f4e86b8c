"""A base model that does not exist and an adapter that is no safetensors, given to a wheel that turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
from tunewheel_cli.endpoint import Endpoint
from tunewheel_cli.feed import EventFeed
from tunewheel_cli.launch import Wheel
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.serving import DesiredRoutes
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.store import ObjectStore

from ..integration.bus import Bus
from ..integration.wheels import key_of
from .small_loop import PATIENCE_SECONDS, PROJECT, publish_file, spec_event

GHOST = "ghost"
NOWHERE = "/nowhere/model"
PICKLE = b"\x80\x04\x95" + b"not safetensors " * 8
BAD_MODEL = f"{PROJECT}-badbadbadbad"


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


async def have_ghost_fail(wheel: Wheel, feed: EventFeed) -> Any:
    """Publish the tickets of a project whose base model does not exist; returns how its training failed."""
    async with Bus(wheel.bootstrap_servers) as bus:
        await bus.publish(spec_event(NOWHERE, project=GHOST))
    await publish_file(wheel.endpoint("ingest"), project=GHOST)
    return (await feed.first(topics.TRAIN_FAILED, patience=PATIENCE_SECONDS)).data


async def told_of(wheel: Wheel, feed: EventFeed, *, failed: Any, desired: Envelope[Any]) -> Told:
    """Forge an adapter beside the champion of ``desired``, and ask eval, gateway and engine what they say."""
    async with (
        Bus(wheel.bootstrap_servers) as bus,
        openai.AsyncOpenAI(
            base_url=f"{wheel.url_of('gateway')}/v1", api_key=key_of(wheel), timeout=120
        ) as client,
    ):
        champion = desired.data.desired.routes[0].model_id
        before = await _answered_by(client, champion)
        forged = await _forge(wheel, feed)
        await bus.publish(forged)
        verdict = await _first(feed, topics.EVAL_FAILED, "run_id", "run-bad")
        rejected = await _first(feed, topics.MODEL_PROMOTED, "model_id", BAD_MODEL)
        await bus.publish(_serving(desired, forged.data.adapter))
        return Told(
            failed=failed,
            champion=champion,
            verdict=verdict.data,
            rejected=rejected.data,
            before=before,
            failure=await _failure(wheel.endpoint("gateway")),
            after=await _ask(client),
            engine_answer=await _load_into_engine(wheel),
        )


async def _first(feed: EventFeed, topic: TopicSpec, field: str, value: str) -> Envelope[Any]:
    return await feed.first(topic, lambda e: getattr(e.data, field) == value, patience=PATIENCE_SECONDS)


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
    return (await client.chat.completions.create(model=PROJECT, messages=messages, max_tokens=4)).model


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


async def _load_into_engine(wheel: Wheel) -> tuple[int, str]:
    """Ask the engine itself, past the gateway's own check."""
    root = wheel.plan.var.root
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
