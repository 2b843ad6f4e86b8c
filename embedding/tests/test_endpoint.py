"""An endpoint as OpenAI's protocol has it, over real HTTP: what it answers, and what it must not answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from tunewheel_contracts.errors import TransientError
from tunewheel_embedding.endpoint import EndpointEmbedder
from tunewheel_embedding.errors import EmbeddingRefused

Answer = Callable[[list[str]], Any]


def vectors(texts: list[str]) -> list[dict[str, Any]]:
    return [{"index": at, "embedding": [float(len(text)), 0.0]} for at, text in enumerate(texts)]


@contextlib.asynccontextmanager
async def endpoint(
    answer: Answer = lambda texts: web.json_response({"data": vectors(texts)}), **options: Any
) -> AsyncIterator[tuple[EndpointEmbedder, list[Any]]]:
    """Serve ``answer``; yield an embedder that asks there, and what it asked."""
    asked: list[Any] = []

    async def embeddings(request: web.Request) -> web.StreamResponse:
        asked.append((request.headers.get("Authorization"), await request.json()))
        return answer(asked[-1][1]["input"])

    app = web.Application()
    app.router.add_post("/v1/embeddings", embeddings)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        async with aiohttp.ClientSession() as session:
            yield EndpointEmbedder(session, url, "some/model", **{"dimensions": 2} | options), asked
    finally:
        await runner.cleanup()


async def test_vectors_come_in_the_order_of_their_texts_with_length_one() -> None:
    def backwards(texts: list[str]) -> web.Response:
        return web.json_response({"data": vectors(texts)[::-1]})

    async with endpoint(backwards, api_key="secret") as (embedder, asked):
        found = await embedder.units(["one", "  ", "three"])
    np.testing.assert_allclose(found, [[1, 0], [0, 0], [1, 0]])
    ((authorization, body),) = asked
    assert authorization == "Bearer secret"
    assert body == {"model": "some/model", "input": ["one", "three"], "encoding_format": "float"}


async def test_many_texts_are_asked_for_in_parts() -> None:
    async with endpoint() as (embedder, asked):
        found = await embedder.units(["text"] * 300)
    assert [len(body["input"]) for _, body in asked] == [128, 128, 44]
    assert found.shape == (300, 2)


async def test_an_embedder_is_named_by_address_model_and_dimensions() -> None:
    async with aiohttp.ClientSession() as session:
        made = [
            EndpointEmbedder(session, url, model, dimensions=size).name
            for url, model, size in [
                ("http://a/v1", "m", 2), ("http://a/v1/", "m", 2),
                ("http://b/v1", "m", 2), ("http://a/v1", "n", 2), ("http://a/v1", "m", 3),
            ]
        ]  # fmt: skip
    assert made[0] == made[1]
    assert len(set(made)) == 4
    assert made[0].startswith("endpoint-")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: web.json_response({"error": "no such model"}, status=404), "404.*no such model"),
        (lambda _: web.Response(text="not JSON"), "no list of vectors"),
        (lambda _: web.json_response({"data": {}}), "0 vectors"),
        (lambda texts: web.json_response({"data": vectors(texts)[1:]}), "asked for 2 of 2 dimensions"),
        (lambda texts: web.json_response({"data": [{"index": 0, "embedding": [1.0]}] * 2}), "dimensions"),
        (lambda texts: web.Response(text='{"data": [{"index": 0, "embedding": [NaN, 1]},'
                                         '{"index": 1, "embedding": [1, 1]}]}'), "NaN"),
        (lambda _: web.Response(status=302, headers={"Location": "http://elsewhere.example/"}), "302"),
    ],
    ids=["404", "text", "object", "too few", "too short", "NaN", "redirect"],
)  # fmt: skip
async def test_what_is_not_what_was_asked_for_is_refused(answer: Answer, said: str) -> None:
    async with endpoint(answer) as (embedder, _):
        with pytest.raises(EmbeddingRefused, match=said):
            await embedder.units(["one", "two"])


@pytest.mark.parametrize(
    ("status", "may_be_one_text"), [(400, True), (413, True), (422, True), (401, False), (404, False)]
)
async def test_a_refusal_says_whether_another_text_might_be_embedded(
    status: int, may_be_one_text: bool
) -> None:
    async with endpoint(lambda _: web.Response(status=status)) as (embedder, _):
        with pytest.raises(EmbeddingRefused) as refused:
            await embedder.units(["one"])
    assert refused.value.may_be_one_text == may_be_one_text


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_is_away_for_now_may_be_asked_again(status: int) -> None:
    async with endpoint(lambda _: web.Response(status=status)) as (embedder, _):
        with pytest.raises(TransientError, match=str(status)):
            await embedder.units(["one"])


async def test_nobody_there_is_told() -> None:
    async with aiohttp.ClientSession() as session:
        embedder = EndpointEmbedder(session, "http://127.0.0.1:9/v1", "m", dimensions=2)
        with pytest.raises(TransientError, match="does not answer"):
            await embedder.units(["one"])
