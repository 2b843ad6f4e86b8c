"""An engine's wire protocol without a model: instant answers, adapters as names.

Run as a process (``python engine_stub.py PORT``) it is what benchmarks measure a gateway against.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from aiohttp import web

SILENT = "silent"
"""A message that begins so is never answered."""


class EngineStub:
    """Answers ``<model>: <last message>`` for every model it was told to load, and for any base."""

    def __init__(self, *, answers_anything: bool = False) -> None:
        self.adapters: dict[str, str] = {}
        self._answers_anything = answers_anything

    def app(self) -> web.Application:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        return app

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve on a free port; yields the URL."""
        runner = web.AppRunner(self.app(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [{"id": name, "parent": "base"} for name in self.adapters]}
        )

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        self.adapters.pop((await request.json())["lora_name"], None)
        return web.Response(text="Success")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        model = body["model"]
        if "/" not in model and model not in self.adapters and not self._answers_anything:
            return web.json_response({"error": {"message": f"no model {model}"}}, status=404)
        text = f"{model}: {body['messages'][-1]['content']}"
        if text.startswith(f"{model}: {SILENT}"):
            await asyncio.sleep(3_600)
        if body.get("stream"):
            return await self._stream(request, model, text)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        head = {"id": "stub", "object": "chat.completion", "created": 1, "model": model}
        answer = json.dumps({**head, "choices": [choice], "usage": usage(text)}).encode()
        if body.get("logprobs"):
            said = most_logprobs(body["max_tokens"], body.get("top_logprobs") or 0)
            answer = answer.replace(b'"logprobs": null', b'"logprobs": ' + said)
        return web.Response(body=answer, content_type="application/json")

    async def _stream(self, request: web.Request, model: str, text: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "stub", "object": "chat.completion.chunk", "created": 1, "model": model}
        for word in text.split(" "):
            choice: dict[str, Any] = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            await response.write(event({**head, "choices": [choice]}))
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await response.write(event({**head, "choices": [last]}))
        await response.write(event({**head, "choices": [], "usage": usage(text)}))
        await response.write(b"data: [DONE]\n\n")
        return response


@cache
def most_logprobs(tokens: int, alternatives: int) -> bytes:
    """Return the log-probabilities of an answer in JSON, as vLLM writes them."""
    one = {"token": " battery", "logprob": -0.123456789, "bytes": [*b" battery"]}
    token = {**one, "top_logprobs": [one] * alternatives}
    return json.dumps({"content": [token] * tokens}).encode()


def usage(text: str) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": len(text.split()), "total_tokens": 1 + len(text.split())}


def event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


if __name__ == "__main__":
    web.run_app(
        EngineStub(answers_anything=True).app(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
        shutdown_timeout=0.1,
    )
