"""Vectors over the wire, by OpenAI's Python client and by hand."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

TEXTS = ["Where is my order?", "Refunds take five days."]


@pytest.fixture
async def client(world: Any) -> Any:
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as made:
        yield made


async def test_the_official_client_gets_vectors_of_unit_length(client: Any):
    answer = await client.embeddings.create(model="desk", input=TEXTS)
    assert [one.index for one in answer.data] == [0, 1]
    vectors = np.array([one.embedding for one in answer.data])
    assert vectors.shape == (2, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 4
    again = await client.embeddings.create(model="desk", input=TEXTS[1], encoding_format="float")
    assert again.model == answer.model
    assert np.array(again.data[0].embedding) == pytest.approx(vectors[1], abs=1e-6)


async def test_base64_holds_little_endian_floats(world: Any):
    asked = {"model": "desk", "input": "hello", "encoding_format": "base64"}
    async with world.session.post(f"{world.url}/v1/embeddings", json=asked) as response:
        told = await response.json()
    packed = np.frombuffer(base64.b64decode(told["data"][0]["embedding"]), dtype="<f4")
    asked["encoding_format"] = "float"
    async with world.session.post(f"{world.url}/v1/embeddings", json=asked) as response:
        plain = await response.json()
    assert packed.tolist() == pytest.approx(plain["data"][0]["embedding"])
    assert told["object"] == "list"


@pytest.mark.parametrize(
    ("wrong", "param", "code"),
    [
        ({"dimensions": 8}, "dimensions", "unsupported_parameter"),
        ({"input": [1, 2, 3]}, "input[0]", "invalid_type"),
        ({"input": [[1, 2]]}, "input[0]", "invalid_type"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["fine", ""]}, "input[1]", "invalid_value"),
        ({"input": ["x"] * 2049}, "input", "invalid_value"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"encoding_format": "int8"}, "encoding_format", "unsupported_value"),
        ({"instructions": "be kind"}, "instructions", "unknown_parameter"),
        ({"model": ""}, "model", "invalid_value"),
    ],
)
async def test_an_error_names_the_invalid_field(world: Any, wrong: dict[str, Any], param: str, code: str):
    asked = {"model": "desk", "input": "hello"} | wrong
    async with world.session.post(f"{world.url}/v1/embeddings", json=asked) as response:
        error = (await response.json())["error"]
    assert (response.status, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"input": "hello"}'])
async def test_a_body_that_is_no_request_is_refused(world: Any, body: bytes):
    async with world.session.post(f"{world.url}/v1/embeddings", data=body) as response:
        assert response.status == 400


async def test_the_project_of_another_caller_is_unknown(make_world: Any, tmp_path: Path):
    keys = {"app": {"sha256": hashlib.sha256(b"k-app").hexdigest(), "projects": ["desk"]}}
    (tmp_path / "keys.yaml").write_text(json.dumps({"keys": keys}))
    world = await make_world(identity="required", api_keys_file=tmp_path / "keys.yaml")
    world.declare("desk")
    world.declare("other")
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="k-app", max_retries=0) as client:
        assert (await client.embeddings.create(model="desk", input="hello")).data
        for name in ("other", "nobody", "desk/base"):
            with pytest.raises(openai.NotFoundError, match="name a project"):
                await client.embeddings.create(model=name, input="hello")


async def test_embeddings_are_charged_for_their_tokens(make_world: Any):
    world = await make_world(limit_tokens_per_minute=100)
    world.gateway.admission.clock = lambda: 1_000_000.0
    world.declare("desk")
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
        raw = await client.embeddings.with_raw_response.create(model="desk", input="hello there")
        used = raw.parse().usage.total_tokens
        with pytest.raises(openai.RateLimitError):
            await client.embeddings.create(model="desk", input="hello " * 100)
        left = await client.embeddings.with_raw_response.create(model="desk", input="hello there")
    reserved = 100 - int(left.headers["x-ratelimit-remaining-tokens"])
    assert used < int(raw.headers["x-ratelimit-limit-tokens"])
    assert reserved == used + 100 - int(raw.headers["x-ratelimit-remaining-tokens"])


async def test_an_endpoint_that_is_away_is_answered_503(make_world: Any):
    world = await make_world(spec_hosts="127.0.0.1")
    endpoint = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "any", "dimensions": 4}
    world.declare("desk", retrieval={"embedding": endpoint})
    asked = {"model": "desk", "input": "hello"}
    async with world.session.post(f"{world.url}/v1/embeddings", json=asked) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (503, "unavailable")
    assert response.headers["retry-after"]


async def test_an_endpoint_on_a_host_that_is_not_listed_is_not_asked(world: Any):
    endpoint = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "any", "dimensions": 4}
    world.declare("desk", retrieval={"embedding": endpoint})
    asked = {"model": "desk", "input": "hello"}
    async with world.session.post(f"{world.url}/v1/embeddings", json=asked) as response:
        error = (await response.json())["error"]
    assert response.status == 503
    assert "TUNEWHEEL_SPEC_HOSTS" in error["message"]
