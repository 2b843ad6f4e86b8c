"""The gateway in front of the real engine, in both of its protocols, asked by the official client.

The engine has a tiny random model. What SmolLM2 says through engine and gateway is held by ``test_loop``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel
from tunewheel_cli.kafka.ports import free_port
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore

from ..integration.bus import Bus, running
from ..integration.specs import declared
from ..integration.test_gateway import answered_by, client_of, desired, gateway, until_true
from ..integration.tiny_engine import tiny_adapter, tiny_base

pytestmark = pytest.mark.e2e

ASKED: Any = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: Any = {"messages": ASKED, "temperature": 0, "max_tokens": 16}


KEY = "k-gateway"


class Engine:
    """``tunewheel-engine`` as a process that can be killed and started again on its port. It knows one caller
    alone, the gateway by its ``KEY``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = tiny_base(folder, context=2048)
        self._keys = folder / "keys.json"
        roles = ["application", "viewer", "operator"]
        key = {"sha256": hashlib.sha256(KEY.encode()).hexdigest(), "roles": roles}
        self._keys.write_text(json.dumps({"keys": {"gateway": key}}))
        self.port = free_port()
        self.health_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return once it answers; one that runs already goes on."""
        if self._process is not None:
            return
        environment = os.environ | {
            "TUNEWHEEL_BASE_MODEL": self.base.name,
            "TUNEWHEEL_CACHE_DIR": str(self.folder),
            "TUNEWHEEL_ADAPTER_ROOTS": json.dumps([str(self.folder / "adapters")]),
            "TUNEWHEEL_IDENTITY": "required",
            "TUNEWHEEL_API_KEYS_FILE": str(self._keys),
            "TUNEWHEEL_HTTP_PORT": str(self.port),
            "TUNEWHEEL_HEALTH_PORT": str(self.health_port),
        }
        with (self.folder / "engine.log").open("ab") as log:
            command = [sys.executable, "-m", "tunewheel_engine.main"]
            self._process = await asyncio.to_thread(
                subprocess.Popen, command, env=environment, stdout=log, stderr=log
            )
        async with asyncio.timeout(300), httpx.AsyncClient() as client:
            while not await self._is_healthy(client):
                assert self._process.poll() is None, (self.folder / "engine.log").read_text()
                await asyncio.sleep(0.2)

    async def _is_healthy(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"http://127.0.0.1:{self.health_port}/health")).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("engine"))
    yield made
    made.kill()


@pytest.fixture
async def adapter(engine: Engine, project: str) -> AdapterRef:
    store = ObjectStore((engine.folder / "store").as_uri())
    return await tiny_adapter(store, engine.base, f"{project}-adapter", seed=7)


def in_front_of(engine: Engine, kafka: str, **settings: Any) -> Service:
    return gateway(kafka, engine.folder, engine.url, engine_api_key=KEY, **settings)


async def said(client: openai.AsyncOpenAI, model: str, **changes: Any) -> str:
    answer = await client.chat.completions.create(model=model, **(GREEDY | changes))
    return answer.choices[0].message.content or ""


async def streamed(client: openai.AsyncOpenAI, model: str) -> tuple[str, Any]:
    stream = await client.chat.completions.create(
        model=model, stream=True, stream_options={"include_usage": True}, **GREEDY
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return text, chunks[-1].usage


class Place(BaseModel):
    city: Literal["Paris", "Berlin"]


async def hold_to_a_form(client: openai.AsyncOpenAI, model: str) -> None:
    """Ask for what the engine alone can do: the gateway passes it on, and the client reads it."""
    asked: Any = {"model": model, "messages": ASKED, "temperature": 0, "max_tokens": 64}
    parsed = await client.chat.completions.parse(response_format=Place, **asked)
    assert isinstance(parsed.choices[0].message.parsed, Place)
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": Place.model_json_schema()}}
    one: Any = asked | {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    async with client.chat.completions.stream(**one) as stream:
        called = await stream.get_final_completion()
    (call,) = called.choices[0].message.tool_calls or []
    assert (call.function.name, called.choices[0].finish_reason) == ("look_up", "tool_calls")
    Place.model_validate_json(call.function.arguments)
    short: Any = asked | {"max_tokens": 2}
    several = await client.chat.completions.create(n=2, logprobs=True, top_logprobs=2, **short)
    assert [choice.index for choice in several.choices] == [0, 1]
    assert all(choice.logprobs and choice.logprobs.content for choice in several.choices)


async def test_both_protocols_give_the_same_words(
    module_kafka: str, project: str, engine: Engine, adapter: AdapterRef
):
    await engine.start()
    words: dict[str, dict[str, str]] = {}
    async with Bus(module_kafka) as bus:
        await bus.publish(declared(project), desired(project, 1, (adapter, 100), base=engine.base))
        for protocol in ("openai", "tgi"):
            service = in_front_of(engine, module_kafka, engine_protocol=protocol)
            async with running(service), client_of(service) as client:
                await answered_by(client, project, adapter.model_id)
                tuned, base = await said(client, project), await said(client, f"{project}/base")
                text, usage = await streamed(client, project)
                assert text == tuned
                assert usage.completion_tokens > 0
                cut = tuned[3:6]
                stopped = await said(client, project, stop=cut)
                assert stopped == tuned[: tuned.index(cut)]
                words[protocol] = {"tuned": tuned, "base": base}
                if protocol == "openai":
                    await hold_to_a_form(client, f"{project}/base")
        assert words["openai"] == words["tgi"]
        assert words["openai"]["tuned"] != words["openai"]["base"]
        logged: set[str] = set()

        def both_are_logged(event: Envelope[InferenceCompleted]) -> bool:
            logged.add(event.data.output if event.project == project else "")
            return logged >= set(words["openai"].values())

        await bus.collect(topics.INFERENCE_COMPLETED, 1, where=both_are_logged)


@pytest.fixture
async def whole(engine: Engine, project: str) -> AdapterRef:
    """A fully trained model: the base with every attention's output turned round."""
    import torch
    from tunewheel_basemodel.loading import load_base
    from tunewheel_basemodel.locate import locate_base_model

    base = locate_base_model(engine.base.name, cache_dir=engine.folder)
    model, tokenizer = load_base(base, dtype="float32", device="cpu")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.neg_()
    folder = engine.folder / "whole"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    name, store = f"{project}-whole", ObjectStore((engine.folder / "store").as_uri())
    files = await store.put_directory(f"adapters/{name}", folder)
    return AdapterRef(
        model_id=name, path=f"adapters/{name}", files=files, base=engine.base, method=TrainMethod.FULL
    )


async def test_a_fully_trained_model_comes_and_goes_as_an_adapter_does(
    module_kafka: str, project: str, engine: Engine, adapter: AdapterRef, whole: AdapterRef
):
    await engine.start()
    async with Bus(module_kafka) as bus:
        await bus.publish(declared(project), desired(project, 1, (whole, 100), base=engine.base))
        service = in_front_of(engine, module_kafka)
        async with running(service), client_of(service) as client:
            await answered_by(client, project, whole.model_id)
            assert await said(client, project) != await said(client, f"{project}/base")
            await bus.publish(desired(project, 2, (adapter, 100), base=engine.base))
            await answered_by(client, project, adapter.model_id)
            listed = f"{engine.url}/v1/models"
            async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as http:

                async def is_gone() -> bool:
                    return whole.model_id not in (await http.get(listed)).text

                await until_true(is_gone)
