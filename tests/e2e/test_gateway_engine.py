"""The gateway in front of the real engine, in both of its protocols, asked by the official client.

The engine has a tiny random model. What SmolLM2 says through engine and gateway is held by ``test_loop``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import adapter_of
from tunewheel_testing.engine_process import EngineProcess, tiny_adapter, tiny_base
from tunewheel_testing.specs import declared
from tunewheel_testing.waiting import PATIENCE_SECONDS, until

from ..integration.bus import Bus, running
from ..integration.test_gateway import answered_by, client_of, desired, gateway

pytestmark = pytest.mark.e2e

ASKED: Any = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: Any = {"messages": ASKED, "temperature": 0, "max_tokens": 16}


KEY = "k-gateway"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EngineProcess]:
    """An engine that knows one caller alone, the gateway by its ``KEY``."""
    roles = ["application", "viewer", "operator"]
    key = {"sha256": hashlib.sha256(KEY.encode()).hexdigest(), "roles": roles}
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"keys": {"gateway": key}}))
    secured = {"TUNEWHEEL_IDENTITY": "required", "TUNEWHEEL_API_KEYS_FILE": str(keys)}
    base = tiny_base(folder, context=2048)
    made = EngineProcess(base, adapters=folder / "adapters", log=folder / "engine.log", **secured)
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def adapter(engine: EngineProcess, folder: Path, project: str) -> AdapterRef:
    store = ObjectStore((folder / "store").as_uri())
    return await tiny_adapter(store, engine.base, f"{project}-adapter", seed=7)


def in_front_of(engine: EngineProcess, folder: Path, kafka: str, **settings: Any) -> Service:
    return gateway(kafka, folder, engine.url, engine_api_key=KEY, **settings)


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


@pytest.mark.nightly("matrices")
async def test_both_protocols_give_the_same_words(
    module_kafka: str, project: str, engine: EngineProcess, folder: Path, adapter: AdapterRef
):
    await engine.answers()
    words: dict[str, dict[str, str]] = {}
    async with Bus(module_kafka) as bus:
        await bus.publish(declared(project), desired(project, 1, (adapter, 100), base=engine.base))
        for protocol in ("openai", "tgi"):
            settings = {"engine_protocol": protocol, "confidence_share": 1.0}
            service = in_front_of(engine, folder, module_kafka, **settings)
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
        sure: list[float] = []

        def all_are_logged(event: Envelope[InferenceCompleted]) -> bool:
            logged.add(event.data.output if event.project == project else "")
            if event.data.output == words["openai"]["tuned"] and event.data.confidence is not None:
                sure.append(event.data.confidence.total)
            return logged >= set(words["openai"].values()) and len(sure) >= 4

        await bus.collect(topics.INFERENCE_COMPLETED, 1, where=all_are_logged)
        assert sure == pytest.approx([sure[0]] * len(sure), abs=1e-3)
        assert sure[0] < 0


@pytest.fixture
async def whole(engine: EngineProcess, folder: Path, project: str) -> AdapterRef:
    """A fully trained model: the base with every attention's output turned round."""
    import torch
    from tunewheel_basemodel.loading import load_base
    from tunewheel_basemodel.locate import locate_base_model

    base = locate_base_model(engine.base.name, cache_dir=folder)
    model, tokenizer = load_base(base, dtype="float32", device="cpu")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.neg_()
    model.save_pretrained(folder / "whole")
    tokenizer.save_pretrained(folder / "whole")
    name, store = f"{project}-whole", ObjectStore((folder / "store").as_uri())
    files = await store.put_directory(f"adapters/{name}", folder / "whole")
    return adapter_of(name, files=files, base=engine.base, method=TrainMethod.FULL)


@pytest.mark.nightly("matrices")
async def test_a_fully_trained_model_comes_and_goes_as_an_adapter_does(
    module_kafka: str,
    project: str,
    engine: EngineProcess,
    folder: Path,
    adapter: AdapterRef,
    whole: AdapterRef,
):
    await engine.answers()
    async with Bus(module_kafka) as bus:
        await bus.publish(declared(project), desired(project, 1, (whole, 100), base=engine.base))
        service = in_front_of(engine, folder, module_kafka)
        async with running(service), client_of(service) as client:
            await answered_by(client, project, whole.model_id)
            assert await said(client, project) != await said(client, f"{project}/base")
            await bus.publish(desired(project, 2, (adapter, 100), base=engine.base))
            await answered_by(client, project, adapter.model_id)
            listed = f"{engine.url}/v1/models"
            async with httpx.AsyncClient(
                headers={"authorization": f"Bearer {KEY}"}, timeout=PATIENCE_SECONDS
            ) as http:

                async def is_gone() -> bool:
                    return whole.model_id not in (await http.get(listed)).text

                await until(is_gone)
