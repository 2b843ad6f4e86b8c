"""Index versions on a real log, searched by a real gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import SMOLLM2
from tunewheel_testing.engine import FakeEngine
from tunewheel_testing.indexes import put_index, without_files
from tunewheel_testing.specs import declared, small_spec

from .bus import Bus, running
from .test_gateway import client_of, gateway

pytestmark = pytest.mark.integration

SOPS = {"returns.md": "# Refunds\n\nA refund takes five days.\n", "lockers.md": "# Lockers\n\nOpen at six.\n"}
QUESTION: Any = [{"role": "user", "content": "How long does a refund take?"}]


async def answered_from(client: openai.AsyncOpenAI, project: str, index_id: str) -> Mapping[str, str]:
    """Ask until an answer is made from version ``index_id``; return the answer's headers."""
    async with asyncio.timeout(300):
        while True:
            raw = await client.chat.completions.with_raw_response.create(model=project, messages=QUESTION)
            if raw.headers.get("x-tunewheel-index") == index_id:
                return raw.headers
            await asyncio.sleep(0.02)


async def test_the_newest_index_that_opens_is_in_the_answers(kafka: str, tmp_path: Path, project: str):
    store = ObjectStore((tmp_path / "store").as_uri())
    spec = small_spec(project, retrieval={"top_k": 1})
    assert spec.retrieval is not None

    async def version(documents: Mapping[str, str]) -> IndexVersioned:
        return await put_index(store, project, documents, spec.retrieval)

    first = await version(SOPS)
    async with FakeEngine(SMOLLM2.name).serving() as engine, Bus(kafka) as bus:
        await bus.publish(declared(project, retrieval={"top_k": 1}), new_event(first, source="/test"))
        async with running(gateway(kafka, tmp_path, engine)) as service, client_of(service) as client:
            told = await answered_from(client, project, first.index_id)
            (before,) = json.loads(told["x-tunewheel-sources"])
            assert before["document"] == "returns.md"
            second = await version(SOPS | {"returns.md": "# Refunds\n\nA refund takes nine days.\n"})
            await bus.publish(new_event(second, source="/test"))
            told = await answered_from(client, project, second.index_id)
            (after,) = json.loads(told["x-tunewheel-sources"])
            assert (after["document"], after["version"] != before["version"]) == ("returns.md", True)

            # What nobody can open, and what is deleted under the gateway, changes nothing.
            third = await version({"other.md": "# Other\n\nNothing of that.\n"})
            for gone in (second, third):
                await without_files(store, gone)
            await bus.publish(new_event(third, source="/test"))
            await until_refused(service, project, third.index_id)
            await answered_from(client, project, second.index_id)


async def until_refused(service: Any, project: str, index_id: str) -> None:
    url = f"http://127.0.0.1:{service.http_port}/v1/status"
    async with asyncio.timeout(300), aiohttp.ClientSession() as session:
        while True:
            async with session.get(url) as response:
                status = (await response.json())["projects"][project]["retrieval"]
            if status["waiting_for"] == index_id and status["reason"]:
                return
            await asyncio.sleep(0.02)
