"""Index versions on a real log, searched by a real gateway."""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest
from tunewheel_console.main import make_app as make_console
from tunewheel_console.settings import Settings as ConsoleSettings
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.topics import INFERENCE_COMPLETED
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


async def test_a_person_searches_and_tries_models_on_the_console(kafka: str, tmp_path: Path, project: str):
    store, spec = ObjectStore((tmp_path / "store").as_uri()), small_spec(project, retrieval={"top_k": 1})
    assert spec.retrieval is not None
    index = await put_index(store, project, SOPS, spec.retrieval)
    async with FakeEngine(SMOLLM2.name).serving() as engine, Bus(kafka) as bus:
        await bus.publish(declared(project, retrieval={"top_k": 1}), new_event(index, source="/test"))
        async with running(gateway(kafka, tmp_path, engine)) as service, client_of(service) as client:
            await answered_from(client, project, index.index_id)
            settings = ConsoleSettings(
                bootstrap_servers=kafka,
                store_url=store.url,
                cache_dir=tmp_path / "console",
                gateway_url=f"http://127.0.0.1:{service.doors.http_port}",
            )
            async with (
                running(make_console(settings)) as console,
                httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{console.doors.http_port}", timeout=None
                ) as http,
            ):
                asked = {"prompt": "A refund?"}
                listed = (await http.get(f"/v1/projects/{project}/documents")).json()
                assert [one["document_id"] for one in listed["items"]] == sorted(SOPS)
                page = await http.get(f"/projects/{project}/documents?question=How+long+does+a+refund+take")
                assert (page.status_code, "<mark>refund</mark>" in page.text) == (200, True)
                told = (await http.post(f"/v1/projects/{project}/playground", json=asked)).json()
                without, with_ = told["answers"]
                assert [one["who"] for one in told["answers"]] == ["base", "base"]
                assert (without["sources"], with_["sources"][0]["document"]) == ([], "returns.md")
                assert [one["document_id"] for one in told["found"]] == ["returns.md"]
                assert with_["completion_tokens"] > 0
                assert with_["format_valid"] is False, "the engine of this test writes no JSON"
                form = {"prompt": "A refund?", "models": ["base"], "candidate": "", "max_tokens": ""}
                answered = await http.post(f"/projects/{project}/playground", json=form)
                assert answered.status_code == 200
                assert without["text"] in html.unescape(answered.text)
                refused = await http.post(f"/projects/{project}/playground", json=form | {"max_tokens": "0"})
                assert (refused.status_code, "max_tokens" in refused.text) == (422, True)
                elsewhere = {"origin": "https://elsewhere.example"}
                forged = await http.post(f"/projects/{project}/playground", json=form, headers=elsewhere)
                assert forged.status_code == 403
        tried = await bus.collect(INFERENCE_COMPLETED, 3, where=lambda one: is_trial(one, project))
        assert all(one.data.pinned and one.data.customer is None for one in tried), "so nobody counts it"


def is_trial(event: Envelope[Any], project: str) -> bool:
    return event.project == project and event.data.messages[-1].content == "A refund?"


async def until_refused(service: Any, project: str, index_id: str) -> None:
    url = f"http://127.0.0.1:{service.doors.http_port}/v1/status"
    async with asyncio.timeout(300), aiohttp.ClientSession() as session:
        while True:
            async with session.get(url) as response:
                status = (await response.json())["projects"][project]["retrieval"]
            if status["waiting_for"] == index_id and status["reason"]:
                return
            await asyncio.sleep(0.02)
