"""The wire protocol of vLLM without a model.

Run as a process (``python -m tunewheel_testing.engine PORT``) it costs next to nothing: benchmarks measure a
gateway against it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tunewheel_testing import engine_answers
from tunewheel_testing.waiting import until

HOLD_BACK, LET_GO = "hold the others back", "let the others go on"
"""Messages that close and open the gate: for tests whose client runs by itself."""
SILENT = "silent"
"""A message that begins so is never answered."""
PACED = "paced"
"""A message that begins so is streamed as a model speaks: with pauses between the pieces."""
PACE_SECONDS = 0.004


class FakeEngine:
    """Speaks the wire protocol of vLLM over a real socket; answers with what it was asked.

    What it says is in ``engine_answers``, sent word by word when streaming. ``fail_with`` holds
    (status, body, headers) to answer chats with, ``stream_instead`` the events to stream. ``gate`` holds
    answers back while it is clear, those of model ``gated`` only if that is set. Where ``api_key`` is set, it
    asks for that key as vLLM does. Where it ``answers_anything``, it answers for every model and remembers
    nothing.
    """

    def __init__(self, base: str = "org/Tiny-Base", *, answers_anything: bool = False) -> None:
        self.base = base
        self._answers_anything = answers_anything
        self.adapters: dict[str, str] = {}
        self.api_key: str | None = None
        self.asked: list[dict[str, Any]] = []
        self.traces: list[str] = []
        self.request_ids: list[str] = []
        """``traceparent`` of each chat."""
        self.cookies: dict[str, str] = {}
        self.calls: list[str] = []
        self.loads: list[str] = []
        self.refuse_loads = False
        self.refusal = 400
        """The HTTP status of a refused load: 500 at vLLM."""
        self.refuse_load_of: set[str] = set()
        self.silent: set[str] = set()
        """Paths that are asked in vain while they are named here."""
        self.told_of_base: dict[str, str] = {}
        """What ``/v1/models`` says of the base beside its name."""
        self.models_instead: dict[str, Any] | None = None
        self.load_instead: dict[str, Any] | None = None
        self.slow_load: str | None = None
        self.slots: int | None = None
        """Adapters that fit."""
        self.no_slot = "No free lora slots"
        self.dies = False
        """Whether it closes the connection of every chat before the first byte."""
        self.poison = ""
        """How it ends the connection of a chat that says ``poison``: ``closed``, ``reset``, or what it sends
        before it closes the connection."""
        self.fail_with: tuple[int, dict[str, Any], dict[str, str]] | None = None
        self.falters: Callable[[dict[str, Any]], bool] = lambda _: True
        """Which chats meet ``dies`` and ``fail_with``."""
        self.no_logprobs = 0
        """The status of answers to chats that ask for log-probabilities; 0: the chats are answered."""
        self.likeliest: dict[str, float] | None = None
        """What it lists as likely tokens with their log-probabilities, in answers that are not streamed."""
        self.stream_instead: list[bytes] | None = None
        self.break_off_after: int | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.gated: str | None = None
        self.gate_at = 1
        """The chunk of a stream that waits for the gate."""
        self.first: dict[str, list[tuple[int, dict[str, Any], dict[str, str]]]] = {}
        """By the last message: what to fail with at first, one after another."""
        self.cancelled = 0
        self.running = 0
        self.url = ""
        self._runner: web.AppRunner | None = None

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._keep_silent], client_max_size=8 << 20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        return app

    async def start(self, port: int = 0) -> None:
        self._runner = web.AppRunner(self.app(), handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve on a free port; yields the URL."""
        await self.start()
        try:
            yield self.url
        finally:
            await self.stop()

    async def restart(self) -> None:
        """Come back on the same port, without any adapter."""
        port = int(self.url.rsplit(":", 1)[1])
        await self.stop()
        self.adapters.clear()
        await self.start(port)

    @web.middleware
    async def _keep_silent(self, request: web.Request, handler: Any) -> Any:
        if not self._answers_anything:
            self.calls.append(request.path)
        await until(lambda: request.path not in self.silent)
        sent = request.headers.get("authorization")
        if self.api_key is not None and sent != f"Bearer {self.api_key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return await handler(request)

    async def _models(self, _: web.Request) -> web.Response:
        if self.models_instead is not None:
            return web.json_response(self.models_instead)
        base = {"id": self.base, "object": "model", "root": self.base, "parent": None} | self.told_of_base
        adapters = [
            {"id": name, "object": "model", "root": path, "parent": self.base}
            for name, path in self.adapters.items()
        ]
        return web.json_response({"object": "list", "data": [base, *adapters]})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.loads.append(body["lora_name"])
        await until(lambda: self.slow_load != body["lora_name"])
        if self.load_instead is not None:
            return web.json_response(self.load_instead)
        if self.refuse_loads or body["lora_name"] in self.refuse_load_of:
            return _error(self.refusal, "the adapter was made for another base model")
        if body["lora_name"] in self.adapters:
            return _error(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
        if self.slots is not None and len(self.adapters) >= self.slots:
            return _error(400, self.no_slot)
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.adapters.pop(name, None) is None:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        return web.Response(text="Success")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not self._answers_anything:
            self.asked.append(body)
            self.traces.append(request.headers.get("traceparent", ""))
            self.request_ids.append(request.headers.get("x-request-id", ""))
        self.cookies |= request.cookies
        falters = self.falters(body)
        if self.dies and falters:
            assert request.transport is not None
            request.transport.abort()
        if self.fail_with is not None and falters:
            status, payload, headers = self.fail_with
            return web.json_response(payload, status=status, headers=headers)
        if self.no_logprobs and body.get("logprobs"):
            return _error(self.no_logprobs, "this model has none of them")
        asked = engine_answers.asked_of(body)
        if asked.startswith(SILENT):
            await asyncio.Event().wait()
        if self.poison and asked == "poison":
            _end(request, self.poison)
        if self.first.get(asked):
            status, payload, headers = self.first[asked].pop(0)
            return web.json_response(payload, status=status, headers=headers)
        if asked == LET_GO:
            self.gate.set()
        elif asked == HOLD_BACK:
            self.gate.clear()
            return web.json_response(engine_answers.completion(body))
        if not self._answers_anything and body["model"] not in (self.base, *self.adapters):
            return _error(404, f"The model `{body['model']}` does not exist.")
        self.running += 1
        try:
            if body.get("stream"):
                return await self._stream(request, body)
            if self.gated in (None, body["model"]):
                await self.gate.wait()
            answer = engine_answers.completion(body)
            if self.likeliest is not None and body.get("top_logprobs"):
                listed = [{"token": text, "logprob": value} for text, value in self.likeliest.items()]
                answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = listed
            return web.json_response(answer)
        except (asyncio.CancelledError, ConnectionResetError):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if self.stream_instead is not None:
            for event in self.stream_instead:
                await response.write(b"data: " + event + b"\n\n")
            return response
        is_paced = engine_answers.asked_of(body).startswith(PACED)
        for n, chunk in enumerate(engine_answers.chunks(body)):
            if n == self.break_off_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            if n == self.gate_at:
                await self.gate.wait()
            if is_paced:
                await asyncio.sleep(PACE_SECONDS)
            await _send(response, chunk)
        if body.get("stream_options", {}).get("include_usage"):
            await _send(response, engine_answers.last_chunk(body))
        await response.write(b"data: [DONE]\n\n")
        return response


def _end(request: web.Request, how: str) -> None:
    """End the connection of ``request`` as an engine does that dies."""
    transport = request.transport
    assert transport is not None
    if how == "reset":
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how != "closed":
        transport.write(how.encode())
        return transport.close()
    transport.abort()


async def _send(response: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
    return web.json_response({"error": error}, status=status)


if __name__ == "__main__":
    web.run_app(
        FakeEngine(sys.argv[2] if sys.argv[2:] else "any/model", answers_anything=True).app(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
        shutdown_timeout=0.1,
    )
